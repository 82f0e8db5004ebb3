#!/bin/sh
# Checks the dependencies: their licences and sources, and known vulnerabilities (cargo-deny); and that each one is used
# (cargo-machete). The first run installs both programs in target/tools, which takes some minutes. Where
# they cannot be installed, the script says so and ends.
#
# The advisory database is on GitHub. Where it cannot be fetched, the script says so and checks the rest.
set -eu
cd "$(dirname "$0")/.."
. scripts/common.sh

DENY=0.20.2
MACHETE=0.9.2

: "${CARGO:=cargo}"
tools=target/tools

# Installs a program of this version, unless it is there.
install() {
    if [ "$("$tools/bin/$1" --version 2>/dev/null | sed 's/.* //')" != "$2" ]; then
        say "installing $1 $2 in $tools"
        "$CARGO" install "$1" --version "$2" --locked --quiet --root "$tools" ||
            skip "the dependencies are not checked: $1 cannot be installed"
    fi
}

install cargo-machete "$MACHETE"
install cargo-deny "$DENY"
"$tools/bin/cargo-machete" --with-metadata
"$tools/bin/cargo-deny" --log-level error check bans licenses sources
if timeout 30 git ls-remote --quiet https://github.com/RustSec/advisory-db HEAD >/dev/null 2>&1; then
    "$tools/bin/cargo-deny" --log-level error check advisories
else
    say "the advisory database cannot be reached, so known vulnerabilities are not checked"
fi
