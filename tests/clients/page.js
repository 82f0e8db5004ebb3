import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../../docs/', import.meta.url));
const TYPES = { html: 'text/html', js: 'text/javascript' };
const TIMEOUT = { timeout: 120_000 };

/**
 * Serves the files below `docs` on another origin than the Ridewire server.
 * @param {Record<string, string>} pages additional HTML pages
 */
export async function serveDocs(pages = {}) {
  const server = http.createServer(async (req, res) => {
    const { pathname } = new URL(req.url, 'http://docs');
    // Modules of a package may import each other without `.js`, as bundlers allow.
    const path = ROOT + (/\.[a-z]+$/.test(pathname) ? pathname : `${pathname}.js`);
    const text = pages[pathname] ?? (await readFile(path).catch(() => undefined));
    if (text === undefined) return res.writeHead(404).end();
    return res.writeHead(200, { 'content-type': `${TYPES[path.split('.').at(-1)]}; charset=utf-8` }).end(text);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { url: `http://127.0.0.1:${server.address().port}`, close: () => (server.closeAllConnections(), server.close()) };
}

/** The quick start page in a browser, with the interface of `Program`. */
export class Page {
  static async open(browser, docs, { url, rideId, token }) {
    const page = await browser.newPage();
    await page.goto(`${docs.url}/tutorial/quickstart/browser/index.html`);
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

  async send(line) {
    await this.page.getByLabel('Message').fill(line);
    await this.page.getByRole('button', { name: 'Send' }).click();
  }

  async waitForLine(end) {
    const isInstalled = (end) => [...document.querySelectorAll('#messages li')].some((item) => item.textContent.endsWith(end));
    await this.page.waitForFunction(isInstalled, end, TIMEOUT);
  }

  async reported(what) {
    await this.page.locator('#status, #messages li', { hasText: what }).waitFor(TIMEOUT);
  }

  waitForEnd() {
    return this.reported('the end');
  }

  waitForRejection() {
    return this.reported('sign in again');
  }
}
