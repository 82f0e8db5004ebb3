import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { NARROW, WIDE, launch, open, violations } from './browser.js';
import { newRide } from './demo.js';
import { testEveryFeature, phone } from './phone.js';
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

test('the console of a demo shows a ride in progress', async () => {
  const { page, errors } = await open(browser, server.url);
  const rider = phone(page, 'Rider');
  await rider.panel.locator('[aria-current="step"]', { hasText: 'Accepted' }).waitFor();
  const car = rider.panel.locator('.map__car');
  const transform = () => car.evaluate((element) => element.style.transform);
  await page.waitForFunction(() => document.querySelector('.map__car').style.transform !== '');
  const before = await transform();
  await page.waitForFunction((before) => document.querySelector('.map__car').style.transform !== before, before);
  await rider.sees('Hi Lena, Amir here. Grey estate, HB 204.');
  await page.locator('.wire__row', { hasText: 'ride:location' }).first().waitFor();
  assert.match(await page.locator('.stat').first().textContent(), /SSE live · cursor \d+/);
  assert.deepEqual(errors, []);
  await page.context().close();
});

test('two phones and support chat with every feature', async () => {
  const { page, errors, rider, driver, support } = await onNewRide();
  await testEveryFeature({ rider, driver, support });
  assert.deepEqual(errors, []);
  await page.context().close();
});

test('a ride is cancelled after a confirmation, where its status allows that', async () => {
  const { page, errors, rider, driver, support } = await onNewRide();
  const cancel = (of) => of.panel.getByRole('button', { name: 'Cancel ride' });
  const question = rider.panel.getByRole('dialog', { name: 'Cancel this ride?' });
  await cancel(rider).click();
  await question.waitFor();
  await page.keyboard.press('Escape');
  await question.waitFor({ state: 'hidden' });
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Cancel ride', 'the focus is restored');
  await cancel(rider).press('Enter');
  await question.getByRole('button', { name: 'Keep the ride' }).click();
  await question.waitFor({ state: 'hidden' });
  await cancel(driver).waitFor();

  await cancel(rider).click();
  await question.getByRole('textbox', { name: 'Reason' }).fill('The train is late');
  assert.deepEqual(await violations(page), []);
  const cancellation = page.waitForRequest((request) => request.url().endsWith('/cancel'));
  await question.getByRole('button', { name: 'Cancel the ride' }).click();
  assert.deepEqual((await cancellation).postDataJSON(), { reason: 'The train is late' });
  await page.locator('.top__ride', { hasText: 'Cancelled' }).waitFor();
  for (const phone of [rider, driver, support]) {
    await phone.panel.locator('.steps--cancelled').waitFor();
    await cancel(phone).waitFor({ state: 'hidden' });
  }
  // The chat of an ended ride stays open for the grace period.
  await driver.send('No problem');
  await rider.sees('No problem');
  assert.deepEqual(errors, []);
  await page.context().close();
});

test('no message is lost or repeated after a reload, a network loss, and changes of the transport', async () => {
  const { page, errors, rider, driver } = await onNewRide();
  const sent = [];
  const send = async (text) => {
    sent.push(text);
    await driver.send(text);
  };
  await send('one');
  await rider.sees('one');

  await page.reload();
  await rider.state('Live');
  await driver.state('Live');
  await send('two');
  await rider.sees('two');

  await rider.toggleOnline();
  await rider.state('Offline');
  await send('three');
  await rider.input.fill('from the tunnel');
  await rider.input.press('Enter');
  await rider.ticks('from the tunnel', 'Sending');
  await driver.ticks('three', 'Sent');
  await page.waitForTimeout(3_000);
  await send('four');
  assert.equal(await rider.message('four').count(), 0);
  await rider.toggleOnline();
  await rider.sees('four');
  sent.push('from the tunnel');
  await driver.sees('from the tunnel');

  await rider.via('Poll');
  await rider.state('Polling');
  await send('five');
  await rider.sees('five');
  assert.ok(await page.locator('.wire__row[data-role="rider"]', { hasText: 'poll response' }).count());
  await rider.via('SSE');
  await rider.state('Live');
  await send('six');
  await rider.sees('six');

  for (const each of [rider, driver]) assert.deepEqual(await each.texts(), sent);
  assert.deepEqual(errors, []);
  await page.context().close();
});

test('a phone continues on another replica', async () => {
  const replica = await server.replica();
  try {
    const { page, rider, driver } = await onNewRide();
    await rider.send('here');
    await driver.sees('here');
    await driver.panel.getByRole('combobox', { name: 'Server' }).selectOption('other');
    await driver.panel.getByRole('textbox', { name: 'Address of another server' }).fill(replica.url);
    await driver.panel.getByRole('button', { name: 'Use' }).click();
    await rider.send('there');
    await driver.sees('there');
    await driver.send('from the other side');
    await rider.sees('from the other side');
    assert.deepEqual(await driver.texts(), ['here', 'there', 'from the other side']);
    await page.context().close();
  } finally {
    await replica.stop();
  }
});

test('without a demo, the page asks for tokens and shows a phone for each', async () => {
  const plain = await startServer({ args: ['serve'], env: { RIDEWIRE_CONSOLE: 'on' } });
  try {
    const [platform, driver, support] = await Promise.all(
      [['platform', 'service'], ['noor', 'driver'], ['sam', 'support']].map((who) => plain.token(...who)),
    );
    const headers = { authorization: `Bearer ${platform}` };
    const body = JSON.stringify({ riderId: 'ada', driverId: 'noor' });
    await fetch(`${plain.url}/api/v1/rides/ride_7`, { method: 'PUT', headers, body });
    const { page, errors } = await open(browser, plain.url);
    const field = (name) => page.getByRole('textbox', { name, exact: true });
    await field('Ride').fill('ride_7');
    await field('Driver’s token').fill('no token');
    await page.getByRole('button', { name: 'Connect' }).click();
    await page.getByRole('alert').filter({ hasText: 'Paste at least one token of a rider' }).waitFor();
    assert.deepEqual(await violations(page), []);
    await field('Driver’s token').fill(driver);
    await field('Support’s token').fill(support);
    await page.getByRole('button', { name: 'Connect' }).click();
    await phone(page, 'Driver').state('Live');
    await phone(page, 'Driver').send('Hello');
    await phone(page, 'Support').sees('Hello');
    assert.equal(await page.locator('#panel-rider').count(), 0);
    await page.getByRole('button', { name: 'Copy driver’s connection as a curl command' }).waitFor();
    assert.deepEqual(errors, []);
    await page.context().close();
  } finally {
    await plain.stop();
  }
});

test('the console can be used with the keyboard only', async () => {
  const { page, rider, driver } = await onNewRide({ viewport: NARROW });
  const { keyboard } = page;
  const focused = () => page.evaluate(() => document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent);
  const go = async (key, label) => {
    for (let steps = 0; steps < 40; steps += 1) {
      await keyboard.press(key);
      if (label.test(await focused())) return;
    }
    assert.fail(`${key} does not lead to ${label}`);
  };
  await go('Tab', /^Rider/);
  await keyboard.press('ArrowRight');
  await driver.input.waitFor();
  assert.equal(await page.getByRole('tab', { name: 'Driver' }).getAttribute('aria-selected'), 'true');
  await keyboard.press('ArrowLeft');
  await go('Tab', /^Message as/);
  await keyboard.type('By keys');
  await keyboard.press('Enter');
  await rider.sees('By keys');

  await go('Shift+Tab', /^Actions for: By keys/);
  await keyboard.press('Enter');
  await keyboard.press('ArrowRight');
  await keyboard.press('Enter');
  await rider.message('By keys').getByRole('button', { name: '❤️ from you' }).waitFor();
  // The focus is restored, although the message was updated meanwhile.
  const isBack = (label) => page.waitForFunction((label) => document.activeElement.getAttribute('aria-label')?.startsWith(label), label);
  await isBack('Actions for');
  await keyboard.press('Enter');
  await keyboard.press('Escape');
  await isBack('Actions for');
  await keyboard.press('Enter');
  await keyboard.press('End');
  await keyboard.press('Enter');
  await rider.sees('This message was deleted');
  await isBack('Messages');

  await go('Tab', /^Message as/);
  await go('Shift+Tab', /^Online/);
  await keyboard.press('Space');
  await rider.state('Offline');
  await keyboard.press('Space');
  await rider.state('Live');
  await go('Shift+Tab', /^New ride/);
  await page.context().close();
});

test('a closed menu restores the focus when the message was updated meanwhile, also before the page is rendered', async () => {
  const { page, rider } = await onNewRide();
  await rider.send('Hello');
  await rider.message('Hello').getByRole('button', { name: /^Actions for/ }).waitFor();
  const focused = await page.evaluate(async () => {
    const menu = document.querySelector('#panel-rider [role="menu"]');
    const more = document.querySelector('#panel-rider .message__more');
    more.focus();
    more.click();
    more.replaceWith(more.cloneNode(true));
    const isClosed = new Promise((resolve) => menu.addEventListener('toggle', resolve, { once: true }));
    menu.hidePopover();
    await isClosed;
    return document.activeElement.getAttribute('aria-label');
  });
  assert.equal(focused, 'Actions for: Hello');
  await page.context().close();
});

test('there are no accessibility violations, in light and dark, wide and narrow, and from right to left', async () => {
  const { page, rider, driver } = await onNewRide();
  await rider.send('Hello');
  await driver.sees('Hello');
  await driver.react('Hello', 'heart');
  await rider.ticks('Hello', 'Read');
  for (const colorScheme of ['light', 'dark']) {
    for (const viewport of [WIDE, NARROW]) {
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
      await page.setViewportSize(viewport);
      const tabs = viewport === NARROW ? ['Rider', 'Support', 'Wire'] : [undefined];
      for (const name of tabs) {
        if (name) await page.getByRole('tab', { name }).click();
        assert.deepEqual(await violations(page), [], `${colorScheme} ${name ?? 'wide'}`);
      }
    }
  }
  await page.evaluate(() => {
    document.documentElement.dir = 'rtl';
  });
  const isWide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
  assert.equal(isWide, false, 'no overflow from right to left');
  await page.context().close();
});

test('screenshots for the documentation', { skip: !process.env.RIDEWIRE_SCREENSHOTS && 'RIDEWIRE_SCREENSHOTS=1 takes them' }, async () => {
  const fresh = await startServer();
  try {
    const { page } = await open(browser, fresh.url);
    const halfway = phone(page, 'Rider').message('Yes, I take the street behind it.');
    await halfway.waitFor({ timeout: 120_000 });
    for (const [name, viewport] of [['wide', { ...WIDE, height: 960 }], ['narrow', NARROW]]) {
      for (const colorScheme of ['light', 'dark']) {
        await page.emulateMedia({ colorScheme });
        await page.setViewportSize(viewport);
        await page.waitForTimeout(1_500);
        const path = fileURLToPath(new URL(`../../docs/console-${name}-${colorScheme}.png`, import.meta.url));
        await page.screenshot({ path });
      }
    }
    await page.context().close();
  } finally {
    await fresh.stop();
  }
});
