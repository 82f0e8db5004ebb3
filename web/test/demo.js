import { open } from './browser.js';
import { phone } from './phone.js';

/** The console of a demo on a ride that nobody drives, with the phones of its people. */
export async function newRide(browser, url, options) {
  const opened = await open(browser, url, options);
  const phones = await anotherRide(opened.page);
  return { ...opened, ...phones };
}

/** The same in a page that is open already. */
export async function anotherRide(page) {
  const before = new URL(page.url()).searchParams.get('ride');
  await page.getByRole('button', { name: 'New ride' }).click();
  // The page's address names the ride that was chosen; until it is open, the page may still show the one before.
  const opened = await page.waitForFunction((before) => {
    const rideId = new URLSearchParams(location.search).get('ride');
    return rideId !== before && document.getElementById('ride').textContent === `${rideId} · Accepted` && rideId;
  }, before);
  const rideId = await opened.jsonValue();
  const [rider, driver, support] = ['Rider', 'Driver', 'Support'].map((name) => phone(page, name));
  for (const each of [rider, driver, support]) await each.state('Live');
  return { rideId, rider, driver, support };
}

/** The tokens that the demo gives its page. */
export const tokens = (page) => page.evaluate(async () => (await (await fetch('/console/session')).json()).tokens);

/** A request to the API of a page's server, beside the page. */
export async function ask(page, token, method, path, body) {
  const url = new URL(`/api/v1/${path}`, page.url());
  const response = await fetch(url, { method, headers: { authorization: `Bearer ${token}` }, body: body && JSON.stringify(body) });
  const text = await response.text();
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
  return text && JSON.parse(text);
}
