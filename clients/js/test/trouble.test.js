/** Followers get the log in order and once each, whatever lies between them and the server. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { sleep } from '../src/backoff.js';
import { EventSource } from './event-source.js';
import { Follower, sendNumbers } from './follower.js';
import { hasNginx, startNginx } from './nginx.js';
import { buffer, closeProxies, cutAfter, cutEvery, isStream, pass, replay, stallAfter, startProxy } from './proxy.js';
import { newRide, startServer, token } from './server.js';

let server;
before(async () => {
  server = await startServer();
});
after(async () => {
  Follower.closeAll();
  closeProxies();
  await server.stop();
});

/** So patient that a slow machine is never taken for a proxy that buffers, nor for a stream that has died. */
const timing = { sync: 60_000, trial: 600, silence: 60_000, heartbeat: 5, backoff: 50, wait: 5 };
/** For tests in which a stream does sit in a buffer, or does die. */
const SUSPICIOUS = { sync: 2_500 };
const WATCHFUL = { silence: 1_000 };

/** The ways to read a stream. */
const WAYS = { fetch: { EventSource: null, timing }, EventSource: { EventSource, timing } };

/** A test with each way, through a proxy, of a follower from the beginning of a ride. */
function eachWay(name, run, treatments = () => ({}), timings = {}) {
  for (const [way, options] of Object.entries(WAYS)) {
    test(`${name} (${way})`, async () => {
      const proxy = await startProxy(server.url, treatments());
      const people = await newRide(server);
      const its = { ...options, timing: { ...timing, ...timings } };
      const follower = new Follower(people.driver(its, proxy.url).ride(people.rideId, { after: 0 }));
      await run({ proxy, follower, ...people });
      await follower.hasTheLogOf(people.service, people.rideId);
    });
  }
}

describe('a follower of a ride has its log, in order and once,', { concurrency: true }, () => {
  eachWay('where nothing is in the way', async ({ follower, rider, rideId }) => {
    await follower.became('live');
    await sendNumbers(rider, rideId, 1, 20);
    await follower.got(20);
    assert.deepEqual(follower.states, ['live']);
    assert.equal(follower.subscription.cursor, '21');
  });

  eachWay('behind a proxy that buffers: by polls, and by a stream again when it stops', async ({ proxy, follower, rider, rideId }) => {
    const sending = sendNumbers(rider, rideId, 1, 40);
    await follower.became('polling');
    await follower.got(20);
    proxy.treat = pass;
    await follower.became('live');
    await sending;
    await sendNumbers(rider, rideId, 41, 50);
    await follower.got(50);
    assert.deepEqual(follower.states, ['polling', 'live']);
  }, () => ({ treat: buffer }), SUSPICIOUS);

  eachWay('behind a proxy that cuts streams in the middle of a frame', async ({ proxy, follower, rider, rideId }) => {
    await sendNumbers(rider, rideId, 1, 30);
    await follower.got(30);
    const streams = proxy.requests.filter((line) => line.endsWith('/events'));
    assert.ok(streams.length > 1, proxy.requests.join());
  }, () => ({ treat: cutAfter(3) }));

  eachWay('behind a proxy that cuts every three seconds', async ({ proxy, follower, rider, rideId }) => {
    const streams = () => proxy.requests.filter((line) => line.endsWith('/events')).length;
    let number = 0;
    while (streams() < 4) {
      number += 1;
      await sendNumbers(rider, rideId, number, number);
      await sleep(250);
    }
    await follower.got(number);
    assert.ok(!follower.states.includes('polling'), follower.states.join());
  }, () => ({ treat: cutEvery(3_000) }));

  for (const [way, options] of Object.entries(WAYS)) {
    test(`behind nginx that buffers, and when it no longer does (${way})`, { skip: !hasNginx && 'there is no nginx' }, async () => {
      const nginx = await startNginx(server.url);
      try {
        const { rideId, driver, rider, service } = await newRide(server);
        const its = { ...options, timing: { ...timing, ...SUSPICIOUS } };
        const follower = new Follower(driver(its, nginx.url).ride(rideId, { after: 0 }));
        const sending = sendNumbers(rider, rideId, 1, 20);
        await follower.became('polling');
        await follower.got(20);
        await sending;
        await nginx.setBuffering(false);
        await follower.became('live');
        await sendNumbers(rider, rideId, 21, 30);
        await follower.got(30);
        await follower.hasTheLogOf(service, rideId);
      } finally {
        await nginx.stop();
      }
    });
  }

  eachWay('when all connections are cut while messages come', async ({ proxy, follower, rider, rideId }) => {
    await follower.became('live');
    for (let from = 1; from <= 30; from += 10) {
      const sending = sendNumbers(rider, rideId, from, from + 9);
      await follower.got(from + 4);
      proxy.cut();
      await sending;
    }
    await follower.got(30);
  });

  eachWay('after a proxy has answered 502 for a while', async ({ proxy, follower, rider, rideId }) => {
    await follower.became('live');
    let refused = 0;
    const awake = new Promise((resolve) => {
      proxy.refuse = (_, res) => {
        refused += 1;
        if (refused > 5) resolve();
        res.writeHead(502).end('<h1>Bad gateway</h1>');
        return true;
      };
    });
    proxy.cut();
    await sendNumbers(rider, rideId, 1, 10);
    await awake;
    proxy.refuse = undefined;
    await sendNumbers(rider, rideId, 11, 20);
    await follower.got(20);
    assert.ok(follower.states.includes('offline'), follower.states.join());
  });

  eachWay('where a proxy lets polls through and refuses streams', async ({ follower, rider, rideId }) => {
    await follower.became('polling');
    await sendNumbers(rider, rideId, 1, 10);
    await follower.got(10);
  }, () => ({
    refuse: (req, res) => req.url.includes('/events') && res.writeHead(502).end(),
  }));

  eachWay('when a stream goes silent without an end', async ({ proxy, follower, rider, rideId }) => {
    await follower.became('live');
    await sendNumbers(rider, rideId, 1, 20);
    // What is lost is found by the silence, not by a message that comes later.
    proxy.treat = pass;
    await follower.got(20);
    assert.ok(!follower.states.includes('polling'));
  }, () => ({ treat: stallAfter(8) }), WATCHFUL);

  eachWay('from a proxy that says the last frames again and again', async ({ follower, proxy, rider, rideId }) => {
    await follower.became('live');
    await sendNumbers(rider, rideId, 1, 15);
    await follower.got(15);
    proxy.cut();
    await sendNumbers(rider, rideId, 16, 30);
    await follower.got(30);
  }, () => ({ treat: replay(3) }));

  eachWay('when one replica is killed and another takes over', async ({ proxy, follower, rider, rideId }) => {
    const replica = await server.replica();
    proxy.target = replica.url;
    proxy.cut();
    await follower.became('live');
    const sending = sendNumbers(rider, rideId, 1, 30);
    await follower.got(10);
    await replica.kill();
    proxy.target = server.url;
    await sending;
    await follower.got(30);
  });

  eachWay('when a replica stops', async ({ proxy, follower, rider, rideId }) => {
    const replica = await server.replica();
    proxy.target = replica.url;
    proxy.cut();
    await follower.became('live');
    const sending = sendNumbers(rider, rideId, 1, 30);
    await follower.got(10);
    proxy.target = server.url;
    await replica.stop();
    await sending;
    await follower.got(30);
  });

  for (const [way, options] of Object.entries(WAYS)) {
    test(`beyond the end of its token (${way})`, async () => {
      const { rideId, driver, rider, service } = await newRide(server);
      let asked = 0;
      const tokens = () => token('driver_1', 'driver', (asked += 1) > 2 ? 60 : 1);
      const follower = new Follower(driver({ ...options, token: tokens }).ride(rideId, { after: 0 }));
      await follower.became('live');
      const sending = sendNumbers(rider, rideId, 1, 30);
      await follower.until('two more tokens', () => asked > 2);
      await sending;
      await sendNumbers(rider, rideId, 31, 40);
      await follower.got(40);
      await follower.hasTheLogOf(service, rideId);
    });
  }

  test('by polls alone', async () => {
    const { rideId, driver, rider, service } = await newRide(server);
    const follower = new Follower(driver({ transport: 'poll' }).ride(rideId, { after: 0 }));
    await sendNumbers(rider, rideId, 1, 30);
    await follower.got(30);
    assert.deepEqual(follower.states, ['polling']);
    await follower.hasTheLogOf(service, rideId);
  });
});

describe('a follower of everything', { concurrency: true }, () => {
  for (const [way, options] of Object.entries(WAYS)) {
    test(`gets each ride's log once over streams, polls and cuts (${way})`, async () => {
      const proxy = await startProxy(server.url, { treat: cutAfter(12) });
      const driverId = `driver_of_all_${way}`;
      const [first, second] = [await newRide(server, { driverId }), await newRide(server, { driverId })];
      const its = { ...options, timing: { ...timing, ...SUSPICIOUS }, token: () => token(driverId, 'driver') };
      const driver = first.driver(its, proxy.url);
      const follower = new Follower(driver.all({ after: 0, types: ['message:*', 'ride:*'] }));
      const both = async (from, to) => {
        await Promise.all([first, second].map(({ rider, rideId }) => sendNumbers(rider, rideId, from, to)));
        await follower.until(`both ${to}`, () => follower.contents.filter((said) => said === `${to}`).length === 2);
      };
      await both(1, 10);
      proxy.treat = buffer;
      proxy.cut();
      await follower.became('polling');
      await both(11, 20);
      proxy.treat = pass;
      await follower.became('live');
      await both(21, 30);
      const said = Array.from({ length: 30 }, (_, index) => String(index + 1));
      for (const { rideId } of [first, second]) {
        const ofRide = follower.durable.filter(({ type, data }) => type === 'message:new' && data.rideId === rideId);
        assert.deepEqual(ofRide.map(({ data }) => data.content), said);
      }
    });
  }
});

describe('a subscription', { concurrency: true }, () => {
  test('tells of what has no id as well', async () => {
    for (const options of Object.values(WAYS)) {
      const { rideId, driver, rider } = await newRide(server);
      const follower = new Follower(driver(options).ride(rideId));
      await follower.became('live');
      const typing = new Promise((resolve) => follower.subscription.on('typing:indicator', resolve));
      await rider.typing(rideId, true);
      const { id, data } = await typing;
      assert.deepEqual([id, data], [undefined, { rideId, userId: 'rider_1', typing: true }]);
    }
  });

  test('ends with a typed error where there is nothing for its user', async () => {
    const { driver, rideId } = await newRide(server);
    for (const options of [...Object.values(WAYS), { transport: 'poll' }]) {
      const read = async (client) => {
        for await (const _ of client.ride(rideId));
      };
      const stranger = driver({ ...options, token: () => token('stranger', 'driver') });
      await assert.rejects(read(stranger), { name: 'RidewireError', status: 404, code: 'ride_not_found' });
      await assert.rejects(read(driver({ ...options, token: () => 'nonsense' })), { status: 401 });
    }
  });

  test('ends when the ride is over for good, and does not come back', async () => {
    const replica = await server.replica({ RIDEWIRE_CHAT_GRACE: '1s' });
    for (const options of [...Object.values(WAYS), { transport: 'poll', timing }]) {
      const { rideId, driver, rider } = await newRide(replica);
      const follower = new Follower(driver(options, replica.url).ride(rideId, { after: 0, types: ['message:new', 'ride:*'] }));
      const closed = new Promise((resolve) => follower.subscription.on('closed', resolve));
      await rider.send(rideId, 'bye');
      await rider.cancel(rideId);
      assert.deepEqual(await closed, { reason: 'ride_over' });
      const types = follower.durable.map(({ type }) => type);
      assert.deepEqual(types, ['ride:participants', 'message:new', 'ride:cancel']);
      assert.equal(follower.subscription.state, 'closed');
      // At its end there is only the end.
      const again = new Follower(driver(options, replica.url).ride(rideId, { after: follower.subscription.cursor }));
      const closedAgain = new Promise((resolve) => again.subscription.on('closed', resolve));
      assert.deepEqual(await closedAgain, { reason: 'ride_over' });
    }
  });

  test('ends when its user is taken off the ride', async () => {
    for (const options of [...Object.values(WAYS), { transport: 'poll', timing }]) {
      const { rideId, driver, service } = await newRide(server);
      const follower = new Follower(driver(options).ride(rideId, { after: 0 }));
      await follower.until('a sync', () => follower.syncs.length > 0);
      const closed = new Promise((resolve) => follower.subscription.on('closed', resolve));
      await service.request('PUT', `/rides/${rideId}`, { body: { riderId: 'rider_1', driverId: 'driver_2' } });
      assert.deepEqual(await closed, { reason: 'removed' });
      assert.equal(follower.durable.at(-1).type, 'ride:participants');
    }
  });

  test('leaves no connection behind when it is closed, and hands nothing over', async () => {
    const { rideId, driver, rider } = await newRide(server);
    const before = EventSource.made.length;
    const follower = new Follower(driver(WAYS.EventSource).ride(rideId));
    await follower.became('live');
    follower.subscription.on('message:new', () => follower.subscription.close());
    await sendNumbers(rider, rideId, 1, 3);
    await follower.became('closed');
    assert.ok(follower.durable.length <= 1);
    assert.ok(EventSource.made.slice(before).every(({ url, readyState }) => !url.includes(rideId) || readyState === 2));
  });

  test('polls on where a proxy buffers, and tries the stream less and less often', async () => {
    const proxy = await startProxy(server.url, {
      treat: (req, res, answer) => (isStream(answer) ? undefined : pass(req, res, answer)),
    });
    const { rideId, driver, rider } = await newRide(server);
    const quick = { ...timing, sync: 100, trial: 100, longestTrial: 100_000 };
    // When each begins, as the client has it.
    const at = [];
    const noting = (url, init) => {
      if (url.includes('/events')) at.push(performance.now());
      return fetch(url, init);
    };
    const options = { EventSource: null, timing: quick, random: () => 1, fetch: noting };
    const follower = new Follower(driver(options, proxy.url).ride(rideId));
    while (at.length < 5) {
      await rider.send(rideId, 'wakes the poll, so that it is time to look');
      await follower.until('an answer', () => follower.durable.length > 0);
    }
    // None begins too early, however late a slow machine lets it: each pause is twice the one before.
    const pauses = at.slice(1).map((time, index) => time - at[index]);
    for (const [index, pause] of pauses.entries()) assert.ok(pause >= 100 * 2 ** index - 5, pauses.join());
  });
});
