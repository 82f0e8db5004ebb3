#!/bin/sh
# Makes sure that what the benchmark compares with is installed: nginx with nchan, Node, and what benches/peers/express
# needs. Says nothing when it is. Where one cannot be had, it says so, and its rows in the report say that it is missing.
set -eu
cd "$(dirname "$0")/.."

. scripts/common.sh

# Where nginx looks for what it is told to load.
has_nchan() {
    has nginx || return 1
    for directory in /usr/lib/nginx/modules /usr/lib64/nginx/modules /usr/local/lib/nginx/modules; do
        [ ! -f "$directory/ngx_nchan_module.so" ] || return 0
    done
    return 1
}

install() {
    if command -v apt-get >/dev/null; then
        # With this runlevel the packages do not start services of their own.
        command='env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -qq -o DPkg::Lock::Timeout=120'
        [ "$(id -u)" -eq 0 ] || command="sudo -n $command"
        say "installing what the benchmark compares with (apt-get install $*)"
        # shellcheck disable=SC2086  # a command and its arguments
        $command install --yes --no-install-recommends "$@" >&2 </dev/null ||
            { $command update >&2 && $command install --yes --no-install-recommends "$@" >&2 </dev/null; } || true
    fi
}

has_nchan || install nginx libnginx-mod-nchan
has_nchan || say "there is no nginx with nchan, so nothing is compared with it; please install both"

has_node || install nodejs npm
if has_node && command -v npm >/dev/null; then
    cd benches/peers/express
    [ -d node_modules/better-sse ] || npm ci --silent >&2 ||
        say "what the Express server needs cannot be installed (npm ci), so nothing is compared with it"
else
    say "there is no Node 20 or newer with npm, so nothing is compared with Express; please install them (https://nodejs.org)"
fi
