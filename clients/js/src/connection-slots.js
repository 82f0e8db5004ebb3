/** How many connections may wait for events at a time. Two of a browser's six remain for requests. */
const MAX_WAITING = 4;

/** How long a hidden page leaves its slots to visible pages after one has requested a slot, in milliseconds. */
const YIELD_MS = 30_000;

const slotsByUrl = new Map();

/**
 * Returns the slots at a server. All clients of a page share them.
 * @param {string} base a URL of the server
 */
export function connectionSlots(base) {
  if (!globalThis.document || !globalThis.navigator?.locks) return UNLIMITED;
  const url = `${new URL(base, globalThis.location?.href).origin}/`;
  if (!slotsByUrl.has(url)) slotsByUrl.set(url, new ConnectionSlots(url));
  return slotsByUrl.get(url);
}

const noop = () => {};
const UNLIMITED = { acquire: async () => noop };

/**
 * Slots for connections that wait for events. Over HTTP/1.1 a browser has six connections per host, for all of its tabs
 * together. Six waiting connections would block all requests. So only a few connections wait, in whichever tab, and the other
 * subscriptions poll now and then.
 *
 * A slot is a Web Lock. The tabs of a site share its locks, and a tab's locks end with the tab.
 */
class ConnectionSlots {
  #url;
  #isLimited = false;
  #channel;
  #requestedAt = -Infinity;
  /** Callbacks of the slots in use, called when another page requests a slot. */
  #holderCallbacks = new Set();

  constructor(url) {
    this.#url = url;
  }

  /**
   * @param {() => void} onRequested called when a visible page needs the slot and this page is hidden
   * @returns {Promise<(() => void) | undefined>} releases the slot; undefined if there is none left
   */
  async acquire(onRequested) {
    if (!this.#checkLimit()) return noop;
    const isHidden = document.visibilityState === 'hidden';
    if (isHidden && Date.now() - this.#requestedAt < YIELD_MS) return undefined;
    for (let number = 1; number <= MAX_WAITING; number += 1) {
      const release = await lock(`${this.#url} ${number}`);
      if (!release) continue;
      this.#holderCallbacks.add(onRequested);
      return () => {
        this.#holderCallbacks.delete(onRequested);
        release();
      };
    }
    if (!isHidden) this.#channel.postMessage('requested');
    return undefined;
  }

  /** Whether slots are limited. The browser reports the protocol after the first request; HTTP/2 has no limit. */
  #checkLimit() {
    if (this.#isLimited) return true;
    const isHttp1 = ({ name, nextHopProtocol }) => nextHopProtocol === 'http/1.1' && name.startsWith(this.#url);
    this.#isLimited = performance.getEntriesByType('resource').some(isHttp1);
    if (this.#isLimited) {
      this.#channel = new BroadcastChannel(this.#url);
      this.#channel.onmessage = () => this.#onRequest();
    }
    return this.#isLimited;
  }

  #onRequest() {
    this.#requestedAt = Date.now();
    if (document.visibilityState === 'hidden') for (const onRequested of [...this.#holderCallbacks]) onRequested();
  }
}

/** Takes a lock if it is free. If the browser denies locks, slots are not limited. */
function lock(name) {
  return new Promise((resolve) => {
    const hold = (granted) => (granted ? new Promise(resolve) : resolve(undefined));
    navigator.locks.request(name, { ifAvailable: true }, hold).catch(() => resolve(noop));
  });
}
