"""Follows a ride with httpx, prints its messages, marks them as read, and sends each line of its input.

    SERVER=http://127.0.0.1:8080 RIDE=ride_42 TOKEN=… python3 chat.py [--poll]

Uses a stream, or long polling. Exits with 0 when the ride is closed or the user was removed, and with 1 when the server
rejects the token or the ride.
"""

import json
import os
import random
import sys
import threading
import time
import uuid

import httpx

RIDE = os.environ["RIDE"]
WAIT = 25  # seconds that a poll waits for an event
# Seconds without a byte after which a stream is dead. The server sends a heartbeat every 15.
SILENCE = float(os.environ.get("SILENCE", 40))

client = httpx.Client(base_url=os.environ.get("SERVER", "http://127.0.0.1:8080") + "/api/v1", timeout=10)


class Closed(Exception):
    """The ride is closed, or the user was removed from it."""


def authorization():
    """Returns your login's token. It is read for each request, so an expired one is replaced. A 401 is therefore final."""
    return {"Authorization": f"Bearer {os.environ['TOKEN']}"}


def is_transient(status):
    return status >= 500 or status in (408, 425, 429)


def retry_after(response):
    """Returns `Retry-After` in seconds. A proxy may send a date (RFC 9110), which counts as 0."""
    value = response.headers.get("retry-after", "")
    return float(value) if value.isdigit() else 0.0


class Pause:
    """Waits for the delay that the server requests, with exponential backoff and jitter."""

    def __init__(self):
        self.failures, self.retry = 0, 1.0

    def __call__(self):
        pause = max(self.retry, min(30, 0.5 * 2**self.failures))
        self.failures += 1
        time.sleep(pause * random.uniform(1, 1.5))


def post(path, body=None):
    """Repeats a request until there is a response. The request must be idempotent: see `send` and `mark`."""
    pause = Pause()
    while True:
        try:
            response = client.post(path, json=body, headers=authorization())
            if not is_transient(response.status_code):
                return response
            pause.retry = retry_after(response)
        except httpx.TransportError:
            pass  # The request may have been committed.
        pause()


def send(content):
    """Sends a message. One id serves all attempts, so they create one message."""
    response = post("/messages", {"rideId": RIDE, "content": content, "clientMessageId": str(uuid.uuid4())})
    if response.is_error:
        print(f"not accepted: {response.text}", file=sys.stderr)


class Reader:
    """Reads the ride's log from a cursor, and handles its events."""

    def __init__(self):
        self.cursor, self.unmarked, self.waiting = "0", None, threading.Condition()

    def handle(self, kind, data):
        if kind == "message:new":
            print(f"{data['seq']} {data['senderId']}: {data['content']}", flush=True)
            with self.waiting:
                self.unmarked = data["id"]
                self.waiting.notify()

    def report_gap(self, gap):
        if gap:
            print(f"no longer kept: {gap['from']} to {gap['to']}", file=sys.stderr)

    def mark(self):
        """Marks messages as read. A mark includes all earlier messages, so only the newest is sent."""
        while True:
            with self.waiting:
                self.waiting.wait_for(lambda: self.unmarked)
                message, self.unmarked = self.unmarked, None
            post(f"/messages/{message}/read")

    def stream(self, pause):
        headers = authorization() | {"Last-Event-ID": self.cursor}
        timeout = httpx.Timeout(10, read=SILENCE)
        with client.stream("GET", f"/messages/rides/{RIDE}/events", headers=headers, timeout=timeout) as response:
            if response.status_code == 204:
                raise Closed("the ride is closed")
            response.raise_for_status()
            for field in frames(response.iter_bytes()):
                if "retry" in field:
                    pause.retry = int(field["retry"]) / 1000
                if "data" not in field:
                    continue
                data = json.loads(field["data"])
                if field["event"] == "stream:sync":
                    pause.failures = 0
                    self.report_gap(data["gap"])
                if field["event"] == "stream:closing" and data["reason"] in ("ride_over", "removed"):
                    raise Closed(data["reason"])
                self.handle(field["event"], data)
                # The cursor moves only after the frame was handled. Events that are not in the log have no id.
                self.cursor = field.get("id", self.cursor)
        pause()

    def poll(self, pause):
        query = {"after": self.cursor, "wait": WAIT, "types": "message:*"}
        timeout = httpx.Timeout(10, read=WAIT + 10)
        response = client.get(f"/messages/rides/{RIDE}/poll", params=query, headers=authorization(), timeout=timeout)
        pause.retry = retry_after(response)
        page = response.raise_for_status().json()
        pause.failures = 0
        self.report_gap(page["gap"])
        for event in page["events"]:
            self.handle(event["type"], event["data"])
        self.cursor = page["cursor"]
        if page.get("closed"):
            raise Closed("ride_over" if page["state"]["ride"]["chat"] == "readOnly" else "removed")


def frames(chunks):
    """Yields the fields of each frame. Only LF ends a line: `str.splitlines` would split a message that contains U+2028."""
    rest, field = b"", {}
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            name, _, value = line.decode().partition(":")
            if line:
                field[name] = value.removeprefix(" ")
            else:
                yield field
                field = {}


def main():
    reader, pause = Reader(), Pause()
    step = reader.poll if "--poll" in sys.argv else reader.stream
    threading.Thread(target=lambda: [send(line.rstrip("\n")) for line in sys.stdin], daemon=True).start()
    threading.Thread(target=reader.mark, daemon=True).start()
    while True:
        try:
            step(pause)
        except Closed as closed:
            print(f"the end: {closed}", file=sys.stderr)
            return 0
        except httpx.HTTPStatusError as rejected:
            status = rejected.response.status_code
            if not is_transient(status):
                print("sign in again" if status == 401 else "not a ride of yours", file=sys.stderr)
                return 1
            pause()
        except (httpx.TransportError, ValueError):
            pause()


if __name__ == "__main__":
    sys.exit(main())
