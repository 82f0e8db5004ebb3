"""httpx-sse without handlers: prints its events, and how the stream ends."""

import os

import httpx
from httpx_sse import connect_sse

headers = {"Authorization": f"Bearer {os.environ['TOKEN']}"}
try:
    with httpx.Client() as client, connect_sse(client, "GET", os.environ["URL"], headers=headers) as stream:
        for event in stream.iter_sse():
            print(event.event, "with data" if event.data else "without data", flush=True)
    print("ended")
except Exception as error:
    print(type(error).__name__)
