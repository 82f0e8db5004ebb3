/** The platform's panel: the feed, and the deliveries of the demo's webhook receiver. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { NARROW, launch, open, violations } from './browser.js';
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

const feed = (page) => page.getByRole('region', { name: 'Feed' });
const webhooks = (page) => page.getByRole('region', { name: 'Webhook deliveries' });

test('an event appears on the feed, and is delivered to the receiver with a valid signature', async () => {
  const { page, errors, rideId, rider, driver } = await newRide(browser, server.url);
  await page.locator('#panel-platform .state', { hasText: 'Live' }).waitFor();
  await rider.send('Is this on the feed?');
  await driver.sees('Is this on the feed?');
  const event = feed(page).getByRole('listitem').filter({ hasText: 'lena: Is this on the feed?' });
  await event.filter({ hasText: 'message:new' }).filter({ hasText: `ride/${rideId} · ` }).waitFor();
  await event.locator('summary').click();
  const shown = JSON.parse(await event.locator('pre', { hasText: '{' }).textContent());
  assert.deepEqual([shown.type, shown.data.topic, shown.data.data.content], ['message:new', `ride/${rideId}`, 'Is this on the feed?']);

  const delivery = webhooks(page).getByRole('listitem').filter({ hasText: 'message.new' }).filter({ hasText: `ride/${rideId} · ${shown.data.seq}` });
  await delivery.filter({ hasText: 'signature verified' }).waitFor();
  await delivery.locator('summary').press('Enter');
  const delivered = JSON.parse(await delivery.locator('pre', { hasText: '{' }).textContent());
  assert.match(delivered['webhook-id'], /^evt_/);
  assert.deepEqual(delivered.body.data, shown.data);
  assert.deepEqual(await violations(page), []);
  assert.deepEqual(errors, []);
  await page.context().close();
});

test('a test can be sent, and repeated deliveries are marked', async () => {
  const { page, errors, rider, driver } = await newRide(browser, server.url);
  await rider.send('once');
  await driver.sees('once');
  await webhooks(page).getByText('message.new').first().waitFor();
  await page.getByRole('button', { name: 'Send a test' }).click();
  await page.getByRole('status').filter({ hasText: /^204 in \d+/ }).waitFor();
  await webhooks(page).getByText('webhook.test').waitFor();

  const { service } = await tokens(page);
  const { webhooks: all } = await request(page, service, 'GET', 'webhooks');
  assert.deepEqual(all.map(({ url }) => url), [`${server.url}/console/receiver`]);
  await request(page, service, 'POST', `webhooks/${all[0].id}/replay`, { after: '0' });
  await rider.send('and again');
  await webhooks(page).getByText(/repeated/).first().waitFor();
  assert.deepEqual(errors, []);
  await page.context().close();
});

test('the lists show the total count, and keep the latest hundred entries', async () => {
  const { page, rideId } = await newRide(browser, server.url);
  const { rider: token } = await tokens(page);
  await page.locator('#panel-platform .state', { hasText: 'Live' }).waitFor();
  for (let number = 1; number <= 105; number += 1) await request(page, token, 'POST', 'messages', { rideId, content: `message ${number}` });
  await feed(page).getByText('lena: message 105').waitFor();
  const counts = page.locator('#panel-platform .log__count');
  const [, total] = /^last 100 of (\d+)$/.exec(await counts.first().filter({ hasText: 'last' }).textContent());
  assert.ok(Number(total) >= 105, total);
  assert.equal(await feed(page).getByRole('listitem').count(), 100);
  await counts.last().filter({ hasText: /^last 100 of \d+$/ }).waitFor();
  await page.context().close();
});

test('without a demo the feed needs the platform’s token, and there is no receiver', async () => {
  const plain = await startServer({ args: ['serve'], env: { RIDEWIRE_CONSOLE: 'on' } });
  try {
    const [platform, rider] = await Promise.all([plain.token('billing', 'service'), plain.token('ada', 'rider')]);
    const { page, errors } = await open(browser, plain.url, { viewport: NARROW });
    const field = (name) => page.getByRole('textbox', { name, exact: true });
    await request(page, platform, 'PUT', 'rides/ride_7', { riderId: 'ada' });
    await field('Ride').fill('ride_7');
    await field('Rider’s token').fill(rider);
    await field('Platform’s token').fill(platform);
    await page.getByRole('button', { name: 'Connect' }).click();
    await phone(page, 'Rider').state('Live');
    await page.getByRole('tab', { name: 'Platform' }).click();
    await page.locator('#panel-platform .state', { hasText: 'Live' }).waitFor();
    await request(page, platform, 'PUT', 'rides/ride_7', { driverId: 'noor' });
    await feed(page).getByText('ride:participants').first().waitFor();
    await webhooks(page).getByText('A demo has its own receiver').waitFor();
    assert.deepEqual(await violations(page), []);
    assert.deepEqual(errors, []);
    await page.context().close();
  } finally {
    await plain.stop();
  }
});
