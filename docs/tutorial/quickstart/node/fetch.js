// Does the same as chat.js without the client: a stream through `fetch`.
//
//   SERVER=http://127.0.0.1:8080 RIDE=ride_42 TOKEN=… node fetch.js
import { randomUUID } from 'node:crypto';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

// SILENCE: seconds without a byte after which a stream is dead. The server sends a heartbeat every 15.
const { SERVER = 'http://127.0.0.1:8080', RIDE, TOKEN, SILENCE = 40 } = process.env;
const API = `${SERVER}/api/v1`;

// Your login's token, read for each request, so that an expired one is replaced. A 401 is therefore final.
const headers = () => ({ authorization: `Bearer ${TOKEN}` });
const isTransient = (status) => status >= 500 || [408, 425, 429].includes(status);

/** Waits for the delay that the server requests, with exponential backoff and jitter. */
const pause = (failures, retry) => sleep(Math.max(retry, Math.min(30_000, 500 * 2 ** failures)) * (1 + Math.random() / 2));

function end(code, reason) {
  console.error(reason);
  process.exit(code);
}

/** Repeats a request until there is a response. The request must be idempotent, because it may be committed more than once. */
async function post(path, body) {
  for (let failures = 0; ; failures += 1) {
    let retry = 0;
    try {
      const init = { method: 'POST', headers: headers(), body: JSON.stringify(body), signal: AbortSignal.timeout(10_000) };
      const response = await fetch(API + path, init);
      const text = await response.text();
      if (!isTransient(response.status)) return { isOk: response.ok, text };
      retry = Number(response.headers.get('retry-after')) * 1_000 || 0;
    } catch {
      // The request may have been committed.
    }
    await pause(failures, retry);
  }
}

// Marking a message as read includes all earlier ones, so only the newest is sent.
let unmarked;
let marking;
async function mark() {
  while (unmarked) {
    const newest = unmarked;
    unmarked = undefined;
    await post(`/messages/${newest}/read`);
  }
  marking = undefined;
}

function handle(type, data) {
  if (type === 'message:new') {
    console.log(`${data.seq} ${data.senderId}: ${data.content}`);
    unmarked = data.id;
    marking ??= mark();
  } else if (type === 'stream:sync' && data.gap) {
    console.error(`no longer kept: ${data.gap.from} to ${data.gap.to}`);
  } else if (type === 'stream:closing' && ['ride_over', 'removed'].includes(data.reason)) {
    end(0, `the end: ${data.reason}`);
  }
}

/** Parses the fields of a complete frame. A frame that a disconnect cuts off is never complete. */
function fieldsOf(frame) {
  const fields = {};
  for (const line of frame.split('\n')) {
    const [, name, value] = /^([^:]*): ?(.*)$/su.exec(line) ?? [];
    if (name) fields[name] = value;
  }
  return fields;
}

async function follow() {
  let [cursor, retry, failures] = ['0', 1_000, 0];
  for (;;) {
    const silence = new AbortController();
    const dead = setTimeout(() => silence.abort(), SILENCE * 1_000);
    try {
      const init = { headers: { ...headers(), 'last-event-id': cursor }, signal: silence.signal };
      const response = await fetch(`${API}/messages/rides/${RIDE}/events`, init);
      if (response.status === 204) end(0, 'the end: the ride is closed');
      if (response.status === 401) end(1, 'sign in again');
      if (!response.ok && !isTransient(response.status)) end(1, 'not a ride of yours');
      let rest = '';
      for await (const text of response.ok ? response.body.pipeThrough(new TextDecoderStream()) : []) {
        dead.refresh();
        const frames = (rest + text).split('\n\n');
        rest = frames.pop();
        for (const { event, data, id, retry: wait } of frames.map(fieldsOf)) {
          if (wait) retry = Number(wait);
          if (event === 'stream:sync') failures = 0;
          if (data) handle(event, JSON.parse(data));
          // The cursor moves only after the frame was handled. Events that are not in the log have no id.
          cursor = id ?? cursor;
        }
      }
    } catch {
      // The connection was cut, or silent for too long.
    } finally {
      clearTimeout(dead);
      silence.abort(); // Discards the unread part of a response, such as a proxy's 502.
    }
    await pause(failures, retry);
    failures += 1;
  }
}

follow();
for await (const line of createInterface({ input: process.stdin })) {
  // One id for all attempts: however many of them were committed, they are one message.
  const { isOk, text } = await post('/messages', { rideId: RIDE, content: line, clientMessageId: randomUUID() });
  if (!isOk) console.error(`not accepted: ${text}`);
}
