/** All troubles at once, in any order: what a single one does not show. */
import { after, before, test } from 'node:test';

import { sleep } from '../src/backoff.js';
import { EventSource } from './event-source.js';
import { Follower } from './follower.js';
import { buffer, closeProxies, cutAfter, pass, stallAfter, startProxy } from './proxy.js';
import { newRide, startServer, token } from './server.js';

const LASTS = 4_000;

let server;
before(async () => {
  server = await startServer();
});
after(async () => {
  Follower.closeAll();
  closeProxies();
  await server.stop();
});

/** Numbers that look random, and are the same for the same seed (mulberry32). */
function seeded(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

test('logs are followed in order and once through one trouble after the other', async (t) => {
  const seed = Number(process.env.RIDEWIRE_SEED ?? Date.now() % 1_000_000);
  t.diagnostic(`RIDEWIRE_SEED=${seed}`);
  const random = seeded(seed);
  const upTo = (limit) => Math.floor(random() * limit);
  const timing = { sync: 400, trial: 200, longestTrial: 500, silence: 600, heartbeat: 5, backoff: 20, longestBackoff: 200, wait: 1 };

  const rides = [await newRide(server), await newRide(server)];
  const followers = [];
  for (const way of [null, EventSource]) {
    for (const isOneRide of [true, false]) {
      const proxy = await startProxy(server.url);
      // Tokens end as well, all the time.
      const driver = rides[0].driver({ EventSource: way, timing, token: () => token('driver_1', 'driver', 3 + upTo(3)) }, proxy.url);
      const subscription = isOneRide ? driver.ride(rides[0].rideId, { after: 0 }) : driver.all({ after: 0 });
      followers.push({ proxy, rides: isOneRide ? rides.slice(0, 1) : rides, follower: new Follower(subscription) });
    }
  }

  // Both ways belong to it, and chance need not bring a follower to polls, nor back to a stream: that is seen to here.
  const haveAll = (state) => Promise.all(followers.map(({ follower }) => follower.became(state)));
  for (const { proxy } of followers) proxy.treat = buffer;
  await haveAll('polling');

  const ends = Date.now() + LASTS;
  const refuse = (_, res) => res.writeHead([429, 502, 503][upTo(3)], { 'retry-after': '0' }).end();
  const trouble = async () => {
    while (Date.now() < ends) {
      for (const { proxy } of followers) {
        proxy.treat = [pass, pass, buffer, cutAfter(1 + upTo(8)), stallAfter(1 + upTo(20))][upTo(5)];
        proxy.refuse = random() < 0.2 ? refuse : undefined;
        if (random() < 0.5) proxy.cut();
      }
      await sleep(250);
    }
    for (const { proxy } of followers) Object.assign(proxy, { treat: pass, refuse: undefined });
  };
  const talk = async ({ rider, rideId }) => {
    for (let number = 1; Date.now() < ends; number += 1) {
      const { id } = await rider.send(rideId, `${number}`);
      if (number % 5 === 0) await rider.edit(id, { content: `edited ${number}` });
    }
    await rider.send(rideId, 'the end');
  };
  await Promise.all([trouble(), ...rides.map(talk)]);

  for (const { follower, rides: followed } of followers) {
    const theEnd = () => follower.contents.filter((content) => content === 'the end').length === followed.length;
    await follower.until('the end', theEnd);
    for (const { rideId, service } of followed) await follower.hasTheLogOf(service, rideId);
  }
  await haveAll('live');
});
