// The same as chat.js without the client: a stream through `fetch`, which Node has.
//
//   SERVER=http://127.0.0.1:8080 RIDE=ride_42 TOKEN=… node fetch.js
import { randomUUID } from 'node:crypto';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

// SILENCE: seconds without a byte, after which a stream is dead. The server breaks its silence every 15.
const { SERVER = 'http://127.0.0.1:8080', RIDE, TOKEN, SILENCE = 40 } = process.env;
const API = `${SERVER}/api/v1`;

// Your login's token. Asked for each time, so that one which has ended is replaced; a 401 is final then.
const headers = () => ({ authorization: `Bearer ${TOKEN}` });
const isTransient = (status) => status >= 500 || [408, 425, 429].includes(status);

/** As long as the server asks for, longer the more often it was in vain, and not when all others come back. */
const pause = (failures, retry) => sleep(Math.max(retry, Math.min(30_000, 500 * 2 ** failures)) * (1 + Math.random() / 2));

function end(code, why) {
  console.error(why);
  process.exit(code);
}

/** Repeats a request until it is answered; it may be committed more than once, so it has to be one that can be repeated. */
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
      // It may have been committed all the same.
    }
    await pause(failures, retry);
  }
}

// A mark covers all before it, so only the last is sent of those that came meanwhile.
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

function take(type, data) {
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

/** A whole frame's fields. One that the end of a connection has cut never gets so far. */
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
      if (response.status === 204) end(0, 'the end: the ride is over');
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
          if (data) take(event, JSON.parse(data));
          // Only when a frame was taken is it time to continue behind it. What is not in the log has no id.
          cursor = id ?? cursor;
        }
      }
    } catch {
      // Cut, or silent for too long.
    } finally {
      clearTimeout(dead);
      silence.abort(); // What of an answer was not read, such as a proxy's 502.
    }
    await pause(failures, retry);
    failures += 1;
  }
}

follow();
for await (const line of createInterface({ input: process.stdin })) {
  // The id is made once, so that whichever of the tries were committed, they are one message.
  const { isOk, text } = await post('/messages', { rideId: RIDE, content: line, clientMessageId: randomUUID() });
  if (!isOk) console.error(`not accepted: ${text}`);
}
