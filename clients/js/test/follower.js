import assert from 'node:assert/strict';

/** How long to wait before giving up: it costs time only where a test fails. */
const PATIENCE = 60_000;

/** Collects what a subscription hands over, and waits for it. */
export class Follower {
  static #all = [];

  /** What a test that failed has left open would keep the process. */
  static closeAll() {
    for (const { subscription } of Follower.#all) subscription.close();
  }

  durable = [];
  states = [];
  syncs = [];
  #waiting = new Set();

  constructor(subscription) {
    this.subscription = subscription;
    Follower.#all.push(this);
    subscription.on('*', (event) => {
      if (event.id !== undefined) this.durable.push(event);
    });
    subscription.on('status', ({ state }) => this.states.push(state));
    subscription.on('sync', (sync) => this.syncs.push(sync));
    for (const type of ['*', 'status', 'sync', 'error', 'closed']) {
      subscription.on(type, () => this.#look());
    }
  }

  get contents() {
    return this.durable.filter(({ type }) => type === 'message:new').map(({ data }) => data.content);
  }

  /** Waits until something holds. */
  until(what, holds) {
    return new Promise((resolve, reject) => {
      const seen = () => `${what}: ${this.durable.length} events, ${this.states}`;
      const timer = setTimeout(() => reject(new Error(`waited in vain for ${seen()}`)), PATIENCE);
      this.#waiting.add({ holds, done: () => (clearTimeout(timer), resolve()) });
      this.#look();
    });
  }

  async became(state) {
    await this.until(state, () => this.subscription.state === state);
  }

  async got(content) {
    await this.until(`message ${content}`, () => this.contents.includes(String(content)));
  }

  #look() {
    for (const waiting of this.#waiting) {
      if (!waiting.holds()) continue;
      this.#waiting.delete(waiting);
      waiting.done();
    }
  }

  /** It must have been handed the messages of the log as the server has them: all of them, in order, once. */
  async hasTheLogOf(client, rideId) {
    const log = [];
    for (let page = { cursor: '0', hasMore: true }; page.hasMore; ) {
      const query = { after: page.cursor, wait: 0 };
      page = await client.request('GET', `/messages/rides/${rideId}/poll`, { query });
      log.push(...page.events);
    }
    const said = (events) =>
      events
        .filter(({ type, data }) => data.rideId === rideId && ['message:new', 'message:edited'].includes(type))
        .map(({ type, data }) => `${type} ${data.seq} ${data.content}`);
    assert.deepEqual(said(this.durable), said(log));
  }
}

/** Sends numbered messages, one after the other. */
export async function sendNumbers(client, rideId, from, to) {
  for (let number = from; number <= to; number += 1) await client.send(rideId, String(number));
}
