import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';

import { launch, open } from './browser.js';
import { startServer } from './server.js';

let server;
let browser;

before(async () => {
  server = await startServer();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

/** The blocks of JavaScript on the page about moving from WebSocket, but for the one that shows how it was. */
async function blocks() {
  const text = await readFile(new URL('../../docs/migrate-from-websocket.md', import.meta.url), 'utf8');
  const found = text.split('```js\n').slice(1).map((rest) => rest.split('```')[0]);
  return found.filter((block) => !block.includes('new WebSocket'));
}

/** Runs a block as it stands, with what an app has around it, and returns what it handled of a message that was sent then. */
async function handled(page, block) {
  // A script that is evaluated has no imports of its own.
  const body = block.replace(/import (\{[^}]+\}) from 'ridewire';/, "const $1 = await import('/client/index.js');");
  return page.evaluate(`(async () => {
    const { tokens } = await (await fetch('/console/session')).json();
    const token = tokens.driver;
    const [baseUrl, login] = [location.origin, { freshToken: () => token }];
    const call = async (method, path, token, body) => (await fetch(path, {
      method, headers: { authorization: 'Bearer ' + token }, body: body && JSON.stringify(body),
    })).json();
    const post = (path) => call('POST', path, token);
    const ride = 'ride_' + crypto.randomUUID();
    await call('PUT', '/api/v1/rides/' + ride, tokens.service, { riderId: 'lena', driverId: 'amir' });
    let handle;
    const seen = new Promise((resolve) => { handle = ({ type, data }) => data.rideId === ride && resolve([type, data.content]); });
    ${body}
    // A stream that begins now hears what is said once it has begun.
    const again = setInterval(() => call('POST', '/api/v1/messages', tokens.rider, { rideId: ride, content: 'Hello!' }), 200);
    try {
      return await seen;
    } finally {
      clearInterval(again);
    }
  })()`);
}

test('what the page about WebSocket tells to paste hears what is said', async () => {
  const { page, troubles } = await open(browser, `${server.url}/docs`);
  await page.locator('.operation').first().waitFor();
  const all = await blocks();
  assert.equal(all.length, 2);
  for (const block of all) assert.deepEqual(await handled(page, block), ['message:new', 'Hello!'], block);
  assert.deepEqual(troubles, []);
  await page.context().close();
});
