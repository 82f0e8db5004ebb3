/** Subscriptions deliver the log in order and once, whatever is between the client and the server. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { sleep } from '../src/backoff.js';
import { EventSource } from './event-source.js';
import { EventCollector, sendNumbers } from './event-collector.js';
import { hasNginx, startNginx } from './nginx.js';
import { buffer, closeProxies, cutAfter, cutEvery, isStream, pass, replay, stallAfter, startProxy } from './proxy.js';
import { newRide, startServer, token } from './server.js';

let server;
before(async () => {
  server = await startServer();
});
after(async () => {
  EventCollector.closeAll();
  closeProxies();
  await server.stop();
});

/** Long timeouts, so that a slow machine is not mistaken for a buffering proxy or a dead stream. */
const timing = { sync: 60_000, trial: 600, silence: 60_000, heartbeat: 5, backoff: 50, wait: 5 };
/** For tests with a buffering proxy, or with a dead stream. */
const SHORT_SYNC = { sync: 2_500 };
const SHORT_SILENCE = { silence: 1_000 };

/** The implementations that read a stream. */
const READERS = { fetch: { EventSource: null, timing }, EventSource: { EventSource, timing } };

/** Runs a test with each implementation: a subscription from the beginning of a ride, through a proxy. */
function eachReader(name, run, handlers = () => ({}), timings = {}) {
  for (const [reader, options] of Object.entries(READERS)) {
    test(`${name} (${reader})`, async () => {
      const proxy = await startProxy(server.url, handlers());
      const ride = await newRide(server);
      const settings = { ...options, timing: { ...timing, ...timings } };
      const collector = new EventCollector(ride.driver(settings, proxy.url).ride(ride.rideId, { after: 0 }));
      await run({ proxy, collector, ...ride });
      await collector.assertHasLog(ride.service, ride.rideId);
    });
  }
}

describe('a subscription to a ride delivers its log in order and once,', { concurrency: true }, () => {
  eachReader('without a proxy fault', async ({ collector, rider, rideId }) => {
    await collector.became('live');
    await sendNumbers(rider, rideId, 1, 20);
    await collector.received(20);
    assert.deepEqual(collector.states, ['live']);
    assert.equal(collector.subscription.cursor, '21');
  });

  eachReader('behind a buffering proxy: with polls, and with a stream after it stops buffering', async ({ proxy, collector, rider, rideId }) => {
    const sending = sendNumbers(rider, rideId, 1, 40);
    await collector.became('polling');
    await collector.received(20);
    proxy.forwardResponse = pass;
    await collector.became('live');
    await sending;
    await sendNumbers(rider, rideId, 41, 50);
    await collector.received(50);
    assert.deepEqual(collector.states, ['polling', 'live']);
  }, () => ({ forwardResponse: buffer }), SHORT_SYNC);

  eachReader('behind a proxy that cuts streams in the middle of a frame', async ({ proxy, collector, rider, rideId }) => {
    await sendNumbers(rider, rideId, 1, 30);
    await collector.received(30);
    const streams = proxy.requests.filter((line) => line.endsWith('/events'));
    assert.ok(streams.length > 1, proxy.requests.join());
  }, () => ({ forwardResponse: cutAfter(3) }));

  eachReader('behind a proxy that cuts every three seconds', async ({ proxy, collector, rider, rideId }) => {
    const streams = () => proxy.requests.filter((line) => line.endsWith('/events')).length;
    let number = 0;
    while (streams() < 4) {
      number += 1;
      await sendNumbers(rider, rideId, number, number);
      await sleep(250);
    }
    await collector.received(number);
    assert.ok(!collector.states.includes('polling'), collector.states.join());
  }, () => ({ forwardResponse: cutEvery(3_000) }));

  for (const [reader, options] of Object.entries(READERS)) {
    test(`behind nginx with buffering, and after it stops buffering (${reader})`, { skip: !hasNginx && 'nginx is not installed' }, async () => {
      const nginx = await startNginx(server.url);
      try {
        const { rideId, driver, rider, service } = await newRide(server);
        const settings = { ...options, timing: { ...timing, ...SHORT_SYNC } };
        const collector = new EventCollector(driver(settings, nginx.url).ride(rideId, { after: 0 }));
        const sending = sendNumbers(rider, rideId, 1, 20);
        await collector.became('polling');
        await collector.received(20);
        await sending;
        await nginx.setBuffering(false);
        await collector.became('live');
        await sendNumbers(rider, rideId, 21, 30);
        await collector.received(30);
        await collector.assertHasLog(service, rideId);
      } finally {
        await nginx.stop();
      }
    });
  }

  eachReader('when all connections are cut while messages arrive', async ({ proxy, collector, rider, rideId }) => {
    await collector.became('live');
    for (let from = 1; from <= 30; from += 10) {
      const sending = sendNumbers(rider, rideId, from, from + 9);
      await collector.received(from + 4);
      proxy.cut();
      await sending;
    }
    await collector.received(30);
  });

  eachReader('after a proxy has returned 502 for a while', async ({ proxy, collector, rider, rideId }) => {
    await collector.became('live');
    let refused = 0;
    const awake = new Promise((resolve) => {
      proxy.intercept = (_, res) => {
        refused += 1;
        if (refused > 5) resolve();
        res.writeHead(502).end('<h1>Bad gateway</h1>');
        return true;
      };
    });
    proxy.cut();
    await sendNumbers(rider, rideId, 1, 10);
    await awake;
    proxy.intercept = undefined;
    await sendNumbers(rider, rideId, 11, 20);
    await collector.received(20);
    assert.ok(collector.states.includes('offline'), collector.states.join());
  });

  eachReader('when a proxy forwards polls and rejects streams', async ({ collector, rider, rideId }) => {
    await collector.became('polling');
    await sendNumbers(rider, rideId, 1, 10);
    await collector.received(10);
  }, () => ({
    intercept: (req, res) => req.url.includes('/events') && res.writeHead(502).end(),
  }));

  eachReader('when a stream goes silent without an end', async ({ proxy, collector, rider, rideId }) => {
    await collector.became('live');
    await sendNumbers(rider, rideId, 1, 20);
    // The silence reveals the lost message, not a later message.
    proxy.forwardResponse = pass;
    await collector.received(20);
    assert.ok(!collector.states.includes('polling'));
  }, () => ({ forwardResponse: stallAfter(8) }), SHORT_SILENCE);

  eachReader('from a proxy that repeats the last frames', async ({ collector, proxy, rider, rideId }) => {
    await collector.became('live');
    await sendNumbers(rider, rideId, 1, 15);
    await collector.received(15);
    proxy.cut();
    await sendNumbers(rider, rideId, 16, 30);
    await collector.received(30);
  }, () => ({ forwardResponse: replay(3) }));

  eachReader('when one replica is killed and another takes over', async ({ proxy, collector, rider, rideId }) => {
    const replica = await server.replica();
    proxy.target = replica.url;
    proxy.cut();
    await collector.became('live');
    const sending = sendNumbers(rider, rideId, 1, 30);
    await collector.received(10);
    await replica.kill();
    proxy.target = server.url;
    await sending;
    await collector.received(30);
  });

  eachReader('when a replica stops', async ({ proxy, collector, rider, rideId }) => {
    const replica = await server.replica();
    proxy.target = replica.url;
    proxy.cut();
    await collector.became('live');
    const sending = sendNumbers(rider, rideId, 1, 30);
    await collector.received(10);
    proxy.target = server.url;
    await replica.stop();
    await sending;
    await collector.received(30);
  });

  for (const [reader, options] of Object.entries(READERS)) {
    test(`after its token has expired (${reader})`, async () => {
      // On a busy machine a token may expire before its request arrives, and the next one too. The subscription then ends, correctly.
      for (const ttl of [1, 5, 25]) {
        const { rideId, driver, rider, service } = await newRide(server);
        let count = 0;
        const tokens = () => token('driver_1', 'driver', (count += 1) > 2 ? 60 : ttl);
        const collector = new EventCollector(driver({ ...options, token: tokens }).ride(rideId, { after: 0 }));
        let error;
        collector.subscription.on('error', (thrown) => (error = thrown));
        await collector.until('live', () => collector.subscription.state === 'live' || error);
        const sending = sendNumbers(rider, rideId, 1, 30);
        await collector.until('two more tokens', () => count > 2 || error);
        await sending;
        await sendNumbers(rider, rideId, 31, 40);
        await collector.until('message 40', () => collector.contents.includes('40') || error);
        if (!error) return collector.assertHasLog(service, rideId);
        assert.equal(error.code, 'token_expired');
      }
      assert.fail('tokens of 25 seconds expired before their requests arrived');
    });
  }

  test('with polls only', async () => {
    const { rideId, driver, rider, service } = await newRide(server);
    const collector = new EventCollector(driver({ transport: 'poll' }).ride(rideId, { after: 0 }));
    await sendNumbers(rider, rideId, 1, 30);
    await collector.received(30);
    assert.deepEqual(collector.states, ['polling']);
    await collector.assertHasLog(service, rideId);
  });
});

describe('a merged subscription', { concurrency: true }, () => {
  for (const [reader, options] of Object.entries(READERS)) {
    test(`delivers each ride's log once over streams, polls and cuts (${reader})`, async () => {
      const proxy = await startProxy(server.url, { forwardResponse: cutAfter(12) });
      const driverId = `driver_of_all_${reader}`;
      const [first, second] = [await newRide(server, { driverId }), await newRide(server, { driverId })];
      const settings = { ...options, timing: { ...timing, ...SHORT_SYNC }, token: () => token(driverId, 'driver') };
      const driver = first.driver(settings, proxy.url);
      const collector = new EventCollector(driver.all({ after: 0, types: ['message:*', 'ride:*'] }));
      const both = async (from, to) => {
        await Promise.all([first, second].map(({ rider, rideId }) => sendNumbers(rider, rideId, from, to)));
        await collector.until(`both ${to}`, () => collector.contents.filter((content) => content === `${to}`).length === 2);
      };
      await both(1, 10);
      proxy.forwardResponse = buffer;
      proxy.cut();
      await collector.became('polling');
      await both(11, 20);
      proxy.forwardResponse = pass;
      await collector.became('live');
      await both(21, 30);
      const expected = Array.from({ length: 30 }, (_, index) => String(index + 1));
      for (const { rideId } of [first, second]) {
        const ofRide = collector.durable.filter(({ type, data }) => type === 'message:new' && data.rideId === rideId);
        assert.deepEqual(ofRide.map(({ data }) => data.content), expected);
      }
    });
  }
});

describe('a subscription', { concurrency: true }, () => {
  test('delivers events without an id', async () => {
    for (const options of Object.values(READERS)) {
      const { rideId, driver, rider } = await newRide(server);
      const collector = new EventCollector(driver(options).ride(rideId));
      await collector.became('live');
      const typing = new Promise((resolve) => collector.subscription.on('typing:indicator', resolve));
      await rider.typing(rideId, true);
      const { id, data } = await typing;
      assert.deepEqual([id, data], [undefined, { rideId, userId: 'rider_1', typing: true }]);
    }
  });

  test('ends with a typed error if its user has no access', async () => {
    const { driver, rideId } = await newRide(server);
    for (const options of [...Object.values(READERS), { transport: 'poll' }]) {
      const read = async (client) => {
        for await (const _ of client.ride(rideId));
      };
      const stranger = driver({ ...options, token: () => token('stranger', 'driver') });
      await assert.rejects(read(stranger), { name: 'RidewireError', status: 404, code: 'ride_not_found' });
      await assert.rejects(read(driver({ ...options, token: () => 'nonsense' })), { status: 401 });
    }
  });

  test('ends when the ride is closed, and does not reconnect', async () => {
    const replica = await server.replica({ RIDEWIRE_CHAT_GRACE: '1s' });
    for (const options of [...Object.values(READERS), { transport: 'poll', timing }]) {
      const { rideId, driver, rider } = await newRide(replica);
      const collector = new EventCollector(driver(options, replica.url).ride(rideId, { after: 0, types: ['message:new', 'ride:*'] }));
      const closed = new Promise((resolve) => collector.subscription.on('closed', resolve));
      await rider.send(rideId, 'bye');
      await rider.cancel(rideId);
      assert.deepEqual(await closed, { reason: 'ride_over' });
      const types = collector.durable.map(({ type }) => type);
      assert.deepEqual(types, ['ride:participants', 'message:new', 'ride:cancel']);
      assert.equal(collector.subscription.state, 'closed');
      // A subscription from the end of the log receives only `closed`.
      const again = new EventCollector(driver(options, replica.url).ride(rideId, { after: collector.subscription.cursor }));
      const closedAgain = new Promise((resolve) => again.subscription.on('closed', resolve));
      assert.deepEqual(await closedAgain, { reason: 'ride_over' });
    }
  });

  test('ends when its user is removed from the ride', async () => {
    for (const options of [...Object.values(READERS), { transport: 'poll', timing }]) {
      const { rideId, driver, service } = await newRide(server);
      const collector = new EventCollector(driver(options).ride(rideId, { after: 0 }));
      await collector.until('a sync', () => collector.syncs.length > 0);
      const closed = new Promise((resolve) => collector.subscription.on('closed', resolve));
      await service.request('PUT', `/rides/${rideId}`, { body: { riderId: 'rider_1', driverId: 'driver_2' } });
      assert.deepEqual(await closed, { reason: 'removed' });
      assert.equal(collector.durable.at(-1).type, 'ride:participants');
    }
  });

  test('leaves no connection open when it is closed, and delivers nothing', async () => {
    const { rideId, driver, rider } = await newRide(server);
    const before = EventSource.instances.length;
    const collector = new EventCollector(driver(READERS.EventSource).ride(rideId));
    await collector.became('live');
    collector.subscription.on('message:new', () => collector.subscription.close());
    await sendNumbers(rider, rideId, 1, 3);
    await collector.became('closed');
    assert.ok(collector.durable.length <= 1);
    assert.ok(EventSource.instances.slice(before).every(({ url, readyState }) => !url.includes(rideId) || readyState === 2));
  });

  test('keeps polling behind a buffering proxy, and tries the stream less and less often', async () => {
    const proxy = await startProxy(server.url, {
      forwardResponse: (req, res, response) => (isStream(response) ? undefined : pass(req, res, response)),
    });
    const { rideId, driver, rider } = await newRide(server);
    const quick = { ...timing, sync: 100, trial: 100, longestTrial: 100_000 };
    // When each attempt starts, by the client's clock.
    const at = [];
    const noting = (url, init) => {
      if (url.includes('/events')) at.push(performance.now());
      return fetch(url, init);
    };
    const options = { EventSource: null, timing: quick, random: () => 1, fetch: noting };
    const collector = new EventCollector(driver(options, proxy.url).ride(rideId));
    while (at.length < 5) {
      await rider.send(rideId, 'wakes the poll');
      await collector.until('an event', () => collector.durable.length > 0);
    }
    // No attempt starts too early, even on a slow machine: each delay is twice the previous one.
    const pauses = at.slice(1).map((time, index) => time - at[index]);
    for (const [index, pause] of pauses.entries()) assert.ok(pause >= 100 * 2 ** index - 5, pauses.join());
  });
});
