#!/bin/sh
# Makes sure that PgBouncer is installed, which some tests put between the servers and Postgres. Says nothing when it is.
# Where it cannot be had, it says so, and those tests are skipped.
set -eu

say() {
    printf 'ridewire: %s\n' "$*" >&2
}

installed() {
    PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v pgbouncer >/dev/null
}

installed && exit 0

if command -v apt-get >/dev/null; then
    # With this runlevel the package does not start a service of its own.
    command='env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -qq -o DPkg::Lock::Timeout=120 install --yes --no-install-recommends pgbouncer'
elif command -v dnf >/dev/null; then
    command='dnf -q -y install pgbouncer'
elif command -v apk >/dev/null; then
    command='apk add --quiet --no-cache pgbouncer'
elif command -v brew >/dev/null; then
    command='brew install --quiet pgbouncer'
else
    say "there is no PgBouncer, so the tests that go through it are skipped; please install it."
    exit 0
fi

# Homebrew refuses to run as root; the others need it.
if [ "$(id -u)" -ne 0 ] && [ "${command%% *}" != brew ]; then
    command="sudo -n $command"
fi
say "installing PgBouncer ($command)"
# shellcheck disable=SC2086  # a command and its arguments
$command >&2 </dev/null || {
    # The lists may be older than what the archive has now.
    case $command in
    *apt-get*) ${command%%env *}apt-get -qq -o DPkg::Lock::Timeout=120 update >&2 && $command >&2 </dev/null || true ;;
    esac
}
installed || {
    say "could not install PgBouncer, so the tests that go through it are skipped; please install it ($command)."
}
