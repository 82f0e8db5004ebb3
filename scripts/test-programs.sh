#!/bin/sh
# Installs the programs that the tests need besides Rust and Postgres. Prints nothing if they are installed. A program that
# cannot be installed is reported, and the tests that need it are skipped.
#
#   scripts/test-programs.sh [proxies | prometheus | browser | quickstarts | schemathesis | patroni | contracts ...; without any, all]
#
#   proxies       PgBouncer in front of Postgres; nginx, Caddy and HAProxy in front of the servers; Python for docs/explanation/scaling.md
#   prometheus    promtool, for the metrics, the alert rules and the dashboard (it comes with Prometheus)
#   browser       Chromium, and the packages of web/
#   quickstarts   the same, jq, a JDK, and the packages of docs/how-to/stock-clients
#   schemathesis  the tool that compares a server with openapi.yaml
#   patroni       Patroni and etcd, for a cluster of Postgres with failover
#   contracts     the client generators and the linter that read openapi.yaml
set -eu
cd "$(dirname "$0")/.."
. scripts/common.sh

SCHEMATHESIS=4.32.5

# Installs the programs among its arguments that are missing, with the system's package manager.
programs() {
    missing= etcd=etcd
    for program in "$@"; do
        has "$program" || missing="$missing $program"
    done
    [ -n "$missing" ] || return 0

    if command -v apt-get >/dev/null; then
        # With this runlevel, the packages do not start their services.
        command='env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -qq -o DPkg::Lock::Timeout=120 install --yes --no-install-recommends'
        jdk=default-jdk-headless etcd='etcd-server python3-etcd'
    elif command -v dnf >/dev/null; then
        command='dnf -q -y install' jdk=java-latest-openjdk-devel
    elif command -v apk >/dev/null; then
        command='apk add --quiet' jdk=openjdk17-jdk
    elif command -v brew >/dev/null; then
        command='brew install --quiet' jdk=openjdk
    else
        say "tests that need these are skipped; please install them:$missing"
        return 0
    fi
    # Homebrew does not run as root; the others need it.
    if [ "$(id -u)" -ne 0 ] && [ "${command%% *}" != brew ]; then
        command="sudo -n $command"
    fi
    # The fonts are for the pages' screenshots. Fedora has another package name for Prometheus.
    case $command in *dnf*) prometheus=golang-github-prometheus ;; *) prometheus=prometheus ;; esac
    packages=$(printf '%s ' "$missing" |
        sed "s/ javac / $jdk /; s/ etcd / $etcd /; s/ promtool / $prometheus /; s/ chromium / chromium fonts-noto-color-emoji /")
    say "installing programs for some tests ($command$packages)"
    # shellcheck disable=SC2086  # a command and its arguments
    $command $packages >"$log" 2>&1 </dev/null || {
        # The package lists may be outdated.
        case $command in
        *apt-get*) ${command%%env *}apt-get -qq -o DPkg::Lock::Timeout=120 update >>"$log" 2>&1 &&
            $command $packages >>"$log" 2>&1 </dev/null || true ;;
        esac
    }
    for program in $missing; do
        has "$program" || say "could not install $program (see $log), so tests that need it are skipped; please install it"
    done
}

# Installs Chromium on systems with apt.
browser() {
    [ -n "$(find_chromium)" ] || ! has apt-get || programs chromium
}

# Installs the packages of a lockfile, in its folder.
packages() {
    [ -n "$(find "$1/node_modules/.package-lock.json" -newer "$1/package-lock.json" 2>/dev/null)" ] || ! has npm || (cd "$1" && npm ci --silent >/dev/null) ||
        say "npm cannot install the packages of $1, so tests that need them are skipped"
}

# Installs the packages of a folder's lockfile in target/NAME, unless they are installed.
node_packages() {
    home=target/$1 folder=$2
    ! cmp -s "$folder/package-lock.json" "$home/package-lock.json" || return 0
    mkdir -p "$home"
    cp "$folder/package.json" "$folder/package-lock.json" "$home"
    (cd "$home" && npm ci --no-audit --no-fund) >"$home.log" 2>&1 || {
        rm -f "$home/package-lock.json"
        say "npm cannot install the packages of $folder (see $home.log), so tests that need them are skipped"
    }
}

# Creates the Python environment target/NAME with these packages, unless it has the same stamp.
python_packages() {
    home=target/$1 stamp=$2
    shift 2
    ! cmp -s "$stamp" "$home/requirements.txt" || return 0
    { python3 -m venv --clear "$home" && "$home/bin/pip" --quiet --disable-pip-version-check install "$@" &&
        cp "$stamp" "$home/requirements.txt"; } >"$home.log" 2>&1 ||
        say "cannot install the Python packages $* (see $home.log), so tests that need them are skipped"
}

mkdir -p target
log=target/test-programs.log
[ $# -gt 0 ] || set -- proxies prometheus browser quickstarts schemathesis patroni contracts
for part in "$@"; do
    case $part in
    proxies) programs pgbouncer nginx caddy haproxy python3 ;;
    prometheus) programs promtool ;;
    browser)
        browser
        packages web
        ;;
    quickstarts)
        browser
        programs jq javac python3
        packages web
        packages docs/how-to/stock-clients
        python_packages quickstarts docs/how-to/stock-clients/requirements.txt -r docs/how-to/stock-clients/requirements.txt
        ;;
    schemathesis)
        programs python3
        echo "schemathesis==$SCHEMATHESIS" >target/schemathesis.txt
        python_packages schemathesis target/schemathesis.txt -r target/schemathesis.txt
        ;;
    patroni) programs patroni etcd ;;
    contracts)
        programs python3
        node_packages contracts-node tests/contracts
        python_packages contracts-python tests/contracts/requirements.txt -r tests/contracts/requirements.txt
        ;;
    *)
        say "there is no part $part; see the head of $0"
        exit 1
        ;;
    esac
done
