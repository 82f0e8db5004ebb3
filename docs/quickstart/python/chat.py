"""Follows a ride with httpx, prints what is said, marks it as read, and sends each line of its input.

    SERVER=http://127.0.0.1:8080 RIDE=ride_42 TOKEN=… python3 chat.py [--poll]

A stream, or the long poll. Ends with 0 when there is nothing more to come, and with 1 when the server refuses the token
or the ride.
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
# Seconds without a byte, after which a stream is dead: the server breaks its silence every 15.
SILENCE = float(os.environ.get("SILENCE", 40))

client = httpx.Client(base_url=os.environ.get("SERVER", "http://127.0.0.1:8080") + "/api/v1", timeout=10)


class Over(Exception):
    """There is nothing more to come."""


def authorization():
    """Your login's token. Asked for each time, so that one which has ended is replaced; a 401 is final then."""
    return {"Authorization": f"Bearer {os.environ['TOKEN']}"}


def is_transient(status):
    return status >= 500 or status in (408, 425, 429)


def retry_after(answer):
    """In seconds, as the server gives it. Others may give a date (RFC 9110): then the pause is our own."""
    value = answer.headers.get("retry-after", "")
    return float(value) if value.isdigit() else 0.0


class Pause:
    """As long as the server asks for, longer the more often it was in vain, and not when all others come back."""

    def __init__(self):
        self.failures, self.retry = 0, 1.0

    def __call__(self):
        pause = max(self.retry, min(30, 0.5 * 2**self.failures))
        self.failures += 1
        time.sleep(pause * random.uniform(1, 1.5))


def post(path, body=None):
    """Repeats a request until it is answered. Whatever is posted here may be posted twice: see `send` and `mark`."""
    pause = Pause()
    while True:
        try:
            answer = client.post(path, json=body, headers=authorization())
            if not is_transient(answer.status_code):
                return answer
            pause.retry = retry_after(answer)
        except httpx.TransportError:
            pass  # It may have been committed all the same.
        pause()


def send(content):
    """The id is made once, so that whichever of the tries were committed, they are one message."""
    answer = post("/messages", {"rideId": RIDE, "content": content, "clientMessageId": str(uuid.uuid4())})
    if answer.is_error:
        print(f"not accepted: {answer.text}", file=sys.stderr)


class Reader:
    """Where the log has been read up to, and what is done with what it says."""

    def __init__(self):
        self.cursor, self.unmarked, self.waiting = "0", None, threading.Condition()

    def take(self, kind, data):
        if kind == "message:new":
            print(f"{data['seq']} {data['senderId']}: {data['content']}", flush=True)
            with self.waiting:
                self.unmarked = data["id"]
                self.waiting.notify()

    def lost(self, gap):
        if gap:
            print(f"no longer kept: {gap['from']} to {gap['to']}", file=sys.stderr)

    def mark(self):
        """Marks what was read. A mark covers all before it, so only the last is sent of those that came meanwhile."""
        while True:
            with self.waiting:
                self.waiting.wait_for(lambda: self.unmarked)
                message, self.unmarked = self.unmarked, None
            post(f"/messages/{message}/read")

    def stream(self, pause):
        headers = authorization() | {"Last-Event-ID": self.cursor}
        timeout = httpx.Timeout(10, read=SILENCE)
        with client.stream("GET", f"/messages/rides/{RIDE}/events", headers=headers, timeout=timeout) as answer:
            if answer.status_code == 204:
                raise Over("the ride is over")
            answer.raise_for_status()
            for field in frames(answer.iter_bytes()):
                if "retry" in field:
                    pause.retry = int(field["retry"]) / 1000
                if "data" not in field:
                    continue
                data = json.loads(field["data"])
                if field["event"] == "stream:sync":
                    pause.failures = 0
                    self.lost(data["gap"])
                if field["event"] == "stream:closing" and data["reason"] in ("ride_over", "removed"):
                    raise Over(data["reason"])
                self.take(field["event"], data)
                # Only when a frame was taken is it time to continue behind it. What is not in the log has no id.
                self.cursor = field.get("id", self.cursor)
        pause()

    def poll(self, pause):
        query = {"after": self.cursor, "wait": WAIT, "types": "message:*"}
        timeout = httpx.Timeout(10, read=WAIT + 10)
        answer = client.get(f"/messages/rides/{RIDE}/poll", params=query, headers=authorization(), timeout=timeout)
        pause.retry = retry_after(answer)
        found = answer.raise_for_status().json()
        pause.failures = 0
        self.lost(found["gap"])
        for event in found["events"]:
            self.take(event["type"], event["data"])
        self.cursor = found["cursor"]
        if found.get("closed"):
            raise Over("ride_over" if found["state"]["ride"]["chat"] == "readOnly" else "removed")


def frames(chunks):
    """Each frame's fields. Only LF ends a line here: `str.splitlines` would break a message that has U+2028 in it."""
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
    turn = reader.poll if "--poll" in sys.argv else reader.stream
    threading.Thread(target=lambda: [send(line.rstrip("\n")) for line in sys.stdin], daemon=True).start()
    threading.Thread(target=reader.mark, daemon=True).start()
    while True:
        try:
            turn(pause)
        except Over as over:
            print(f"the end: {over}", file=sys.stderr)
            return 0
        except httpx.HTTPStatusError as refused:
            status = refused.response.status_code
            if not is_transient(status):
                print("sign in again" if status == 401 else "not a ride of yours", file=sys.stderr)
                return 1
            pause()
        except (httpx.TransportError, ValueError):
            pause()


if __name__ == "__main__":
    sys.exit(main())
