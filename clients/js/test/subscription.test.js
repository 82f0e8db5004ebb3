/** What a subscription makes of what it is told, with a server that says what the test wants. */
import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';

import { connect } from '../src/index.js';
import { Follower } from './follower.js';

const bytes = (text) => new TextEncoder().encode(text);
const frame = (type, data, id) => `${id ? `id: ${id}\n` : ''}event: ${type}\ndata: ${JSON.stringify(data)}\n\n`;
const sync = (cursor, data) => frame('stream:sync', { cursor, resumed: true, gap: null, state: {}, ...data }, cursor);
const message = (id) => frame('message:new', { content: `${id}` }, `${id}`);

/** A server of which the test holds the other end. */
class Script {
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
        answer: (body) => resolve(Response.json({ resumed: true, gap: null, state: {}, ...body })),
        refuse: (status, headers) => resolve(new Response('', { status, headers })),
      });
    } else {
      const stream = { after, signal };
      const body = new ReadableStream({
        start: (controller) => {
          stream.say = (...frames) => controller.enqueue(bytes(frames.join('')));
          stream.end = () => controller.close();
        },
      });
      this.streams.push(stream);
      resolve(new Response(body, { headers: { 'content-type': 'text/event-stream' } }));
    }
    this.#waiting.splice(0).forEach((look) => look());
    return Promise.race([
      promise,
      new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
    ]);
  };

  /** The stream, or poll, of this number, once it is asked for. */
  async stream(number) {
    while (this.streams.length < number) await new Promise((resolve) => this.#waiting.push(resolve));
    return this.streams[number - 1];
  }

  async poll(number) {
    while (this.polls.length < number) await new Promise((resolve) => this.#waiting.push(resolve));
    return this.polls[number - 1];
  }

  follow({ timing, after, EventSource = null, all = false, client = this.client({ timing, EventSource }) } = {}) {
    return new Follower(all ? client.all({ after }) : client.ride('ride_1', { after }));
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

let script;
function begin(options) {
  script = new Script();
  return script.follow(options);
}
afterEach(() => {
  Follower.closeAll();
  delete globalThis.window;
  delete globalThis.document;
});

test('each connection begins where the one before has ended', async () => {
  const follower = begin({ after: 3 });
  const first = await script.stream(1);
  first.say(sync('3'), message(4), message(5));
  await follower.got(5);
  first.end();
  const second = await script.stream(2);
  assert.deepEqual([first.after, second.after], ['3', '5']);
});

test('a stream that is over for us is not heard any more, however late its frames come', async () => {
  const follower = begin({ after: 0, all: true });
  const first = await script.stream(1);
  first.say(sync('a'), frame('stream:closing', { reason: 'shutdown' }), frame('message:new', { content: 'late' }, 'b'));
  const second = await script.stream(2);
  assert.equal(second.after, 'a');
  second.say(frame('message:new', { content: 'before the sync' }, 'z'), sync('a'), frame('notice', {}, 'c'));
  await follower.until('the notice', () => follower.durable.length > 0);
  assert.deepEqual(follower.durable.map(({ id }) => id), ['c']);
});

test('a stream is left alone for as long as the server asks for', async () => {
  begin({ after: 0 });
  const first = await script.stream(1);
  first.say('retry: 300\n', sync('0'));
  first.end();
  const before = Date.now();
  await script.stream(2);
  assert.ok(Date.now() - before > 250, `${Date.now() - before} ms`);
});

test('a server that puts streams off is asked by a poll the second time, and polls are put off as well', async () => {
  const follower = begin({ after: 0, timing: { wait: 3 } });
  for (const number of [1, 2]) {
    const stream = await script.stream(number);
    stream.say('retry: 5\n\n');
    stream.end();
  }
  (await script.poll(1)).answer({ cursor: '4', events: [{ id: '1', type: 'message:new', data: { content: '1' } }] });
  await follower.got(1);
  const poll = await script.poll(2);
  poll.refuse(429, { 'retry-after': '1' });
  const before = Date.now();
  assert.equal((await script.poll(3)).after, '4');
  assert.ok(Date.now() - before > 900, `${Date.now() - before} ms`);
});

test('a frame that is mangled is not stepped over: another stream begins before it', async () => {
  const follower = begin({ after: 0 });
  (await script.stream(1)).say(sync('0'), 'id: 1\nevent: message:new\ndata: {"content"\n\n', message(2));
  const second = await script.stream(2);
  assert.equal(second.after, '0');
  second.say(sync('0'), message(1), message(2));
  await follower.got(2);
  assert.deepEqual(follower.contents, ['1', '2']);
});

test('a sign of life is no stream: without a sync, polls stand in', async () => {
  const follower = begin({ after: 0, timing: { sync: 100, silence: 60_000 } });
  (await script.stream(1)).say(':\n\n', ':\n\n');
  for (const number of [1, 2]) (await script.poll(number)).answer({ cursor: '0', events: [] });
  await follower.became('polling');
});

test('the first poll that stands in for a stream says at once how things are, and the next ones wait', async () => {
  const follower = begin({ after: 0, timing: { sync: 100 } });
  // The one that asks whether polls get through, and the first of those.
  for (const number of [1, 2]) {
    const { wait, answer } = await script.poll(number);
    assert.equal(wait, '0');
    answer({ cursor: '0', events: [] });
  }
  await follower.became('polling');
  assert.ok(Number((await script.poll(3)).wait) > 0);
});

test('a gap is told, and the position moves behind it', async () => {
  const follower = begin({ after: 1 });
  const gap = new Promise((resolve) => follower.subscription.on('gap', resolve));
  (await script.stream(1)).say(sync('7', { resumed: false, gap: { from: 2, to: 7 } }), message(8));
  assert.deepEqual(await gap, { from: 2, to: 7 });
  await follower.got(8);
  assert.equal(follower.syncs[0].resumed, false);
});

test('a filter that holds events back moves the position without them', async () => {
  const follower = begin({ after: 1 });
  (await script.stream(1)).say(sync('1'), sync('9'), sync('4'));
  await follower.until('syncs', () => follower.syncs.length === 3);
  assert.equal(follower.subscription.cursor, '9');
});

test('a log that does not reach so far is another one, and followed from its end, by streams and polls', async () => {
  const follower = begin({ after: 90 });
  const stream = await script.stream(1);
  stream.say(sync('4', { resumed: false }), message(5));
  await follower.got(5);
  assert.equal(follower.subscription.cursor, '5');
  follower.subscription.close();
  const polls = begin({ after: 90, timing: { sync: 1 } });
  (await script.poll(1)).answer({ resumed: false, cursor: '6', events: [{ id: '6', type: 'message:new', data: { content: '6' } }] });
  await polls.got(6);
  assert.equal((await script.poll(2)).after, '6');
});

test('a token that ends for several is asked for once', async () => {
  script = new Script();
  let asked = 0;
  const token = () => `token ${(asked += 1)}`;
  const client = script.client({ token });
  const followers = [script.follow({ client, after: 0 }), script.follow({ client, after: 0 })];
  const expire = frame('auth:expired', { reason: 'token_expired' });
  const [first, second] = [await script.stream(1), await script.stream(2)];
  first.say(sync('0'));
  second.say(sync('0'));
  await Promise.all(followers.map((follower) => follower.became('live')));
  first.say(expire);
  (await script.stream(3)).say(sync('0'));
  second.say(expire);
  (await script.stream(4)).say(sync('0'));
  await Promise.all(followers.map((follower) => follower.became('live')));
  assert.equal(asked, 2);
});

test('without a network nothing is tried, and all is well at once when it is back', async () => {
  globalThis.window = new EventTarget();
  const follower = begin({ after: 0, timing: { backoff: 60_000 } });
  const stream = await script.stream(1);
  stream.say(sync('0'), message(1));
  await follower.got(1);
  setOnline(false);
  await follower.became('offline');
  assert.ok(stream.signal.aborted);
  assert.equal(script.streams.length, 1);
  setOnline(true);
  const second = await script.stream(2);
  second.say(sync('1'), message(2));
  await follower.got(2);
  assert.deepEqual(follower.states, ['live', 'offline', 'live']);
});

test('a page that is looked at again does not wait for the end of a pause', async () => {
  globalThis.document = Object.assign(new EventTarget(), { visibilityState: 'visible' });
  const follower = begin({ after: 0, timing: { backoff: 60_000 } });
  const stream = await script.stream(1);
  stream.say(sync('0'));
  await follower.became('live');
  stream.end();
  await follower.became('connecting');
  globalThis.document.dispatchEvent(new Event('visibilitychange'));
  (await script.stream(2)).say(sync('0'));
  await follower.became('live');
});

test('a silent stream is asked after where comments are not seen; what it tells of has no id', async () => {
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
    say(type, data, lastEventId) {
      this.dispatchEvent(Object.assign(new Event(type), { data: JSON.stringify(data), lastEventId }));
    }
  }
  script = new Script();
  const live = script.fetch;
  script.fetch = async (url, init) =>
    url.endsWith('/stream-tickets') ? Response.json({ ticket: 'ticket' }) : live(url, init);
  const follower = script.follow({ after: 1, EventSource: FakeSource, timing: { silence: 20 } });
  const source = await made.promise;
  source.say('stream:sync', { cursor: '1', resumed: true, gap: null, state: { n: 1 } }, '1');
  source.say('presence:online', { userId: 'u' }, '1');
  // Nothing was missed: the stream stays, and what is not in the log is told.
  (await script.poll(1)).answer({ cursor: '1', events: [], state: { n: 2 } });
  await follower.until('the state', () => follower.syncs.at(-1)?.state?.n === 2);
  assert.equal(source.readyState, 1);
  // It says itself what the poll has found as well, so it lives.
  const both = await script.poll(2);
  source.say('message:new', { content: '2' }, '2');
  both.answer({ cursor: '2', events: [{ id: '2', type: 'message:new', data: { content: '2' } }] });
  // Something was missed: another stream goes on from there.
  const third = await script.poll(3);
  assert.equal(source.readyState, 1);
  third.answer({ cursor: '3', events: [{ id: '3', type: 'message:new', data: { content: '3' } }] });
  await follower.became('connecting');
  assert.deepEqual([source.readyState, follower.contents, follower.subscription.cursor], [2, ['2'], '2']);
});

function setOnline(onLine) {
  Object.defineProperty(globalThis, 'navigator', { value: { onLine }, configurable: true });
  globalThis.window.dispatchEvent(new Event(onLine ? 'online' : 'offline'));
}
