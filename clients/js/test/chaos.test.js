/** Many faults at once, in random order. */
import { after, before, test } from 'node:test';

import { sleep } from '../src/backoff.js';
import { EventSource } from './event-source.js';
import { EventCollector } from './event-collector.js';
import { buffer, closeProxies, cutAfter, pass, stallAfter, startProxy } from './proxy.js';
import { newRide, startServer, token } from './server.js';

const DURATION = 4_000;

let server;
before(async () => {
  server = await startServer();
});
after(async () => {
  EventCollector.closeAll();
  closeProxies();
  await server.stop();
});

/** Returns a pseudorandom number generator: the same numbers for the same seed (mulberry32). */
function seeded(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

test('logs are delivered in order and once through many faults', async (t) => {
  const seed = Number(process.env.RIDEWIRE_SEED ?? Date.now() % 1_000_000);
  t.diagnostic(`RIDEWIRE_SEED=${seed}`);
  const random = seeded(seed);
  const upTo = (limit) => Math.floor(random() * limit);
  const timing = { sync: 400, trial: 200, longestTrial: 500, silence: 600, heartbeat: 5, backoff: 20, longestBackoff: 200, wait: 1 };

  const rides = [await newRide(server), await newRide(server)];
  const collectors = [];
  for (const implementation of [null, EventSource]) {
    for (const isOneRide of [true, false]) {
      const proxy = await startProxy(server.url);
      // Tokens expire all the time, too.
      const driver = rides[0].driver({ EventSource: implementation, timing, token: () => token('driver_1', 'driver', 3 + upTo(3)) }, proxy.url);
      const subscription = isOneRide ? driver.ride(rides[0].rideId, { after: 0 }) : driver.all({ after: 0 });
      collectors.push({ proxy, rides: isOneRide ? rides.slice(0, 1) : rides, collector: new EventCollector(subscription) });
    }
  }

  // Random faults need not switch a subscription to polls, nor back to a stream. So this test forces both.
  const haveAll = (state) => Promise.all(collectors.map(({ collector }) => collector.became(state)));
  for (const { proxy } of collectors) proxy.forwardResponse = buffer;
  await haveAll('polling');

  const ends = Date.now() + DURATION;
  const intercept = (_, res) => res.writeHead([429, 502, 503][upTo(3)], { 'retry-after': '0' }).end();
  const injectFaults = async () => {
    while (Date.now() < ends) {
      for (const { proxy } of collectors) {
        proxy.forwardResponse = [pass, pass, buffer, cutAfter(1 + upTo(8)), stallAfter(1 + upTo(20))][upTo(5)];
        proxy.intercept = random() < 0.2 ? intercept : undefined;
        if (random() < 0.5) proxy.cut();
      }
      await sleep(250);
    }
    for (const { proxy } of collectors) Object.assign(proxy, { forwardResponse: pass, intercept: undefined });
  };
  const sendMessages = async ({ rider, rideId }) => {
    for (let number = 1; Date.now() < ends; number += 1) {
      const { id } = await rider.send(rideId, `${number}`);
      if (number % 5 === 0) await rider.edit(id, { content: `edited ${number}` });
    }
    await rider.send(rideId, 'the end');
  };
  await Promise.all([injectFaults(), ...rides.map(sendMessages)]);

  for (const { collector, rides: followed } of collectors) {
    const hasEnded = () => collector.contents.filter((content) => content === 'the end').length === followed.length;
    await collector.until('the end', hasEnded);
    for (const { rideId, service } of followed) await collector.assertHasLog(service, rideId);
  }
  await haveAll('live');
});
