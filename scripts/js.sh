#!/bin/sh
# Runs the tests of the JavaScript client against a real server: $RIDEWIRE_BIN, or what has been built here.
# Where Node cannot be had, it says so and leaves it at that.
#
#   scripts/js.sh [files, all where none is given]
set -eu
cd "$(dirname "$0")/.."

skip() {
    printf 'skipped: %s\n' "$*"
    exit 0
}

major=$(node --version 2>/dev/null | sed -n 's/^v\([0-9]*\)\..*/\1/p')
[ "${major:-0}" -ge 20 ] || skip "the JavaScript client's tests need Node 20 or newer (https://nodejs.org)"

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

# A file that hangs is ended, where this Node can do that.
limit=--test-timeout=180000
node "$limit" -e 0 2>/dev/null || limit=

cd clients/js
# shellcheck disable=SC2086 # an empty limit is no argument
exec node --test $limit --test-reporter=spec "$@"
