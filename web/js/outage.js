import { setText } from './dom.js';

/** The interval and the timeout of checks while the server does not respond, in milliseconds. */
const INTERVAL = 2_000;
const TIMEOUT = 5_000;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Shows a banner while the server is unavailable. */
export class Outage {
  #banner;
  #isDisconnected;
  #isChecking = false;

  /**
   * @param {HTMLElement} banner
   * @param {() => boolean} isDisconnected whether any connection of the page is lost
   */
  constructor(banner, isDisconnected) {
    this.#banner = banner;
    this.#isDisconnected = isDisconnected;
  }

  /** Checks the server until it responds and no connection is lost. */
  async check() {
    if (this.#isChecking) return;
    this.#isChecking = true;
    let problem;
    for (;;) {
      const before = problem;
      problem = await checkServer();
      this.#banner.hidden = !problem;
      setText(this.#banner, problem ? `${problem} Trying again…` : '');
      // Browsers dispatch this event when the network is back. It makes the clients reconnect without further delay.
      if (before && !problem) dispatchEvent(new Event('online'));
      if (!problem && !this.#isDisconnected()) break;
      await pause(INTERVAL);
    }
    this.#isChecking = false;
  }

  /** Repeats an action until the server is available. */
  async retry(action) {
    for (;;) {
      try {
        return await action();
      } catch (error) {
        // `fetch` throws a `TypeError` if there is no response.
        if (!(error instanceof TypeError)) throw error;
        this.check();
        await pause(INTERVAL);
      }
    }
  }
}

/** Returns the server's problem, or undefined. */
async function checkServer() {
  try {
    const response = await fetch('/readyz', { cache: 'no-store', signal: AbortSignal.timeout(TIMEOUT) });
    if (response.status !== 503) return undefined;
    const { database } = await response.json();
    return database ? 'The server is not ready.' : 'The server’s database does not respond.';
  } catch {
    return navigator.onLine ? 'The server does not respond.' : 'This browser is offline.';
  }
}
