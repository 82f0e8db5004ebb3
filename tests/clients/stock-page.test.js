/**
 * What follows in browsers, in Chromium: `@microsoft/fetch-event-source` as docs/stock-clients uses it and as it comes, and
 * the browser's own `EventSource`.
 */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';

import { Follower, sendNumbers } from '../../clients/js/test/follower.js';
import { closeProxies, startProxy } from '../../clients/js/test/proxy.js';
import { newRide, startServer, token } from '../../clients/js/test/server.js';
import { Page, serveDocs } from './page.js';
import { endsWithItsLogin, endsWithItsRights, followsThroughEverything } from './scenario.js';
import { PLACES, answering, callingBack, troubles } from './troubles.js';

const NAME = '@microsoft/fetch-event-source';
const isThere = existsSync(new URL(`../../docs/stock-clients/node_modules/${NAME}`, import.meta.url));
const skip = !(process.env.CHROMIUM && isThere) && `Chromium or ${NAME} is not installed`;

const IMPORTS = { [NAME]: `/stock-clients/node_modules/${NAME}/lib/esm/index.js` };
const PAGE = `<!doctype html>
  <script type="importmap">${JSON.stringify({ imports: IMPORTS })}</script>
  <ol id="messages"></ol>
  <p id="status"></p>`;

let docs;
let server;
let browser;
before(async () => {
  if (skip) return;
  docs = await serveDocs({ '/page.html': PAGE });
  const env = { RIDEWIRE_CHAT_GRACE: '1s', RIDEWIRE_HEARTBEAT: '1s', RIDEWIRE_CORS_ORIGINS: docs.url };
  server = await startServer(env);
  const replica = server.replica;
  server.replica = () => replica(env);
  browser = await (await import('../../web/test/browser.js')).launch();
});
after(async () => {
  await browser?.close();
  Follower.closeAll();
  closeProxies();
  docs?.close();
  await server?.stop();
});

/** A page in which this function follows. */
async function start(at, follow) {
  const page = await browser.newPage();
  await page.goto(`${docs.url}/page.html`);
  await page.evaluate(() => {
    globalThis.say = (what) => (document.getElementById('status').textContent = what);
    globalThis.show = ({ seq, senderId, content }) => {
      const item = document.createElement('li');
      item.textContent = `${seq} ${senderId}: ${content}`;
      document.getElementById('messages').append(item);
    };
  });
  await page.evaluate(follow, at);
  return new Page(page);
}

async function withHandlers({ url, rideId, token }) {
  const { follow } = await import('/stock-clients/fetch-event-source.js');
  follow({ server: url, ride: rideId, token: () => token, onMessage: globalThis.show }).then(
    (reason) => globalThis.say(`the end: ${reason}`),
    ({ message }) => globalThis.say(message === '401' ? 'sign in again' : message),
  );
}

async function asItComes({ url, rideId, token }) {
  const { fetchEventSource } = await import('@microsoft/fetch-event-source');
  const stream = fetchEventSource(`${url}/api/v1/messages/rides/${rideId}/events?after=0`, {
    headers: { authorization: `Bearer ${token}` },
    onmessage({ event, data }) {
      if (data === '') globalThis.say('an empty message');
      if (event === 'message:new') globalThis.show(JSON.parse(data));
    },
  });
  stream.then(() => globalThis.say('it has resolved'));
}

describe('fetch-event-source with handlers', { concurrency: true, skip }, () => {
  const chat = (at) => start(at, withHandlers);
  test('has the log, in order and once', () => followsThroughEverything(server, chat));
  test('ends with its login', () => endsWithItsLogin(server, chat));
  test('ends with its rights', () => endsWithItsRights(server, chat));
});

describe('fetch-event-source as it comes', { concurrency: true, skip }, () => {
  test('loses the event behind whose id it was cut, where the handlers keep it', async () => {
    for (const [follow, kept] of [[asItComes, ['1', '2', '4', '5']], [withHandlers, ['1', '2', '3', '4', '5']]]) {
      const { rider, rideId } = await newRide(server);
      await sendNumbers(rider, rideId, 1, 5);
      const { done, treat } = troubles({ places: PLACES.slice(0, 1), holds: true });
      const proxy = await startProxy(server.url, { treat });
      const page = await start({ url: proxy.url, rideId, token: token('driver_1', 'driver') }, follow);
      // What came with the second is read then: the id of the third.
      await page.printed(': 2');
      done.reset();
      await page.printed(': 5');
      assert.deepEqual((await page.lines()).map((line) => line.split(': ')[1]), kept);
    }
  });

  test('does not come back from an end', async () => {
    const replica = await server.replica();
    const { rider, rideId } = await newRide(server);
    await rider.send(rideId, 'hello');
    const proxy = await startProxy(replica.url);
    const page = await start({ url: proxy.url, rideId, token: token('driver_1', 'driver') }, asItComes);
    await page.printed('hello');
    await page.told('an empty message'); // It is what a comment was.
    const asked = proxy.requests.length;
    proxy.target = server.url;
    await replica.stop();
    await page.told('it has resolved');
    assert.equal(proxy.requests.length, asked, proxy.requests.join());
  });

  test('asks again and again where it is refused', async () => {
    for (const status of [204, 401, 502]) {
      const proxy = await startProxy(server.url);
      const thrice = new Promise((resolve) => {
        const { refuse } = answering(status);
        proxy.refuse = (req, res) => {
          if (proxy.requests.filter((line) => line.startsWith('GET')).length === 3) resolve();
          return refuse(req, res);
        };
      });
      const page = await start({ url: proxy.url, rideId: 'any', token: 'any' }, asItComes);
      await thrice;
      await page.page.close();
    }
  });

  test('comes back when it was asked to, where an end is made an error', async () => {
    const treatment = callingBack(2_000);
    const proxy = await startProxy(server.url, treatment);
    const page = await start({ url: proxy.url }, async ({ url }) => {
      const { fetchEventSource } = await import('@microsoft/fetch-event-source');
      fetchEventSource(url, {
        onclose() {
          throw new Error('ended');
        },
      });
    });
    const pauses = await treatment.pauses;
    await page.page.close();
    // Left to itself it would have come back after a second.
    assert.ok(Math.min(...pauses) > 1_900, pauses.join());
  });
});

describe("a browser's EventSource", { concurrency: true, skip }, () => {
  function open({ url }) {
    const source = new EventSource(url);
    source.onerror = () => source.readyState === EventSource.CLOSED && globalThis.say('closed');
  }

  test('is closed by any other status, and comes back from an end when it was asked to', async () => {
    for (const status of [204, 401, 502]) {
      const proxy = await startProxy(server.url, answering(status));
      await (await start({ url: proxy.url }, open)).told('closed');
    }
    const treatment = callingBack(4_000);
    const proxy = await startProxy(server.url, treatment);
    const page = await start({ url: proxy.url }, open);
    const pauses = await treatment.pauses;
    await page.page.close();
    // Left to itself it would have come back after three seconds.
    assert.ok(Math.min(...pauses) > 3_900, pauses.join());
  });
});
