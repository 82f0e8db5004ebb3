import { Backoff, sleep } from './backoff.js';
import { bindMethods } from './bind.js';
import { Emitter } from './emitter.js';
import { RidewireError } from './error.js';
import { newId } from './id.js';
import { EMPTY, begin, insert, withEvent, withPage, withSync, withoutMessages } from './log.js';
import { checkOptions } from './options.js';
import { TIMING } from './timing.js';

/** The server ends typing after 6 seconds; here it ends a little later, in case that is not heard. */
const TYPING = 7_000;

/**
 * A ride's conversation as it is shown: history, what happens, and what one has sent oneself, at once.
 *
 * A message that is being sent is known by its `clientMessageId`. It gives way to the message of the log, whether that
 * comes as the answer or as an event, so it is never shown twice.
 */
export class Conversation {
  #client;
  #rideId;
  #state = EMPTY;
  #pending = new Map();
  #shown;
  #emitter = new Emitter();
  #isTold = true;
  #subscription;
  #closing = new AbortController();
  #error = null;
  #typists = new Map();
  /** Sends one after the other, so that they are committed in the order they were written in. */
  #sends = Promise.resolve();
  /** Pages on their way, each with the events since it was asked for. */
  #pages = new Set();

  constructor(client, rideId) {
    this.#client = client;
    this.#rideId = rideId;
    bindMethods(this);
    this.#begin();
  }

  /** Ordered by `seq`; behind them those that are `sending` or have `failed`. A new array whenever something changes. */
  get messages() {
    this.#shown ??= [...this.#state.messages, ...this.#pending.values()];
    return this.#shown;
  }

  get ride() {
    return this.#state.ride;
  }

  /** The people on the ride: who is `online`, and since when. */
  get participants() {
    return this.#state.participants;
  }

  get receipts() {
    return this.#state.receipts;
  }

  /** Where the driver is. */
  get location() {
    return this.#state.location;
  }

  /** The ids of those who are typing. */
  get typing() {
    return this.#state.typing;
  }

  /** Whether there are older messages to load. */
  get hasMore() {
    return this.#state.hasMore;
  }

  /** That of the subscription. */
  get state() {
    if (this.#closing.signal.aborted || this.#error) return 'closed';
    return this.#subscription?.state ?? 'connecting';
  }

  /** What has ended it, if it was an error. */
  get error() {
    return this.#error;
  }

  /**
   * Tells of changes, once for all those of the same moment.
   * @param {() => void} listener
   * @returns {() => void} takes it off again
   */
  subscribe(listener) {
    return this.#emitter.on('change', listener);
  }

  /**
   * Shows a message at once and sends it.
   * @param {string} content
   * @param {{metadata?: object}} [options]
   * @returns {string} its `clientMessageId`
   */
  send(content, options) {
    const { metadata } = checkOptions('send', options, ['metadata']);
    const clientMessageId = newId();
    const createdAt = new Date().toISOString();
    this.#send({ clientMessageId, rideId: this.#rideId, content, metadata: metadata ?? null, createdAt });
    return clientMessageId;
  }

  /** Sends a message again that has failed: the same one, should it have arrived after all. */
  retry(clientMessageId) {
    const message = this.#pending.get(clientMessageId);
    if (message?.status === 'failed') this.#send(message);
  }

  /** Takes a message away that has failed. */
  discard(clientMessageId) {
    if (this.#pending.get(clientMessageId)?.status !== 'failed') return;
    this.#pending.delete(clientMessageId);
    this.#changed();
  }

  /** Loads the page before the oldest message. */
  async loadMore() {
    const [oldest] = this.#state.messages;
    if (oldest && this.#state.hasMore && this.#pages.size === 0) await this.#loadPage({ before: oldest.seq });
  }

  /** Ends it. Messages that are being sent are sent all the same. */
  close() {
    this.#closing.abort();
    this.#subscription?.close();
    this.#forgetTypists(this.#typists.keys());
    this.#changed();
  }

  async #begin() {
    try {
      const page = await this.#patiently(() => this.#client.history(this.#rideId));
      if (this.#closing.signal.aborted) return;
      this.#set(begin(page));
      this.#follow(page.cursor);
    } catch (error) {
      this.#fail(error);
    }
  }

  #follow(cursor) {
    const subscription = this.#client.ride(this.#rideId, { after: cursor });
    this.#subscription = subscription;
    subscription.on('sync', (sync) => this.#sync(sync));
    subscription.on('*', (event) => this.#take(event));
    subscription.on('status', () => this.#changed());
    subscription.on('error', (error) => this.#fail(error));
  }

  #fail(error) {
    if (this.#closing.signal.aborted) return;
    this.#error = error;
    this.#changed();
  }

  #sync({ resumed, state }) {
    this.#forgetTypists(this.#typists.keys());
    if (resumed) return this.#set(withSync(this.#state, state));
    // A gap, or another log: what is shown cannot be gone on from, nor can pages that are on their way.
    this.#pages.clear();
    this.#set(withSync(withoutMessages(this.#state), state));
    return this.#loadPage({}).catch((error) => this.#fail(error));
  }

  #take(event) {
    for (const { events } of this.#pages) events.push(event);
    if (event.type === 'typing:indicator') this.#forgetTypists([event.data.userId]);
    if (event.type === 'message:new') this.#pending.delete(event.data.clientMessageId);
    this.#set(withEvent(this.#state, event));
  }

  async #loadPage(query) {
    const loading = { events: [] };
    this.#pages.add(loading);
    try {
      const page = await this.#patiently(() => this.#client.history(this.#rideId, query));
      if (this.#pages.has(loading)) this.#set(withPage(this.#state, page, loading.events));
    } finally {
      this.#pages.delete(loading);
    }
  }

  #send(message) {
    const { clientMessageId, content, metadata } = message;
    this.#pending.set(clientMessageId, { ...message, status: 'sending', error: undefined });
    this.#changed();
    this.#sends = this.#sends.then(async () => {
      try {
        const sent = await this.#client.send(this.#rideId, content, { metadata, clientMessageId });
        this.#pending.delete(clientMessageId);
        this.#set({ ...this.#state, messages: insert(this.#state.messages, sent) });
      } catch (error) {
        // Unless an event has shown meanwhile that it did arrive.
        if (!this.#pending.has(clientMessageId)) return;
        this.#pending.set(clientMessageId, { ...message, status: 'failed', error });
        this.#changed();
      }
    });
  }

  /** Repeats a read for as long as it may be answered later. */
  async #patiently(read) {
    const backoff = new Backoff(TIMING.backoff, TIMING.longestBackoff, Math.random);
    for (;;) {
      try {
        return await read();
      } catch (error) {
        if (!(error instanceof RidewireError) || !error.isTransient) throw error;
        await sleep(Math.max(error.retryAfter ?? 0, backoff.next()), this.#closing.signal);
      }
    }
  }

  #set(state) {
    this.#state = state;
    const isNew = (userId) => !this.#typists.has(userId) && !this.#closing.signal.aborted;
    for (const userId of state.typing.filter(isNew)) this.#endTyping(userId);
    this.#changed();
  }

  #endTyping(userId) {
    const end = { type: 'typing:indicator', data: { userId, typing: false } };
    this.#typists.set(userId, setTimeout(() => this.#take(end), TYPING));
  }

  /** What was just heard of somebody's typing counts from now. */
  #forgetTypists(userIds) {
    for (const userId of userIds) {
      clearTimeout(this.#typists.get(userId));
      this.#typists.delete(userId);
    }
  }

  #changed() {
    this.#shown = undefined;
    if (!this.#isTold) return;
    this.#isTold = false;
    queueMicrotask(() => {
      this.#isTold = true;
      this.#emitter.emit('change');
    });
  }
}
