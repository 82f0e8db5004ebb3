/** The wire log, and the layout of the panels. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { WIDE, launch, open, violations } from './browser.js';
import { newRide, request, tokens } from './demo.js';
import { phone } from './phone.js';
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

const onNewRide = (options) => newRide(browser, server.url, options);

/** Returns the rows of a phone with this text. */
const rows = (page, role, type) => page.locator(`.wire__row[data-role="${role}"]`, { hasText: type });

test('a row of the wire expands to its complete JSON', async () => {
  const { page, errors, rideId, rider, driver } = await onNewRide();
  const long = `It is a long way ${'and a longer one '.repeat(20)}to the gate`;
  await rider.send(long);
  await driver.sees(long);
  const row = rows(page, 'driver', 'message:new').last();
  await row.click();
  const detail = page.locator('.wire__detail');
  const event = JSON.parse(await detail.textContent());
  assert.deepEqual([event.type, event.data.rideId, event.data.content, event.data.senderId], ['message:new', rideId, long, 'lena']);
  assert.equal(event.id, String(event.data.seq));
  assert.equal(await row.getByRole('button').getAttribute('aria-expanded'), 'true');
  assert.deepEqual(await violations(page), []);
  await row.click();
  await detail.waitFor({ state: 'detached' });

  // With the keyboard: the rows are one tab stop, and the arrow keys move between them.
  await row.getByRole('button').focus();
  await page.keyboard.press('ArrowUp');
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('Enter');
  await detail.waitFor();
  await page.keyboard.press('Enter');
  await detail.waitFor({ state: 'detached' });
  assert.equal(await page.locator('.wire__type[tabindex="0"]').count(), 1);

  // A request has its body and its response. A ticket is a credential, so it is not shown.
  await page.getByRole('button', { name: 'Requests', exact: true }).click();
  const sent = rows(page, 'rider', /POST \/messages201/);
  await sent.click();
  const shown = JSON.parse(await detail.textContent());
  assert.deepEqual([shown.body.content, shown.status, shown.response.content], [long, 201, long]);
  await sent.click();
  await rows(page, 'rider', 'POST /stream-tickets').first().click();
  assert.equal(JSON.parse(await detail.textContent()).response.ticket, '…');
  assert.deepEqual(errors, []);
  await page.context().close();
});

test('consecutive locations are one row with their count, which expands to all of them', async () => {
  const { page, errors, rideId, rider, driver } = await onNewRide();
  const { driver: token } = await tokens(page);
  const locate = (lat) => request(page, token, 'POST', `rides/${rideId}/location`, { lat, lng: 13.4 });
  const row = rows(page, 'rider', 'ride:location');
  await locate(52);
  await row.waitFor();
  for (let number = 2; number <= 30; number += 1) {
    await locate(52 + number / 100);
    // Waits for each location, so that none is replaced by a newer one before it is sent.
    await row.filter({ hasText: (52 + number / 100).toFixed(5) }).waitFor();
  }
  assert.match(await row.textContent(), /ride:location × 30/);
  await row.click();
  const text = await page.locator('.wire__detail').textContent();
  assert.match(text, /^\/\/ the last 20 of 30 events, newest first\n/);
  const shown = JSON.parse(text.slice(text.indexOf('\n')));
  assert.deepEqual([shown.length, shown[0].data.lat, shown.at(-1).data.lat], [20, 52.3, 52.11]);
  await row.click();

  await rider.send('Here I am');
  await driver.sees('Here I am');
  await rows(page, 'rider', 'message:new').waitFor();
  await locate(53);
  await row.nth(1).filter({ hasText: '53.00000' }).waitFor();
  assert.deepEqual([await row.count(), (await row.nth(1).textContent()).includes('×')], [2, false]);
  assert.deepEqual(errors, []);
  await page.context().close();
});

test('the wire log also counts rows that are hidden or dropped', async () => {
  const { page, errors, rider, driver, support } = await onNewRide();
  await rider.send('one');
  for (const each of [rider, driver, support]) await each.sees('one');
  const count = page.locator('.wire__count');
  const sent = page.locator('.wire__row', { hasText: 'message:new' });
  await sent.first().waitFor();
  await page.getByRole('button', { name: 'Clear' }).click();
  // Rows of receipts may follow at once, so the count is not always 0.
  await sent.first().waitFor({ state: 'detached' });
  const { rows, total } = await page.evaluate(async () => {
    // Requests are hidden by default.
    const { Wire } = await import('/console/js/wire.js');
    const wire = new Wire();
    for (let number = 0; number < 310; number += 1) wire.add({ phone: 'rider', kind: 'request', via: 'rest', type: 'GET /', text: '200' });
    return { rows: wire.entries.length, total: wire.total };
  });
  assert.deepEqual([rows, total], [300, 310]);
  await driver.send('two');
  await rider.sees('two');
  await count.filter({ hasText: / of / }).waitFor();
  // Both are read at once, because rows are added all the time.
  const { text, visible } = await page.evaluate(() => ({
    text: document.querySelector('.wire__count').textContent,
    visible: document.querySelectorAll('.wire__row').length,
  }));
  const [shown, all] = text.match(/\d+/g).map(Number);
  assert.equal(visible, shown);
  await page.getByRole('button', { name: 'Requests', exact: true }).click();
  await count.filter({ hasText: /^\d+ rows$/ }).waitFor();
  assert.ok(all > shown && (await page.locator('.wire__row').count()) >= all);
  // A change of transport does not count as a reconnect.
  await rider.via('SSE');
  await rider.state('Live');
  assert.doesNotMatch(await page.locator('.stat[data-role="rider"]').textContent(), /reconnect/);
  // The singular is used for one event.
  await rider.via('Poll');
  await rider.state('Polling');
  await driver.send('three');
  await page.locator('.wire__row[data-role="rider"]', { hasText: /1 event, cursor/ }).first().waitFor();
  assert.deepEqual(errors, []);
  await page.context().close();
});

test('ids are shown unchanged and completely', async () => {
  const { page, driver } = await onNewRide();
  const { service } = await tokens(page);
  const rideId = `Ride-${'x'.repeat(48)}.${Date.now()}`.slice(0, 64);
  await request(page, service, 'PUT', `rides/${rideId}`, { riderId: 'lena', driverId: 'amir' });
  await page.goto(`${server.url}/?ride=${rideId}`);
  for (const name of ['Rider', 'Driver', 'Support']) await phone(page, name).state('Live');
  await page.locator('.top__ride', { hasText: `${rideId} · Accepted` }).waitFor();
  await driver.send('Hello');
  await phone(page, 'Rider').sees('Hello');
  const texts = (selector) => page.locator(selector).allTextContents();
  assert.deepEqual(await texts('.phone__user'), ['lena', 'amir', 'sam', 'demo']);
  assert.deepEqual(await texts('.bar__participants'), ['amir', 'lena', 'lena, amir']);
  assert.equal((await texts('#panel-rider .message__sender'))[0], 'amir');
  await page.locator('.rides__ride[aria-current]', { hasText: rideId }).waitFor();
  // No id is cut off.
  const cut = await page.evaluate(() => [...document.querySelectorAll('.top__ride, .bar__participants, .rides__ride b, .phone__user')]
    .filter(({ scrollWidth, clientWidth }) => scrollWidth > clientWidth + 1).map(({ textContent }) => textContent));
  assert.deepEqual(cut, []);
  await page.context().close();
});

/** Returns the number of messages that are completely visible on a phone. */
const inView = (panel) => panel.locator('.chat__log').evaluate((log) => {
  const { top, bottom } = log.getBoundingClientRect();
  return [...log.querySelectorAll('.message')].filter((message) => {
    const box = message.getBoundingClientRect();
    return box.top >= top && box.bottom <= bottom;
  }).length;
});

/** Messages of typical length: some take one line, some two. */
const MESSAGES = ['Hi! I am at Mill Gate, by the flower stand.', 'I know it. There is a tram ahead of me, two minutes.', 'No hurry', 'I am here, on the side of the bakery.',
  'I can see you', 'Could we avoid the market? It is closed to cars today.', 'Yes', 'Thank you, that was quick!', 'Thanks for riding', 'Bye', 'Bye!', 'Take care'];

test('at 1440×900 two more messages fit than before there was a fourth panel', async () => {
  const { page, rider, driver } = await onNewRide({ viewport: WIDE });
  for (const [number, text] of MESSAGES.entries()) {
    const [from, to] = number % 2 ? [driver, rider] : [rider, driver];
    await from.send(text);
    await to.sees(text);
  }
  // With three panels, BEFORE of the same messages were visible.
  for (const each of [rider, driver]) assert.ok((await inView(each.panel)) >= BEFORE + 2, `${await inView(each.panel)} messages`);
  for (const name of ['rider', 'driver', 'support', 'platform', 'wire']) {
    const box = await page.locator(`#panel-${name}`).boundingBox();
    assert.ok(box.x >= 0 && box.x + box.width <= 1440 && box.y + box.height <= 900, `${name} is on the screen: ${JSON.stringify(box)}`);
    assert.ok(box.width >= 300 && box.height >= 120, `${name} has room: ${JSON.stringify(box)}`);
  }
  await page.context().close();
});
const BEFORE = 2;

test('at 1024 pixels there are two columns', async () => {
  const { page, errors } = await open(browser, server.url, { viewport: { width: 1024, height: 768 } });
  for (const name of ['Rider', 'Support']) await phone(page, name).state('Live');
  const boxes = await Promise.all(['rider', 'driver', 'support', 'platform', 'wire'].map((name) => page.locator(`#panel-${name}`).boundingBox()));
  const [rider, driver, support, platform, wire] = boxes;
  assert.deepEqual([rider.y, support.y, rider.x, driver.x], [driver.y, platform.y, support.x, platform.x]);
  assert.ok(driver.x >= rider.x + rider.width && support.y >= rider.y + rider.height);
  assert.ok(Math.abs(rider.width - driver.width) < 2 && wire.width > 2 * rider.width);
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth > innerWidth), false);
  assert.equal(await page.getByRole('tab').count(), 0);
  assert.deepEqual(await violations(page), []);
  assert.deepEqual(errors, []);
  await page.context().close();
});
