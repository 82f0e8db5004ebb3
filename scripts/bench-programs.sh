#!/bin/sh
# Installs the programs that the benchmark compares with: nginx with nchan, Node, the packages of benches/peers/express, and,
# if Go is installed, Mercure and Centrifugo in the versions of benches/peers.
# Prints nothing if they are installed. A program that cannot be installed is reported, and the benchmark's report names it.
set -eu
cd "$(dirname "$0")/.."

. scripts/common.sh

# Returns whether nginx can load the nchan module.
has_nchan() {
    has nginx || return 1
    for directory in /usr/lib/nginx/modules /usr/lib64/nginx/modules /usr/local/lib/nginx/modules; do
        [ ! -f "$directory/ngx_nchan_module.so" ] || return 0
    done
    return 1
}

install() {
    if command -v apt-get >/dev/null; then
        # With this runlevel, the packages do not start their services.
        command='env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -qq -o DPkg::Lock::Timeout=120'
        [ "$(id -u)" -eq 0 ] || command="sudo -n $command"
        say "installing the programs for comparison (apt-get install $*)"
        # shellcheck disable=SC2086  # a command and its arguments
        $command install --yes --no-install-recommends "$@" >&2 </dev/null ||
            { $command update >&2 && $command install --yes --no-install-recommends "$@" >&2 </dev/null; } || true
    fi
}

has_nchan || install nginx libnginx-mod-nchan
has_nchan || say "nginx with nchan is not installed, so the benchmark does not compare with it; please install both"

# Builds a peer in Go as target/peers/NAME, from the module benches/peers/NAME and a package.
go_peer() {
    output=$PWD/target/peers/$1
    if [ -x "$output" ] && [ "$output" -nt "benches/peers/$1/go.mod" ]; then return 0; fi
    mkdir -p target/peers
    say "building $1, for comparison: several minutes the first time"
    (cd "benches/peers/$1" && go build -o "$output" "$2") >&2 ||
        say "cannot build $1, so the benchmark does not compare with it"
}

if command -v go >/dev/null; then
    go_peer mercure .
    go_peer centrifugo github.com/centrifugal/centrifugo/v6
else
    say "Go is not installed, so the benchmark does not compare with Mercure and Centrifugo; please install it (https://go.dev)"
fi

has_node || install nodejs npm
if has_node && command -v npm >/dev/null; then
    cd benches/peers/express
    [ -d node_modules/better-sse ] || npm ci --silent >&2 ||
        say "npm ci cannot install the packages of the Express server, so the benchmark does not compare with it"
else
    say "Node 20 or newer with npm is not installed, so the benchmark does not compare with Express; please install them (https://nodejs.org)"
fi
