# Functions that the scripts beside this file share; each script sources it from the project's root.

# Prints a line of our own.
say() {
    printf 'ridewire: %s\n' "$*" >&2
}

# Ends a suite that this machine cannot run, successfully, with the reason.
skip() {
    printf 'skipped: %s\n' "$*"
    exit 0
}

# Whether Node is new enough for the JavaScript client and for its test runner.
has_node() {
    node_major=$(node --version 2>/dev/null | sed -n 's/^v\([0-9]*\)\..*/\1/p')
    [ "${node_major:-0}" -ge 20 ]
}

# Whether a program is installed. Some systems have a javac that only says where to get one.
has() {
    if [ "$1" = javac ]; then
        javac -version >/dev/null 2>&1
    else
        PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v "$1" >/dev/null
    fi
}

# The name of the Chromium that is installed, empty if there is none.
find_chromium() {
    command -v "${CHROMIUM:-chromium}" || command -v chromium-browser || true
}

# Exports RIDEWIRE_BIN: the server that is given there, or that was built here.
find_server() {
    for built in release debug; do
        [ -n "${RIDEWIRE_BIN:-}" ] || [ ! -x "target/$built/ridewire" ] || RIDEWIRE_BIN=$PWD/target/$built/ridewire
    done
    if [ ! -x "${RIDEWIRE_BIN:-}" ]; then
        say "there is no server to test with; build it with make build, or set RIDEWIRE_BIN"
        exit 1
    fi
    export RIDEWIRE_BIN
}

# Runs `node --test` with a limit of so many milliseconds for each file, so many files beside each other, and the rest.
# Most of a file's time is waiting. A Node that does not know an option goes without both.
node_test() {
    options="--test-timeout=$1 --test-concurrency=$2"
    shift 2
    # shellcheck disable=SC2086  # two arguments
    node $options -e 0 2>/dev/null || options=
    # shellcheck disable=SC2086  # no options are no arguments
    exec node --test $options --test-reporter=spec "$@"
}
