/** Two windows of real browsers on one ride, whatever happens between them and the server. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { hasNginx, startNginx } from '../../clients/js/test/nginx.js';
import { closeProxies, cutEvery, startProxy } from '../../clients/js/test/proxy.js';
import { newRide, startServer, token } from '../../clients/js/test/server.js';
import { launch, open } from './browser.js';
import { everyFeature, phone } from './phone.js';

const PEOPLE = [['rider', 'lena'], ['driver', 'amir'], ['support', 'sam']];

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

const aRide = () => newRide(server, { riderId: 'lena', driverId: 'amir' });

/** A window with the phones of all three, whose tokens hold for so long and are given anew, as a demo's are. */
async function windowOfAll(url, rideId, { ttl = 3_600, context } = {}) {
  const opened = context ? { page: await context.newPage() } : await open(browser, 'about:blank');
  const { page } = opened;
  const session = () => ({ ride: rideId, tokens: Object.fromEntries(PEOPLE.map(([role, user]) => [role, token(user, role, ttl)])) });
  await page.route('**/console/session', (route) => route.fulfill({ json: session() }));
  await page.goto(`${url}/?ride=${rideId}`);
  return { ...opened, rider: phone(page, 'Rider'), driver: phone(page, 'Driver'), support: phone(page, 'Support') };
}

/** A window with the phone of one of them, who has pasted a token. */
async function windowOf(role, user, rideId) {
  const opened = await open(browser, `${server.url}/?ride=${rideId}`);
  const name = `${role.charAt(0).toUpperCase()}${role.slice(1)}`;
  await opened.page.getByRole('textbox', { name: `${name}’s token` }).fill(token(user, role));
  await opened.page.getByRole('button', { name: 'Connect' }).click();
  const held = phone(opened.page, name);
  await held.state('Live');
  return { ...opened, phone: held };
}

/** What a browser says itself of a server that is away is no error of the page's. */
const ofThePage = (troubles) => troubles.filter((trouble) => !trouble.startsWith('Failed to load resource'));

test('two windows, and support’s, chat with every feature', async () => {
  const { rideId } = await aRide();
  const [rider, driver, support] = await Promise.all(PEOPLE.map(([role, user]) => windowOf(role, user, rideId)));
  await everyFeature({ rider: rider.phone, driver: driver.phone, support: support.phone });
  for (const { page, troubles } of [rider, driver, support]) {
    assert.deepEqual(troubles, []);
    await page.context().close();
  }
});

test('a reload, a killed replica, ended tickets and ten seconds offline lose nothing and repeat nothing', async () => {
  const { rideId } = await aRide();
  const replica = await server.replica({ RIDEWIRE_CONSOLE: 'on' });
  const proxy = await startProxy(replica.url);
  const [one, two] = [await windowOfAll(proxy.url, rideId, { ttl: 5 }), await windowOfAll(proxy.url, rideId)];
  const { rider } = one;
  const { driver } = two;
  for (const each of [rider, driver]) await each.state('Live');
  const sent = { lena: [], amir: [] };
  const say = async (user, phone, text) => {
    sent[user].push(text);
    await phone.send(text);
  };
  let isTalking = true;
  const talk = (async () => {
    for (let number = 1; isTalking; number += 1) {
      await say('amir', driver, `amir ${number}`);
      await two.page.waitForTimeout(400);
    }
  })();

  await say('lena', rider, 'before the reload');
  await rider.ticks('before the reload', 'Read');
  await one.page.reload();
  await say('lena', rider, 'after the reload');
  await driver.sees('after the reload');

  await replica.kill();
  await say('lena', rider, 'while there is no server');
  await one.page.waitForTimeout(1_000);
  proxy.target = server.url;
  await driver.sees('while there is no server');

  const ends = one.page.locator('.wire__row[data-role="rider"]', { hasText: 'auth:expired' });
  await ends.first().waitFor();
  await say('lena', rider, 'with another ticket');
  await driver.sees('with another ticket');

  await one.page.context().setOffline(true);
  await rider.state('Offline');
  await say('lena', rider, 'from the tunnel');
  await one.page.waitForTimeout(10_000);
  assert.equal(await driver.message('from the tunnel').count(), 0);
  await one.page.context().setOffline(false);
  await driver.sees('from the tunnel');

  isTalking = false;
  await talk;
  await say('amir', driver, 'the end');
  await rider.sees('the end');
  await driver.sees('the end');
  const texts = await rider.texts();
  assert.deepEqual(await driver.texts(), texts);
  for (const all of Object.values(sent)) assert.deepEqual(texts.filter((text) => all.includes(text)), all);
  assert.equal(texts.length, sent.lena.length + sent.amir.length);
  for (const { page, troubles } of [one, two]) {
    assert.deepEqual(ofThePage(troubles), []);
    await page.context().close();
  }
});

test('windows side by side of one browser share its connections: all can write, and hear', async () => {
  const { rideId } = await aRide();
  const one = await windowOfAll(server.url, rideId);
  for (const each of [one.rider, one.driver, one.support]) await each.state('Live');
  const context = one.page.context();
  // One more is live, the others ask every other second; with all six connections in use nothing would be sent.
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

  // Who is not looked at leaves the place to who is.
  await one.page.evaluate(() => {
    Object.defineProperty(document, 'visibilityState', { value: 'hidden' });
    document.dispatchEvent(new Event('visibilitychange'));
  });
  for (const each of [one.rider, one.driver, one.support]) await each.state('Polling');
  while ((await live(two, three)) < 4) await two.page.waitForTimeout(100);
  await two.rider.send('seen in the background');
  await one.driver.sees('seen in the background');

  // Who has gone leaves it to those that are there.
  await two.page.close();
  for (const each of [three.rider, three.driver, three.support]) await each.state('Live');
  assert.deepEqual(one.troubles, []);
  await context.close();
});

test('through a proxy that cuts every three seconds, and through nginx that buffers', async (t) => {
  const { rideId } = await aRide();
  const proxy = await startProxy(server.url, { treat: cutEvery(3_000) });
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
    for (const { page, troubles } of [one, two]) {
      assert.deepEqual(ofThePage(troubles ?? []), []);
      await page.context().close();
    }
  } finally {
    await nginx?.stop();
  }
});
