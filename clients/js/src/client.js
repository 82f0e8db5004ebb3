import { Backoff, sleep } from './backoff.js';
import { bindMethods } from './bind.js';
import { Conversation } from './conversation.js';
import { RidewireError } from './error.js';
import { Http } from './http.js';
import { newId } from './id.js';
import { checkConnection, checkOptions } from './options.js';
import { Subscription } from './subscription.js';
import { TIMING } from './timing.js';

/**
 * A client of one server, on behalf of one user.
 *
 * @param {object} options
 * @param {string} [options.baseUrl] where the server is; in a browser, by default, where the page is from
 * @param {() => string | Promise<string>} options.token asked for a new one when there is none, or none that counts any more
 * @param {'auto' | 'stream' | 'poll'} [options.transport]
 * @param {typeof fetch} [options.fetch]
 * @param {typeof EventSource | null} [options.EventSource] null: streams are read through `fetch`, as where there is none
 * @param {object} [options.timing] overrides of `timing.js`
 * @param {() => number} [options.random]
 */
export function connect(options) {
  checkConnection(options, Object.keys(TIMING));
  const {
    baseUrl = '',
    token,
    transport = 'auto',
    fetch = (...request) => globalThis.fetch(...request),
    EventSource = globalThis.EventSource,
    timing: overrides,
    random = Math.random,
  } = options;
  const timing = { ...TIMING, ...overrides };
  return new Client(new Http({ baseUrl, token, fetch, timing }), { transport, EventSource, timing, random });
}

const FOLLOWING = ['after', 'types'];
const SENDING = ['metadata', 'clientMessageId', 'signal', 'timeout'];

class Client {
  #http;
  #options;

  constructor(http, options) {
    this.#http = http;
    this.#options = options;
    bindMethods(this);
  }

  /** Follows one ride, from now on or after a cursor. */
  ride(rideId, options) {
    const { after, types } = checkOptions('ride', options, FOLLOWING);
    return new Subscription(this.#http, this.#options, { ride: rideId, after, types });
  }

  /** Follows everything of one's own. */
  all(options) {
    const { after, types } = checkOptions('all', options, FOLLOWING);
    return new Subscription(this.#http, this.#options, { after, types });
  }

  /** The messages of a ride and all that belongs to them, kept up to date. */
  conversation(rideId) {
    return new Conversation(this, rideId);
  }

  /** Any request below `/api/v1`. */
  async request(method, path, options) {
    const { query, body, signal } = checkOptions('request', options, ['query', 'body', 'signal']);
    return this.#http.request(method, path, { query, body, signal });
  }

  /**
   * Sends a message: the same one, however often it has to be repeated, until it is known to be committed. Gives up
   * after `timeout` milliseconds, or with `signal`; it may have been committed then all the same.
   */
  async send(rideId, content, options) {
    const { metadata, clientMessageId = newId(), signal, timeout } = checkOptions('send', options, SENDING);
    const { timing, random } = this.#options;
    const deadline = Date.now() + (timeout ?? timing.send);
    const backoff = new Backoff(timing.backoff / 2, timing.longestBackoff, random);
    for (;;) {
      try {
        const body = { rideId, content, metadata, clientMessageId };
        return await this.request('POST', '/messages', { body, signal });
      } catch (error) {
        if (!(error instanceof RidewireError) || !error.isTransient) throw error;
        const pause = Math.max(error.retryAfter ?? 0, backoff.next());
        if (Date.now() + pause > deadline) throw error;
        await sleep(pause, signal);
      }
    }
  }

  message(messageId) {
    return this.request('GET', message(messageId));
  }

  /** @param {{content?: string, metadata?: object | null}} changes */
  edit(messageId, changes) {
    return this.request('PATCH', message(messageId), { body: changes });
  }

  delete(messageId) {
    return this.request('DELETE', message(messageId));
  }

  read(messageId) {
    return this.request('POST', `${message(messageId)}/read`);
  }

  delivered(messageId) {
    return this.request('POST', `${message(messageId)}/delivered`);
  }

  react(messageId, emoji) {
    return this.request('PUT', `${message(messageId)}/reactions/${encodeURIComponent(emoji)}`);
  }

  unreact(messageId, emoji) {
    return this.request('DELETE', `${message(messageId)}/reactions/${encodeURIComponent(emoji)}`);
  }

  typing(rideId, typing) {
    return this.request('POST', `${messages(rideId)}/typing`, { body: { typing } });
  }

  presence(rideId) {
    return this.request('GET', `${messages(rideId)}/presence`);
  }

  /** @param {{before?: number, after?: number, limit?: number}} [page] */
  async history(rideId, page) {
    const query = checkOptions('history', page, ['before', 'after', 'limit']);
    return this.request('GET', messages(rideId), { query });
  }

  /** Unread messages of one ride, or of all. */
  unread(rideId) {
    return this.request('GET', `${rideId === undefined ? '/messages' : messages(rideId)}/unread-count`);
  }

  /** @param {{userId?: string, status?: string, before?: string, limit?: number}} [page] `userId` is for support and service */
  async rides(page) {
    const query = checkOptions('rides', page, ['userId', 'status', 'before', 'limit']);
    return this.request('GET', '/rides', { query });
  }

  accept(rideId) {
    return this.request('POST', `${ride(rideId)}/accept`);
  }

  cancel(rideId, reason) {
    return this.request('POST', `${ride(rideId)}/cancel`, { body: { reason } });
  }

  status(rideId, status) {
    return this.request('POST', `${ride(rideId)}/status`, { body: { status } });
  }

  /**
   * Opens a ride that has ended again; for support and service.
   * @param {string} rideId
   * @param {string} until
   * @param {string} [reason]
   */
  reopen(rideId, until, reason) {
    return this.request('POST', `${ride(rideId)}/reopen`, { body: { until, reason } });
  }

  /** The key with which a browser subscribes to Web Push: its `applicationServerKey`. */
  async pushKey() {
    const { publicKey } = await this.request('GET', '/push-key');
    return publicKey;
  }

  /** Has a browser's subscription told of messages that are not delivered. */
  subscribePush(subscription) {
    return this.request('PUT', '/push-subscriptions', { body: subscription });
  }

  unsubscribePush(endpoint) {
    return this.request('DELETE', '/push-subscriptions', { body: { endpoint } });
  }

  /** Tells where the driver is. */
  location(rideId, position) {
    return this.request('POST', `${ride(rideId)}/location`, { body: position });
  }
}

const ride = (rideId) => `/rides/${encodeURIComponent(rideId)}`;
const messages = (rideId) => `/messages${ride(rideId)}`;
const message = (messageId) => `/messages/${encodeURIComponent(messageId)}`;
