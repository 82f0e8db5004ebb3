#!/bin/sh
# Measures how readable the documentation is: all Markdown, and the doc comments of src, tests, benches, clients/js and web.
# Prints the sentences that are too long, then the number of sentences, their mean length, and the share of passive ones.
# Fails when a sentence has more than 35 words, or when the mean is above 16.
#
#   scripts/prose.sh [files or folders; without any, all]
#
# Headings, code blocks, table cells and link targets are not sentences. Inline code counts as one word. The script splits
# text with textlint's parser and splitter, and finds the passive voice with write-good.
# PROSE_PASSIVE=1 lists the passive sentences as well.
set -eu
cd "$(dirname "$0")/.."
. scripts/common.sh

has_node || skip "measuring the documentation needs Node 20 or newer (https://nodejs.org)"
[ -n "$(find scripts/prose/node_modules/.package-lock.json -newer scripts/prose/package-lock.json 2>/dev/null)" ] ||
    (cd scripts/prose && npm ci --silent >/dev/null) ||
    skip "the documentation is not measured: npm cannot install what that needs"

[ $# -gt 0 ] || set -- *.md docs src tests benches clients/js web
find "$@" -name node_modules -prune -o -type f \( -name '*.md' -o -name '*.rs' -o -name '*.js' -o -name '*.ts' \) -print |
    sort | xargs node scripts/prose/measure.js
