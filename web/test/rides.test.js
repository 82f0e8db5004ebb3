/** Changing the ride, unread counts, and an unavailable server. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { closeProxies, startProxy } from '../../clients/js/test/proxy.js';
import { NARROW, launch, open, violations } from './browser.js';
import { createRide, newRide, request, tokens } from './demo.js';
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
  closeProxies();
  await server?.stop();
});

/** Removes the messages that the browser itself logs about failed requests. */
const pageErrors = (errors) => errors.filter((error) => !error.startsWith('Failed to load resource'));

test('opening an unknown ride removes everything of the previous ride', async () => {
  const { page, errors, rideId, rider, support } = await newRide(browser, server.url);
  await rider.send('Where are you?');
  await support.sees('Where are you?');
  await support.input.fill('A draft');
  const desk = support.panel;
  await desk.getByRole('textbox', { name: 'Ride’s id' }).fill('ride_unknown');
  await desk.getByRole('button', { name: 'Open', exact: true }).click();
  await desk.getByText('Ride ride_unknown does not exist, or sam has no access to it.').waitFor();
  assert.equal(await desk.locator('.message').count(), 0);
  assert.deepEqual((await desk.locator('.bar').innerText()).split(/\n+/), ['?', 'ride_unknown', 'Closed']);
  assert.equal(await desk.locator('[aria-current="step"]').count(), 0);
  assert.equal(await desk.getByRole('button', { name: 'Cancel ride' }).isVisible(), false);
  assert.deepEqual([await support.input.inputValue(), await support.input.isDisabled()], ['', true]);
  // The wire log has nothing of the previous ride either, and the other phones stay on it.
  await page.waitForFunction(() => [...document.querySelectorAll('.wire__row[data-role="support"]')].every(({ textContent }) => !textContent.includes('message:new')));
  await rider.send('On the old ride');
  await rider.ticks('On the old ride', 'Read');

  // The same applies to the whole page.
  await page.goto(`${server.url}/?ride=ride_unknown`);
  await page.locator('.top__ride', { hasText: 'ride_unknown · Not found' }).waitFor();
  assert.doesNotMatch(await page.locator('.chat').allInnerTexts().then(String), /Where are you/);
  await page.goto(`${server.url}/?ride=${rideId}`);
  await rider.sees('Where are you?');
  const { rider: fresh, driver: theirs } = await createRide(page);
  for (const each of [fresh, theirs]) assert.deepEqual(await each.texts(), []);
  assert.deepEqual(pageErrors(errors), []);
  await page.context().close();
});

test('a driver whose ride is not accepted yet sees nothing of the previous ride', async () => {
  const { page, rider, driver } = await newRide(browser, server.url);
  await rider.send('Where are you?');
  await driver.sees('Where are you?');
  const { service } = await tokens(page);
  await page.route('**/api/v1/rides/ride_*', (route) => {
    // The new ride has no driver.
    const body = route.request().method() === 'PUT' ? JSON.stringify({ riderId: 'lena' }) : undefined;
    return route.continue({ postData: body });
  });
  await page.getByRole('button', { name: 'New ride' }).click();
  await page.locator('.top__ride', { hasText: 'Requested' }).waitFor();
  await driver.panel.getByText('No ride yet').first().waitFor();
  assert.deepEqual(await driver.texts(), []);
  assert.equal(await driver.panel.locator('.map__car').getAttribute('visibility'), 'hidden');
  const [rideId] = (await page.locator('.top__ride').textContent()).split(' · ');
  await page.unroute('**/api/v1/rides/ride_*');
  await request(page, service, 'PUT', `rides/${rideId}`, { driverId: 'amir' });
  await driver.state('Live');
  await page.context().close();
});

test('unread messages are counted, including those that are not loaded', async () => {
  const { page, rideId, driver } = await newRide(browser, server.url);
  const { service, rider: token } = await tokens(page);
  const other = `${rideId}_many`;
  await request(page, service, 'PUT', `rides/${other}`, { riderId: 'lena', driverId: 'amir' });
  for (let number = 1; number <= 63; number += 1) await request(page, token, 'POST', 'messages', { rideId: other, content: `message ${number}` });
  await page.setViewportSize(NARROW);
  await page.goto(`${server.url}/?ride=${other}`);
  // The driver's phone is in a hidden tab, so it has read nothing. It has loaded fifty messages.
  const tab = page.getByRole('tab', { name: /^Driver/ });
  await tab.filter({ hasText: '63 unread' }).waitFor();
  await request(page, token, 'POST', 'messages', { rideId: other, content: 'One more' });
  await tab.filter({ hasText: '64 unread' }).waitFor();
  await tab.click();
  await driver.sees('One more');
  await page.waitForFunction(() => document.querySelector('#tab-driver').textContent === 'Driver0 unread' || document.querySelector('#tab-driver .badge').hidden);
  // The count of the previous ride is removed.
  await page.getByRole('tab', { name: /^Rider/ }).click();
  const { rider } = await createRide(page);
  assert.equal(await page.locator('#tab-driver .badge').isVisible(), false);
  await rider.send('Hello');
  await tab.filter({ hasText: '1 unread' }).waitFor();
  await page.context().close();
});

test('support lists the newest of all rides, and more on request', async () => {
  const { page, rideId } = await newRide(browser, server.url);
  const { service } = await tokens(page);
  for (let number = 1; number <= 12; number += 1) await request(page, service, 'PUT', `rides/${rideId}_${number}`, { riderId: `rider_${number}` });
  await page.goto(`${server.url}/?ride=${rideId}_12`);
  const list = page.getByRole('list', { name: 'Rides' });
  await list.getByRole('button').nth(7).waitFor();
  const ids = () => list.locator('b').allTextContents();
  assert.deepEqual(await ids(), [12, 11, 10, 9, 8, 7, 6, 5].map((number) => `${rideId}_${number}`));
  await page.getByRole('button', { name: 'More rides' }).click();
  await list.getByRole('button').nth(12).waitFor();
  assert.ok((await ids()).includes(rideId));
  await page.context().close();
});

test('a message that is too long is not sent, and its length is shown', async () => {
  const { page, rider, driver } = await newRide(browser, server.url);
  const text = '🚕'.repeat(3_000);
  await rider.send(text);
  await driver.sees(text);
  await rider.input.fill('x'.repeat(4_001));
  await rider.panel.getByText('4,001 of 4,000 characters').waitFor();
  await rider.input.press('Enter');
  assert.equal((await rider.input.inputValue()).length, 4_001);
  await rider.input.press('Backspace');
  await rider.input.press('Enter');
  await driver.sees('x'.repeat(4_000));
  await page.context().close();
});

test('an unavailable server is reported, and the page recovers when it is back', async () => {
  let isDown = false;
  const proxy = await startProxy(server.url, { intercept: (_, res) => isDown && Boolean(res.destroy()) });
  const { page, errors, rider, driver } = await newRide(browser, proxy.url);
  const banner = page.getByRole('alert').filter({ hasText: 'Trying again…' });
  await rider.send('before');
  await driver.sees('before');
  assert.equal(await banner.isVisible(), false);
  isDown = true;
  proxy.cut();
  await banner.filter({ hasText: 'The server does not respond.' }).waitFor();
  assert.deepEqual(await violations(page), []);
  await rider.send('meanwhile');
  await rider.ticks('meanwhile', 'Sending');
  isDown = false;
  await banner.waitFor({ state: 'hidden' });
  await driver.sees('meanwhile');
  for (const each of [rider, driver]) await each.state('Live');
  await driver.send('after');
  await rider.sees('after');

  // The offline switch of a phone does not report the server as unavailable.
  await rider.toggleOnline();
  await rider.state('Offline');
  await driver.send('still there');
  await driver.ticks('still there', 'Sent');
  assert.equal(await banner.isVisible(), false);
  assert.deepEqual(pageErrors(errors), []);
  await page.context().close();
});

test('a server that responds but is not ready is reported', async () => {
  const { page, rider } = await newRide(browser, server.url);
  await page.route('**/readyz', (route) => route.fulfill({ status: 503, json: { status: 'unavailable', database: false } }));
  await page.context().setOffline(true);
  await rider.state('Offline');
  await page.getByRole('alert').filter({ hasText: 'The server’s database does not respond. Trying again…' }).waitFor();
  await page.unroute('**/readyz');
  await page.context().setOffline(false);
  await rider.state('Live');
  await page.getByRole('alert').filter({ hasText: 'Trying again…' }).waitFor({ state: 'hidden' });
  await page.context().close();
});

test('a page that is opened while the server becomes unavailable starts when it is back', async () => {
  let isDown = true;
  const proxy = await startProxy(server.url, { intercept: (req, res) => isDown && req.url === '/console/session' && Boolean(res.destroy()) });
  const { page } = await open(browser, proxy.url);
  // The page retries its request, and checks the server's readiness.
  const count = (line) => proxy.requests.filter((made) => made === line).length;
  while (count('GET /readyz') < 1 || count('GET /console/session') < 2) await page.waitForTimeout(50);
  isDown = false;
  await phone(page, 'Rider').state('Live');
  await page.context().close();
});
