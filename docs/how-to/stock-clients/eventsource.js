// Follows a ride with the npm package `eventsource`, and prints its messages.
//
//   SERVER=http://127.0.0.1:8080 RIDE=ride_42 TOKEN=… node eventsource.js
import { setTimeout as sleep } from 'node:timers/promises';

import { EventSource } from 'eventsource';

const { SERVER = 'http://127.0.0.1:8080', RIDE, TOKEN } = process.env;

let cursor = '0';
let failures = 0;

function end(code, reason) {
  console.error(reason);
  process.exit(code);
}

function follow() {
  const url = `${SERVER}/api/v1/messages/rides/${RIDE}/events?after=${cursor}`;
  const stream = new EventSource(url, {
    // A browser's EventSource cannot set headers. This one accepts a `fetch`, so it needs no ticket.
    fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, authorization: `Bearer ${TOKEN}` } }),
  });
  const on = (type, handle) => stream.addEventListener(type, ({ data, lastEventId }) => {
    cursor = lastEventId || cursor; // Events without an id have the last one in a browser, and none here.
    handle(JSON.parse(data));
  });
  on('stream:sync', () => (failures = 0));
  on('message:new', ({ seq, senderId, content }) => console.log(`${seq} ${senderId}: ${content}`));
  on('stream:closing', ({ reason }) => {
    if (['ride_over', 'removed'].includes(reason)) end(0, `the end: ${reason}`);
  });
  stream.onerror = async ({ code }) => {
    // After a disconnect or an end it reconnects by itself, with its last id.
    if (stream.readyState !== EventSource.CLOSED) return;
    // After any status but 200 it does not. For a temporary status, create a new one.
    if (code === 204) end(0, 'the end: the ride is closed');
    if (code === 401) end(1, 'sign in again');
    if (code >= 400 && code < 500 && ![408, 425, 429].includes(code)) end(1, 'not a ride of yours');
    await sleep(Math.min(30_000, 500 * 2 ** failures) * (1 + Math.random() / 2));
    failures += 1;
    follow();
  };
}

follow();
