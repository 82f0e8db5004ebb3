#!/bin/sh
# Runs the code of docs/quickstart and docs/stock-clients as it stands there, against a real server: $RIDEWIRE_BIN, or the
# one that was built here. Where Node is missing, it says so and ends; of other programs that are missing it says which, and
# the tests that need them are skipped.
#
#   scripts/quickstarts.sh [files in tests/clients, all where none is given]
set -eu
cd "$(dirname "$0")/.."
. scripts/common.sh

# Reports a program that is missing; the tests that need it skip themselves.
lacks() {
    printf 'skipped: %s\n' "$*"
}

has_node || skip "the tests of the quick starts need Node 20 or newer (https://nodejs.org)"
scripts/test-programs.sh quickstarts
find_server

CHROMIUM=$(find_chromium)
if [ -n "$CHROMIUM" ] && [ -d web/node_modules/playwright-core ]; then
    export CHROMIUM
else
    lacks "the page of docs/quickstart needs Chromium"
    unset CHROMIUM
fi

home=target/quickstarts
if [ -f "$home/requirements.txt" ]; then
    export RIDEWIRE_PYTHON="$PWD/$home/bin/python"
else
    lacks "the clients in Python need Python's venv; see $home.log"
fi

java=$(javac -version 2>&1 | sed -n 's/^javac \([0-9]*\).*/\1/p')
if [ "${java:-0}" -ge 17 ]; then
    # Started ten times, it is compiled once.
    javac -d "$home/java" docs/quickstart/java/Chat.java
    export RIDEWIRE_JAVA="$PWD/$home/java"
else
    lacks "the client in Java needs a JDK, 17 or newer"
fi
if has jq; then export RIDEWIRE_JQ=jq; else lacks "the client in curl needs jq"; fi

cd tests/clients
node_test 600000 5 "$@"
