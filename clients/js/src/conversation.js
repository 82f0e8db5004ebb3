import { Backoff, sleep } from './backoff.js';
import { bindMethods } from './bind.js';
import { Emitter } from './emitter.js';
import { RidewireError } from './error.js';
import { newId } from './id.js';
import { EMPTY, fromHistory, insert, withEvent, withPage, withSync, withoutMessages } from './reducer.js';
import { checkOptions } from './options.js';
import { TIMING } from './timing.js';

/** The server ends typing after 6 seconds. The client ends it a little later, in case that update is lost. */
const TYPING_TTL = 7_000;

/**
 * The view model of a ride's conversation: history, live events, and the user's own messages as soon as they are sent.
 *
 * A message that is being sent is identified by its `clientMessageId`. The committed message replaces it, whether that arrives
 * as the response or as an event, so no message is shown twice.
 */
export class Conversation {
  #client;
  #rideId;
  #state = EMPTY;
  #pending = new Map();
  #messages;
  #emitter = new Emitter();
  #isNotified = true;
  #subscription;
  #closing = new AbortController();
  #error = null;
  #typingTimers = new Map();
  /** Sends messages one after the other, so that they are committed in the order in which they were written. */
  #sendQueue = Promise.resolve();
  /** Pages that are being loaded, each with the events since its request. */
  #loadingPages = new Set();

  constructor(client, rideId) {
    this.#client = client;
    this.#rideId = rideId;
    bindMethods(this);
    this.#load();
  }

  /** Ordered by `seq`, followed by those that are `sending` or `failed`. A new array whenever something changes. */
  get messages() {
    this.#messages ??= [...this.#state.messages, ...this.#pending.values()];
    return this.#messages;
  }

  get ride() {
    return this.#state.ride;
  }

  /** The participants, with `online` and `since`. */
  get participants() {
    return this.#state.participants;
  }

  get receipts() {
    return this.#state.receipts;
  }

  /** The driver's location. */
  get location() {
    return this.#state.location;
  }

  /** The ids of the users who are typing. */
  get typing() {
    return this.#state.typing;
  }

  /** Whether there are older messages to load. */
  get hasMore() {
    return this.#state.hasMore;
  }

  /** The state of the subscription. */
  get state() {
    if (this.#closing.signal.aborted || this.#error) return 'closed';
    return this.#subscription?.state ?? 'connecting';
  }

  /** The error that has ended the conversation, if any. */
  get error() {
    return this.#error;
  }

  /**
   * Calls `listener` after changes, once for all changes of the same microtask.
   * @param {() => void} listener
   * @returns {() => void} removes the listener
   */
  subscribe(listener) {
    return this.#emitter.on('change', listener);
  }

  /**
   * Shows a message immediately and sends it.
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

  /** Sends a failed message again with the same `clientMessageId`, so it is created only once. */
  retry(clientMessageId) {
    const message = this.#pending.get(clientMessageId);
    if (message?.status === 'failed') this.#send(message);
  }

  /** Removes a failed message. */
  discard(clientMessageId) {
    if (this.#pending.get(clientMessageId)?.status !== 'failed') return;
    this.#pending.delete(clientMessageId);
    this.#changed();
  }

  /** Loads the page before the oldest message. */
  async loadMore() {
    const [oldest] = this.#state.messages;
    if (oldest && this.#state.hasMore && this.#loadingPages.size === 0) await this.#loadPage({ before: oldest.seq });
  }

  /** Ends the conversation. Messages that are being sent are still sent. */
  close() {
    this.#closing.abort();
    this.#subscription?.close();
    this.#clearTypingTimers(this.#typingTimers.keys());
    this.#changed();
  }

  async #load() {
    try {
      const page = await this.#withRetry(() => this.#client.history(this.#rideId));
      if (this.#closing.signal.aborted) return;
      this.#set(fromHistory(page));
      this.#subscribe(page.cursor);
    } catch (error) {
      this.#fail(error);
    }
  }

  #subscribe(cursor) {
    const subscription = this.#client.ride(this.#rideId, { after: cursor });
    this.#subscription = subscription;
    subscription.on('sync', (sync) => this.#applySync(sync));
    subscription.on('*', (event) => this.#apply(event));
    subscription.on('status', () => this.#changed());
    subscription.on('error', (error) => this.#fail(error));
  }

  #fail(error) {
    if (this.#closing.signal.aborted) return;
    this.#error = error;
    this.#changed();
  }

  #applySync({ resumed, state }) {
    this.#clearTypingTimers(this.#typingTimers.keys());
    if (resumed) return this.#set(withSync(this.#state, state));
    // After a gap, or with another log, the shown messages and the pages that are being loaded cannot be continued.
    this.#loadingPages.clear();
    this.#set(withSync(withoutMessages(this.#state), state));
    return this.#loadPage({}).catch((error) => this.#fail(error));
  }

  #apply(event) {
    for (const { events } of this.#loadingPages) events.push(event);
    if (event.type === 'typing:indicator') this.#clearTypingTimers([event.data.userId]);
    if (event.type === 'message:new') this.#pending.delete(event.data.clientMessageId);
    this.#set(withEvent(this.#state, event));
  }

  async #loadPage(query) {
    const loading = { events: [] };
    this.#loadingPages.add(loading);
    try {
      const page = await this.#withRetry(() => this.#client.history(this.#rideId, query));
      if (this.#loadingPages.has(loading)) this.#set(withPage(this.#state, page, loading.events));
    } finally {
      this.#loadingPages.delete(loading);
    }
  }

  #send(message) {
    const { clientMessageId, content, metadata } = message;
    this.#pending.set(clientMessageId, { ...message, status: 'sending', error: undefined });
    this.#changed();
    this.#sendQueue = this.#sendQueue.then(async () => {
      try {
        const sent = await this.#client.send(this.#rideId, content, { metadata, clientMessageId });
        this.#pending.delete(clientMessageId);
        this.#set({ ...this.#state, messages: insert(this.#state.messages, sent) });
      } catch (error) {
        // If an event has arrived meanwhile, the message was committed.
        if (!this.#pending.has(clientMessageId)) return;
        this.#pending.set(clientMessageId, { ...message, status: 'failed', error });
        this.#changed();
      }
    });
  }

  /** Repeats a read while it may succeed later. */
  async #withRetry(read) {
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
    const isNew = (userId) => !this.#typingTimers.has(userId) && !this.#closing.signal.aborted;
    for (const userId of state.typing.filter(isNew)) this.#startTypingTimer(userId);
    this.#changed();
  }

  #startTypingTimer(userId) {
    const end = { type: 'typing:indicator', data: { userId, typing: false } };
    this.#typingTimers.set(userId, setTimeout(() => this.#apply(end), TYPING_TTL));
  }

  /** Stops the timers of users whose typing state has just been received. */
  #clearTypingTimers(userIds) {
    for (const userId of userIds) {
      clearTimeout(this.#typingTimers.get(userId));
      this.#typingTimers.delete(userId);
    }
  }

  #changed() {
    this.#messages = undefined;
    if (!this.#isNotified) return;
    this.#isNotified = false;
    queueMicrotask(() => {
      this.#isNotified = true;
      this.#emitter.emit('change');
    });
  }
}
