import { TYPES, isDurable } from '/client/events.js';
import { counted } from './dom.js';

/**
 * Sits between a phone's client and the network: tells the wire what goes over it, and can be cut.
 *
 * The client is given this `fetch` and this `EventSource` instead of the browser's.
 */
export class Tap {
  #phone;
  #wire;
  #token;
  #cable = new AbortController();
  #sources = new Set();

  /** @param {string} phone @param {import('./wire.js').Wire} wire @param {() => string} token what curl is to show */
  constructor(phone, wire, token) {
    this.#phone = phone;
    this.#wire = wire;
    this.#token = token;
    const tap = this;
    /** Called with `new`, as the platform's is. */
    this.EventSource = function EventSource(url) {
      return tap.#open(url);
    };
  }

  get isCut() {
    return this.#cable.signal.aborted;
  }

  /** Cuts the network off, or brings it back. */
  set isCut(isCut) {
    if (isCut === this.isCut) return;
    if (isCut) {
      this.#cable.abort(new TypeError('this phone is offline'));
      this.#note('offline', 'the network is cut');
      for (const source of [...this.#sources]) source.onerror?.(new Event('error'));
    } else {
      this.#cable = new AbortController();
      this.#note('online', 'the network is back');
      // What a browser says then: clients wait no longer.
      dispatchEvent(new Event('online'));
    }
  }

  fetch = async (url, init = {}) => {
    this.#cable.signal.throwIfAborted();
    const { path, isPoll } = this.#name(url);
    const signal = AbortSignal.any([this.#cable.signal, ...(init.signal ? [init.signal] : [])]);
    const began = performance.now();
    // A stream that has been silent for long is asked after by a poll; it stays the connection.
    if (isPoll && this.#wire.phone(this.#phone).state !== 'live') this.#connecting('poll', url);
    const method = init.method ?? 'GET';
    const request = { phone: this.#phone, kind: 'request', via: isPoll ? 'poll' : 'rest', type: `${method} ${path}` };
    try {
      const response = await fetch(url, { ...init, signal });
      const ms = performance.now() - began;
      const answered = { ...request, text: String(response.status), ms };
      if (isPoll && response.ok) this.#polled(response.clone(), url);
      // A stream has no end that could be waited for.
      else if (response.headers.get('content-type')?.startsWith('text/event-stream')) this.#wire.add(answered);
      else this.#answered(answered, init.body, response.clone());
      return response;
    } catch (error) {
      if (!init.signal?.aborted) this.#wire.add({ ...request, text: error.message });
      throw error;
    }
  };

  /** Adds a request with what was sent and answered. */
  async #answered(entry, body, response) {
    const answer = parsed(await response.text().catch(() => ''));
    // Whoever has a ticket can open streams with it.
    if (answer?.ticket) answer.ticket = '…';
    this.#wire.add({ ...entry, json: { request: entry.type, body: parsed(body), status: response.status, answer } });
  }

  async #polled(response, url) {
    const text = await response.text().catch(() => undefined);
    if (text === undefined) return;
    const answer = JSON.parse(text);
    const { events, cursor } = answer;
    // One that looks in every other second, and finds nothing, would be most of the log.
    const isGlance = events.length === 0 && new URL(url, location.href).searchParams.get('wait') === '0';
    if (!isGlance) {
      const text = `${counted(events.length, 'event')}, cursor ${cursor}`;
      this.#wire.add({ phone: this.#phone, kind: 'line', via: 'poll', type: 'poll answered', text, bytes: bytes(answer), json: answer });
    }
    for (const event of events) this.#wire.frame(this.#phone, 'poll', event, bytes(event.data));
    this.#wire.update(this.#phone, { cursor });
  }

  #open(url) {
    if (this.isCut) return refused();
    const source = new EventSource(url);
    this.#sources.add(source);
    this.#connecting('sse', url);
    const close = source.close.bind(source);
    source.close = () => {
      close();
      if (this.#sources.delete(source)) this.#note('stream ended', '', 'sse');
    };
    for (const type of TYPES) {
      // An event without an id shows the last one's: the client knows which those are.
      source.addEventListener(type, ({ data, lastEventId }) => {
        const frame = { type, id: isDurable(type, true) ? lastEventId : undefined, data: JSON.parse(data) };
        this.#wire.frame(this.#phone, 'sse', frame, new Blob([data]).size);
      });
    }
    return source;
  }

  /** Another stream, or the first of polls, is a connection. */
  #connecting(via, url) {
    const { path } = this.#name(url);
    const known = this.#wire.phone(this.#phone);
    const isNew = via === 'sse' || known.via !== 'poll';
    const connects = known.connects + (isNew ? 1 : 0);
    this.#wire.update(this.#phone, { via, connects, curl: this.#curl(url) });
    if (isNew) this.#note(via === 'sse' ? 'stream opens' : 'polling begins', path, via);
  }

  #note(type, text, via = '') {
    this.#wire.add({ phone: this.#phone, kind: 'line', via, type, text });
  }

  /** What a request is for, without the ticket that it may carry. */
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

/** How many bytes a value has as JSON. */
const bytes = (value) => new Blob([JSON.stringify(value)]).size;

/** A body as JSON, or as the text that it is; undefined where there is none. */
function parsed(text) {
  if (!text) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** A connection that is not made. */
function refused() {
  const source = new EventTarget();
  Object.assign(source, { readyState: 0, onopen: null, onerror: null, close() {} });
  setTimeout(() => source.onerror?.(new Event('error')));
  return source;
}
