#!/bin/sh
# Runs what docs/quickstart and docs/stock-clients show, as it stands there, against a real server: $RIDEWIRE_BIN, or what
# has been built here. Where Node cannot be had, it says so and leaves it at that; what else is missing is said, and the
# tests that need it are skipped.
#
#   scripts/quickstarts.sh [files in tests/clients, all where none is given]
set -eu
cd "$(dirname "$0")/.."

say() {
    printf 'skipped: %s\n' "$*"
}

major=$(node --version 2>/dev/null | sed -n 's/^v\([0-9]*\)\..*/\1/p')
if [ "${major:-0}" -lt 20 ]; then
    say "the tests of the quick starts need Node 20 or newer (https://nodejs.org)"
    exit 0
fi

if [ -z "${RIDEWIRE_BIN:-}" ]; then
    for built in release debug; do
        [ -n "${RIDEWIRE_BIN:-}" ] || [ ! -x "target/$built/ridewire" ] || RIDEWIRE_BIN=$PWD/target/$built/ridewire
    done
fi
if [ ! -x "${RIDEWIRE_BIN:-}" ]; then
    echo "ridewire: there is no server to test with; build it with make build, or set RIDEWIRE_BIN" >&2
    exit 1
fi
export RIDEWIRE_BIN

# Installs what a lockfile names, below the folder that it is in.
packages() {
    [ -d "$1/node_modules" ] || (cd "$1" && npm ci --silent) || say "npm cannot install what $1 needs"
}
packages docs/stock-clients

# The browser is the console's: scripts/browser.sh installs it.
CHROMIUM=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || true)}
if [ -n "$CHROMIUM" ]; then packages web; fi
if [ -n "$CHROMIUM" ] && [ -d web/node_modules/playwright-core ]; then
    export CHROMIUM
else
    say "the page of docs/quickstart needs Chromium"
    unset CHROMIUM
fi

home=target/quickstarts
# It names all that the other one does.
wanted=docs/stock-clients/requirements.txt
if ! cmp -s "$wanted" "$home/requirements.txt"; then
    { python3 -m venv --clear "$home" && "$home/bin/pip" --quiet --disable-pip-version-check install -r "$wanted" &&
        cp "$wanted" "$home"; } >"$home.log" 2>&1 || say "the clients in Python: see $home.log"
fi
[ ! -f "$home/requirements.txt" ] || export RIDEWIRE_PYTHON="$PWD/$home/bin/python"

java=$(javac -version 2>&1 | sed -n 's/^javac \([0-9]*\).*/\1/p')
if [ "${java:-0}" -ge 17 ]; then
    # Started ten times, it is compiled once.
    javac -d "$home/java" docs/quickstart/java/Chat.java
    export RIDEWIRE_JAVA="$PWD/$home/java"
else
    say "the client in Java needs a JDK, 17 or newer"
fi
if command -v jq >/dev/null; then export RIDEWIRE_JQ=jq; else say "the client in curl needs jq"; fi

# A file that hangs is ended, and they run beside each other, since most of their time is waiting, where this Node can do that.
limits='--test-timeout=180000 --test-concurrency=5'
# shellcheck disable=SC2086 # two arguments
node $limits -e 0 2>/dev/null || limits=

cd tests/clients
# shellcheck disable=SC2086 # no limits are no arguments
exec node --test $limits --test-reporter=spec "$@"
