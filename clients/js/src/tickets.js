/** The longest delay of a timer, in milliseconds. */
const MAX_DELAY = 2 ** 31 - 1;

/**
 * The tickets with which a subscription opens its streams. The next ticket is requested some time before the current one
 * expires. So the stream can continue even if the application cannot provide a token at that moment.
 */
export class Tickets {
  #http;
  #rideId;
  #renewal;
  #next;

  /** @param {import('./http.js').Http} http @param {string | undefined} rideId @param {{renewal: number}} timing */
  constructor(http, rideId, { renewal }) {
    this.#http = http;
    this.#rideId = rideId;
    this.#renewal = renewal;
  }

  /**
   * @param {AbortSignal} signal the signal of the stream that uses the ticket
   * @param {() => void} onNext called when there is another ticket that expires later
   * @returns {Promise<string>}
   */
  async take(signal, onNext) {
    const { ticket, expiresAt } = this.#next ?? (await this.#requestTicket(signal));
    this.#next = undefined;
    const left = Date.parse(expiresAt) - Date.now();
    // With a wrong clock or a short-lived token, the ticket is used until it expires.
    if (left > 2 * this.#renewal && left < MAX_DELAY) {
      const timer = setTimeout(() => this.#prepareNext(expiresAt, signal, onNext), left - this.#renewal);
      signal.addEventListener('abort', () => clearTimeout(timer), { once: true });
    }
    return ticket;
  }

  #requestTicket(signal) {
    return this.#http.request('POST', '/stream-tickets', { body: { rideId: this.#rideId }, signal });
  }

  async #prepareNext(expiresAt, signal, onNext) {
    try {
      await this.#http.renew();
      const next = await this.#requestTicket(signal);
      if (signal.aborted || Date.parse(next.expiresAt) <= Date.parse(expiresAt)) return;
      this.#next = next;
      onNext();
    } catch {
      // The ticket is replaced when it expires instead.
    }
  }
}
