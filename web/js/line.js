import { connect } from '/client/index.js';
import { Tap } from './tap.js';

/** A phone's line: its client, by which transport and to which server, and the conversation that it follows. */
export class Line {
  role;
  userId;
  transport = 'auto';
  server = '';
  rideId;
  client;
  /** @type {import('../../clients/js/index.d.ts').Conversation | undefined} */
  conversation;
  #tap;
  #wire;
  #token;
  #off;
  #listeners = new Set();

  /** @param {string} role @param {import('./session.js').Session} session @param {import('./wire.js').Wire} wire */
  constructor(role, session, wire) {
    this.role = role;
    this.userId = session.user(role);
    this.#wire = wire;
    let last = '';
    this.#token = async () => {
      last = await session.token(role);
      return last;
    };
    // A demo's token may be seen; one that was pasted is not shown again.
    this.#tap = new Tap(role, wire, () => (session.isDemo ? last : '$TOKEN'));
  }

  /** Whether what the conversation shows is what it knows. */
  get isReady() {
    return Boolean(this.conversation?.ride ?? this.conversation?.error);
  }

  get isOffline() {
    return this.#tap.isCut;
  }

  set isOffline(isOffline) {
    this.#tap.isCut = isOffline;
    this.#changed();
  }

  /** Messages that are not known to have arrived. They go with the client that sends them. */
  get isSending() {
    return Boolean(this.conversation?.messages.some(({ status }) => status));
  }

  /** Turns to a ride. What the wire shows of this phone is about the ride before. */
  open(rideId) {
    if (rideId !== this.rideId) this.#part();
    this.rideId = rideId;
    this.#connect();
  }

  /** Turns away from its ride, to none. */
  leave() {
    this.#part();
    this.#changed();
  }

  #part() {
    this.#off?.();
    this.conversation?.close();
    this.conversation = this.rideId = undefined;
    this.#wire.forget(this.role);
  }

  /** Whether the connection to this page's server is not there, though nobody has cut it. */
  get isInTrouble() {
    return this.server === '' && !this.isOffline && ['connecting', 'offline'].includes(this.conversation?.state);
  }

  via(transport) {
    this.transport = transport;
    this.#connect();
  }

  moveTo(server) {
    this.server = server;
    this.#connect();
  }

  subscribe(listener) {
    this.#listeners.add(listener);
  }

  #connect() {
    this.#off?.();
    this.conversation?.close();
    // What was chosen here is no reconnect.
    this.#wire.update(this.role, { via: '', connects: 0 });
    this.client = connect({
      baseUrl: this.server,
      token: this.#token,
      transport: this.transport,
      fetch: this.#tap.fetch,
      EventSource: this.#tap.EventSource,
    });
    this.conversation = this.client.conversation(this.rideId);
    this.#off = this.conversation.subscribe(() => this.#changed());
    this.#changed();
  }

  #changed() {
    this.#wire.update(this.role, { state: this.conversation?.state ?? 'no ride' });
    for (const listener of this.#listeners) listener();
  }
}
