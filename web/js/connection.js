import { connect } from '/client/index.js';
import { NetworkTap } from './network-tap.js';

/** A phone's connection: its client, transport, server and conversation. */
export class Connection {
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
  #unsubscribe;
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
    // The token of a demo may be shown; a pasted token is never shown.
    this.#tap = new NetworkTap(role, wire, () => (session.isDemo ? last : '$TOKEN'));
  }

  /** Whether the conversation has loaded or failed. */
  get isReady() {
    return Boolean(this.conversation?.ride ?? this.conversation?.error);
  }

  get isOffline() {
    return this.#tap.isOffline;
  }

  set isOffline(isOffline) {
    this.#tap.isOffline = isOffline;
    this.#changed();
  }

  /** Whether there are unconfirmed messages. They would be lost with the client that sends them. */
  get isSending() {
    return Boolean(this.conversation?.messages.some(({ status }) => status));
  }

  /** Opens a ride. Clears the wire log of this phone if it is another ride. */
  open(rideId) {
    if (rideId !== this.rideId) this.#closeConversation();
    this.rideId = rideId;
    this.#connect();
  }

  /** Closes the ride. */
  leave() {
    this.#closeConversation();
    this.#changed();
  }

  #closeConversation() {
    this.#unsubscribe?.();
    this.conversation?.close();
    this.conversation = this.rideId = undefined;
    this.#wire.removePhone(this.role);
  }

  /** Whether the connection to this page's server is lost, other than by the phone's own offline switch. */
  get isDisconnected() {
    return this.server === '' && !this.isOffline && ['connecting', 'offline'].includes(this.conversation?.state);
  }

  setTransport(transport) {
    this.transport = transport;
    this.#connect();
  }

  setServer(server) {
    this.server = server;
    this.#connect();
  }

  subscribe(listener) {
    this.#listeners.add(listener);
  }

  #connect() {
    this.#unsubscribe?.();
    this.conversation?.close();
    // A change of transport or server does not count as a reconnect.
    this.#wire.update(this.role, { via: '', connects: 0 });
    this.client = connect({
      baseUrl: this.server,
      token: this.#token,
      transport: this.transport,
      fetch: this.#tap.fetch,
      EventSource: this.#tap.EventSource,
    });
    this.conversation = this.client.conversation(this.rideId);
    this.#unsubscribe = this.conversation.subscribe(() => this.#changed());
    this.#changed();
  }

  #changed() {
    this.#wire.update(this.role, { state: this.conversation?.state ?? 'no ride' });
    for (const listener of this.#listeners) listener();
  }
}
