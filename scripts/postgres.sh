#!/bin/sh
# Installs the server programs of PostgreSQL 14 or newer, for the private Postgres of `ridewire` and of the tests. Prints
# nothing if they are installed. Searches the same directories as src/embedded/programs.rs.
set -eu

OLDEST=14

say() {
    printf 'ridewire: %s\n' "$*" >&2
}

fail() {
    say "$*"
    exit 1
}

# Returns whether a directory has the programs in a supported version.
suits() {
    [ -x "$1/postgres" ] && [ -x "$1/initdb" ] || return 1
    version=$("$1/postgres" --version 2>/dev/null) || return 1
    version=${version#postgres (PostgreSQL) }
    major=${version%%[!0-9]*}
    [ -n "$major" ] && [ "$major" -ge "$OLDEST" ]
}

installed() {
    if [ -n "${RIDEWIRE_PG_BIN:-}" ]; then
        suits "$RIDEWIRE_PG_BIN"
        return
    fi
    on_path=$(command -v postgres || true)
    if [ -n "$on_path" ]; then
        # PATH may contain a single link to the directory with the other programs.
        target=$(readlink -f "$on_path" 2>/dev/null || echo "$on_path")
        suits "${target%/*}" && return
        suits "${on_path%/*}" && return
    fi
    configured=$(pg_config --bindir 2>/dev/null || true)
    [ -n "$configured" ] && suits "$configured" && return
    for directory in \
        /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /usr/libexec/postgresql* /usr/lib/postgresql*/bin \
        /usr/lib64/postgresql-*/bin /usr/local/pgsql*/bin /opt/homebrew/opt/postgresql*/bin \
        /usr/local/opt/postgresql*/bin /Library/PostgreSQL/*/bin \
        /Applications/Postgres.app/Contents/Versions/*/bin; do
        suits "$directory" && return
    done
    return 1
}

# Runs its arguments as root: directly, with sudo without a password, or with sudo at a terminal.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        say "installing PostgreSQL ($command)"
        "$@"
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        say "installing PostgreSQL (sudo $command)"
        sudo -n "$@"
    elif command -v sudo >/dev/null && [ -t 0 ] && [ -t 2 ]; then
        say "installing PostgreSQL (sudo $command); sudo may ask for your password"
        sudo "$@"
    else
        fail "PostgreSQL $OLDEST or newer is needed, and installing it needs root. As root, run: $command"
    fi
}

with_apt() {
    # Debian's package creates and starts a cluster by default. A temporary file disables that, so that later installations
    # are not affected.
    config=/etc/postgresql-common/createcluster.d/ridewire.conf
    # In one command, because each call of sudo may ask for a password.
    # shellcheck disable=SC2016  # expanded by the shell that root runs
    as_root sh -c '
        set -e
        trap '\''rm -f "$1"'\'' EXIT
        trap "exit 1" HUP INT TERM
        mkdir -p "${1%/*}"
        echo "create_main_cluster = false" >"$1"
        export DEBIAN_FRONTEND=noninteractive
        apt-get -qq -o DPkg::Lock::Timeout=120 update ||
            echo "ridewire: apt-get update failed; continuing with the present lists" >&2
        apt-get -qq -o DPkg::Lock::Timeout=120 install --yes --no-install-recommends postgresql </dev/null
    ' sh "$config" >&2
}

with_dnf() {
    # Enterprise Linux 8 and 9 have older versions unless one of these streams is enabled; others have no streams.
    # Amazon Linux has the version in the package name.
    # shellcheck disable=SC2016  # expanded by the shell that root runs
    as_root sh -c '
        for stream in 16 15; do
            "$1" -q -y module enable "postgresql:$stream" >/dev/null 2>&1 && break
        done
        for package in postgresql-server postgresql17-server postgresql16-server postgresql15-server; do
            "$1" -q -y install "$package" && exit 0
        done
        exit 1
    ' sh "$1" >&2
}

with_apk() {
    as_root apk add --quiet --no-cache postgresql >&2
}

with_brew() {
    # Homebrew does not run as root.
    say "installing PostgreSQL ($command)"
    brew install --quiet postgresql@17 >&2
}

installed && exit 0

[ -z "${RIDEWIRE_PG_BIN:-}" ] ||
    fail "RIDEWIRE_PG_BIN names $RIDEWIRE_PG_BIN, where there are no postgres and initdb of PostgreSQL $OLDEST or newer."

if command -v apt-get >/dev/null; then
    command='apt-get install postgresql' install='with_apt'
elif command -v dnf >/dev/null; then
    command='dnf install postgresql-server' install='with_dnf dnf'
elif command -v yum >/dev/null; then
    command='yum install postgresql-server' install='with_dnf yum'
elif command -v apk >/dev/null; then
    command='apk add postgresql' install='with_apk'
elif command -v brew >/dev/null; then
    command='brew install postgresql@17' install='with_brew'
else
    fail "please install the server programs of PostgreSQL $OLDEST or newer (postgres, initdb), and name their" \
        "directory in RIDEWIRE_PG_BIN if they are not found."
fi

$install || fail "could not install PostgreSQL $OLDEST or newer; please install it ($command)."
installed || fail "'$command' has not brought PostgreSQL $OLDEST or newer; see https://www.postgresql.org/download/."
