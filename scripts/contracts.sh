#!/bin/sh
# Reads openapi.yaml with client generators and a linter: openapi-python-client, openapi-typescript and redocly. Imports and
# compiles the generated code, and compiles the types of the JavaScript client. Without Node or Python, it reports that and succeeds.
#
#   scripts/contracts.sh [options of node --test, such as --test-name-pattern=Python]
set -eu
cd "$(dirname "$0")/.."
. scripts/common.sh

has_node || skip "the tests of openapi.yaml with other tools need Node 20 or newer (https://nodejs.org)"
has python3 || skip "the tests of openapi.yaml with other tools need Python"
scripts/test-programs.sh contracts
for tool in contracts-node/node_modules/.bin/redocly contracts-node/node_modules/.bin/openapi-typescript \
    contracts-node/node_modules/.bin/tsc contracts-python/bin/openapi-python-client; do
    [ -x "target/$tool" ] || skip "the tests of openapi.yaml with other tools need $tool, see target/${tool%%/*}.log"
done

cd tests/contracts
node_test 300000 1 "$@"
