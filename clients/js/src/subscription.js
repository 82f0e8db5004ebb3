import { Backoff, sleep } from './backoff.js';
import { Cursor } from './cursor.js';
import { Emitter } from './emitter.js';
import { Environment } from './environment.js';
import { RidewireError } from './error.js';
import { eventSourceStream } from './event-source.js';
import { fetchStream } from './fetch-stream.js';
import { asRidewireError } from './http.js';
import { placesAt } from './places.js';
import { Stream } from './stream.js';
import { Tickets } from './tickets.js';

/** After how many streams in a row that were never synced a poll is tried instead. */
const PATIENCE = 2;

/**
 * Follows a ride, or everything of one's own, until it is closed.
 *
 * One loop, one connection at a time: the next one is opened at the last cursor taken when the one before has ended,
 * whatever either of them is. That is all there is to changing between transports.
 */
export class Subscription extends Emitter {
  #http;
  #options;
  #ride;
  #path;
  #types;
  #cursor;
  #state = 'connecting';
  #isOver = false;
  #wasThere = false;
  /** Ends what is going on now: a connection, or the pause before the next. */
  #turn = new AbortController();
  #stream;
  /** What the stream was opened with. */
  #token;
  /** Whether polls stand in for the stream, and until when. */
  #polls;
  #streamAt;
  /** How many streams in a row ended before their first sync. */
  #unsynced = 0;
  #backoff;
  #trials;
  #environment;
  #places;
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
    this.#polls = transport === 'poll';
    this.#streamAt = this.#polls ? Infinity : 0;
    this.#backoff = new Backoff(timing.backoff, timing.longestBackoff, random);
    this.#trials = new Backoff(timing.trial, timing.longestTrial, random);
    this.#places = placesAt(http.base);
    this.#tickets = new Tickets(http, ride, timing);
    this.#environment = new Environment({
      onOffline: () => this.#turn.abort('offline'),
      onWake: () => this.#wake(),
    });
    this.#run();
  }

  /** The position after the last event that was handed over. */
  get cursor() {
    return this.#cursor.position;
  }

  /** `connecting`, `live`, `polling`, `offline` or `closed`. */
  get state() {
    return this.#state;
  }

  /** Ends it. Nothing is handed over after that. */
  close() {
    this.#finish('closed');
  }

  #finish(reason, error) {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#environment.close();
    this.#turn.abort('closed');
    this.#become('closed');
    if (error) this.emit('error', error);
    this.emit('closed', { reason });
  }

  #become(state) {
    if (state === this.#state) return;
    this.#state = state;
    this.emit('status', { state });
  }

  /** A good moment: ends a pause or a poll that may be dead, and asks whether the stream still lives. */
  #wake() {
    this.#backoff.reset();
    if (!this.#stream) this.#turn.abort('awake');
    else if (this.#stream.silence > this.#options.timing.heartbeat * 1_000) this.#check(this.#stream);
  }

  async #run() {
    // Who subscribes is given the time to listen first.
    await null;
    while (!this.#isOver) {
      this.#turn = new AbortController();
      let leave;
      try {
        await this.#online();
        leave = await this.#places.take(() => this.#turn.abort('wanted'));
        this.#turn.signal.throwIfAborted();
        if (!leave) await this.#look();
        else if (this.#polls && Date.now() < this.#streamAt) await this.#poll(this.#wait);
        else await this.#follow();
      } catch (thrown) {
        const error = asRidewireError(thrown, this.#turn.signal);
        // What was interrupted begins again, unless it is over.
        if (!(error instanceof RidewireError)) continue;
        if (error.isTransient) await this.#pause(error.retryAfter).catch(() => {});
        // It was there for us before: this is how a poll, or a stream that comes back too late, is told.
        else if (error.status === 404 && this.#wasThere) this.#finish('removed');
        else this.#finish('error', error);
      } finally {
        leave?.();
      }
    }
  }

  /** Waits for the network; not for ever, since platforms have been wrong about it. */
  async #online() {
    if (this.#environment.isOnline) return;
    this.#become('offline');
    await sleep(this.#options.timing.longestBackoff, this.#turn.signal);
  }

  /** A pause before coming back: as long as the server asks for, and longer the more often it was in vain. */
  async #pause(hint = 0) {
    this.#become(this.#backoff.isFresh ? 'connecting' : 'offline');
    await sleep(Math.max(hint, this.#backoff.next()), this.#turn.signal);
  }

  /** A stream, as long as it lasts, and what follows from its end. */
  async #follow() {
    const { why, reason, retry, wasSynced } = await this.#open();
    if (why === 'left') return;
    if (why === 'over') return this.#finish(reason);
    // Not one that another subscription has been given meanwhile.
    if (why === 'expired') this.#http.forget(this.#token);
    this.#unsynced = wasSynced ? 0 : this.#unsynced + 1;
    // It was well until now, so the next one can be had at once.
    if (wasSynced && (why === 'expired' || why === 'silent')) return this.#become('connecting');
    if (this.#polls) return this.#tryLater();
    // A stream without a word sits in the buffer of a proxy, if a poll gets through.
    const isInVain = this.#options.transport === 'auto' && (why === 'unsynced' || this.#unsynced >= PATIENCE);
    if (isInVain || why === 'refused') await this.#poll(0, false);
    if (isInVain) this.#tryLater();
    else await this.#pause(retry);
  }

  #tryLater() {
    this.#polls = true;
    this.#streamAt = Date.now() + this.#trials.next();
  }

  async #open() {
    const { timing, EventSource } = this.#options;
    const { signal } = this.#turn;
    const stream = new Stream({
      timing,
      carry: (receiver) => this.#carry(receiver),
      onSync: (data, isFirst) => this.#synced(data, isFirst),
      onEvent: (event) => this.#hand(event),
      // Where comments are not seen, silence says nothing.
      onQuiet: () => (EventSource ? this.#check(stream) : stream.end('silent')),
    });
    const leave = () => stream.end('left');
    signal.addEventListener('abort', leave, { once: true });
    this.#stream = stream;
    try {
      return await stream.ended;
    } finally {
      this.#stream = undefined;
      signal.removeEventListener('abort', leave);
    }
  }

  /** @param {import('./stream.js').Receiver} receiver */
  async #carry(receiver) {
    const { timing, EventSource } = this.#options;
    const query = { after: this.cursor, types: this.#types.join() || undefined, heartbeat: timing.heartbeat };
    const path = `${this.#path}/events`;
    if (!EventSource) return fetchStream(this.#http, this.#http.url(path, query), receiver);
    const ticket = await this.#tickets.take(receiver.signal, () => this.#stream?.end('expired'));
    const how = { EventSource, types: this.#types, isOneRide: this.#ride !== undefined };
    return eventSourceStream(how, this.#http.url(path, { ...query, ticket }), receiver);
  }

  #synced(data, isFirst) {
    if (isFirst) {
      this.#token = this.#http.token;
      this.#polls = false;
      this.#trials.reset();
      this.#backoff.reset();
      this.#become('live');
    }
    // Neither honoured nor a gap: the log does not reach so far, it is another one.
    if (isFirst && !data.resumed && !data.gap) this.#cursor.restart(data.cursor);
    else this.#cursor.advance(data.cursor);
    this.#tell(data);
  }

  /** Asks whether a silent stream has missed something. If so, another one goes on from the same cursor. */
  async #check(stream) {
    const asked = this.cursor;
    try {
      const answer = await this.#ask(0, stream.signal);
      // It has moved meanwhile, so it lives.
      if (!stream.isOpen || this.cursor !== asked) return;
      if (answer.events.length > 0 || answer.gap || answer.closed) stream.end('silent');
      else this.#tell(answer);
    } catch (error) {
      if (error.status === 0) stream.end('silent');
    }
  }

  /** Instead of waiting, where there is no place for that. */
  async #look() {
    const { look, hiddenLook } = this.#options.timing;
    await this.#poll(0);
    await sleep(this.#environment.isHidden ? hiddenLook : look, this.#turn.signal);
  }

  /** For how long a poll waits that stands in for the stream. The first one is answered at once, with how things are. */
  get #wait() {
    const untilTrial = Math.ceil((this.#streamAt - Date.now()) / 1_000);
    return this.#state === 'polling' ? Math.min(this.#options.timing.wait, untilTrial) : 0;
  }

  /** One long poll: it stands in for the stream, or is to tell whether polls get through. */
  async #poll(wait, standsIn = true) {
    const asked = this.cursor;
    const answer = await this.#ask(wait, this.#turn.signal);
    if (this.#turn.signal.aborted) return;
    if (standsIn) {
      this.#backoff.reset();
      this.#become('polling');
    }
    if (asked !== undefined && !answer.resumed && !answer.gap) this.#cursor.restart(undefined);
    // The events of an answer with a gap come after the gap.
    if (answer.gap) this.#tell(answer);
    for (const event of answer.events) this.#hand(event);
    if (this.#isOver) return;
    this.#cursor.advance(answer.cursor);
    if (!answer.gap) this.#tell(answer);
    if (answer.closed) this.#finish(answer.state.ride.chat === 'readOnly' ? 'ride_over' : 'removed');
  }

  #ask(wait, signal) {
    const query = { after: this.cursor, types: this.#types.join() || undefined, wait };
    const timeout = this.#options.timing.request + wait * 1_000;
    return this.#http.request('GET', `${this.#path}/poll`, { query, timeout, signal });
  }

  #tell({ cursor, resumed, gap, state, omitted }) {
    this.#wasThere = true;
    if (!this.#isOver) this.emit('sync', { cursor, resumed, gap, state, ...(omitted && { omitted }) });
    if (!this.#isOver && gap) this.emit('gap', gap);
  }

  #hand(event) {
    if (this.#isOver || (event.id !== undefined && !this.#cursor.take(event.id))) return;
    this.emit(event.type, event);
    if (!this.#isOver) this.emit('*', event);
  }
}
