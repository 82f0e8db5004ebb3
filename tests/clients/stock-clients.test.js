/** Third-party event stream clients, with the handlers of docs/how-to/stock-clients and without them. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { EventCollector, sendNumbers } from '../../clients/js/test/event-collector.js';
import { closeProxies, cutAfter, startProxy } from '../../clients/js/test/proxy.js';
import { newRide, startServer, token } from '../../clients/js/test/server.js';
import { Program } from './program.js';
import { endsWhenTokenIsRevoked, endsWhenDriverIsReplaced, readsThroughAllFaults } from './scenario.js';
import { respondWith, respondWithRetry, rejectTimes, injectFaults } from './faults.js';

/** Python with the packages of requirements.txt. Unset if scripts/quickstarts.sh could not install them. */
const { RIDEWIRE_PYTHON } = process.env;
const NODE_MODULES = new URL('../../docs/how-to/stock-clients/node_modules', import.meta.url);
const missingPackages = !existsSync(NODE_MODULES) && 'the packages of docs/how-to/stock-clients are not installed';
const missingPython = !RIDEWIRE_PYTHON && 'httpx-sse is not installed';

let server;
before(async () => {
  const env = { RIDEWIRE_CHAT_GRACE: '1s', RIDEWIRE_HEARTBEAT: '1s' };
  server = await startServer(env);
  const replica = server.replica;
  server.replica = () => replica(env);
});
after(async () => {
  await Program.killAll();
  EventCollector.closeAll();
  closeProxies();
  await server.stop();
});

/** Creates a ride with five messages. Returns the path of its stream and a token. */
async function newRideWithFiveMessages() {
  const ride = await newRide(server);
  await sendNumbers(ride.rider, ride.rideId, 1, 5);
  const path = `/api/v1/messages/rides/${ride.rideId}/events?after=0`;
  return { ...ride, path, TOKEN: token('driver_1', 'driver') };
}

const EXAMPLES = {
  eventsource: [process.execPath, 'how-to/stock-clients/eventsource.js', missingPackages],
  'httpx-sse': [RIDEWIRE_PYTHON, 'how-to/stock-clients/httpx_sse_follow.py', missingPython],
};

describe('a stock client with handlers', { concurrency: 4 }, () => {
  for (const [name, [command, file, skip]] of Object.entries(EXAMPLES)) {
    const start = async ({ url, rideId, token: TOKEN }) => {
      return new Program({ command, args: [file] }, { SERVER: url, RIDE: rideId, TOKEN });
    };
    test(`prints the log, in order and once: ${name}`, { skip }, () => readsThroughAllFaults(server, start));
    test(`ends when its token is revoked: ${name}`, { skip }, () => endsWhenTokenIsRevoked(server, start));
    test(`ends when the driver is replaced: ${name}`, { skip }, () => endsWhenDriverIsReplaced(server, start));
  }
});

describe('eventsource without handlers', { concurrency: true, skip: missingPackages }, () => {
  const { EventSource } = missingPackages ? {} : createRequire(NODE_MODULES)('eventsource');

  test('is closed permanently by a 502; the JavaScript client opens another one', async () => {
    const { rider, driver, rideId, service, path } = await newRideWithFiveMessages();
    const [plain, jsProxy] = [await startProxy(server.url), await startProxy(server.url)];
    const { ticket } = await driver().request('POST', '/stream-tickets', { body: { rideId } });
    const source = new EventSource(`${plain.url}${path}&ticket=${ticket}`);
    await once(source, 'open');
    const closed = new Promise((resolve) => {
      source.onerror = ({ code }) => source.readyState === EventSource.CLOSED && resolve(code);
    });
    const follower = new EventCollector(driver({ EventSource }, jsProxy.url).ride(rideId, { after: 0 }));
    await follower.became('live');

    await Promise.all([rejectTimes(plain, 1), rejectTimes(jsProxy, 1)]);
    assert.equal(await closed, 502);
    await follower.until('another stream', () => follower.syncs.length > 1);
    await sendNumbers(rider, rideId, 6, 10);
    await follower.received(10);
    await follower.assertHasLog(service, rideId);
    // The plain client has not sent another request, although the proxy would have forwarded it.
    assert.equal(plain.requests.length, 2, plain.requests.join());
    assert.equal(source.readyState, EventSource.CLOSED);
  });

  test('reports the status that has closed it', async () => {
    for (const status of [204, 401, 502]) {
      const source = new EventSource((await startProxy(server.url, respondWith(status))).url);
      const [{ code }] = await once(source, 'error');
      assert.deepEqual([code, source.readyState], [status, EventSource.CLOSED]);
    }
  });

  test('reconnects after the given delay when a stream ends', async () => {
    const treatment = respondWithRetry(4_000);
    const source = new EventSource((await startProxy(server.url, treatment)).url);
    const pauses = await treatment.pauses;
    source.close();
    // By default it would reconnect after three seconds.
    assert.ok(Math.min(...pauses) > 3_900, pauses.join());
  });

  test('gives the JavaScript client the log, in order and once, despite connection resets', async () => {
    const { driver, rideId, rider, service } = await newRideWithFiveMessages();
    const { done, forwardResponse } = injectFaults();
    const proxy = await startProxy(server.url, { forwardResponse });
    const follower = new EventCollector(driver({ EventSource }, proxy.url).ride(rideId, { after: 0 }));
    await sendNumbers(rider, rideId, 6, 10);
    await follower.received(10);
    assert.equal(done.cuts, 2);
    await follower.assertHasLog(service, rideId);
  });
});

describe('httpx-sse without handlers', { concurrency: true, skip: missingPython }, () => {
  const PLAIN = { command: RIDEWIRE_PYTHON, args: [fileURLToPath(new URL('httpx_sse_plain.py', import.meta.url))] };
  const plain = (url, TOKEN) => new Program(PLAIN, { URL: url, TOKEN });

  test('returns a comment as an event without data, and ends when the server ends the stream', async () => {
    const { path, TOKEN } = await newRideWithFiveMessages();
    const replica = await server.replica();
    const program = plain(replica.url + path, TOKEN);
    await program.waitForLine('message without data');
    await replica.stop();
    await program.waitForLine('ended');
  });

  test('throws if the connection is cut', async () => {
    const { path, TOKEN } = await newRideWithFiveMessages();
    const { forwardResponse } = injectFaults();
    await plain((await startProxy(server.url, { forwardResponse })).url + path, TOKEN).waitForLine('ReadError');
    const cut = { forwardResponse: cutAfter(0) };
    await plain((await startProxy(server.url, cut)).url + path, TOKEN).waitForLine('RemoteProtocolError');
  });

  test('throws if the response is not a stream', async () => {
    for (const status of [204, 401, 502]) {
      const proxy = await startProxy(server.url, respondWith(status));
      await plain(proxy.url, 'any').waitForLine('SSEError');
    }
  });

  test('throws after five seconds without bytes', async () => {
    const { path, TOKEN } = await newRideWithFiveMessages();
    await plain(`${server.url}${path}&heartbeat=60`, TOKEN).waitForLine('ReadTimeout');
  });
});

describe('curl without a loop', { concurrency: true }, () => {
  const curl = (url, TOKEN) => {
    return new Program({ command: 'curl', args: ['-sSNf', url, '-H', `Authorization: Bearer ${TOKEN}`] }, {});
  };

  test('reports a reset, a cut, an end and a rejection by its exit status, and never reconnects', async () => {
    const { path, TOKEN, rider, rideId } = await newRideWithFiveMessages();
    const through = async (handlers) => {
      const proxy = await startProxy(server.url, handlers);
      return { proxy, status: await curl(proxy.url + path, TOKEN).exited };
    };
    const reset = await through({ forwardResponse: injectFaults().forwardResponse });
    const cut = await through({ forwardResponse: cutAfter(0) });
    const badGateway = await through(respondWith(502));
    const rejected = await through(respondWith(401));
    await rider.cancel(rideId);
    const ended = await through({});
    const noContent = await through(respondWith(204));
    const all = { reset, cut, badGateway, rejected, ended, noContent };
    const statuses = Object.fromEntries(Object.entries(all).map(([what, { status }]) => [what, status]));
    assert.deepEqual(statuses, { reset: 56, cut: 18, badGateway: 22, rejected: 22, ended: 0, noContent: 0 });
    for (const { proxy } of Object.values(all)) assert.equal(proxy.requests.length, 1);
  });
});
