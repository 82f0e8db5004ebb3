#!/bin/sh
# Runs the tests of the console and of the reference in Chromium, against a real server: $RIDEWIRE_BIN, or what has been built here.
# Where Node or Chromium cannot be had, it says so and leaves it at that.
#
#   scripts/browser.sh [files, all where none is given]
#   RIDEWIRE_SCREENSHOTS=1 scripts/browser.sh     takes docs/console-*.png and docs/reference-*.png anew
set -eu
cd "$(dirname "$0")/.."

skip() {
    printf 'skipped: %s\n' "$*"
    exit 0
}

major=$(node --version 2>/dev/null | sed -n 's/^v\([0-9]*\)\..*/\1/p')
[ "${major:-0}" -ge 20 ] || skip "the pages' tests need Node 20 or newer (https://nodejs.org)"
command -v npm >/dev/null || skip "the pages' tests need npm"

CHROMIUM=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || true)}
if [ -z "$CHROMIUM" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    { apt-get update && apt-get install -y --no-install-recommends chromium fonts-noto-color-emoji; } >/dev/null 2>&1 || true
    CHROMIUM=$(command -v chromium || true)
fi
[ -n "$CHROMIUM" ] || skip "the pages' tests need Chromium (apt install chromium)"
export CHROMIUM

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

cd web
[ -d node_modules/playwright-core ] && [ -d node_modules/axe-core ] || npm ci --silent ||
    skip "what the pages' tests need cannot be installed (npm ci)"

# A file that hangs is ended, where this Node can do that.
limit=--test-timeout=300000
node "$limit" -e 0 2>/dev/null || limit=

[ $# -gt 0 ] || set -- test/console.test.js test/windows.test.js test/reference.test.js test/migrate.test.js
# shellcheck disable=SC2086 # an empty limit is no argument
exec node --test $limit --test-reporter=spec "$@"
