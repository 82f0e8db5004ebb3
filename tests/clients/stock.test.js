/** What others have written to follow event streams, with the handlers of docs/stock-clients and without them. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { Follower, sendNumbers } from '../../clients/js/test/follower.js';
import { closeProxies, cutAfter, startProxy } from '../../clients/js/test/proxy.js';
import { newRide, startServer, token } from '../../clients/js/test/server.js';
import { Program } from './program.js';
import { endsWithItsLogin, endsWithItsRights, followsThroughEverything } from './scenario.js';
import { answering, callingBack, refusing, troubles } from './troubles.js';

/** Python with what requirements.txt names: unset where scripts/quickstarts.sh could not have it. */
const { RIDEWIRE_PYTHON } = process.env;
const NODE_MODULES = new URL('../../docs/stock-clients/node_modules', import.meta.url);
const withoutPackages = !existsSync(NODE_MODULES) && 'npm has not installed what docs/stock-clients needs';
const withoutPython = !RIDEWIRE_PYTHON && 'httpx-sse is not installed';

let server;
before(async () => {
  const env = { RIDEWIRE_CHAT_GRACE: '1s', RIDEWIRE_HEARTBEAT: '1s' };
  server = await startServer(env);
  const replica = server.replica;
  server.replica = () => replica(env);
});
after(async () => {
  await Program.endAll();
  Follower.closeAll();
  closeProxies();
  await server.stop();
});

/** A client as it comes, on a ride with five messages. */
async function newFive() {
  const people = await newRide(server);
  await sendNumbers(people.rider, people.rideId, 1, 5);
  const path = `/api/v1/messages/rides/${people.rideId}/events?after=0`;
  return { ...people, path, TOKEN: token('driver_1', 'driver') };
}

const EXAMPLES = {
  eventsource: [process.execPath, 'stock-clients/eventsource.js', withoutPackages],
  'httpx-sse': [RIDEWIRE_PYTHON, 'stock-clients/httpx_sse_follow.py', withoutPython],
};

describe('a stock client with handlers', { concurrency: 4 }, () => {
  for (const [name, [command, file, skip]] of Object.entries(EXAMPLES)) {
    const start = async ({ url, rideId, token: TOKEN }) => {
      return new Program({ command, args: [file] }, { SERVER: url, RIDE: rideId, TOKEN });
    };
    test(`has the log, in order and once: ${name}`, { skip }, () => followsThroughEverything(server, start));
    test(`ends with its login: ${name}`, { skip }, () => endsWithItsLogin(server, start));
    test(`ends with its rights: ${name}`, { skip }, () => endsWithItsRights(server, start));
  }
});

describe('eventsource as it comes', { concurrency: true, skip: withoutPackages }, () => {
  const { EventSource } = withoutPackages ? {} : createRequire(NODE_MODULES)('eventsource');

  test('is closed for good by a 502, where the JavaScript client makes another', async () => {
    const { rider, driver, rideId, service, path } = await newFive();
    const [bare, ours] = [await startProxy(server.url), await startProxy(server.url)];
    const { ticket } = await driver().request('POST', '/stream-tickets', { body: { rideId } });
    const source = new EventSource(`${bare.url}${path}&ticket=${ticket}`);
    await once(source, 'open');
    const closed = new Promise((resolve) => {
      source.onerror = ({ code }) => source.readyState === EventSource.CLOSED && resolve(code);
    });
    const follower = new Follower(driver({ EventSource }, ours.url).ride(rideId, { after: 0 }));
    await follower.became('live');

    await Promise.all([refusing(bare, 1), refusing(ours, 1)]);
    assert.equal(await closed, 502);
    await follower.until('another stream', () => follower.syncs.length > 1);
    await sendNumbers(rider, rideId, 6, 10);
    await follower.got(10);
    await follower.hasTheLogOf(service, rideId);
    // Meanwhile the other has not asked again, though it would have been let through.
    assert.equal(bare.requests.length, 2, bare.requests.join());
    assert.equal(source.readyState, EventSource.CLOSED);
  });

  test('says which status has closed it', async () => {
    for (const status of [204, 401, 502]) {
      const source = new EventSource((await startProxy(server.url, answering(status))).url);
      const [{ code }] = await once(source, 'error');
      assert.deepEqual([code, source.readyState], [status, EventSource.CLOSED]);
    }
  });

  test('comes back from an end when it was asked to', async () => {
    const treatment = callingBack(4_000);
    const source = new EventSource((await startProxy(server.url, treatment)).url);
    const pauses = await treatment.pauses;
    source.close();
    // Left to itself it would have come back after three seconds.
    assert.ok(Math.min(...pauses) > 3_900, pauses.join());
  });

  test('gives the JavaScript client the log, in order and once, through connections that are reset', async () => {
    const { driver, rideId, rider, service } = await newFive();
    const { done, treat } = troubles();
    const proxy = await startProxy(server.url, { treat });
    const follower = new Follower(driver({ EventSource }, proxy.url).ride(rideId, { after: 0 }));
    await sendNumbers(rider, rideId, 6, 10);
    await follower.got(10);
    assert.equal(done.cuts, 2);
    await follower.hasTheLogOf(service, rideId);
  });
});

describe('httpx-sse as it comes', { concurrency: true, skip: withoutPython }, () => {
  const BARE = { command: RIDEWIRE_PYTHON, args: [fileURLToPath(new URL('bare.py', import.meta.url))] };
  const bare = (url, TOKEN) => new Program(BARE, { URL: url, TOKEN });

  test('hands out a comment as an event without data, and ends when the server ends', async () => {
    const { path, TOKEN } = await newFive();
    const replica = await server.replica();
    const program = bare(replica.url + path, TOKEN);
    await program.printed('message without data');
    await replica.stop();
    await program.printed('ended');
  });

  test('throws at a cut', async () => {
    const { path, TOKEN } = await newFive();
    const { treat } = troubles();
    await bare((await startProxy(server.url, { treat })).url + path, TOKEN).printed('ReadError');
    const cut = { treat: cutAfter(0) };
    await bare((await startProxy(server.url, cut)).url + path, TOKEN).printed('RemoteProtocolError');
  });

  test('throws at what is no stream', async () => {
    for (const status of [204, 401, 502]) {
      const proxy = await startProxy(server.url, answering(status));
      await bare(proxy.url, 'any').printed('SSEError');
    }
  });

  test('throws at a silence of five seconds', async () => {
    const { path, TOKEN } = await newFive();
    await bare(`${server.url}${path}&heartbeat=60`, TOKEN).printed('ReadTimeout');
  });
});

describe('curl as it comes', { concurrency: true }, () => {
  const curl = (url, TOKEN) => {
    return new Program({ command: 'curl', args: ['-sSNf', url, '-H', `Authorization: Bearer ${TOKEN}`] }, {});
  };

  test('tells a reset, a cut, an end and a refusal by its exit status, and comes back from none', async () => {
    const { path, TOKEN, rider, rideId } = await newFive();
    const through = async (treatments) => {
      const proxy = await startProxy(server.url, treatments);
      return { proxy, status: await curl(proxy.url + path, TOKEN).exited };
    };
    const reset = await through({ treat: troubles().treat });
    const cut = await through({ treat: cutAfter(0) });
    const unwell = await through(answering(502));
    const refused = await through(answering(401));
    await rider.cancel(rideId);
    const ended = await through({});
    const over = await through(answering(204));
    const all = { reset, cut, unwell, refused, ended, over };
    const statuses = Object.fromEntries(Object.entries(all).map(([what, { status }]) => [what, status]));
    assert.deepEqual(statuses, { reset: 56, cut: 18, unwell: 22, refused: 22, ended: 0, over: 0 });
    for (const { proxy } of Object.values(all)) assert.equal(proxy.requests.length, 1);
  });
});
