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

/** Returns the JavaScript blocks of the page about the migration from WebSocket, except for the old code. */
async function blocks() {
  const text = await readFile(new URL('../../docs/how-to/migrate-from-websocket.md', import.meta.url), 'utf8');
  const found = text.split('```js\n').slice(1).map((rest) => rest.split('```')[0]);
  return found.filter((block) => !block.includes('new WebSocket'));
}

/** Runs a block unchanged with the surrounding code of an app. Returns the event that it handled for a message that is then sent. */
async function handled(page, block) {
  // An evaluated script cannot have static imports.
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
    // A new stream receives only messages that are sent after it has started, so the message is repeated.
    const timer = setInterval(() => call('POST', '/api/v1/messages', tokens.rider, { rideId: ride, content: 'Hello!' }), 200);
    try {
      return await seen;
    } finally {
      clearInterval(timer);
    }
  })()`);
}

test('the code on the page about the migration from WebSocket receives messages', async () => {
  const { page, errors } = await open(browser, `${server.url}/docs`);
  await page.locator('.operation').first().waitFor();
  const all = await blocks();
  assert.equal(all.length, 2);
  for (const block of all) assert.deepEqual(await handled(page, block), ['message:new', 'Hello!'], block);
  assert.deepEqual(errors, []);
  await page.context().close();
});
