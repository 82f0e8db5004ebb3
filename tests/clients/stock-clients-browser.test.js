/**
 * Stream clients in Chromium: `@microsoft/fetch-event-source` with the handlers of docs/how-to/stock-clients and without them, and
 * the browser's own `EventSource`.
 */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';

import { EventCollector, sendNumbers } from '../../clients/js/test/event-collector.js';
import { closeProxies, startProxy } from '../../clients/js/test/proxy.js';
import { newRide, startServer, token } from '../../clients/js/test/server.js';
import { Page, serveDocs } from './page.js';
import { endsWhenTokenIsRevoked, endsWhenDriverIsReplaced, readsThroughAllFaults } from './scenario.js';
import { CUT_POSITIONS, respondWith, respondWithRetry, injectFaults } from './faults.js';

const NAME = '@microsoft/fetch-event-source';
const isInstalled = existsSync(new URL(`../../docs/how-to/stock-clients/node_modules/${NAME}`, import.meta.url));
const skip = !(process.env.CHROMIUM && isInstalled) && `Chromium or ${NAME} is not installed`;

const IMPORTS = { [NAME]: `/how-to/stock-clients/node_modules/${NAME}/lib/esm/index.js` };
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
  EventCollector.closeAll();
  closeProxies();
  docs?.close();
  await server?.stop();
});

/** Opens a page in which this function reads a stream. */
async function start(at, follow) {
  const page = await browser.newPage();
  await page.goto(`${docs.url}/page.html`);
  await page.evaluate(() => {
    globalThis.setStatus = (what) => (document.getElementById('status').textContent = what);
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
  const { follow } = await import('/how-to/stock-clients/fetch-event-source.js');
  follow({ server: url, ride: rideId, token: () => token, onMessage: globalThis.show }).then(
    (reason) => globalThis.setStatus(`the end: ${reason}`),
    ({ message }) => globalThis.setStatus(message === '401' ? 'sign in again' : message),
  );
}

async function withoutHandlers({ url, rideId, token }) {
  const { fetchEventSource } = await import('@microsoft/fetch-event-source');
  const stream = fetchEventSource(`${url}/api/v1/messages/rides/${rideId}/events?after=0`, {
    headers: { authorization: `Bearer ${token}` },
    onmessage({ event, data }) {
      if (data === '') globalThis.setStatus('an empty message');
      if (event === 'message:new') globalThis.show(JSON.parse(data));
    },
  });
  stream.then(() => globalThis.setStatus('the promise has resolved'));
}

describe('fetch-event-source with handlers', { concurrency: true, skip }, () => {
  const chat = (at) => start(at, withHandlers);
  test('prints the log, in order and once', () => readsThroughAllFaults(server, chat));
  test('ends when its token is revoked', () => endsWhenTokenIsRevoked(server, chat));
  test('ends when the driver is replaced', () => endsWhenDriverIsReplaced(server, chat));
});

describe('fetch-event-source without handlers', { concurrency: true, skip }, () => {
  test('loses the event after whose id the connection was cut; the handlers prevent that', async () => {
    for (const [follow, kept] of [[withoutHandlers, ['1', '2', '4', '5']], [withHandlers, ['1', '2', '3', '4', '5']]]) {
      const { rider, rideId } = await newRide(server);
      await sendNumbers(rider, rideId, 1, 5);
      const { done, forwardResponse } = injectFaults({ positions: CUT_POSITIONS.slice(0, 1), holds: true });
      const proxy = await startProxy(server.url, { forwardResponse });
      const page = await start({ url: proxy.url, rideId, token: token('driver_1', 'driver') }, follow);
      // The bytes after the second message have been read as well: the id of the third one.
      await page.waitForLine(': 2');
      done.reset();
      await page.waitForLine(': 5');
      assert.deepEqual((await page.lines()).map((line) => line.split(': ')[1]), kept);
    }
  });

  test('does not reconnect after the end of a stream', async () => {
    const replica = await server.replica();
    const { rider, rideId } = await newRide(server);
    await rider.send(rideId, 'hello');
    const proxy = await startProxy(replica.url);
    const page = await start({ url: proxy.url, rideId, token: token('driver_1', 'driver') }, withoutHandlers);
    await page.waitForLine('hello');
    await page.reported('an empty message'); // A comment arrives as an empty message.
    const requestCount = proxy.requests.length;
    proxy.target = server.url;
    await replica.stop();
    await page.reported('the promise has resolved');
    assert.equal(proxy.requests.length, requestCount, proxy.requests.join());
  });

  test('retries forever when it is rejected', async () => {
    for (const status of [204, 401, 502]) {
      const proxy = await startProxy(server.url);
      const threeRequests = new Promise((resolve) => {
        const { intercept } = respondWith(status);
        proxy.intercept = (req, res) => {
          if (proxy.requests.filter((line) => line.startsWith('GET')).length === 3) resolve();
          return intercept(req, res);
        };
      });
      const page = await start({ url: proxy.url, rideId: 'any', token: 'any' }, withoutHandlers);
      await threeRequests;
      await page.page.close();
    }
  });

  test('reconnects after the given delay if the end is turned into an error', async () => {
    const treatment = respondWithRetry(2_000);
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
    // By default it would reconnect after a second.
    assert.ok(Math.min(...pauses) > 1_900, pauses.join());
  });
});

describe("a browser's EventSource", { concurrency: true, skip }, () => {
  function open({ url }) {
    const source = new EventSource(url);
    source.onerror = () => source.readyState === EventSource.CLOSED && globalThis.setStatus('closed');
  }

  test('is closed by any other status, and reconnects after the given delay when a stream ends', async () => {
    for (const status of [204, 401, 502]) {
      const proxy = await startProxy(server.url, respondWith(status));
      await (await start({ url: proxy.url }, open)).reported('closed');
    }
    const treatment = respondWithRetry(4_000);
    const proxy = await startProxy(server.url, treatment);
    const page = await start({ url: proxy.url }, open);
    const pauses = await treatment.pauses;
    await page.page.close();
    // By default it would reconnect after three seconds.
    assert.ok(Math.min(...pauses) > 3_900, pauses.join());
  });
});
