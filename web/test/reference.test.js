import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { WIDE, launch, open, violations } from './browser.js';
import { startServer } from './server.js';

/** The size of the smallest phones. */
const SMALL = { width: 360, height: 740 };

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

/** Opens the API reference. `at` returns the elements and actions of an operation. */
async function openReference(options, hash = '', url = server.url) {
  const opened = await open(browser, `${url}/docs${hash}`, options);
  const { page } = opened;
  await page.locator('.operation').first().waitFor();
  return { ...opened, at: (id) => panel(page, id) };
}

function panel(page, id) {
  const article = page.locator(`#${id}`);
  const response = article.locator('.response');
  return {
    article,
    response,
    field: (name) => article.locator(`[name="${name}"]`),
    body: article.getByRole('textbox', { name: 'Body' }),
    send: () => article.locator('.try__actions .button--main').click(),
    stop: article.getByRole('button', { name: 'Stop' }),
    frames: article.locator('.frame'),
    frame: (type) => article.locator('.frame', { hasText: type }).first(),
    curl: () => article.locator('.try__curl code').textContent(),
    async responds(status) {
      await response.locator('.code', { hasText: String(status) }).waitFor();
      await response.locator('.headers').waitFor({ state: 'attached' });
      return response;
    },
    json: async () => JSON.parse(await response.locator('.block').last().textContent()),
  };
}

test('every operation of openapi.yaml is shown with its parameters, body and responses', async () => {
  const { page, errors } = await openReference();
  const { paths } = await (await fetch(`${server.url}/openapi.json`)).json();
  const operations = Object.entries(paths).flatMap(([path, item]) =>
    Object.entries(item).map(([method, operation]) => ({ path, method: method.toUpperCase(), ...operation })));
  assert.ok(operations.length > 30);
  assert.equal(await page.locator('.operation').count(), operations.length);
  for (const { operationId, path, method, summary, parameters = [], requestBody, responses } of operations) {
    const article = page.locator(`#${operationId}`);
    assert.equal(await article.getByRole('heading', { level: 3 }).textContent(), summary);
    assert.equal(await article.locator('.operation__path').textContent(), method + path);
    const shown = await article.locator('.operation__description').textContent();
    for (const { name } of parameters) assert.ok(shown.includes(name), `${operationId} ${name}`);
    for (const { name } of parameters) assert.equal(await article.locator(`.try [name="${name}"]`).count(), 1, `${operationId} ${name}`);
    assert.equal(await article.getByRole('textbox', { name: 'Body' }).count(), requestBody ? 1 : 0, operationId);
    const statuses = await article.locator('.reply .code').allTextContents();
    assert.deepEqual(statuses.sort(), Object.keys(responses).sort(), operationId);
    assert.equal(await page.locator(`.nav a[href="#${operationId}"]`).count(), 1);
  }
  // Each error response has an example of each of its codes.
  const send = page.locator('#sendMessage');
  await send.locator('summary', { hasText: 'idempotency_conflict' }).click();
  const problem = JSON.parse(await send.getByRole('group', { name: 'Example of idempotency_conflict' }).textContent());
  assert.deepEqual([problem.status, problem.code, new URL(problem.type).pathname], [409, 'idempotency_conflict', '/docs/errors/idempotency_conflict']);
  // Nested fields can be expanded.
  const history = page.locator('#getHistory');
  await history.locator('summary', { hasText: 'Fields of History' }).click();
  await history.locator('.prop', { hasText: 'Message[]' }).locator('summary').first().click();
  await history.getByText('As sent, byte for byte.').waitFor();
  assert.deepEqual(errors, []);
  await page.context().close();
});

test('a sent message appears on the stream, and the next requests use its id', async () => {
  const { page, errors, at } = await openReference();
  const stream = at('streamRide');
  await stream.send();
  await stream.responds(200);
  assert.match(await stream.frame('stream:sync').textContent(), /id \d+/);
  await stream.response.getByText('1 heartbeat').waitFor();
  assert.ok(await stream.stop.isVisible());

  const send = at('sendMessage');
  const body = JSON.parse(await send.body.inputValue());
  assert.deepEqual(Object.keys(body), ['rideId', 'content']);
  await send.body.fill(JSON.stringify({ ...body, content: 'From the reference' }));
  await send.send();
  await send.responds(201);
  const message = await send.json();
  assert.equal(message.content, 'From the reference');
  assert.equal(message.senderId, 'lena');
  assert.match(await send.response.locator('.headers').textContent(), /location\/api\/v1\/messages\//);
  const frame = stream.frame('message:new');
  await frame.waitFor();
  assert.equal(JSON.parse(await frame.locator('.block').textContent()).id, message.id);
  await stream.stop.click();
  await stream.response.getByText('Stopped').waitFor();
  assert.ok(await stream.stop.isHidden());
  const before = await stream.frames.count();

  // The driver marks the message as read.
  await page.getByRole('combobox', { name: 'Caller' }).selectOption('driver');
  const read = at('markRead');
  assert.equal(await read.field('messageId').inputValue(), message.id);
  await read.send();
  await read.responds(200);
  assert.equal((await read.json()).readSeq, message.seq);
  assert.equal(await stream.frames.count(), before, 'a stopped stream shows no more frames');

  // A waiting poll can be stopped.
  const poll = at('pollRide');
  await poll.field('after').fill(String(message.seq + 1));
  await poll.send();
  await poll.response.getByText('Waiting for the response').waitFor();
  await poll.stop.click();
  await poll.response.getByText('Stopped before the response').waitFor();
  assert.deepEqual(errors, []);
  await page.context().close();
});

test('error responses are shown unchanged, with and without a token', async () => {
  const { page, at } = await openReference();
  const send = at('sendMessage');
  await send.body.fill('{"rideId": "ride_1", "content": ""');
  await send.send();
  await send.responds(400);
  assert.equal((await send.json()).code, 'invalid_request');
  await page.getByRole('combobox', { name: 'Caller' }).selectOption('none');
  const rides = at('listRides');
  assert.doesNotMatch(await rides.curl(), /Authorization/);
  await rides.send();
  await rides.responds(401);
  assert.match(await rides.response.locator('.headers').textContent(), /www-authenticateBearer/);
  await page.context().close();
});

test('the curl command sends the same request', async () => {
  const { page, at } = await openReference();
  const send = at('sendMessage');
  const body = JSON.parse(await send.body.inputValue());
  const content = `It's "here" \\ $HOME \`id\``;
  await send.body.fill(JSON.stringify({ ...body, content }, null, 2));
  await send.field('Idempotency-Key').fill('key-1');
  assert.match(await send.curl(), /Bearer \$TOKEN/);
  await page.context().grantPermissions(['clipboard-read', 'clipboard-write']);
  await send.article.getByRole('button', { name: 'Copy as a curl command' }).click();
  await send.article.getByRole('button', { name: 'Copied' }).waitFor();
  const command = await page.evaluate(() => navigator.clipboard.readText());
  const { stdout } = await promisify(execFile)('sh', ['-c', command]);
  const message = JSON.parse(stdout);
  assert.deepEqual([message.content, message.clientMessageId, message.senderId], [content, 'key-1', 'lena']);
  // So the request of the page is a retry.
  await send.send();
  await send.responds(200);
  assert.equal((await send.json()).id, message.id);
  await page.context().close();
});

test('operations are found by filter and by URL, with the keyboard only', async () => {
  const { page, errors } = await openReference({}, '#getPresence');
  const top = async (id) => (await page.locator(`#${id}`).boundingBox()).y;
  assert.ok(Math.abs(await top('getPresence') - 56) < 8, 'the URL leads to the operation');
  await page.locator('.nav [aria-current]', { hasText: 'Get presence' }).waitFor();
  await page.keyboard.press('/');
  await page.keyboard.type('emoji delete');
  await page.getByRole('status').filter({ hasText: '1 operation' }).waitFor();
  assert.deepEqual(await page.locator('.operation:visible h3').allTextContents(), ['Remove a reaction']);
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => location.hash === '#deleteReaction');
  assert.ok(await page.locator('.operation:visible').count() > 30, 'the filter is cleared');
  await page.keyboard.press('/');
  await page.keyboard.type('no such words');
  await page.getByText('No operation matches.').waitFor();
  // The URL of a filtered operation shows the operation.
  await page.evaluate(() => {
    location.hash = 'acceptRide';
  });
  await page.locator('#acceptRide').waitFor();
  assert.deepEqual(errors, []);
  await page.context().close();
});

test('without a demo, a pasted token is used and never shown', async () => {
  const plain = await startServer({ args: ['serve'], env: { RIDEWIRE_CONSOLE: 'on' } });
  try {
    const { page, at } = await openReference({}, '', plain.url);
    const token = await plain.token('platform', 'service');
    await page.getByRole('textbox', { name: 'Token' }).fill(token);
    const put = at('putRide');
    assert.equal(await put.field('rideId').inputValue(), 'ride_123');
    await put.send();
    await put.responds(201);
    assert.equal((await put.json()).riderId, 'rider_1');
    assert.ok(!(await put.curl()).includes(token));
    await page.getByRole('searchbox').fill('create or update a ride');
    assert.deepEqual(await violations(page), []);
    await page.context().close();
  } finally {
    await plain.stop();
  }
});

test('there are no accessibility violations and no overflow, in light and dark, wide and narrow', async () => {
  const { page, errors, at } = await openReference();
  await at('sendMessage').send();
  await at('sendMessage').responds(201);
  await at('streamRide').send();
  await at('streamRide').frames.nth(1).waitFor();
  assert.deepEqual(await violations(page), [], 'the whole page');
  const width = () => page.evaluate(() => document.documentElement.scrollWidth);
  await page.setViewportSize(SMALL);
  assert.equal(await width(), SMALL.width);
  await page.setViewportSize(WIDE);
  // One operation represents all of them, because each check of all operations takes seconds.
  await page.getByRole('searchbox').fill('streamRide');
  for (const colorScheme of ['light', 'dark']) {
    for (const viewport of [WIDE, SMALL]) {
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
      await page.setViewportSize(viewport);
      const where = `${colorScheme} ${viewport.width}`;
      assert.deepEqual(await violations(page), [], where);
      assert.equal(await width(), viewport.width, where);
    }
  }
  // On a narrow screen, the list opens over the page and closes after a choice.
  await page.getByRole('button', { name: 'Operations' }).click();
  await page.getByRole('searchbox').fill('getRide');
  assert.deepEqual(await violations(page), [], 'the open list');
  await page.locator('.nav a[href="#getRide"]').click();
  assert.ok(await page.locator('.nav').isHidden());
  await page.waitForFunction(() => location.hash === '#getRide');
  assert.deepEqual(errors, []);
  await page.context().close();
});

test('screenshots for the documentation', { skip: !process.env.RIDEWIRE_SCREENSHOTS && 'RIDEWIRE_SCREENSHOTS=1 takes them' }, async () => {
  for (const [name, viewport] of [['wide', WIDE], ['narrow', { width: 390, height: 844 }]]) {
    for (const colorScheme of ['light', 'dark']) {
      const { page, at } = await openReference({ viewport, colorScheme }, '#sendMessage');
      await at('sendMessage').send();
      await at('sendMessage').responds(201);
      // Scrolls back to the start, and removes the focus.
      await page.evaluate(() => {
        document.activeElement.blur();
        document.getElementById(innerWidth < 700 ? 'try-sendMessage' : 'sendMessage').scrollIntoView();
      });
      await page.waitForTimeout(300);
      await page.screenshot({ path: fileURLToPath(new URL(`../../docs/reference-${name}-${colorScheme}.png`, import.meta.url)) });
      await page.context().close();
    }
  }
});
