import assert from 'node:assert/strict';

import { sleep } from '../../clients/js/src/backoff.js';
import { EventCollector, sendNumbers } from '../../clients/js/test/event-collector.js';
import { startProxy } from '../../clients/js/test/proxy.js';
import { newRide, token } from '../../clients/js/test/server.js';
import { CUT_POSITIONS, rejectTimes, injectFaults } from './faults.js';

/** Texts that are easily corrupted: quotes, backslashes, characters of four bytes, U+2028. */
const SENT_TEXTS = ['I am "here" \\ now', 'naïve 🚕', '{"id":"x"}'];
const RECEIVED_TEXT = 'one\u2028line\u0085still';

/** Returns the messages of the log in the format that the programs print. */
export async function printedLog(client, rideId) {
  const { messages, hasMore } = await client.history(rideId, { after: 0, limit: 200 });
  assert.equal(hasMore, false);
  return messages.map(({ seq, senderId, content }) => `${seq} ${senderId}: ${content}`);
}

/**
 * A driver's chat with connection resets, lost responses, 502 responses of a proxy, a server that stops, and the end of the
 * ride. The chat must print the log, each message once and in order. Each line of input must be sent once.
 *
 * @param {{replica: () => Promise<{url: string, stop: () => Promise<void>}>, url: string}} server with a grace of a second
 * @param {(at: {url: string, rideId: string, token: string}) => Promise<import('./program.js').Program>} start
 */
export async function survivesAllFaults(server, start) {
  const replica = await server.replica();
  const { done, forwardResponse } = injectFaults();
  const proxy = await startProxy(replica.url, { forwardResponse });
  const { rideId, rider } = await newRide(server);
  const follower = new EventCollector(rider.ride(rideId));
  await follower.became('live');
  await sendNumbers(rider, rideId, 1, 4);

  const chat = await start({ url: proxy.url, rideId, token: token('driver_1', 'driver') });
  await chat.waitForLine(': 1');
  const sending = sendNumbers(rider, rideId, 5, 15);
  for (const line of SENT_TEXTS) await chat.send(line);
  await sending;
  await rider.send(rideId, RECEIVED_TEXT);
  await chat.waitForLine(RECEIVED_TEXT);
  for (const line of SENT_TEXTS) await chat.waitForLine(line);
  assert.equal(done.cuts, CUT_POSITIONS.length, 'connections that were reset');
  assert.equal(done.lost.size, SENT_TEXTS.length, 'responses that were lost');

  const rejected = rejectTimes(proxy, 2);
  await sendNumbers(rider, rideId, 16, 20);
  await rejected;
  await chat.waitForLine(': 20');

  proxy.target = server.url;
  await Promise.all([replica.stop(), sendNumbers(rider, rideId, 21, 25)]);
  const last = await rider.send(rideId, 'the last');
  await chat.waitForLine('the last');
  const isRead = ({ type, data }) => type === 'message:read' && data.userId === 'driver_1' && data.seq === last.seq;
  await follower.until('a read receipt for the last message', () => follower.durable.some(isRead));

  await rider.cancel(rideId);
  await chat.waitForEnd();
  const log = await printedLog(rider, rideId);
  assert.deepEqual(await chat.lines(), log);
  const sent = log.filter((line) => line.includes(' driver_1: ')).map((line) => line.replace(/^\d+ driver_1: /, ''));
  assert.deepEqual(sent, SENT_TEXTS);
}

/** The same for clients that only read. */
export async function readsThroughAllFaults(server, start) {
  const replica = await server.replica();
  const { done, forwardResponse } = injectFaults();
  const proxy = await startProxy(replica.url, { forwardResponse });
  const { rideId, rider, service } = await newRide(server);
  await sendNumbers(service, rideId, 1, 4);
  const chat = await start({ url: proxy.url, rideId, token: token('driver_1', 'driver') });
  await chat.waitForLine(': 1');
  await sendNumbers(service, rideId, 5, 15);
  await chat.waitForLine(': 15');
  assert.equal(done.cuts, CUT_POSITIONS.length, 'connections that were reset');

  proxy.target = server.url;
  await Promise.all([replica.stop(), sendNumbers(service, rideId, 16, 20)]);
  await service.send(rideId, RECEIVED_TEXT);
  await chat.waitForLine(RECEIVED_TEXT);

  const rejected = rejectTimes(proxy, 2);
  await sendNumbers(service, rideId, 21, 25);
  await rejected;
  await chat.waitForLine(': 25');

  await rider.cancel(rideId);
  await chat.waitForEnd();
  assert.deepEqual(await chat.lines(), await printedLog(rider, rideId));
}

/** Revokes the token of a running client, which has no other one. */
let tokens = 0;
export async function endsWhenTokenIsRevoked(server, start) {
  tokens += 1;
  const driverId = `driver_with_token_${tokens}`;
  const { rideId, rider, service } = await newRide(server, { driverId });
  await rider.send(rideId, 'hello');
  const chat = await start({ url: server.url, rideId, token: token(driverId, 'driver') });
  await chat.waitForLine('hello');
  await service.request('POST', `/users/${driverId}/revoke`);
  await chat.waitForRejection();
}

/** Replaces the driver, whose client must end and print no later message. */
export async function endsWhenDriverIsReplaced(server, start) {
  const { rideId, rider, service } = await newRide(server);
  await rider.send(rideId, 'hello');
  const chat = await start({ url: server.url, rideId, token: token('driver_1', 'driver') });
  await chat.waitForLine('hello');
  await service.request('PUT', `/rides/${rideId}`, { body: { riderId: 'rider_1', driverId: 'driver_2' } });
  await rider.send(rideId, 'not for you');
  await chat.waitForEnd();
  assert.deepEqual((await chat.lines()).map((line) => line.replace(/^\d+ /, '')), ['rider_1: hello']);
}

/** Settings with a short retention of logs. */
export const SHORT_RETENTION = {
  RIDEWIRE_CHAT_GRACE: '200ms',
  RIDEWIRE_LOG_RETENTION: '200ms',
  RIDEWIRE_RETENTION_PERIOD: '200ms',
};

/** Reads a ride whose log has expired. */
export async function reportsGap(shortRetention, start) {
  const { rideId, rider, service } = await newRide(shortRetention);
  await sendNumbers(rider, rideId, 1, 3);
  await rider.cancel(rideId);
  const query = { after: 0, wait: 0 };
  const gap = async () => (await service.request('GET', `/messages/rides/${rideId}/poll`, { query })).gap;
  while (!(await gap())) await sleep(50);
  const chat = await start({ url: shortRetention.url, rideId, token: token('driver_1', 'driver') });
  await chat.reported('no longer kept: ');
  await chat.waitForEnd();
}
