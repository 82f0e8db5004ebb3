/** Growing delays with jitter, so that clients that were cut off together do not reconnect together. */
export class Backoff {
  #failures = 0;

  /**
   * @param {number} first the first ceiling, in milliseconds
   * @param {number} longest the largest ceiling, in milliseconds
   * @param {() => number} random returns a number from 0 to 1
   */
  constructor(first, longest, random) {
    this.first = first;
    this.longest = longest;
    this.random = random;
  }

  /** Returns the next delay: at least half of its ceiling, so that it is never close to zero. */
  next() {
    const ceiling = Math.min(this.longest, this.first * 2 ** this.#failures);
    this.#failures += 1;
    return ceiling * (0.5 + this.random() / 2);
  }

  /** Whether there has been no delay since the start or the last success. */
  get isFresh() {
    return this.#failures === 0;
  }

  reset() {
    this.#failures = 0;
  }
}

/**
 * Waits. Rejects with the signal's reason if it is aborted.
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
