import { Backoff, sleep } from './backoff.js';
import { connectionSlots } from './connection-slots.js';
import { Cursor } from './cursor.js';
import { Emitter } from './emitter.js';
import { Environment } from './environment.js';
import { RidewireError } from './error.js';
import { eventSourceStream } from './event-source.js';
import { fetchStream } from './fetch-stream.js';
import { asRidewireError } from './http.js';
import { Stream } from './stream.js';
import { Tickets } from './tickets.js';

/** How many streams in a row may end without a sync before a poll is tried instead. */
const MAX_UNSYNCED = 2;

/**
 * A subscription to a ride, or to all the user's events, until it is closed.
 *
 * It is a loop with one connection at a time. The next connection starts at the last delivered cursor, when the previous one
 * has ended. This also covers every change of the transport.
 */
export class Subscription extends Emitter {
  #http;
  #options;
  #ride;
  #path;
  #types;
  #cursor;
  #state = 'connecting';
  #isClosed = false;
  #hadAccess = false;
  /** Aborts the current step: a connection, or the delay before the next one. */
  #step = new AbortController();
  #stream;
  /** The token with which the stream was opened. */
  #token;
  /** Whether polls replace the stream, and until when. */
  #isPolling;
  #nextStreamAt;
  /** How many streams in a row have ended before their first sync. */
  #unsyncedStreams = 0;
  #backoff;
  #streamBackoff;
  #environment;
  #slots;
  #tickets;

  /**
   * @param {import('./http.js').Http} http
   * @param {{transport: string, EventSource?: typeof EventSource, timing: object, random: () => number}} options
   * @param {{ride?: string, after?: string | number, types?: string[]}} what
   */
  constructor(http, options, { ride, after, types = [] }) {
    super();
    const { timing, random, transport } = options;
    this.#http = http;
    this.#options = options;
    this.#ride = ride;
    this.#path = ride === undefined ? '' : `/messages/rides/${encodeURIComponent(ride)}`;
    this.#types = types;
    this.#cursor = new Cursor(ride !== undefined, after === undefined ? undefined : String(after));
    this.#isPolling = transport === 'poll';
    this.#nextStreamAt = this.#isPolling ? Infinity : 0;
    this.#backoff = new Backoff(timing.backoff, timing.longestBackoff, random);
    this.#streamBackoff = new Backoff(timing.trial, timing.longestTrial, random);
    this.#slots = connectionSlots(http.base);
    this.#tickets = new Tickets(http, ride, timing);
    this.#environment = new Environment({
      onOffline: () => this.#step.abort('offline'),
      onWake: () => this.#wake(),
    });
    this.#run();
  }

  /** The cursor after the last delivered event. */
  get cursor() {
    return this.#cursor.position;
  }

  /** `connecting`, `live`, `polling`, `offline` or `closed`. */
  get state() {
    return this.#state;
  }

  /** Closes the subscription. No event is delivered after that. */
  close() {
    this.#finish('closed');
  }

  #finish(reason, error) {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#environment.close();
    this.#step.abort('closed');
    this.#setState('closed');
    if (error) this.emit('error', error);
    this.emit('closed', { reason });
  }

  #setState(state) {
    if (state === this.#state) return;
    this.#state = state;
    this.emit('status', { state });
  }

  /** The network is back, or the page became visible: ends a delay or a poll that may be dead, and checks a silent stream. */
  #wake() {
    this.#backoff.reset();
    if (!this.#stream) this.#step.abort('wake');
    else if (this.#stream.silence > this.#options.timing.heartbeat * 1_000) this.#check(this.#stream);
  }

  async #run() {
    // Lets the caller add listeners first.
    await null;
    while (!this.#isClosed) {
      this.#step = new AbortController();
      let releaseSlot;
      try {
        await this.#waitForNetwork();
        releaseSlot = await this.#slots.acquire(() => this.#step.abort('slot requested'));
        this.#step.signal.throwIfAborted();
        if (!releaseSlot) await this.#pollWithoutSlot();
        else if (this.#isPolling && Date.now() < this.#nextStreamAt) await this.#poll(this.#pollWait);
        else await this.#runStream();
      } catch (thrown) {
        const error = asRidewireError(thrown, this.#step.signal);
        // An interrupted step starts again, unless the subscription is closed.
        if (!(error instanceof RidewireError)) continue;
        if (error.isTransient) await this.#waitToReconnect(error.retryAfter).catch(() => {});
        // The user had access before. This is how a poll, or a stream that reconnects too late, learns of the removal.
        else if (error.status === 404 && this.#hadAccess) this.#finish('removed');
        else this.#finish('error', error);
      } finally {
        releaseSlot?.();
      }
    }
  }

  /** Waits for the network, but not forever, because platforms have reported it wrongly. */
  async #waitForNetwork() {
    if (this.#environment.isOnline) return;
    this.#setState('offline');
    await sleep(this.#options.timing.longestBackoff, this.#step.signal);
  }

  /** Waits before reconnecting: as long as the server requests, and longer after each failure. */
  async #waitToReconnect(hint = 0) {
    this.#setState(this.#backoff.isFresh ? 'connecting' : 'offline');
    await sleep(Math.max(hint, this.#backoff.next()), this.#step.signal);
  }

  /** Reads a stream until it ends, and handles its end. */
  async #runStream() {
    const { why, reason, retry, wasSynced } = await this.#open();
    if (why === 'cancelled') return;
    if (why === 'closed') return this.#finish(reason);
    // Another subscription may have replaced the token already.
    if (why === 'expired') this.#http.discard(this.#token);
    this.#unsyncedStreams = wasSynced ? 0 : this.#unsyncedStreams + 1;
    // The stream has worked until now, so the next one is opened immediately.
    if (wasSynced && (why === 'expired' || why === 'silent')) return this.#setState('connecting');
    if (this.#isPolling) return this.#postponeStream();
    // If a poll gets through, a proxy is buffering the stream.
    const isBuffered = this.#options.transport === 'auto' && (why === 'unsynced' || this.#unsyncedStreams >= MAX_UNSYNCED);
    if (isBuffered || why === 'rejected') await this.#poll(0, false);
    if (isBuffered) this.#postponeStream();
    else await this.#waitToReconnect(retry);
  }

  #postponeStream() {
    this.#isPolling = true;
    this.#nextStreamAt = Date.now() + this.#streamBackoff.next();
  }

  async #open() {
    const { timing, EventSource } = this.#options;
    const { signal } = this.#step;
    const stream = new Stream({
      timing,
      connect: (receiver) => this.#connect(receiver),
      onSync: (data, isFirst) => this.#onSync(data, isFirst),
      onEvent: (event) => this.#deliver(event),
      // Without comments, silence proves nothing.
      onSilent: () => (EventSource ? this.#check(stream) : stream.end('silent')),
    });
    const cancel = () => stream.end('cancelled');
    signal.addEventListener('abort', cancel, { once: true });
    this.#stream = stream;
    try {
      return await stream.ended;
    } finally {
      this.#stream = undefined;
      signal.removeEventListener('abort', cancel);
    }
  }

  /** @param {import('./stream.js').Receiver} receiver */
  async #connect(receiver) {
    const { timing, EventSource } = this.#options;
    const query = { after: this.cursor, types: this.#types.join() || undefined, heartbeat: timing.heartbeat };
    const path = `${this.#path}/events`;
    if (!EventSource) return fetchStream(this.#http, this.#http.url(path, query), receiver);
    const ticket = await this.#tickets.take(receiver.signal, () => this.#stream?.end('expired'));
    const options = { EventSource, types: this.#types, isOneRide: this.#ride !== undefined };
    return eventSourceStream(options, this.#http.url(path, { ...query, ticket }), receiver);
  }

  #onSync(data, isFirst) {
    if (isFirst) {
      this.#token = this.#http.token;
      this.#isPolling = false;
      this.#streamBackoff.reset();
      this.#backoff.reset();
      this.#setState('live');
    }
    // Neither resumed nor a gap: the cursor is past the end of the log, so the log was replaced.
    if (isFirst && !data.resumed && !data.gap) this.#cursor.restart(data.cursor);
    else this.#cursor.advance(data.cursor);
    this.#emitSync(data);
  }

  /** Checks whether a silent stream has missed an event. If so, another stream starts at the same cursor. */
  async #check(stream) {
    const from = this.cursor;
    try {
      const response = await this.#requestPoll(0, stream.signal);
      // The stream has moved meanwhile, so it is alive.
      if (!stream.isOpen || this.cursor !== from) return;
      if (response.events.length > 0 || response.gap || response.closed) stream.end('silent');
      else this.#emitSync(response);
    } catch (error) {
      if (error.status === 0) stream.end('silent');
    }
  }

  /** Polls without waiting, because there is no free connection slot. */
  async #pollWithoutSlot() {
    const { look, hiddenLook } = this.#options.timing;
    await this.#poll(0);
    await sleep(this.#environment.isHidden ? hiddenLook : look, this.#step.signal);
  }

  /** How long a poll waits that replaces the stream. The first one returns immediately, with the current state. */
  get #pollWait() {
    const untilTrial = Math.ceil((this.#nextStreamAt - Date.now()) / 1_000);
    return this.#state === 'polling' ? Math.min(this.#options.timing.wait, untilTrial) : 0;
  }

  /** Sends one long poll. It replaces the stream, or only tests whether polls get through. */
  async #poll(wait, isReplacement = true) {
    const from = this.cursor;
    const response = await this.#requestPoll(wait, this.#step.signal);
    if (this.#step.signal.aborted) return;
    if (isReplacement) {
      this.#backoff.reset();
      this.#setState('polling');
    }
    if (from !== undefined && !response.resumed && !response.gap) this.#cursor.restart(undefined);
    // The events of a response with a gap come after the gap.
    if (response.gap) this.#emitSync(response);
    for (const event of response.events) this.#deliver(event);
    if (this.#isClosed) return;
    this.#cursor.advance(response.cursor);
    if (!response.gap) this.#emitSync(response);
    if (response.closed) this.#finish(response.state.ride.chat === 'readOnly' ? 'ride_over' : 'removed');
  }

  #requestPoll(wait, signal) {
    const query = { after: this.cursor, types: this.#types.join() || undefined, wait };
    const timeout = this.#options.timing.request + wait * 1_000;
    return this.#http.request('GET', `${this.#path}/poll`, { query, timeout, signal });
  }

  #emitSync({ cursor, resumed, gap, state, omitted }) {
    this.#hadAccess = true;
    if (!this.#isClosed) this.emit('sync', { cursor, resumed, gap, state, ...(omitted && { omitted }) });
    if (!this.#isClosed && gap) this.emit('gap', gap);
  }

  #deliver(event) {
    if (this.#isClosed || (event.id !== undefined && !this.#cursor.take(event.id))) return;
    this.emit(event.type, event);
    if (!this.#isClosed) this.emit('*', event);
  }
}
