import assert from 'node:assert/strict';

import { sleep } from '../../clients/js/src/backoff.js';
import { Follower, sendNumbers } from '../../clients/js/test/follower.js';
import { startProxy } from '../../clients/js/test/proxy.js';
import { newRide, token } from '../../clients/js/test/server.js';
import { PLACES, refusing, troubles } from './troubles.js';

/** What is said with what may not be broken on the way: quotes, backslashes, characters of four bytes, U+2028. */
const SAID = ['I am "here" \\ now', 'naïve 🚕', '{"id":"x"}'];
const HEARD = 'one\u2028line\u0085still';

/** Each message of the log, as the programs print it. */
export async function printedLog(client, rideId) {
  const { messages, hasMore } = await client.history(rideId, { after: 0, limit: 200 });
  assert.equal(hasMore, false);
  return messages.map(({ seq, senderId, content }) => `${seq} ${senderId}: ${content}`);
}

/**
 * A driver's chat through connections that are reset, answers that are lost, a proxy that refuses, a server that stops, and
 * the end of the ride. What it shows is the log, each message once and in order; what it was told to send is there once.
 *
 * @param {{replica: () => Promise<{url: string, stop: () => Promise<void>}>, url: string}} server with a grace of a second
 * @param {(at: {url: string, rideId: string, token: string}) => Promise<import('./program.js').Program>} start
 */
export async function goesThroughEverything(server, start) {
  const replica = await server.replica();
  const { done, treat } = troubles();
  const proxy = await startProxy(replica.url, { treat });
  const { rideId, rider } = await newRide(server);
  const follower = new Follower(rider.ride(rideId));
  await follower.became('live');
  await sendNumbers(rider, rideId, 1, 4);

  const chat = await start({ url: proxy.url, rideId, token: token('driver_1', 'driver') });
  await chat.printed(': 1');
  const sending = sendNumbers(rider, rideId, 5, 15);
  for (const line of SAID) await chat.say(line);
  await sending;
  await rider.send(rideId, HEARD);
  await chat.printed(HEARD);
  for (const line of SAID) await chat.printed(line);
  assert.equal(done.cuts, PLACES.length, 'connections that were reset');
  assert.equal(done.lost.size, SAID.length, 'answers that were lost');

  const refused = refusing(proxy, 2);
  await sendNumbers(rider, rideId, 16, 20);
  await refused;
  await chat.printed(': 20');

  proxy.target = server.url;
  await Promise.all([replica.stop(), sendNumbers(rider, rideId, 21, 25)]);
  const last = await rider.send(rideId, 'the last');
  await chat.printed('the last');
  const isRead = ({ type, data }) => type === 'message:read' && data.userId === 'driver_1' && data.seq === last.seq;
  await follower.until('a mark on the last', () => follower.durable.some(isRead));

  await rider.cancel(rideId);
  await chat.isOver();
  const log = await printedLog(rider, rideId);
  assert.deepEqual(await chat.lines(), log);
  const said = log.filter((line) => line.includes(' driver_1: ')).map((line) => line.replace(/^\d+ driver_1: /, ''));
  assert.deepEqual(said, SAID);
}

/** The same for what follows and does not write. */
export async function followsThroughEverything(server, start) {
  const replica = await server.replica();
  const { done, treat } = troubles();
  const proxy = await startProxy(replica.url, { treat });
  const { rideId, rider, service } = await newRide(server);
  await sendNumbers(service, rideId, 1, 4);
  const chat = await start({ url: proxy.url, rideId, token: token('driver_1', 'driver') });
  await chat.printed(': 1');
  await sendNumbers(service, rideId, 5, 15);
  await chat.printed(': 15');
  assert.equal(done.cuts, PLACES.length, 'connections that were reset');

  proxy.target = server.url;
  await Promise.all([replica.stop(), sendNumbers(service, rideId, 16, 20)]);
  await service.send(rideId, HEARD);
  await chat.printed(HEARD);

  const refused = refusing(proxy, 2);
  await sendNumbers(service, rideId, 21, 25);
  await refused;
  await chat.printed(': 25');

  await rider.cancel(rideId);
  await chat.isOver();
  assert.deepEqual(await chat.lines(), await printedLog(rider, rideId));
}

/** A login that is ended while it is used, and has no other to follow it. */
let logins = 0;
export async function endsWithItsLogin(server, start) {
  logins += 1;
  const driverId = `driver_of_login_${logins}`;
  const { rideId, rider, service } = await newRide(server, { driverId });
  await rider.send(rideId, 'hello');
  const chat = await start({ url: server.url, rideId, token: token(driverId, 'driver') });
  await chat.printed('hello');
  await service.request('POST', `/users/${driverId}/revoke`);
  await chat.isRefused();
}

/** A driver who is replaced sees that it happens, and nothing after it. */
export async function endsWithItsRights(server, start) {
  const { rideId, rider, service } = await newRide(server);
  await rider.send(rideId, 'hello');
  const chat = await start({ url: server.url, rideId, token: token('driver_1', 'driver') });
  await chat.printed('hello');
  await service.request('PUT', `/rides/${rideId}`, { body: { riderId: 'rider_1', driverId: 'driver_2' } });
  await rider.send(rideId, 'not for you');
  await chat.isOver();
  assert.deepEqual((await chat.lines()).map((line) => line.replace(/^\d+ /, '')), ['rider_1: hello']);
}

/** The settings of a server whose logs are soon gone. */
export const FORGETFUL = {
  RIDEWIRE_CHAT_GRACE: '200ms',
  RIDEWIRE_LOG_RETENTION: '200ms',
  RIDEWIRE_RETENTION_PERIOD: '200ms',
};

/** A ride whose log has been taken by retention. */
export async function tellsWhatIsNoLongerKept(forgetful, start) {
  const { rideId, rider, service } = await newRide(forgetful);
  await sendNumbers(rider, rideId, 1, 3);
  await rider.cancel(rideId);
  const query = { after: 0, wait: 0 };
  const gap = async () => (await service.request('GET', `/messages/rides/${rideId}/poll`, { query })).gap;
  while (!(await gap())) await sleep(50);
  const chat = await start({ url: forgetful.url, rideId, token: token('driver_1', 'driver') });
  await chat.told('no longer kept: ');
  await chat.isOver();
}
