import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../../docs/', import.meta.url));
const TYPES = { html: 'text/html', js: 'text/javascript' };
const PATIENCE = { timeout: 120_000 };

/**
 * Serves what is below `docs`, on a port of its own: for the server of Ridewire, another site.
 * @param {Record<string, string>} pages of HTML, that are there besides
 */
export async function serveDocs(pages = {}) {
  const server = http.createServer(async (req, res) => {
    const { pathname } = new URL(req.url, 'http://docs');
    // A package's modules may name each other without `.js`, as bundlers allow.
    const path = ROOT + (/\.[a-z]+$/.test(pathname) ? pathname : `${pathname}.js`);
    const text = pages[pathname] ?? (await readFile(path).catch(() => undefined));
    if (text === undefined) return res.writeHead(404).end();
    return res.writeHead(200, { 'content-type': `${TYPES[path.split('.').at(-1)]}; charset=utf-8` }).end(text);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { url: `http://127.0.0.1:${server.address().port}`, close: () => (server.closeAllConnections(), server.close()) };
}

/** The quick start's page in a browser, with what a `Program` has. */
export class Page {
  static async open(browser, docs, { url, rideId, token }) {
    const page = await browser.newPage();
    await page.goto(`${docs.url}/quickstart/browser/index.html`);
    await page.getByLabel('Server').fill(url);
    await page.getByLabel('Ride').fill(rideId);
    await page.getByLabel('Token').fill(token);
    await page.getByRole('button', { name: 'Follow' }).click();
    return new Page(page);
  }

  constructor(page) {
    this.page = page;
  }

  async lines() {
    return this.page.locator('#messages li').evaluateAll((items) => items.map((item) => item.textContent));
  }

  async say(line) {
    await this.page.getByLabel('Message').fill(line);
    await this.page.getByRole('button', { name: 'Send' }).click();
  }

  async printed(end) {
    const isThere = (end) => [...document.querySelectorAll('#messages li')].some((item) => item.textContent.endsWith(end));
    await this.page.waitForFunction(isThere, end, PATIENCE);
  }

  async told(what) {
    await this.page.locator('#status, #messages li', { hasText: what }).waitFor(PATIENCE);
  }

  isOver() {
    return this.told('the end');
  }

  isRefused() {
    return this.told('sign in again');
  }
}
