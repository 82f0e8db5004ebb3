import assert from 'node:assert/strict';

/** The elements and actions of a phone. */
export function phone(page, name) {
  const panel = page.locator(`#panel-${name.toLowerCase()}`);
  const message = (text) => panel.getByRole('listitem').filter({ has: page.getByText(text, { exact: true }) });
  const menu = async (text, item) => {
    await message(text).getByRole('button', { name: /^Actions for/ }).press('Enter');
    await panel.getByRole(item.role ?? 'menuitem', { name: item.name }).press('Enter');
  };
  return {
    panel,
    message,
    state: (state) => panel.locator('.state', { hasText: state }).waitFor({ state: 'attached' }),
    input: panel.getByRole('textbox', { name: /^Message as/ }),
    async send(text) {
      await this.input.fill(text);
      await this.input.press('Enter');
    },
    sees: (text) => message(text).waitFor(),
    ticks: (text, tick) => message(text).locator('.ticks', { hasText: tick }).waitFor(),
    react: (text, name) => menu(text, { role: 'menuitemcheckbox', name }),
    edit: async function edit(text, to) {
      await menu(text, { name: 'Edit' });
      await this.send(to);
    },
    delete: (text) => menu(text, { name: 'Delete' }),
    toggleOnline: () => panel.getByRole('switch', { name: 'Online' }).press('Enter'),
    via: (transport) => panel.getByRole('radio', { name: transport, exact: true }).check({ force: true }),
    texts: () => panel.locator('.message__text').allTextContents(),
  };
}

/**
 * Tests typing, sending, reading, reacting, editing, deleting and status changes. Each is seen on the other phones.
 * @param {Record<'rider' | 'driver' | 'support', ReturnType<typeof phone>>} phones in one window or in several
 */
export async function testEveryFeature({ rider, driver, support }) {
  const page = driver.panel.page();
  await rider.input.pressSequentially('At the ga');
  await driver.panel.locator('.chat__typing', { hasText: 'lena is typing' }).waitFor();
  await rider.send('At the gate');
  await driver.sees('At the gate');
  await support.sees('At the gate');
  await rider.ticks('At the gate', 'Read');
  assert.equal(await driver.panel.locator('.chat__typing').textContent(), '');

  // Messages on a locked phone are delivered, but not read.
  await driver.panel.getByRole('button', { name: 'Lock the phone' }).press('Enter');
  await rider.send('Are you there?');
  await rider.ticks('Are you there?', 'Delivered');
  await driver.panel.locator('.badge', { hasText: '1 unread' }).waitFor();
  assert.equal(await page.title(), '(1) Ridewire');
  await driver.panel.getByRole('button', { name: 'Lock the phone' }).press('Enter');
  await rider.ticks('Are you there?', 'Read');
  await page.waitForFunction(() => document.title === 'Ridewire');

  await driver.react('Are you there?', 'thumbs up');
  await rider.message('Are you there?').getByRole('button', { name: '👍 from amir' }).click();
  await driver.message('Are you there?').getByRole('button', { name: '👍 from you and lena' }).waitFor();
  await driver.send('On my wya');
  await driver.edit('On my wya', 'On my way');
  await rider.message('On my way').getByText('edited').waitFor();
  await driver.send('Wrong window');
  await rider.sees('Wrong window');
  await driver.delete('Wrong window');
  await rider.sees('This message was deleted');
  await support.send('Support is here');
  await rider.sees('Support is here');
  await rider.send('שלום, אני בשער');
  await driver.panel.locator('.message__text:dir(rtl)', { hasText: 'שלום' }).waitFor();

  await driver.panel.getByRole('button', { name: 'I have arrived' }).click();
  await rider.panel.locator('[aria-current="step"]', { hasText: 'Arrived' }).waitFor();
}
