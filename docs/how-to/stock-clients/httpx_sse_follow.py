"""Follows a ride with the package httpx-sse, and prints its messages.

    SERVER=http://127.0.0.1:8080 RIDE=ride_42 TOKEN=… python3 httpx_sse_follow.py
"""

import os
import random
import sys
import time

import httpx
from httpx_sse import SSEError, connect_sse

URL = f"{os.environ.get('SERVER', 'http://127.0.0.1:8080')}/api/v1/messages/rides/{os.environ['RIDE']}/events"
# The default read timeout of httpx is 5 seconds. A stream may be silent for 15, until the next heartbeat.
TIMEOUT = httpx.Timeout(10, read=40)


def end(code, reason):
    print(reason, file=sys.stderr)
    sys.exit(code)


def main():
    cursor, retry, failures = "0", 1.0, 0
    client = httpx.Client(timeout=TIMEOUT)
    while True:
        headers = {"Authorization": f"Bearer {os.environ['TOKEN']}", "Last-Event-ID": cursor}
        try:
            with connect_sse(client, "GET", URL, headers=headers) as stream:
                status = stream.response.status_code
                if status == 204:
                    end(0, "the end: the ride is closed")
                if status == 401:
                    end(1, "sign in again")
                if 400 <= status < 500 and status not in (408, 425, 429):
                    end(1, "not a ride of yours")
                # A proxy's 502 raises an SSEError, which is handled below.
                for event in stream.iter_sse():
                    retry = event.retry / 1000 if event.retry is not None else retry
                    # A comment is reported as an event without data once there was an id.
                    if not event.data:
                        continue
                    data = event.json()
                    if event.event == "stream:sync":
                        failures = 0
                    elif event.event == "message:new":
                        print(f"{data['seq']} {data['senderId']}: {data['content']}", flush=True)
                    elif event.event == "stream:closing" and data["reason"] in ("ride_over", "removed"):
                        end(0, f"the end: {data['reason']}")
                    # Events without an id have the last one.
                    cursor = event.id or cursor
        except (httpx.TransportError, SSEError):
            pass  # The connection was cut. httpx-sse never reconnects by itself.
        time.sleep(max(retry, min(30, 0.5 * 2**failures)) * random.uniform(1, 1.5))
        failures += 1


if __name__ == "__main__":
    main()
