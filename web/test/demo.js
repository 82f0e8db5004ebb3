import { open } from './browser.js';
import { phone } from './phone.js';

/** Opens the console of a demo with a new ride, which the demo does not drive, and its phones. */
export async function newRide(browser, url, options) {
  const opened = await open(browser, url, options);
  const phones = await createRide(opened.page);
  return { ...opened, ...phones };
}

/** Creates a new ride in a page that is already open. */
export async function createRide(page) {
  const before = new URL(page.url()).searchParams.get('ride');
  await page.getByRole('button', { name: 'New ride' }).click();
  // The page's URL has the new ride's id. Until the ride is loaded, the page may still show the previous one.
  const opened = await page.waitForFunction((before) => {
    const rideId = new URLSearchParams(location.search).get('ride');
    return rideId !== before && document.getElementById('ride').textContent === `${rideId} · Accepted` && rideId;
  }, before);
  const rideId = await opened.jsonValue();
  const [rider, driver, support] = ['Rider', 'Driver', 'Support'].map((name) => phone(page, name));
  for (const each of [rider, driver, support]) await each.state('Live');
  return { rideId, rider, driver, support };
}

/** Returns the tokens of the demo. */
export const tokens = (page) => page.evaluate(async () => (await (await fetch('/console/session')).json()).tokens);

/** Sends a request to the API of a page's server, independently of the page. */
export async function request(page, token, method, path, body) {
  const url = new URL(`/api/v1/${path}`, page.url());
  const response = await fetch(url, { method, headers: { authorization: `Bearer ${token}` }, body: body && JSON.stringify(body) });
  const text = await response.text();
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
  return text && JSON.parse(text);
}
