import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Backoff, sleep } from '../src/backoff.js';
import { Cursor } from '../src/cursor.js';
import { Emitter } from '../src/emitter.js';
import { connect } from '../src/index.js';

test('pauses grow up to the longest, are jittered, and begin anew after a success', () => {
  const pauses = (random) => {
    const backoff = new Backoff(100, 1_000, () => random);
    return Array.from({ length: 6 }, () => backoff.next());
  };
  assert.deepEqual(pauses(1), [100, 200, 400, 800, 1_000, 1_000]);
  assert.deepEqual(pauses(0), [50, 100, 200, 400, 500, 500]);
  const backoff = new Backoff(100, 1_000, () => 1);
  backoff.next();
  assert.equal(backoff.isFresh, false);
  backoff.reset();
  assert.deepEqual([backoff.isFresh, backoff.next()], [true, 100]);
});

test('a sleep ends with its signal', async () => {
  const controller = new AbortController();
  const sleeping = sleep(60_000, controller.signal);
  controller.abort('awake');
  await assert.rejects(sleeping, (reason) => reason === 'awake');
  await assert.rejects(sleep(60_000, controller.signal), (reason) => reason === 'awake');
});

test('a ride is followed forwards only, whichever connection an event comes from', () => {
  const cursor = new Cursor(true, '9');
  assert.deepEqual(['9', '10', '10', '2', '11'].map((id) => cursor.take(id)), [false, true, false, false, true]);
  cursor.advance('3');
  assert.equal(cursor.position, '11');
  cursor.restart('3');
  assert.deepEqual([cursor.position, cursor.take('4')], ['3', true]);
});

test('an opaque cursor is replaced by the next, whatever it looks like', () => {
  const cursor = new Cursor(false, 'zz');
  assert.deepEqual([cursor.take('aa'), cursor.position], [true, 'aa']);
});

test('iteration takes what was emitted meanwhile, then ends or throws', async () => {
  const emitter = new Emitter();
  const read = (async () => {
    const taken = [];
    for await (const event of emitter) taken.push(event);
    return taken;
  })();
  emitter.emit('*', 1);
  emitter.emit('*', 2);
  emitter.emit('closed', {});
  assert.deepEqual(await read, [1, 2]);
  const failed = new Emitter();
  failed.emit('error', new Error('refused'));
  failed.emit('closed', {});
  await assert.rejects(async () => {
    for await (const _ of failed);
  }, /refused/);
});

/** A client of a server that answers with these, one after the other. */
function client(answers) {
  const requests = [];
  const fetch = async (url, init) => {
    requests.push({ url, body: init.body && JSON.parse(init.body), token: init.headers.authorization });
    const [status, body, headers] = answers.shift() ?? [200, {}];
    if (status === 0) throw new TypeError('fetch failed');
    return new Response(JSON.stringify(body), { status, headers });
  };
  let tokens = 0;
  const token = () => `token ${(tokens += 1)}`;
  return { requests, it: connect({ baseUrl: 'http://there', token, fetch, timing: { backoff: 2 } }) };
}

test('a send is repeated as the same message while it may be answered later', async () => {
  const busy = { status: 429, code: 'too_many_requests' };
  const { it, requests } = client([[0], [502, 'bad gateway'], [429, busy, { 'retry-after': '0' }], [201, { seq: 4 }]]);
  assert.deepEqual(await it.send('ride_1', 'hello'), { seq: 4 });
  const ids = new Set(requests.map(({ body }) => body.clientMessageId));
  assert.deepEqual([requests.length, ids.size], [4, 1]);
});

test('a send waits as long as it is told to, gives up at its deadline, and with its signal', async () => {
  const busy = [503, { code: 'unavailable' }, { 'retry-after': '60' }];
  const { it } = client([busy, busy]);
  await assert.rejects(it.send('r', 'x', { timeout: 100 }), { status: 503, code: 'unavailable', retryAfter: 60_000 });
  const controller = new AbortController();
  const sending = it.send('r', 'x', { timeout: 120_000, signal: controller.signal });
  controller.abort();
  await assert.rejects(sending, { name: 'AbortError' });
});

test('a refusal is told as it is and not repeated', async () => {
  const problem = { code: 'invalid_request', detail: 'no', errors: [{ pointer: '/content' }], requestId: 'r1' };
  const { it, requests } = client([[400, problem]]);
  await assert.rejects(it.send('r', ''), { name: 'RidewireError', status: 400, ...problem });
  assert.equal(requests.length, 1);
});

test('a token is asked for once, and again when it is refused; a refused new one is the end', async () => {
  const refused = [401, { code: 'token_expired' }];
  const { it, requests } = client([[200, {}], refused, [200, {}], refused, refused]);
  await it.unread();
  await it.unread();
  await assert.rejects(it.unread(), { status: 401 });
  const tokens = requests.map(({ token }) => token.replace('Bearer token ', ''));
  assert.deepEqual(tokens, ['1', '1', '2', '2', '3']);
});
