#!/bin/sh
# Builds the documentation as a book in target/docs, with mdBook. The first run installs mdBook in target/tools, which takes
# a few minutes.
#
# The pages link to files outside of docs, such as README.md and the configurations in ops. The book is therefore built from a
# copy of all these files, in target/book. Its table of contents is docs/SUMMARY.md and the pages of the project.
set -eu
cd "$(dirname "$0")/.."
. scripts/common.sh

MDBOOK=0.5.4

: "${CARGO:=cargo}"
mdbook=target/tools/bin/mdbook
if [ "$("$mdbook" --version 2>/dev/null)" != "mdbook v$MDBOOK" ]; then
    say "installing mdBook $MDBOOK in target/tools"
    "$CARGO" install mdbook --version "$MDBOOK" --locked --root target/tools
fi

book=target/book
rm -rf "$book"
mkdir -p "$book"
tar --exclude=node_modules -cf - ./*.md LICENSE-* openapi.yaml Dockerfile compose.yaml docs ops benches/peers clients/js/README.md \
    web/js/push.js web/service-worker.js | tar -xf - -C "$book"
sed 's/^src = .*/src = "."/' book.toml >"$book/book.toml"
{
    printf '# Summary\n\n[Ridewire](README.md)\n'
    sed -e 1d -e 's/](/](docs\//' "$book/docs/SUMMARY.md"
    printf '\n# Project\n\n- [JavaScript client](clients/js/README.md)\n- [Changelog](CHANGELOG.md)\n'
    printf -- '- [Contributing](CONTRIBUTING.md)\n- [Security policy](SECURITY.md)\n- [Code of conduct](CODE_OF_CONDUCT.md)\n'
} >"$book/SUMMARY.md"
rm "$book/docs/SUMMARY.md"
"$mdbook" build "$book" --dest-dir "$PWD/target/docs"
say "the documentation is in target/docs/index.html"
