import assert from 'node:assert/strict';

/** How long to wait for a condition. A long timeout costs time only if a test fails. */
const TIMEOUT_MS = 60_000;

/** Collects the events of a subscription, and waits for conditions. */
export class EventCollector {
  static #all = [];

  /** Closes all subscriptions. A subscription that a failed test leaves open would keep the process running. */
  static closeAll() {
    for (const { subscription } of EventCollector.#all) subscription.close();
  }

  durable = [];
  states = [];
  syncs = [];
  #waiting = new Set();

  constructor(subscription) {
    this.subscription = subscription;
    EventCollector.#all.push(this);
    subscription.on('*', (event) => {
      if (event.id !== undefined) this.durable.push(event);
    });
    subscription.on('status', ({ state }) => this.states.push(state));
    subscription.on('sync', (sync) => this.syncs.push(sync));
    for (const type of ['*', 'status', 'sync', 'error', 'closed']) {
      subscription.on(type, () => this.#check());
    }
  }

  get contents() {
    return this.durable.filter(({ type }) => type === 'message:new').map(({ data }) => data.content);
  }

  /** Waits until a condition holds. */
  until(what, holds) {
    return new Promise((resolve, reject) => {
      const seen = () => `${what}: ${this.durable.length} events, ${this.states}`;
      const timer = setTimeout(() => reject(new Error(`timed out: ${seen()}`)), TIMEOUT_MS);
      this.#waiting.add({ holds, done: () => (clearTimeout(timer), resolve()) });
      this.#check();
    });
  }

  async became(state) {
    await this.until(state, () => this.subscription.state === state);
  }

  async received(content) {
    await this.until(`message ${content}`, () => this.contents.includes(String(content)));
  }

  #check() {
    for (const waiting of this.#waiting) {
      if (!waiting.holds()) continue;
      this.#waiting.delete(waiting);
      waiting.done();
    }
  }

  /** Asserts that the delivered messages are exactly those of the server's log: all of them, in order, once. */
  async assertHasLog(client, rideId) {
    const log = [];
    for (let page = { cursor: '0', hasMore: true }; page.hasMore; ) {
      const query = { after: page.cursor, wait: 0 };
      page = await client.request('GET', `/messages/rides/${rideId}/poll`, { query });
      log.push(...page.events);
    }
    const summaries = (events) =>
      events
        .filter(({ type, data }) => data.rideId === rideId && ['message:new', 'message:edited'].includes(type))
        .map(({ type, data }) => `${type} ${data.seq} ${data.content}`);
    assert.deepEqual(summaries(this.durable), summaries(log));
  }
}

/** Sends numbered messages, one after the other. */
export async function sendNumbers(client, rideId, from, to) {
  for (let number = from; number <= to; number += 1) await client.send(rideId, String(number));
}
