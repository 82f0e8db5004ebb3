#!/bin/sh
# Makes sure that the programs are installed which some tests put around the servers: PgBouncer before Postgres, nginx,
# Caddy and HAProxy before the servers; jq and a JDK, which clients of the quick starts need; Python, which
# computes docs/scaling.md. Says nothing when they are. Where one cannot be had, it says so, and its tests are skipped.
set -eu

say() {
    printf 'ridewire: %s\n' "$*" >&2
}

installed() {
    # Some systems have a javac that only says where to get one.
    if [ "$1" = javac ]; then
        javac -version >/dev/null 2>&1
    else
        PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v "$1" >/dev/null
    fi
}

missing=
for program in pgbouncer nginx caddy haproxy jq javac python3; do
    installed "$program" || missing="$missing $program"
done
[ -n "$missing" ] || exit 0

if command -v apt-get >/dev/null; then
    # With this runlevel the packages do not start services of their own.
    command='env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -qq -o DPkg::Lock::Timeout=120 install --yes --no-install-recommends'
elif command -v dnf >/dev/null; then
    command='dnf -q -y install'
elif command -v apk >/dev/null; then
    command='apk add --quiet --no-cache'
elif command -v brew >/dev/null; then
    command='brew install --quiet'
else
    say "tests that need these are skipped; please install them:$missing"
    exit 0
fi

# Homebrew refuses to run as root; the others need it.
if [ "$(id -u)" -ne 0 ] && [ "${command%% *}" != brew ]; then
    command="sudo -n $command"
fi
# A JDK has another name everywhere.
case $command in
*apt-get*) jdk=default-jdk-headless ;;
*dnf*) jdk=java-latest-openjdk-devel ;;
*apk*) jdk=openjdk17-jdk ;;
*) jdk=openjdk ;;
esac
packages=$(printf '%s' "$missing" | sed "s/ javac/ $jdk/")
say "installing what some tests need ($command$packages)"
# shellcheck disable=SC2086  # a command and its arguments
$command $packages >&2 </dev/null || {
    # The lists may be older than what the archive has now.
    case $command in
    *apt-get*) ${command%%env *}apt-get -qq -o DPkg::Lock::Timeout=120 update >&2 && $command $packages >&2 </dev/null || true ;;
    esac
}
for program in $missing; do
    installed "$program" || say "could not install $program, so tests that need it are skipped; please install it"
done
