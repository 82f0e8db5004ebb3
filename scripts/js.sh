#!/bin/sh
# Runs the tests of the JavaScript client with a real server: $RIDEWIRE_BIN, or the one in target. Without Node, it reports
# that and succeeds.
#
#   scripts/js.sh [files; without any, all]
set -eu
cd "$(dirname "$0")/.."
. scripts/common.sh

has_node || skip "the JavaScript client's tests need Node 20 or newer (https://nodejs.org)"
find_server

cd clients/js
node_test 600000 4 "$@"
