/** A ticket is replaced before it expires, even if the application temporarily has no token. */
import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';

import { sleep } from '../src/backoff.js';
import { connect } from '../src/index.js';
import { EventCollector } from './event-collector.js';

const timing = { renewal: 400, backoff: 1 };

/** A server whose tickets are valid for `ttls` milliseconds each, and the sources that were opened with them. */
function begin({ ttls, token }) {
  const sources = [];
  class Source extends EventTarget {
    readyState = 1;
    constructor(url) {
      super();
      sources.push(this);
      this.query = new URL(url).searchParams;
      queueMicrotask(() => this.deliver('stream:sync', { cursor: '1', resumed: true, gap: null, state: {} }));
    }
    close() {
      this.readyState = 2;
    }
    deliver(type, data) {
      this.dispatchEvent(Object.assign(new Event(type), { data: JSON.stringify(data), lastEventId: '1' }));
    }
  }
  const bearers = [];
  const fetch = async (url, { headers }) => {
    bearers.push(headers.authorization);
    const ends = new Date(Date.now() + ttls[bearers.length - 1]);
    return Response.json({ ticket: `ticket ${bearers.length}`, expiresAt: ends.toISOString() });
  };
  const client = connect({ baseUrl: 'http://there', token, fetch, EventSource: Source, timing });
  return { sources, bearers, collector: new EventCollector(client.ride('ride_1', { after: 1 })) };
}

function numberedTokens() {
  let count = 0;
  return () => `token ${(count += 1)}`;
}

afterEach(() => EventCollector.closeAll());

test('the next ticket is requested before one expires, and the stream continues with it', async () => {
  const { sources, bearers, collector } = begin({ ttls: [1_500, 3_600_000], token: numberedTokens() });
  await collector.until('a second stream', () => collector.syncs.length === 2);
  assert.deepEqual(sources.map(({ query }) => query.get('ticket')), ['ticket 1', 'ticket 2']);
  assert.deepEqual(bearers, ['Bearer token 1', 'Bearer token 2']);
  assert.deepEqual(sources.map(({ readyState }) => readyState), [2, 1]);
  assert.equal(sources[1].query.get('after'), '1');
});

test('without another token a stream continues until the server ends it', async () => {
  const tokens = [() => 'token 1', () => Promise.reject(new Error('unavailable')), () => 'token 2'];
  const requestTimes = [];
  const { sources, bearers, collector } = begin({ ttls: [1_500, 3_600_000], token: () => (requestTimes.push(Date.now()), tokens.shift()()) });
  await collector.until('a sync', () => collector.syncs.length === 1);
  while (requestTimes.length < 2) await sleep(10);
  await sleep(50);
  assert.deepEqual([sources.length, sources[0].readyState], [1, 1]);
  sources[0].deliver('auth:expired', { reason: 'token_expired' });
  await collector.until('a second stream', () => collector.syncs.length === 2);
  assert.deepEqual(bearers, ['Bearer token 1', 'Bearer token 2']);
});

test('a token that does not expire later does not interrupt the stream', async () => {
  const { sources, bearers, collector } = begin({ ttls: [1_500, 300], token: numberedTokens() });
  await collector.until('a sync', () => collector.syncs.length === 1);
  while (bearers.length < 2) await sleep(10);
  await sleep(50);
  assert.deepEqual([sources.length, sources[0].readyState], [1, 1]);
});
