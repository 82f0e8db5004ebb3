#!/bin/sh
# Runs the test suites: builds once, then runs three lanes of suites in parallel, and the browser after them. Prints the whole
# output of failed suites, then one line per suite, and the total.
#
#   scripts/test.sh          all suites
#   scripts/test.sh fast     unit and integration tests: without faults, schedules, other languages and the browser
#
# The output of each suite is in target/test/NAME.log. The suites of a lane run one after the other. The heavy ones are in
# different lanes, so that both cores are busy. docs/explanation/testing.md describes each suite.
set -eu
cd "$(dirname "$0")/.."
. scripts/common.sh

: "${CARGO:=cargo}"
logs=target/test
export CARGO RIDEWIRE_BIN="$PWD/$logs/ridewire"
began=$(date +%s)
rm -rf "$logs"
mkdir -p "$logs"

# Thousands of streams need more open files than the usual limit.
ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -H -n)"

# Runs a suite: its name, then its command. Writes its result to NAME.result: ok or FAILED, and the seconds.
suite() {
    name=$1 from=$(date +%s) result=ok
    shift
    "$@" >"$logs/$name.log" 2>&1 || result=FAILED
    echo "$result $(($(date +%s) - from))" >"$logs/$name.result"
}

# Runs the tests of a Rust binary. They mostly wait for a process or a timer, so there are more threads than cores.
rust() {
    threads=$1
    shift
    "$CARGO" test --quiet "$@" -- --test-threads="$threads"
}

# Runs cargo with a little optimisation of this crate. The dependencies always have it, so they are not built again.
optimised() {
    CARGO_PROFILE_DEV_OPT_LEVEL=1 "$CARGO" "$@"
}

# Builds the server that the tests start, $RIDEWIRE_BIN, with the features that the dependencies have in tests. Most of the tests'
# time is the CPU of servers with thousands of streams. The tests themselves are not optimised: compiling them would take longer.
build_server() {
    optimised test --quiet --no-run --test model
    cp target/debug/ridewire "$RIDEWIRE_BIN"
}

# Adds up the results that test runners print: sets passed, failed and skipped.
count() {
    counts=$(sed -n \
        -e 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed; \([0-9]*\) ignored.*/\1 \2 \3/p' \
        -e 's/^[^ ]* pass \([0-9]*\)$/\1 0 0/p' -e 's/^[^ ]* fail \([0-9]*\)$/0 \1 0/p' -e 's/^[^ ]* skipped \([0-9]*\)$/0 0 \1/p' \
        -e 's/^schemathesis: \([0-9]*\) generated, \([0-9]*\) passed, \([0-9]*\) skipped/\2 0 \3/p' "$1" |
        awk '{ p += $1; f += $2; s += $3 } END { printf "%d %d %d", p, f, s }')
    # shellcheck disable=SC2086  # three words
    set -- $counts
    passed=$1 failed=$2 skipped=$3
}

if [ "${1:-all}" = fast ]; then
    say "building the tests"
    "$CARGO" test --quiet --no-run --lib --bins --test it
    unset RIDEWIRE_BIN
    suite lib rust 4 --lib --bins
    suite it rust 8 --test it
    set -- lib it
else
    say "building the tests, and installing their programs: several minutes the first time"
    scripts/test-programs.sh &
    build_server
    "$CARGO" test --quiet --no-run
    wait $!
    say "running the suites; their output is in $logs"
    suite faults rust 4 --test faults &
    {
        suite lib rust 4 --lib --bins
        suite doc "$CARGO" test --quiet --doc
        suite model optimised test --quiet --test model
        suite it rust 8 --test it
        suite schedules rust 2 --test schedules
    } &
    {
        suite js scripts/js.sh
        suite quickstarts scripts/quickstarts.sh
        suite schemathesis scripts/schemathesis.sh 15 1
        suite contracts scripts/contracts.sh
    } &
    wait
    # Alone, because on a busy machine streams are late. A page then correctly assumes that a proxy holds the stream back, and polls.
    suite browser scripts/browser.sh
    set -- lib doc model it schedules faults schemathesis contracts js quickstarts browser
fi

all_passed=0 all_failed=0 all_skipped=0 end=0
for name in "$@"; do
    read -r result _ <"$logs/$name.result"
    [ "$result" = ok ] || { printf '\n--- %s\n' "$name"; cat "$logs/$name.log"; }
done
printf '\n%-13s %-7s %7s %7s %8s %8s\n' suite result passed failed skipped seconds
for name in "$@"; do
    read -r result seconds <"$logs/$name.result"
    count "$logs/$name.log"
    # A suite that fails without a failed test (it could not start, or was interrupted) counts as one.
    [ "$result" = ok ] || { end=1; [ "$failed" -gt 0 ] || failed=1; }
    printf '%-13s %-7s %7d %7d %8d %8d\n' "$name" "$result" "$passed" "$failed" "$skipped" "$seconds"
    all_passed=$((all_passed + passed)) all_failed=$((all_failed + failed)) all_skipped=$((all_skipped + skipped))
done
grep -h '^skipped: ' "$logs"/*.log | sort -u || true
printf 'in all: %d s\n' $(($(date +%s) - began))
printf 'tests: %d passed, %d failed, %d skipped\n' "$all_passed" "$all_failed" "$all_skipped"
exit $end
