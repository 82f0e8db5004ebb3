#!/bin/sh
# Compares a server with openapi.yaml, with all checks of schemathesis: as the service, as a rider, and the streams of a
# server that rejects all of them (an open one never ends). The server is $RIDEWIRE_BIN, or the one in target.
# tests/schemathesis has the rules that openapi.yaml cannot express. Without Python or the package, it reports that and succeeds.
#
#   scripts/schemathesis.sh [examples per operation (15) [seed (random)]]
set -eu
cd "$(dirname "$0")/.."
. scripts/common.sh

EXAMPLES=${1:-15}
SEED=${2:-$(date +%s)}
run=target/schemathesis/bin/schemathesis

scripts/test-programs.sh schemathesis
"$run" --version >/dev/null 2>&1 || skip "the check of openapi.yaml needs schemathesis, see target/schemathesis.log"
find_server

directory=$(mktemp -d /tmp/rw-schema-XXXXXX)
chmod 711 "$directory"
server=
stop() {
    if [ -n "$server" ]; then
        kill -TERM "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
        server=
    fi
}
trap 'stop; rm -rf "$directory"' EXIT
trap 'exit 1' HUP INT TERM

# Starts a server with these settings, and waits until it prints its address.
start() {
    stop
    # The shell of the new server empties the file a moment later. Until then it has the address of the previous server.
    : >"$directory/out"
    env RIDEWIRE_DATA_DIR="$directory" RIDEWIRE_LISTEN=127.0.0.1:0 RIDEWIRE_DRAIN_WINDOW=1s "$@" \
        "$RIDEWIRE_BIN" serve >"$directory/out" 2>"$directory/log" &
    server=$!
    tries=0
    until address=$(sed -n 's/^listening on //p' "$directory/out") && [ -n "$address" ]; do
        tries=$((tries + 1))
        if [ $tries -gt 300 ] || ! kill -0 "$server" 2>/dev/null; then
            cat "$directory/log" >&2
            exit 1
        fi
        sleep 0.1
    done
}

token() {
    RIDEWIRE_DATA_DIR="$directory" "$RIDEWIRE_BIN" token --sub "$1" --role "$2"
}

# Runs the checks with the token `$1`. Excludes those in `$2`, and the one that takes a tombstone for an existing resource.
check() {
    bearer=$1 without=use_after_free$2
    shift 2
    SCHEMATHESIS_HOOKS=tests/schemathesis/hooks.py "$run" --config-file tests/schemathesis/schemathesis.toml \
        run openapi.yaml --url "$address" --header "Authorization: Bearer $bearer" --checks all --exclude-checks "$without" \
        --max-examples "$EXAMPLES" --seed "$SEED" --request-timeout 10 --no-color "$@" >"$directory/said" 2>&1 || {
        cat "$directory/said"
        say "the server differs from openapi.yaml; its log: "
        tail -n 20 "$directory/log" >&2
        exit 1
    }
    sed -n 's/^ *\([0-9]* generated.*\)/schemathesis: \1/p' "$directory/said"
}

start env
curl -fsS -o "$directory/ride" -X PUT -H "Authorization: Bearer $(token platform service)" \
    "$address/api/v1/rides/ride_123" -d '{"riderId":"rider_1","driverId":"driver_1"}'
# Excludes the operation that revokes logins, because it would revoke the test's own.
for who in "rider_1 rider" "platform service"; do
    # shellcheck disable=SC2086  # a user and a role
    check "$(token $who)" "" --exclude-operation-id streamRide --exclude-operation-id streamAll \
        --exclude-operation-id streamFeed --exclude-operation-id revokeUser --exclude-operation-id createWebhook \
        --exclude-operation-id updateWebhook --exclude-operation-id listWebhookDeliveries \
        --exclude-operation-id replayWebhook --exclude-operation-id reopenRide --exclude-operation-id putPushSubscription
done
# openapi.yaml cannot express that a string is a reachable URL, a future time, an event's id, a cursor or a key.
check "$(token platform service)" ,positive_data_acceptance,negative_data_rejection --include-operation-id createWebhook \
    --include-operation-id updateWebhook --include-operation-id listWebhookDeliveries \
    --include-operation-id replayWebhook --include-operation-id reopenRide --include-operation-id putPushSubscription
start env RIDEWIRE_MAX_STREAMS=0
check "$(token rider_1 rider)" "" --include-operation-id streamRide --include-operation-id streamAll
check "$(token platform service)" "" --include-operation-id streamFeed
