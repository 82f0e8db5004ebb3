#!/bin/sh
# Checks that Rust is installed in the version that Cargo.toml requires. Prints nothing if it is.
#
# Otherwise it offers to install Rust with rustup (https://rustup.rs): after a question on a terminal, or without one if
# RIDEWIRE_INSTALL_RUST=1 is set.
set -eu
cd "$(dirname "$0")/.."
. scripts/common.sh

required=$(sed -n 's/^rust-version = "\([0-9.]*\)"$/\1/p' Cargo.toml)
cargo=${CARGO:-$(command -v cargo || echo "$HOME/.cargo/bin/cargo")}

# Returns whether a version such as 1.95.0 is at least another one.
at_least() {
    printf '%s\n%s\n' "$2" "$1" | sort -t. -k1,1n -k2,2n -k3,3n -C
}

# Prints the version of this folder's toolchain, or nothing if there is none.
installed() {
    "$cargo" --version 2>/dev/null | sed -n 's/^cargo \([0-9.]*\).*/\1/p'
}

present=$(installed)
if [ -n "$present" ]; then
    at_least "$present" "$required" && exit 0
    say "Rust $present is installed ($cargo), and Rust $required or newer is required. Update it (rustup update stable, or https://rustup.rs), then run make again."
    exit 1
fi

say "Rust $required or newer is required, and no cargo was found."
if [ "${RIDEWIRE_INSTALL_RUST:-}" != 1 ]; then
    if ! [ -t 0 ] || ! [ -t 2 ]; then
        say "Install it from https://rustup.rs, or set RIDEWIRE_INSTALL_RUST=1 to let make install it with rustup; then run make again."
        exit 1
    fi
    printf 'ridewire: Install it now for this user with rustup (into ~/.cargo and ~/.rustup, about 1 GB)? [y/N] ' >&2
    read -r reply
    case $reply in
    [yY]*) ;;
    *)
        say "Install it from https://rustup.rs, then run make again."
        exit 1
        ;;
    esac
fi

say "installing Rust with rustup: a minute or two"
script=$(mktemp)
trap 'rm -f "$script"' EXIT
curl --proto '=https' --tlsv1.2 -fsS -o "$script" https://sh.rustup.rs || {
    say "https://sh.rustup.rs cannot be reached. Install Rust $required or newer in another way, then run make again."
    exit 1
}
sh "$script" -y --no-modify-path --profile minimal --component clippy,rustfmt >&2
cargo=$HOME/.cargo/bin/cargo
present=$(installed)
if [ -z "$present" ] || ! at_least "$present" "$required"; then
    say "rustup has installed Rust ${present:-(none)}, and Rust $required or newer is required; see https://rustup.rs."
    exit 1
fi
