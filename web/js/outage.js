import { say } from './dom.js';

/** How often the server is asked while it does not answer, and how long it may take. */
const AGAIN = 2_000;
const PATIENCE = 5_000;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Says when the server is down, and when it is there again. */
export class Outage {
  #banner;
  #isInTrouble;
  #isAsking = false;

  /**
   * @param {HTMLElement} banner
   * @param {() => boolean} isInTrouble whether something of the page lacks its connection
   */
  constructor(banner, isInTrouble) {
    this.#banner = banner;
    this.#isInTrouble = isInTrouble;
  }

  /** There is a reason to ask whether the server answers: it is asked until it does, and nothing lacks its connection. */
  async suspect() {
    if (this.#isAsking) return;
    this.#isAsking = true;
    let problem;
    for (;;) {
      const before = problem;
      problem = await ask();
      this.#banner.hidden = !problem;
      say(this.#banner, problem ? `${problem} Trying again…` : '');
      // What browsers say when the network is back: clients wait no longer.
      if (before && !problem) dispatchEvent(new Event('online'));
      if (!problem && !this.#isInTrouble()) break;
      await pause(AGAIN);
    }
    this.#isAsking = false;
  }

  /** Repeats what a server that is down keeps from being done. */
  async persist(act) {
    for (;;) {
      try {
        return await act();
      } catch (error) {
        // What `fetch` throws where there is no answer.
        if (!(error instanceof TypeError)) throw error;
        this.suspect();
        await pause(AGAIN);
      }
    }
  }
}

/** What is wrong with the server, if anything is. */
async function ask() {
  try {
    const response = await fetch('/readyz', { cache: 'no-store', signal: AbortSignal.timeout(PATIENCE) });
    if (response.status !== 503) return undefined;
    const { database } = await response.json();
    return database ? 'The server is not ready.' : 'The server’s database does not answer.';
  } catch {
    return navigator.onLine ? 'The server does not answer.' : 'This browser is offline.';
  }
}
