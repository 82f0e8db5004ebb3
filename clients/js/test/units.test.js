import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Backoff, sleep } from '../src/backoff.js';
import { Cursor } from '../src/cursor.js';
import { Emitter } from '../src/emitter.js';
import { connect } from '../src/index.js';

test('delays grow up to the longest, have jitter, and restart after a success', () => {
  const delays = (random) => {
    const backoff = new Backoff(100, 1_000, () => random);
    return Array.from({ length: 6 }, () => backoff.next());
  };
  assert.deepEqual(delays(1), [100, 200, 400, 800, 1_000, 1_000]);
  assert.deepEqual(delays(0), [50, 100, 200, 400, 500, 500]);
  const backoff = new Backoff(100, 1_000, () => 1);
  backoff.next();
  assert.equal(backoff.isFresh, false);
  backoff.reset();
  assert.deepEqual([backoff.isFresh, backoff.next()], [true, 100]);
});

test('a sleep rejects when its signal is aborted', async () => {
  const controller = new AbortController();
  const sleeping = sleep(60_000, controller.signal);
  controller.abort('awake');
  await assert.rejects(sleeping, (reason) => reason === 'awake');
  await assert.rejects(sleep(60_000, controller.signal), (reason) => reason === 'awake');
});

test('the cursor of a ride only moves forward', () => {
  const cursor = new Cursor(true, '9');
  assert.deepEqual(['9', '10', '10', '2', '11'].map((id) => cursor.take(id)), [false, true, false, false, true]);
  cursor.advance('3');
  assert.equal(cursor.position, '11');
  cursor.restart('3');
  assert.deepEqual([cursor.position, cursor.take('4')], ['3', true]);
});

test('an opaque cursor is replaced by any other', () => {
  const cursor = new Cursor(false, 'zz');
  assert.deepEqual([cursor.take('aa'), cursor.position], [true, 'aa']);
});

test('iteration returns queued events, then ends or throws', async () => {
  const emitter = new Emitter();
  const read = (async () => {
    const received = [];
    for await (const event of emitter) received.push(event);
    return received;
  })();
  emitter.emit('*', 1);
  emitter.emit('*', 2);
  emitter.emit('closed', {});
  assert.deepEqual(await read, [1, 2]);
  const failed = new Emitter();
  failed.emit('error', new Error('rejected'));
  failed.emit('closed', {});
  await assert.rejects(async () => {
    for await (const _ of failed);
  }, /rejected/);
});

/** A client of a server that returns these responses, one after the other. */
function client(responses) {
  const requests = [];
  const fetch = async (url, init) => {
    requests.push({ url, body: init.body && JSON.parse(init.body), token: init.headers.authorization });
    const [status, body, headers] = responses.shift() ?? [200, {}];
    if (status === 0) throw new TypeError('fetch failed');
    return new Response(JSON.stringify(body), { status, headers });
  };
  let tokens = 0;
  const token = () => `token ${(tokens += 1)}`;
  return { requests, client: connect({ baseUrl: 'http://there', token, fetch, timing: { backoff: 2 } }) };
}

test('a send is repeated with the same clientMessageId after transient errors', async () => {
  const busy = { status: 429, code: 'too_many_requests' };
  const { client: subject, requests } = client([[0], [502, 'bad gateway'], [429, busy, { 'retry-after': '0' }], [201, { seq: 4 }]]);
  assert.deepEqual(await subject.send('ride_1', 'hello'), { seq: 4 });
  const ids = new Set(requests.map(({ body }) => body.clientMessageId));
  assert.deepEqual([requests.length, ids.size], [4, 1]);
});

test('a send respects Retry-After, its deadline and its signal', async () => {
  const busy = [503, { code: 'unavailable' }, { 'retry-after': '60' }];
  const { client: subject } = client([busy, busy]);
  await assert.rejects(subject.send('r', 'x', { timeout: 100 }), { status: 503, code: 'unavailable', retryAfter: 60_000 });
  const controller = new AbortController();
  const sending = subject.send('r', 'x', { timeout: 120_000, signal: controller.signal });
  controller.abort();
  await assert.rejects(sending, { name: 'AbortError' });
});

test('a permanent error is thrown and not repeated', async () => {
  const problem = { code: 'invalid_request', detail: 'no', errors: [{ pointer: '/content' }], requestId: 'r1' };
  const { client: subject, requests } = client([[400, problem]]);
  await assert.rejects(subject.send('r', ''), { name: 'RidewireError', status: 400, ...problem });
  assert.equal(requests.length, 1);
});

test('a token is requested once, and again after a 401; a second 401 is final', async () => {
  const rejected = [401, { code: 'token_expired' }];
  const { client: subject, requests } = client([[200, {}], rejected, [200, {}], rejected, rejected]);
  await subject.unread();
  await subject.unread();
  await assert.rejects(subject.unread(), { status: 401 });
  const tokens = requests.map(({ token }) => token.replace('Bearer token ', ''));
  assert.deepEqual(tokens, ['1', '1', '2', '2', '3']);
});
