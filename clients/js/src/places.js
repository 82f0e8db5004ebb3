/** How many may wait for events at a time: two connections are left for requests. */
const PLACES = 4;

/** For how many milliseconds a page that is hidden leaves its places to those that are looked at and want one. */
const YIELDS = 30_000;

const known = new Map();

/**
 * The places at a server, the same for all of a page's clients.
 * @param {string} base an address there
 */
export function placesAt(base) {
  if (!globalThis.document || !globalThis.navigator?.locks) return UNLIMITED;
  const url = `${new URL(base, globalThis.location?.href).origin}/`;
  if (!known.has(url)) known.set(url, new Places(url));
  return known.get(url);
}

const nothing = () => {};
const UNLIMITED = { take: async () => nothing };

/**
 * Where to wait for events. Over HTTP/1.1 a browser has six connections to a host, for all of its tabs together, and what
 * waits holds one of them: with six that wait, no request gets through any more. So only a few wait, in whichever tab,
 * and the others look in now and then.
 *
 * A place is a Web Lock: the tabs of a site share those, and they end with their tab.
 */
class Places {
  #url;
  #areFew = false;
  #channel;
  #wantedAt = -Infinity;
  /** Told that others want a place. */
  #holders = new Set();

  constructor(url) {
    this.#url = url;
  }

  /**
   * @param {() => void} onWanted it should be left to a page that is looked at, since this one is not
   * @returns {Promise<(() => void) | undefined>} gives it back; undefined: there is none left
   */
  async take(onWanted) {
    if (!this.#know()) return nothing;
    const isHidden = document.visibilityState === 'hidden';
    if (isHidden && Date.now() - this.#wantedAt < YIELDS) return undefined;
    for (let number = 1; number <= PLACES; number += 1) {
      const release = await lock(`${this.#url} ${number}`);
      if (!release) continue;
      this.#holders.add(onWanted);
      return () => {
        this.#holders.delete(onWanted);
        release();
      };
    }
    if (!isHidden) this.#channel.postMessage('wanted');
    return undefined;
  }

  /** Whether they are few. The platform tells what is spoken once something has been asked for; HTTP/2 has room for all. */
  #know() {
    if (this.#areFew) return true;
    const isOld = ({ name, nextHopProtocol }) => nextHopProtocol === 'http/1.1' && name.startsWith(this.#url);
    this.#areFew = performance.getEntriesByType('resource').some(isOld);
    if (this.#areFew) {
      this.#channel = new BroadcastChannel(this.#url);
      this.#channel.onmessage = () => this.#wanted();
    }
    return this.#areFew;
  }

  #wanted() {
    this.#wantedAt = Date.now();
    if (document.visibilityState === 'hidden') for (const onWanted of [...this.#holders]) onWanted();
  }
}

/** Takes a lock if nobody has it. Where locks are denied, everything is as if there were none. */
function lock(name) {
  return new Promise((resolve) => {
    const hold = (taken) => (taken ? new Promise(resolve) : resolve(undefined));
    navigator.locks.request(name, { ifAvailable: true }, hold).catch(() => resolve(nothing));
  });
}
