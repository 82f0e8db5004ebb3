/** The behaviour of a subscription, with a scripted server. */
import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';

import { connect } from '../src/index.js';
import { EventCollector } from './event-collector.js';

const bytes = (text) => new TextEncoder().encode(text);
const frame = (type, data, id) => `${id ? `id: ${id}\n` : ''}event: ${type}\ndata: ${JSON.stringify(data)}\n\n`;
const sync = (cursor, data) => frame('stream:sync', { cursor, resumed: true, gap: null, state: {}, ...data }, cursor);
const message = (id) => frame('message:new', { content: `${id}` }, `${id}`);

/** A server whose responses the test controls. */
class ScriptedServer {
  streams = [];
  polls = [];
  #waiting = [];

  fetch = (url, { signal }) => {
    const [after, wait] = ['after', 'wait'].map((name) => new URL(url).searchParams.get(name));
    const { promise, resolve } = deferred();
    if (url.includes('/poll')) {
      this.polls.push({
        after,
        wait,
        respond: (body) => resolve(Response.json({ resumed: true, gap: null, state: {}, ...body })),
        reject: (status, headers) => resolve(new Response('', { status, headers })),
      });
    } else {
      const stream = { after, signal };
      const body = new ReadableStream({
        start: (controller) => {
          stream.deliver = (...frames) => controller.enqueue(bytes(frames.join('')));
          stream.end = () => controller.close();
        },
      });
      this.streams.push(stream);
      resolve(new Response(body, { headers: { 'content-type': 'text/event-stream' } }));
    }
    this.#waiting.splice(0).forEach((wake) => wake());
    return Promise.race([
      promise,
      new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
    ]);
  };

  /** Returns the stream or poll with this number, once it is requested. */
  async stream(number) {
    while (this.streams.length < number) await new Promise((resolve) => this.#waiting.push(resolve));
    return this.streams[number - 1];
  }

  async poll(number) {
    while (this.polls.length < number) await new Promise((resolve) => this.#waiting.push(resolve));
    return this.polls[number - 1];
  }

  follow({ timing, after, EventSource = null, all = false, client = this.client({ timing, EventSource }) } = {}) {
    return new EventCollector(all ? client.all({ after }) : client.ride('ride_1', { after }));
  }

  client({ timing, EventSource = null, token = () => 'token' }) {
    return connect({
      baseUrl: 'http://there',
      token,
      fetch: this.fetch,
      EventSource,
      timing: { backoff: 1, ...timing },
    });
  }
}

function deferred() {
  const all = {};
  all.promise = new Promise((resolve, reject) => Object.assign(all, { resolve, reject }));
  return all;
}

let server;
function begin(options) {
  server = new ScriptedServer();
  return server.follow(options);
}
afterEach(() => {
  EventCollector.closeAll();
  delete globalThis.window;
  delete globalThis.document;
});

test('each connection starts where the previous one has ended', async () => {
  const collector = begin({ after: 3 });
  const first = await server.stream(1);
  first.deliver(sync('3'), message(4), message(5));
  await collector.received(5);
  first.end();
  const second = await server.stream(2);
  assert.deepEqual([first.after, second.after], ['3', '5']);
});

test('late frames of an ended stream are ignored', async () => {
  const collector = begin({ after: 0, all: true });
  const first = await server.stream(1);
  first.deliver(sync('a'), frame('stream:closing', { reason: 'shutdown' }), frame('message:new', { content: 'late' }, 'b'));
  const second = await server.stream(2);
  assert.equal(second.after, 'a');
  second.deliver(frame('message:new', { content: 'before the sync' }, 'z'), sync('a'), frame('notice', {}, 'c'));
  await collector.until('the notice', () => collector.durable.length > 0);
  assert.deepEqual(collector.durable.map(({ id }) => id), ['c']);
});

test('a reconnect respects the delay that the server requests', async () => {
  begin({ after: 0 });
  const first = await server.stream(1);
  first.deliver('retry: 300\n', sync('0'));
  first.end();
  const before = Date.now();
  await server.stream(2);
  assert.ok(Date.now() - before > 250, `${Date.now() - before} ms`);
});

test('a server that rejects streams is polled, and its delay applies to polls too', async () => {
  const collector = begin({ after: 0, timing: { wait: 3 } });
  for (const number of [1, 2]) {
    const stream = await server.stream(number);
    stream.deliver('retry: 5\n\n');
    stream.end();
  }
  (await server.poll(1)).respond({ cursor: '4', events: [{ id: '1', type: 'message:new', data: { content: '1' } }] });
  await collector.received(1);
  const poll = await server.poll(2);
  poll.reject(429, { 'retry-after': '1' });
  const before = Date.now();
  assert.equal((await server.poll(3)).after, '4');
  assert.ok(Date.now() - before > 900, `${Date.now() - before} ms`);
});

test('a corrupted frame is not skipped: another stream starts before it', async () => {
  const collector = begin({ after: 0 });
  (await server.stream(1)).deliver(sync('0'), 'id: 1\nevent: message:new\ndata: {"content"\n\n', message(2));
  const second = await server.stream(2);
  assert.equal(second.after, '0');
  second.deliver(sync('0'), message(1), message(2));
  await collector.received(2);
  assert.deepEqual(collector.contents, ['1', '2']);
});

test('without a sync, polls replace a stream, even if it sends comments', async () => {
  const collector = begin({ after: 0, timing: { sync: 100, silence: 60_000 } });
  (await server.stream(1)).deliver(':\n\n', ':\n\n');
  for (const number of [1, 2]) (await server.poll(number)).respond({ cursor: '0', events: [] });
  await collector.became('polling');
});

test('the first poll that replaces a stream does not wait, and the next ones do', async () => {
  const collector = begin({ after: 0, timing: { sync: 100 } });
  // The poll that tests whether polls get through, and the first replacement.
  for (const number of [1, 2]) {
    const { wait, respond } = await server.poll(number);
    assert.equal(wait, '0');
    respond({ cursor: '0', events: [] });
  }
  await collector.became('polling');
  assert.ok(Number((await server.poll(3)).wait) > 0);
});

test('a gap is reported, and the cursor moves past it', async () => {
  const collector = begin({ after: 1 });
  const gap = new Promise((resolve) => collector.subscription.on('gap', resolve));
  (await server.stream(1)).deliver(sync('7', { resumed: false, gap: { from: 2, to: 7 } }), message(8));
  assert.deepEqual(await gap, { from: 2, to: 7 });
  await collector.received(8);
  assert.equal(collector.syncs[0].resumed, false);
});

test('the cursor moves past events that the filter excludes', async () => {
  const collector = begin({ after: 1 });
  (await server.stream(1)).deliver(sync('1'), sync('9'), sync('4'));
  await collector.until('syncs', () => collector.syncs.length === 3);
  assert.equal(collector.subscription.cursor, '9');
});

test('a shorter log was replaced, and is read from its end by streams and polls', async () => {
  const collector = begin({ after: 90 });
  const stream = await server.stream(1);
  stream.deliver(sync('4', { resumed: false }), message(5));
  await collector.received(5);
  assert.equal(collector.subscription.cursor, '5');
  collector.subscription.close();
  const polls = begin({ after: 90, timing: { sync: 1 } });
  (await server.poll(1)).respond({ resumed: false, cursor: '6', events: [{ id: '6', type: 'message:new', data: { content: '6' } }] });
  await polls.received(6);
  assert.equal((await server.poll(2)).after, '6');
});

test('an expired token is replaced once for several subscriptions', async () => {
  server = new ScriptedServer();
  let asked = 0;
  const token = () => `token ${(asked += 1)}`;
  const client = server.client({ token });
  const collectors = [server.follow({ client, after: 0 }), server.follow({ client, after: 0 })];
  const expire = frame('auth:expired', { reason: 'token_expired' });
  const [first, second] = [await server.stream(1), await server.stream(2)];
  first.deliver(sync('0'));
  second.deliver(sync('0'));
  await Promise.all(collectors.map((collector) => collector.became('live')));
  first.deliver(expire);
  (await server.stream(3)).deliver(sync('0'));
  second.deliver(expire);
  (await server.stream(4)).deliver(sync('0'));
  await Promise.all(collectors.map((collector) => collector.became('live')));
  assert.equal(asked, 2);
});

test('without a network nothing is tried, and the stream reconnects immediately when it is back', async () => {
  globalThis.window = new EventTarget();
  const collector = begin({ after: 0, timing: { backoff: 60_000 } });
  const stream = await server.stream(1);
  stream.deliver(sync('0'), message(1));
  await collector.received(1);
  setOnline(false);
  await collector.became('offline');
  assert.ok(stream.signal.aborted);
  assert.equal(server.streams.length, 1);
  setOnline(true);
  const second = await server.stream(2);
  second.deliver(sync('1'), message(2));
  await collector.received(2);
  assert.deepEqual(collector.states, ['live', 'offline', 'live']);
});

test('a page that becomes visible ends a reconnect delay', async () => {
  globalThis.document = Object.assign(new EventTarget(), { visibilityState: 'visible' });
  const collector = begin({ after: 0, timing: { backoff: 60_000 } });
  const stream = await server.stream(1);
  stream.deliver(sync('0'));
  await collector.became('live');
  stream.end();
  await collector.became('connecting');
  globalThis.document.dispatchEvent(new Event('visibilitychange'));
  (await server.stream(2)).deliver(sync('0'));
  await collector.became('live');
});

test('a silent EventSource is checked with a poll', async () => {
  const made = deferred();
  class FakeSource extends EventTarget {
    readyState = 1;
    constructor(url) {
      super();
      assert.equal(new URL(url).searchParams.get('after'), '1');
      made.resolve(this);
    }
    close() {
      this.readyState = 2;
    }
    deliver(type, data, lastEventId) {
      this.dispatchEvent(Object.assign(new Event(type), { data: JSON.stringify(data), lastEventId }));
    }
  }
  server = new ScriptedServer();
  const live = server.fetch;
  server.fetch = async (url, init) =>
    url.endsWith('/stream-tickets') ? Response.json({ ticket: 'ticket' }) : live(url, init);
  const collector = server.follow({ after: 1, EventSource: FakeSource, timing: { silence: 20 } });
  const source = await made.promise;
  source.deliver('stream:sync', { cursor: '1', resumed: true, gap: null, state: { n: 1 } }, '1');
  source.deliver('presence:online', { userId: 'u' }, '1');
  // No event was missed: the stream stays, and events without an id are delivered.
  (await server.poll(1)).respond({ cursor: '1', events: [], state: { n: 2 } });
  await collector.until('the state', () => collector.syncs.at(-1)?.state?.n === 2);
  assert.equal(source.readyState, 1);
  // The stream delivers the event that the poll has found, so it is alive.
  const both = await server.poll(2);
  source.deliver('message:new', { content: '2' }, '2');
  both.respond({ cursor: '2', events: [{ id: '2', type: 'message:new', data: { content: '2' } }] });
  // An event was missed: another stream continues from there.
  const third = await server.poll(3);
  assert.equal(source.readyState, 1);
  third.respond({ cursor: '3', events: [{ id: '3', type: 'message:new', data: { content: '3' } }] });
  await collector.became('connecting');
  assert.deepEqual([source.readyState, collector.contents, collector.subscription.cursor], [2, ['2'], '2']);
});

function setOnline(onLine) {
  Object.defineProperty(globalThis, 'navigator', { value: { onLine }, configurable: true });
  globalThis.window.dispatchEvent(new Event(onLine ? 'online' : 'offline'));
}
