#!/bin/sh
# Runs the programs of docs/tutorial/quickstart and docs/how-to/stock-clients unchanged, with a real server: $RIDEWIRE_BIN,
# or the one in target. Without Node, it reports that and succeeds. It reports other missing programs, and skips their tests.
#
#   scripts/quickstarts.sh [files in tests/clients; without any, all]
set -eu
cd "$(dirname "$0")/.."
. scripts/common.sh

# Reports a missing program; the tests that need it skip themselves.
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
    lacks "the page of docs/tutorial/quickstart needs Chromium"
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
    # The tests start the program ten times, so it is compiled once.
    javac -d "$home/java" docs/tutorial/quickstart/java/Chat.java
    export RIDEWIRE_JAVA="$PWD/$home/java"
else
    lacks "the client in Java needs a JDK, 17 or newer"
fi
if has jq; then export RIDEWIRE_JQ=jq; else lacks "the client in curl needs jq"; fi

cd tests/clients
node_test 600000 5 "$@"
