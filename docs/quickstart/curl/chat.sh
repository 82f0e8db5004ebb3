#!/bin/sh
# Follows a ride with curl, prints what is said, marks it as read, and sends each line of its input. Needs jq.
#
#   SERVER=http://127.0.0.1:8080 RIDE=ride_42 TOKEN=… chat.sh
#
# Ends with 0 when there is nothing more to come, and with 1 when the server refuses the token or the ride.
set -eu

messages=${SERVER:-http://127.0.0.1:8080}/api/v1/messages
events=$messages/rides/$RIDE/events
# What the parts of a pipe tell each other: where to continue (0 is the beginning), and when to come back.
state=$(mktemp -d)
echo 0 >"$state/cursor"
echo 1000 >"$state/retry"

say() {
    printf '%s\n' "$*" >&2
}

# POSTs the input to an address until there is an answer, 2xx or a refusal that lasts. curl repeats what was not answered,
# 408, 429 and 5xx, after 1, 2, 4 … seconds or as late as `Retry-After` asks for.
post() {
    status=$(curl -sS --max-time 10 --retry 100 --retry-all-errors --retry-max-time 3600 -o "$state/$2" -w '%{http_code}' \
        -X POST "$1" -H "Authorization: Bearer $TOKEN" --data-binary @- 2>/dev/null) || true
    case $status in
    2*) ;;
    *) say "not accepted ($status): $(cat "$state/$2")" ;;
    esac
}

# The id is made once, so that whichever of the tries were committed, they are one message.
send() {
    id=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    jq -cn --arg ride "$RIDE" --arg content "$1" --arg id "$id" \
        '{rideId: $ride, content: $content, clientMessageId: $id}' | post "$messages" sent
}

# One frame, whole. Returns 10 when it is the last for good.
take() {
    case $event in
    message:new)
        printf '%s\n' "$data" | jq -r '"\(.seq) \(.senderId): \(.content)"'
        # A mark covers all before it, so who shows many messages at once marks the last of them.
        post "$messages/$(printf '%s\n' "$data" | jq -r .id)/read" marked </dev/null
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
    # Only when a frame was taken is it time to continue behind it.
    [ -z "$id" ] || echo "$id" >"$state/cursor"
}

# Lines into frames. A frame that the end of a connection has cut never sees its empty line, and is not taken.
frames() {
    id='' event='' data=''
    while IFS= read -r line; do
        case $line in
        'id: '*) id=${line#id: } ;;
        'event: '*) event=${line#event: } ;;
        'data: '*) data=${line#data: } ;;
        'retry: '*) echo "${line#retry: }" >"$state/retry" ;;
        '')
            [ -z "$data" ] || take || return $?
            id='' event='' data=''
            ;;
        esac
    done
}

# Seconds until the next try: what the server asks for, longer the more often it was in vain, and not when all others come.
pause() {
    random=$(od -An -N2 -tu2 /dev/urandom)
    awk -v retry="$(cat "$state/retry")" -v failures="$1" -v random="$random" 'BEGIN {
        pause = 0.5 * 2 ^ (failures > 6 ? 6 : failures)
        pause = retry / 1000 > pause ? retry / 1000 : pause
        print pause * (1 + random / 131072)
    }'
}

# A job of the background has no input, unless it is handed one.
exec 3<&0
while IFS= read -r line; do send "$line"; done <&3 &
sender=$!
trap 'kill "$sender" 2>/dev/null; rm -rf "$state"' EXIT
trap 'exit 130' HUP INT TERM

failures=0
while :; do
    : >"$state/head"
    ended=0
    # Keep-alives find a peer that is gone. curl cannot tell a live silence from one that a proxy is the cause of.
    curl -sSNf --connect-timeout 10 --keepalive-time 15 -D "$state/head" "$events" \
        -H "Authorization: Bearer $TOKEN" -H "Last-Event-ID: $(cat "$state/cursor")" | frames || ended=$?
    [ "$ended" -ne 10 ] || exit 0
    case $(sed -n '1s/^[^ ]* \([0-9]*\).*/\1/p' "$state/head") in
    200) failures=0 ;;
    204) say 'the end: the ride is over' && exit 0 ;;
    401) say 'sign in again' && exit 1 ;;
    403 | 404) say 'not a ride of yours' && exit 1 ;;
    *) failures=$((failures + 1)) ;;
    esac
    sleep "$(pause "$failures")"
done
