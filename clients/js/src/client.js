import { Backoff, sleep } from './backoff.js';
import { bindMethods } from './bind.js';
import { Conversation } from './conversation.js';
import { RidewireError } from './error.js';
import { Http } from './http.js';
import { newId } from './id.js';
import { checkConnection, checkId, checkOptions } from './options.js';
import { Subscription } from './subscription.js';
import { TIMING } from './timing.js';

/**
 * Creates a client of one server for one user.
 *
 * @param {object} options
 * @param {string} [options.baseUrl] the server's URL; by default, in a browser, the page's origin
 * @param {() => string | Promise<string>} options.token called when there is no token, or when the server no longer accepts it
 * @param {'auto' | 'stream' | 'poll'} [options.transport]
 * @param {typeof fetch} [options.fetch]
 * @param {typeof EventSource | null} [options.EventSource] null: streams are read with `fetch`, as on platforms without it
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

const SUBSCRIPTION_OPTIONS = ['after', 'types'];
const SEND_OPTIONS = ['metadata', 'clientMessageId', 'signal', 'timeout'];

class Client {
  #http;
  #options;

  constructor(http, options) {
    this.#http = http;
    this.#options = options;
    bindMethods(this);
  }

  /** Subscribes to a ride's events, from now on or after a cursor. */
  ride(rideId, options) {
    const { after, types } = checkOptions('ride', options, SUBSCRIPTION_OPTIONS);
    return new Subscription(this.#http, this.#options, { ride: checkId('rideId', rideId), after, types });
  }

  /** Subscribes to all the user's events. */
  all(options) {
    const { after, types } = checkOptions('all', options, SUBSCRIPTION_OPTIONS);
    return new Subscription(this.#http, this.#options, { after, types });
  }

  /** The messages of a ride and its state, kept up to date. */
  conversation(rideId) {
    return new Conversation(this, checkId('rideId', rideId));
  }

  /** Sends any request below `/api/v1`. */
  async request(method, path, options) {
    const { query, body, signal } = checkOptions('request', options, ['query', 'body', 'signal']);
    return this.#http.request(method, path, { query, body, signal });
  }

  /**
   * Sends a message. Repeats the request with the same `clientMessageId` until the message is committed. Rejects after `timeout`
   * milliseconds, or when `signal` is aborted; the message may have been committed even then.
   */
  async send(rideId, content, options) {
    const { metadata, clientMessageId = newId(), signal, timeout } = checkOptions('send', options, SEND_OPTIONS);
    const { timing, random } = this.#options;
    const deadline = Date.now() + (timeout ?? timing.send);
    const backoff = new Backoff(timing.backoff / 2, timing.longestBackoff, random);
    for (;;) {
      try {
        const body = { rideId, content, metadata, clientMessageId };
        return await this.request('POST', '/messages', { body, signal });
      } catch (error) {
        if (!(error instanceof RidewireError) || !error.isTransient) throw error;
        const delay = Math.max(error.retryAfter ?? 0, backoff.next());
        if (Date.now() + delay > deadline) throw error;
        await sleep(delay, signal);
      }
    }
  }

  async message(messageId) {
    return this.request('GET', message(messageId));
  }

  /** @param {{content?: string, metadata?: object | null}} changes */
  async edit(messageId, changes) {
    return this.request('PATCH', message(messageId), { body: changes });
  }

  async delete(messageId) {
    return this.request('DELETE', message(messageId));
  }

  async read(messageId) {
    return this.request('POST', `${message(messageId)}/read`);
  }

  async delivered(messageId) {
    return this.request('POST', `${message(messageId)}/delivered`);
  }

  async react(messageId, emoji) {
    return this.request('PUT', `${message(messageId)}/reactions/${encodeURIComponent(emoji)}`);
  }

  async unreact(messageId, emoji) {
    return this.request('DELETE', `${message(messageId)}/reactions/${encodeURIComponent(emoji)}`);
  }

  async typing(rideId, typing) {
    return this.request('POST', `${messages(rideId)}/typing`, { body: { typing } });
  }

  async presence(rideId) {
    return this.request('GET', `${messages(rideId)}/presence`);
  }

  /** @param {{before?: number, after?: number, limit?: number}} [page] */
  async history(rideId, page) {
    const query = checkOptions('history', page, ['before', 'after', 'limit']);
    return this.request('GET', messages(rideId), { query });
  }

  /** Returns the unread count of one ride, or of all rides. */
  async unread(rideId) {
    return this.request('GET', `${rideId === undefined ? '/messages' : messages(rideId)}/unread-count`);
  }

  /** @param {{userId?: string, status?: string, before?: string, limit?: number}} [page] `userId` is for support and service */
  async rides(page) {
    const query = checkOptions('rides', page, ['userId', 'status', 'before', 'limit']);
    return this.request('GET', '/rides', { query });
  }

  async accept(rideId) {
    return this.request('POST', `${ride(rideId)}/accept`);
  }

  async cancel(rideId, reason) {
    return this.request('POST', `${ride(rideId)}/cancel`, { body: { reason } });
  }

  async status(rideId, status) {
    return this.request('POST', `${ride(rideId)}/status`, { body: { status } });
  }

  /**
   * Reopens an ended ride. For support and service.
   * @param {string} rideId
   * @param {string} until
   * @param {string} [reason]
   */
  async reopen(rideId, until, reason) {
    return this.request('POST', `${ride(rideId)}/reopen`, { body: { until, reason } });
  }

  /** Returns the `applicationServerKey` with which a browser subscribes to Web Push. */
  async pushKey() {
    const { publicKey } = await this.request('GET', '/push-key');
    return publicKey;
  }

  /** Registers a browser's subscription for notifications of undelivered messages. */
  subscribePush(subscription) {
    return this.request('PUT', '/push-subscriptions', { body: subscription });
  }

  unsubscribePush(endpoint) {
    return this.request('DELETE', '/push-subscriptions', { body: { endpoint } });
  }

  /** Updates the driver's location. */
  async location(rideId, location) {
    return this.request('POST', `${ride(rideId)}/location`, { body: location });
  }
}

const ride = (rideId) => `/rides/${encodeURIComponent(checkId('rideId', rideId))}`;
const messages = (rideId) => `/messages${ride(rideId)}`;
const message = (messageId) => `/messages/${encodeURIComponent(checkId('messageId', messageId))}`;
