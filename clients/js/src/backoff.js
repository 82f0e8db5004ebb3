/** Growing pauses, jittered so that those who were cut off together do not come back together. */
export class Backoff {
  #failures = 0;

  /**
   * @param {number} first in milliseconds
   * @param {number} longest in milliseconds
   * @param {() => number} random from 0 to 1
   */
  constructor(first, longest, random) {
    this.first = first;
    this.longest = longest;
    this.random = random;
  }

  /** The next pause: from half of its ceiling up, since one of nothing would be no pause. */
  next() {
    const ceiling = Math.min(this.longest, this.first * 2 ** this.#failures);
    this.#failures += 1;
    return ceiling * (0.5 + this.random() / 2);
  }

  /** Whether there has been no pause since the start, or the last success. */
  get isFresh() {
    return this.#failures === 0;
  }

  reset() {
    this.#failures = 0;
  }
}

/**
 * Waits, or rejects with the signal's reason.
 * @param {number} ms
 * @param {AbortSignal} [signal]
 */
export function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', stop);
      resolve();
    }, ms);
    if (signal?.aborted) stop();
    else signal?.addEventListener('abort', stop, { once: true });
  });
}
