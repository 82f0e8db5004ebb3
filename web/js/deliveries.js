/** How long after an event its delivery is looked for, for how long again and again, and how often without an event. */
const SOON = 400;
const EXPECTED = 4_000;
const SELDOM = 15_000;

/**
 * What the receiver of the server's demo has received. Deliveries follow the events of the feed, so they are asked for when there
 * was one.
 */
export class Deliveries {
  /** `{webhook, url, total, rejected}`; undefined where there is no receiver. */
  receiver;
  #last = 0;
  /** What servers before this one have received. */
  #before = 0;
  #expectedUntil = 0;
  #wake = () => {};
  #onDeliveries;

  /** @param {(deliveries: object[]) => void} onDeliveries */
  constructor(onDeliveries) {
    this.#onDeliveries = onDeliveries;
  }

  /** There is an event that is to be delivered. */
  expect() {
    this.#expectedUntil = Date.now() + EXPECTED;
    this.#wake();
  }

  async run() {
    while (await this.#load()) {
      const isExpected = Date.now() < this.#expectedUntil;
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, isExpected ? SOON : SELDOM);
        this.#wake = () => {
          clearTimeout(timer);
          setTimeout(resolve, SOON);
        };
      });
    }
  }

  /** Whether there is a receiver, as far as is known. */
  async #load() {
    try {
      const response = await fetch(`/console/deliveries?after=${this.#last}`, { cache: 'no-store' });
      if (response.status === 204 || response.status === 404) return false;
      const { deliveries, ...receiver } = await response.json();
      // The server was started anew: it has another webhook, and counts from 1 again.
      if (this.receiver && this.receiver.webhook !== receiver.webhook) {
        [this.#before, this.#last, this.receiver] = [this.#before + this.#last, 0, undefined];
        return true;
      }
      this.receiver = { ...receiver, total: this.#before + receiver.total };
      this.#last = receiver.total;
      this.#onDeliveries(deliveries);
    } catch {
      // The server is away; the next time it may be there.
    }
    return true;
  }
}
