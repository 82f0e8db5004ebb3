/** The longest that a timer can wait. */
const LONGEST = 2 ** 31 - 1;

/**
 * The tickets that a subscription opens its streams with. A while before one ends, the next is asked for: who gives tokens
 * may be away just then, and until the end there is time to go on without.
 */
export class Tickets {
  #http;
  #rideId;
  #early;
  #next;

  /** @param {import('./http.js').Http} http @param {string | undefined} rideId @param {{renewal: number}} timing */
  constructor(http, rideId, { renewal }) {
    this.#http = http;
    this.#rideId = rideId;
    this.#early = renewal;
  }

  /**
   * @param {AbortSignal} signal of the stream that it is for
   * @param {() => void} onNext there is another one now, which holds for longer
   * @returns {Promise<string>}
   */
  async take(signal, onNext) {
    const { ticket, expiresAt } = this.#next ?? (await this.#ask(signal));
    this.#next = undefined;
    const left = Date.parse(expiresAt) - Date.now();
    // Whose clock is wrong, or whose tokens are short, waits for the end.
    if (left > 2 * this.#early && left < LONGEST) {
      const timer = setTimeout(() => this.#renew(expiresAt, signal, onNext), left - this.#early);
      signal.addEventListener('abort', () => clearTimeout(timer), { once: true });
    }
    return ticket;
  }

  #ask(signal) {
    return this.#http.request('POST', '/stream-tickets', { body: { rideId: this.#rideId }, signal });
  }

  async #renew(expiresAt, signal, onNext) {
    try {
      await this.#http.renew();
      const next = await this.#ask(signal);
      if (signal.aborted || Date.parse(next.expiresAt) <= Date.parse(expiresAt)) return;
      this.#next = next;
      onNext();
    } catch {
      // Not now, then at its end.
    }
  }
}
