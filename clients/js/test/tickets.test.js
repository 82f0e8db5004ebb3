/** A ticket is renewed before it ends, and whoever gives tokens may be away just then. */
import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';

import { sleep } from '../src/backoff.js';
import { connect } from '../src/index.js';
import { Follower } from './follower.js';

const timing = { renewal: 400, backoff: 1 };

/** A server whose tickets hold for so many milliseconds each, and the sources that were opened with them. */
function begin({ lives, token }) {
  const sources = [];
  class Source extends EventTarget {
    readyState = 1;
    constructor(url) {
      super();
      sources.push(this);
      this.query = new URL(url).searchParams;
      queueMicrotask(() => this.say('stream:sync', { cursor: '1', resumed: true, gap: null, state: {} }));
    }
    close() {
      this.readyState = 2;
    }
    say(type, data) {
      this.dispatchEvent(Object.assign(new Event(type), { data: JSON.stringify(data), lastEventId: '1' }));
    }
  }
  const bearers = [];
  const fetch = async (url, { headers }) => {
    bearers.push(headers.authorization);
    const ends = new Date(Date.now() + lives[bearers.length - 1]);
    return Response.json({ ticket: `ticket ${bearers.length}`, expiresAt: ends.toISOString() });
  };
  const client = connect({ baseUrl: 'http://there', token, fetch, EventSource: Source, timing });
  return { sources, bearers, follower: new Follower(client.ride('ride_1', { after: 1 })) };
}

function numbered() {
  let asked = 0;
  return () => `token ${(asked += 1)}`;
}

afterEach(() => Follower.closeAll());

test('the next one is there before one ends, and the stream goes on with it', async () => {
  const { sources, bearers, follower } = begin({ lives: [1_500, 3_600_000], token: numbered() });
  await follower.until('a second stream', () => follower.syncs.length === 2);
  assert.deepEqual(sources.map(({ query }) => query.get('ticket')), ['ticket 1', 'ticket 2']);
  assert.deepEqual(bearers, ['Bearer token 1', 'Bearer token 2']);
  assert.deepEqual(sources.map(({ readyState }) => readyState), [2, 1]);
  assert.equal(sources[1].query.get('after'), '1');
});

test('without another token a stream goes on until the server ends it', async () => {
  const given = [() => 'token 1', () => Promise.reject(new Error('away')), () => 'token 2'];
  const asked = [];
  const { sources, bearers, follower } = begin({ lives: [1_500, 3_600_000], token: () => (asked.push(Date.now()), given.shift()()) });
  await follower.until('a sync', () => follower.syncs.length === 1);
  while (asked.length < 2) await sleep(10);
  await sleep(50);
  assert.deepEqual([sources.length, sources[0].readyState], [1, 1]);
  sources[0].say('auth:expired', { reason: 'token_expired' });
  await follower.until('a second stream', () => follower.syncs.length === 2);
  assert.deepEqual(bearers, ['Bearer token 1', 'Bearer token 2']);
});

test('a login that does not last longer cuts nothing off', async () => {
  const { sources, bearers, follower } = begin({ lives: [1_500, 300], token: numbered() });
  await follower.until('a sync', () => follower.syncs.length === 1);
  while (bearers.length < 2) await sleep(10);
  await sleep(50);
  assert.deepEqual([sources.length, sources[0].readyState], [1, 1]);
});
