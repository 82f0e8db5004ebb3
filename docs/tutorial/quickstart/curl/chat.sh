#!/bin/sh
# Follows a ride with curl, prints its messages, marks them as read, and sends each line of its input. Needs jq.
#
#   SERVER=http://127.0.0.1:8080 RIDE=ride_42 TOKEN=… chat.sh
#
# Exits with 0 when the ride is closed or the user was removed, and with 1 when the server rejects the token or the ride.
set -eu

messages=${SERVER:-http://127.0.0.1:8080}/api/v1/messages
events=$messages/rides/$RIDE/events
# State that the processes of a pipe share: the cursor (0 is the beginning), and the delay before a reconnect.
state=$(mktemp -d)
echo 0 >"$state/cursor"
echo 1000 >"$state/retry"

say() {
    printf '%s\n' "$*" >&2
}

# POSTs the input to a URL until the response is 2xx or a permanent error. curl repeats requests without a response, 408, 429
# and 5xx after 1, 2, 4 … seconds, or after `Retry-After`.
post() {
    status=$(curl -sS --max-time 10 --retry 100 --retry-all-errors --retry-max-time 3600 -o "$state/$2" -w '%{http_code}' \
        -X POST "$1" -H "Authorization: Bearer $TOKEN" --data-binary @- 2>/dev/null) || true
    case $status in
    2*) ;;
    *) say "not accepted ($status): $(cat "$state/$2")" ;;
    esac
}

# One id for all attempts: however many of them were committed, they are one message.
send() {
    id=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    jq -cn --arg ride "$RIDE" --arg content "$1" --arg id "$id" \
        '{rideId: $ride, content: $content, clientMessageId: $id}' | post "$messages" sent
}

# Handles one complete frame. Returns 10 when no more frames will follow.
handle() {
    case $event in
    message:new)
        printf '%s\n' "$data" | jq -r '"\(.seq) \(.senderId): \(.content)"'
        # Marking a message as read includes all earlier ones. A client that shows many messages at once marks the last one.
        post "$messages/$(printf '%s\n' "$data" | jq -r .id)/read" read </dev/null
        ;;
    stream:sync)
        gap=$(printf '%s\n' "$data" | jq -r '.gap // empty | "\(.from) to \(.to)"')
        [ -z "$gap" ] || say "no longer kept: $gap"
        ;;
    stream:closing)
        case $data in
        *ride_over* | *removed*) say "the end: $data" && return 10 ;;
        esac
        ;;
    esac
    # The cursor moves only after the frame was handled.
    [ -z "$id" ] || echo "$id" >"$state/cursor"
}

# Parses lines into frames. A frame that a disconnect cuts off has no empty line at its end, and is not handled.
frames() {
    id='' event='' data=''
    while IFS= read -r line; do
        case $line in
        'id: '*) id=${line#id: } ;;
        'event: '*) event=${line#event: } ;;
        'data: '*) data=${line#data: } ;;
        'retry: '*) echo "${line#retry: }" >"$state/retry" ;;
        '')
            [ -z "$data" ] || handle || return $?
            id='' event='' data=''
            ;;
        esac
    done
}

# Prints the seconds until the next attempt: the delay that the server requests, with exponential backoff and jitter.
pause() {
    random=$(od -An -N2 -tu2 /dev/urandom)
    awk -v retry="$(cat "$state/retry")" -v failures="$1" -v random="$random" 'BEGIN {
        pause = 0.5 * 2 ^ (failures > 6 ? 6 : failures)
        pause = retry / 1000 > pause ? retry / 1000 : pause
        print pause * (1 + random / 131072)
    }'
}

# A background job has no standard input unless it is passed explicitly.
exec 3<&0
while IFS= read -r line; do send "$line"; done <&3 &
sender=$!
trap 'kill "$sender" 2>/dev/null; rm -rf "$state"' EXIT
trap 'exit 130' HUP INT TERM

failures=0
while :; do
    : >"$state/head"
    ended=0
    # TCP keep-alives detect a peer that is gone. curl does not detect a proxy that holds the stream back.
    curl -sSNf --connect-timeout 10 --keepalive-time 15 -D "$state/head" "$events" \
        -H "Authorization: Bearer $TOKEN" -H "Last-Event-ID: $(cat "$state/cursor")" | frames || ended=$?
    [ "$ended" -ne 10 ] || exit 0
    case $(sed -n '1s/^[^ ]* \([0-9]*\).*/\1/p' "$state/head") in
    200) failures=0 ;;
    204) say 'the end: the ride is closed' && exit 0 ;;
    401) say 'sign in again' && exit 1 ;;
    403 | 404) say 'not a ride of yours' && exit 1 ;;
    *) failures=$((failures + 1)) ;;
    esac
    sleep "$(pause "$failures")"
done
