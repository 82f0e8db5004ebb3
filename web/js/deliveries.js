/** How often the page asks for deliveries after an event, for how long, and how often without an event, in milliseconds. */
const ACTIVE_INTERVAL = 400;
const ACTIVE_PERIOD = 4_000;
const IDLE_INTERVAL = 15_000;

/** Loads the deliveries of the demo's webhook receiver. A delivery follows each event of the feed, so events trigger the load. */
export class Deliveries {
  /** `{webhook, url, total, rejected}`; undefined without a receiver. */
  receiver;
  #last = 0;
  /** The number of deliveries that the server received before its restart. */
  #before = 0;
  #activeUntil = 0;
  #wake = () => {};
  #onDeliveries;

  /** @param {(deliveries: object[]) => void} onDeliveries */
  constructor(onDeliveries) {
    this.#onDeliveries = onDeliveries;
  }

  /** Loads deliveries more often, because an event is about to be delivered. */
  expect() {
    this.#activeUntil = Date.now() + ACTIVE_PERIOD;
    this.#wake();
  }

  async run() {
    while (await this.#load()) {
      const isActive = Date.now() < this.#activeUntil;
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, isActive ? ACTIVE_INTERVAL : IDLE_INTERVAL);
        this.#wake = () => {
          clearTimeout(timer);
          setTimeout(resolve, ACTIVE_INTERVAL);
        };
      });
    }
  }

  /** Loads new deliveries. Returns false if there is no receiver. */
  async #load() {
    try {
      const response = await fetch(`/console/deliveries?after=${this.#last}`, { cache: 'no-store' });
      if (response.status === 204 || response.status === 404) return false;
      const { deliveries, ...receiver } = await response.json();
      // The server was restarted: it has another webhook and counts from 1 again.
      if (this.receiver && this.receiver.webhook !== receiver.webhook) {
        [this.#before, this.#last, this.receiver] = [this.#before + this.#last, 0, undefined];
        return true;
      }
      this.receiver = { ...receiver, total: this.#before + receiver.total };
      this.#last = receiver.total;
      this.#onDeliveries(deliveries);
    } catch {
      // The server is unavailable; the next attempt may succeed.
    }
    return true;
  }
}
