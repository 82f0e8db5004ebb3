#!/bin/sh
# Runs the tests of the JavaScript client against a real server: $RIDEWIRE_BIN, or the one that was built here.
# Where Node is missing, it says so and ends.
#
#   scripts/js.sh [files, all where none is given]
set -eu
cd "$(dirname "$0")/.."
. scripts/common.sh

has_node || skip "the JavaScript client's tests need Node 20 or newer (https://nodejs.org)"
find_server

cd clients/js
node_test 600000 4 "$@"
