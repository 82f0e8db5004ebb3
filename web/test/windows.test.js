/** Several browser windows on one ride, with failures between them and the server. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { hasNginx, startNginx } from '../../clients/js/test/nginx.js';
import { closeProxies, cutEvery, startProxy } from '../../clients/js/test/proxy.js';
import { newRide, startServer, token } from '../../clients/js/test/server.js';
import { launch, open } from './browser.js';
import { testEveryFeature, phone } from './phone.js';

const USERS = [['rider', 'lena'], ['driver', 'amir'], ['support', 'sam']];

let server;
let browser;

before(async () => {
  server = await startServer({ RIDEWIRE_CONSOLE: 'on' });
  browser = await launch();
});

after(async () => {
  await browser?.close();
  closeProxies();
  await server?.stop();
});

const createRide = () => newRide(server, { riderId: 'lena', driverId: 'amir' });

/** Opens a window with the phones of all three users. Their tokens have this lifetime and are renewed, as in a demo. */
async function windowOfAll(url, rideId, { ttl = 3_600, context } = {}) {
  const opened = context ? { page: await context.newPage() } : await open(browser, 'about:blank');
  const { page } = opened;
  const session = () => ({ ride: rideId, tokens: Object.fromEntries(USERS.map(([role, user]) => [role, token(user, role, ttl)])) });
  await page.route('**/console/session', (route) => route.fulfill({ json: session() }));
  await page.goto(`${url}/?ride=${rideId}`);
  return { ...opened, rider: phone(page, 'Rider'), driver: phone(page, 'Driver'), support: phone(page, 'Support') };
}

/** Opens a window with the phone of one user, with a pasted token. */
async function windowOf(role, user, rideId) {
  const opened = await open(browser, `${server.url}/?ride=${rideId}`);
  const name = `${role.charAt(0).toUpperCase()}${role.slice(1)}`;
  await opened.page.getByRole('textbox', { name: `${name}’s token` }).fill(token(user, role));
  await opened.page.getByRole('button', { name: 'Connect' }).click();
  const userPhone = phone(opened.page, name);
  await userPhone.state('Live');
  return { ...opened, phone: userPhone };
}

/** Removes the messages that the browser itself logs about an unavailable server. */
const pageErrors = (errors) => errors.filter((error) => !error.startsWith('Failed to load resource'));

test('a rider, a driver and support chat in three windows with every feature', async () => {
  const { rideId } = await createRide();
  const [rider, driver, support] = await Promise.all(USERS.map(([role, user]) => windowOf(role, user, rideId)));
  await testEveryFeature({ rider: rider.phone, driver: driver.phone, support: support.phone });
  for (const { page, errors } of [rider, driver, support]) {
    assert.deepEqual(errors, []);
    await page.context().close();
  }
});

test('a reload, a killed replica, expired tickets and ten seconds offline lose and repeat no message', async () => {
  const { rideId } = await createRide();
  const replica = await server.replica({ RIDEWIRE_CONSOLE: 'on' });
  const proxy = await startProxy(replica.url);
  const [one, two] = [await windowOfAll(proxy.url, rideId, { ttl: 5 }), await windowOfAll(proxy.url, rideId)];
  const { rider } = one;
  const { driver } = two;
  for (const each of [rider, driver]) await each.state('Live');
  const sent = { lena: [], amir: [] };
  const send = async (user, phone, text) => {
    sent[user].push(text);
    await phone.send(text);
  };
  let isTalking = true;
  const talk = (async () => {
    for (let number = 1; isTalking; number += 1) {
      await send('amir', driver, `amir ${number}`);
      await two.page.waitForTimeout(400);
    }
  })();

  await send('lena', rider, 'before the reload');
  await rider.ticks('before the reload', 'Read');
  await one.page.reload();
  await send('lena', rider, 'after the reload');
  await driver.sees('after the reload');

  await replica.kill();
  await send('lena', rider, 'while there is no server');
  await one.page.waitForTimeout(1_000);
  proxy.target = server.url;
  await driver.sees('while there is no server');

  const ends = one.page.locator('.wire__row[data-role="rider"]', { hasText: 'auth:expired' });
  await ends.first().waitFor();
  await send('lena', rider, 'with another ticket');
  await driver.sees('with another ticket');

  await one.page.context().setOffline(true);
  await rider.state('Offline');
  await send('lena', rider, 'from the tunnel');
  await one.page.waitForTimeout(10_000);
  assert.equal(await driver.message('from the tunnel').count(), 0);
  await one.page.context().setOffline(false);
  await driver.sees('from the tunnel');

  isTalking = false;
  await talk;
  await send('amir', driver, 'the end');
  await rider.sees('the end');
  await driver.sees('the end');
  const texts = await rider.texts();
  assert.deepEqual(await driver.texts(), texts);
  for (const all of Object.values(sent)) assert.deepEqual(texts.filter((text) => all.includes(text)), all);
  assert.equal(texts.length, sent.lena.length + sent.amir.length);
  for (const { page, errors } of [one, two]) {
    assert.deepEqual(pageErrors(errors), []);
    await page.context().close();
  }
});

test('several windows of a browser share its connections, and all can send and receive', async () => {
  const { rideId } = await createRide();
  const one = await windowOfAll(server.url, rideId);
  for (const each of [one.rider, one.driver, one.support]) await each.state('Live');
  const context = one.page.context();
  // One more phone is live; the others poll every two seconds. If all six connections were in use, nothing could be sent.
  const two = await windowOfAll(server.url, rideId, { context });
  const three = await windowOfAll(server.url, rideId, { context });
  for (const each of [two.support, three.rider, three.driver, three.support]) await each.panel.locator('.state', { hasText: /Live|Polling/ }).waitFor();
  const live = async (...windows) => {
    const states = await Promise.all(windows.map(({ page }) => page.locator('.state').allTextContents()));
    return states.flat().filter((state) => state === 'Live').length;
  };
  assert.equal(await live(one, two, three), 4);
  await three.rider.send('from the third');
  await one.driver.sees('from the third');
  await one.driver.send('from the first');
  await two.support.send('from the second');
  for (const { rider, driver } of [one, two, three]) {
    for (const text of ['from the third', 'from the first', 'from the second']) await Promise.all([rider.sees(text), driver.sees(text)]);
  }

  // A hidden window releases its connections to visible windows.
  await one.page.evaluate(() => {
    Object.defineProperty(document, 'visibilityState', { value: 'hidden' });
    document.dispatchEvent(new Event('visibilitychange'));
  });
  for (const each of [one.rider, one.driver, one.support]) await each.state('Polling');
  while ((await live(two, three)) < 4) await two.page.waitForTimeout(100);
  await two.rider.send('seen in the background');
  await one.driver.sees('seen in the background');

  // A closed window releases its connections to the others.
  await two.page.close();
  for (const each of [three.rider, three.driver, three.support]) await each.state('Live');
  assert.deepEqual(one.errors, []);
  await context.close();
});

test('messages arrive through a proxy that disconnects every three seconds, and through nginx with buffering', async (t) => {
  const { rideId } = await createRide();
  const proxy = await startProxy(server.url, { forwardResponse: cutEvery(3_000) });
  const nginx = hasNginx ? await startNginx(server.url) : t.diagnostic('nginx is not installed');
  const one = await windowOfAll(proxy.url, rideId);
  const two = await windowOfAll(nginx?.url ?? proxy.url, rideId);
  try {
    await one.rider.state('Live');
    await two.driver.state(nginx ? 'Polling' : 'Live');
    const sent = Array.from({ length: 24 }, (_, index) => String(index + 1));
    for (const text of sent) {
      await (text % 2 ? one.rider : two.driver).send(text);
      await one.page.waitForTimeout(350);
    }
    for (const each of [one.rider, two.driver]) {
      await each.sees(sent.at(-1));
      assert.deepEqual((await each.texts()).toSorted((a, b) => a - b), sent);
    }
    assert.deepEqual(await one.rider.texts(), await two.driver.texts());
    assert.ok(await one.page.locator('.wire__row[data-role="rider"]', { hasText: 'stream ended' }).count());
    if (nginx) {
      await nginx.setBuffering(false);
      await two.driver.via('SSE');
      await two.driver.state('Live');
    }
    for (const { page, errors } of [one, two]) {
      assert.deepEqual(pageErrors(errors ?? []), []);
      await page.context().close();
    }
  } finally {
    await nginx?.stop();
  }
});
