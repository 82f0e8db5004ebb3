# Functions that the other scripts share. Each script sources this file from the project's root.

# Prints a message.
say() {
    printf 'ridewire: %s\n' "$*" >&2
}

# Ends a suite that cannot run on this machine: prints the reason and succeeds.
skip() {
    printf 'skipped: %s\n' "$*"
    exit 0
}

# Returns whether Node is new enough for the JavaScript client and its tests.
has_node() {
    node_major=$(node --version 2>/dev/null | sed -n 's/^v\([0-9]*\)\..*/\1/p')
    [ "${node_major:-0}" -ge 20 ]
}

# Returns whether a program is installed. On some systems, `javac` only prints how to install it.
has() {
    if [ "$1" = javac ]; then
        javac -version >/dev/null 2>&1
    else
        PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v "$1" >/dev/null
    fi
}

# Prints the name of the installed Chromium, or nothing if there is none.
find_chromium() {
    command -v "${CHROMIUM:-chromium}" || command -v chromium-browser || true
}

# Exports RIDEWIRE_BIN: the given server, or the one in target.
find_server() {
    for built in release debug; do
        [ -n "${RIDEWIRE_BIN:-}" ] || [ ! -x "target/$built/ridewire" ] || RIDEWIRE_BIN=$PWD/target/$built/ridewire
    done
    if [ ! -x "${RIDEWIRE_BIN:-}" ]; then
        say "the tests need a server; build it with make build, or set RIDEWIRE_BIN"
        exit 1
    fi
    export RIDEWIRE_BIN
}

# Runs `node --test` with the timeout per file in ms, the number of files in parallel, and the remaining arguments. The files
# mostly wait, so they run in parallel. An old Node without these options runs without both.
node_test() {
    options="--test-timeout=$1 --test-concurrency=$2"
    shift 2
    # shellcheck disable=SC2086  # two arguments
    node $options -e 0 2>/dev/null || options=
    # shellcheck disable=SC2086  # no options are no arguments
    exec node --test $options --test-reporter=spec "$@"
}
