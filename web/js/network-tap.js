import { TYPES, isDurable } from '/client/events.js';
import { formatCount } from './dom.js';

/**
 * Records the network traffic of a phone's client in the wire log, and can simulate a lost network.
 *
 * The client uses this `fetch` and this `EventSource` instead of the browser's.
 */
export class NetworkTap {
  #phone;
  #wire;
  #token;
  #network = new AbortController();
  #sources = new Set();

  /** @param {string} phone @param {import('./wire.js').Wire} wire @param {() => string} token returns the token for curl commands */
  constructor(phone, wire, token) {
    this.#phone = phone;
    this.#wire = wire;
    this.#token = token;
    const tap = this;
    /** A constructor, like the browser's `EventSource`. */
    this.EventSource = function EventSource(url) {
      return tap.#open(url);
    };
  }

  get isOffline() {
    return this.#network.signal.aborted;
  }

  /** Simulates that the network is lost or back. */
  set isOffline(isOffline) {
    if (isOffline === this.isOffline) return;
    if (isOffline) {
      this.#network.abort(new TypeError('this phone is offline'));
      this.#note('offline', 'the network is lost');
      for (const source of [...this.#sources]) source.onerror?.(new Event('error'));
    } else {
      this.#network = new AbortController();
      this.#note('online', 'the network is back');
      // Browsers dispatch this event when the network is back. It makes the clients reconnect without further delay.
      dispatchEvent(new Event('online'));
    }
  }

  fetch = async (url, init = {}) => {
    this.#network.signal.throwIfAborted();
    const { path, isPoll } = this.#name(url);
    const signal = AbortSignal.any([this.#network.signal, ...(init.signal ? [init.signal] : [])]);
    const began = performance.now();
    // A client with a silent stream polls to check it. Such a poll is not a new connection.
    if (isPoll && this.#wire.phone(this.#phone).state !== 'live') this.#connecting('poll', url);
    const method = init.method ?? 'GET';
    const request = { phone: this.#phone, kind: 'request', via: isPoll ? 'poll' : 'rest', type: `${method} ${path}` };
    try {
      const response = await fetch(url, { ...init, signal });
      const ms = performance.now() - began;
      const entry = { ...request, text: String(response.status), ms };
      if (isPoll && response.ok) this.#addPoll(response.clone(), url);
      // The body of a stream is not awaited, because it may not end.
      else if (response.headers.get('content-type')?.startsWith('text/event-stream')) this.#wire.add(entry);
      else this.#addExchange(entry, init.body, response.clone());
      return response;
    } catch (error) {
      if (!init.signal?.aborted) this.#wire.add({ ...request, text: error.message });
      throw error;
    }
  };

  /** Adds a request with its body and its response. */
  async #addExchange(entry, requestBody, reply) {
    const response = parsed(await reply.text().catch(() => ''));
    // A ticket is a credential for streams, so it is not shown.
    if (response?.ticket) response.ticket = '…';
    this.#wire.add({ ...entry, json: { request: entry.type, body: parsed(requestBody), status: reply.status, response } });
  }

  async #addPoll(response, url) {
    const text = await response.text().catch(() => undefined);
    if (text === undefined) return;
    const page = JSON.parse(text);
    const { events, cursor } = page;
    // Frequent short polls without events are omitted, because they would fill the log.
    const isOmitted = events.length === 0 && new URL(url, location.href).searchParams.get('wait') === '0';
    if (!isOmitted) {
      const text = `${formatCount(events.length, 'event')}, cursor ${cursor}`;
      this.#wire.add({ phone: this.#phone, kind: 'connection', via: 'poll', type: 'poll response', text, bytes: bytes(page), json: page });
    }
    for (const event of events) this.#wire.frame(this.#phone, 'poll', event, bytes(event.data));
    this.#wire.update(this.#phone, { cursor });
  }

  #open(url) {
    if (this.isOffline) return failedSource();
    const source = new EventSource(url);
    this.#sources.add(source);
    this.#connecting('sse', url);
    const close = source.close.bind(source);
    source.close = () => {
      close();
      if (this.#sources.delete(source)) this.#note('stream ended', '', 'sse');
    };
    for (const type of TYPES) {
      // For an event without an id, `lastEventId` is that of the previous event. The event's type determines whether it has an id.
      source.addEventListener(type, ({ data, lastEventId }) => {
        const frame = { type, id: isDurable(type, true) ? lastEventId : undefined, data: JSON.parse(data) };
        this.#wire.frame(this.#phone, 'sse', frame, new Blob([data]).size);
      });
    }
    return source;
  }

  /** Counts a connection: each stream, and the first of several polls. */
  #connecting(via, url) {
    const { path } = this.#name(url);
    const current = this.#wire.phone(this.#phone);
    const isNew = via === 'sse' || current.via !== 'poll';
    const connects = current.connects + (isNew ? 1 : 0);
    this.#wire.update(this.#phone, { via, connects, curl: this.#curl(url) });
    if (isNew) this.#note(via === 'sse' ? 'stream opened' : 'polling started', path, via);
  }

  #note(type, text, via = '') {
    this.#wire.add({ phone: this.#phone, kind: 'connection', via, type, text });
  }

  /** Returns the path and query of a request, without a ticket. */
  #name(url) {
    const { pathname, searchParams } = new URL(url, location.href);
    searchParams.delete('ticket');
    const query = searchParams.size > 0 ? `?${searchParams}` : '';
    return { path: pathname.replace(/^.*\/api\/v1/, '') + query, isPoll: pathname.endsWith('/poll') };
  }

  #curl(url) {
    const at = new URL(url, location.href);
    at.searchParams.delete('ticket');
    return `curl -N '${at}' -H "Authorization: Bearer ${this.#token()}"`;
  }
}

/** Returns the size of a value as JSON, in bytes. */
const bytes = (value) => new Blob([JSON.stringify(value)]).size;

/** Parses a body as JSON. Returns the text if it is not JSON, and undefined if it is empty. */
function parsed(text) {
  if (!text) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** Returns an event source that fails to connect. */
function failedSource() {
  const source = new EventTarget();
  Object.assign(source, { readyState: 0, onopen: null, onerror: null, close() {} });
  setTimeout(() => source.onerror?.(new Event('error')));
  return source;
}
