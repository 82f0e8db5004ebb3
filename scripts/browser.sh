#!/bin/sh
# Runs the tests of the console and the API reference in Chromium, with a real server: $RIDEWIRE_BIN, or the one in target.
# Without Node or Chromium, it reports that and succeeds.
#
#   scripts/browser.sh [files; without any, all]
#   RIDEWIRE_SCREENSHOTS=1 scripts/browser.sh     also writes docs/console-*.png and docs/reference-*.png
set -eu
cd "$(dirname "$0")/.."
. scripts/common.sh

has_node || skip "the pages' tests need Node 20 or newer (https://nodejs.org)"
scripts/test-programs.sh browser
CHROMIUM=$(find_chromium)
[ -n "$CHROMIUM" ] || skip "the pages' tests need Chromium (apt install chromium)"
export CHROMIUM
[ -d web/node_modules/playwright-core ] && [ -d web/node_modules/axe-core ] && [ -d web/node_modules/http_ece ] ||
    skip "the pages' tests need npm, and the packages in web/package.json"
find_server

cd web
[ $# -gt 0 ] || set -- test/console.test.js test/wire.test.js test/rides.test.js test/platform.test.js test/windows.test.js \
    test/reference.test.js test/migrate.test.js test/push.test.js
node_test 600000 3 "$@"
