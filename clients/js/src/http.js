import { RidewireError, errorOf } from './error.js';

/** Requests with a token, which is asked for when there is none or the server refuses the one that there is. */
export class Http {
  #token;
  #asked;
  #renewal;

  /** @param {{baseUrl: string, token: () => string | Promise<string>, fetch: typeof fetch, timing: object}} options */
  constructor({ baseUrl, token, fetch, timing }) {
    this.base = `${baseUrl.replace(/\/+$/, '')}/api/v1`;
    this.askToken = token;
    // Not as a method of this object: the platform's own accepts no other `this`.
    this.fetch = (...request) => fetch(...request);
    this.timing = timing;
  }

  url(path, query = {}) {
    const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null);
    return given.length > 0 ? `${this.base}${path}?${new URLSearchParams(given)}` : this.base + path;
  }

  /**
   * @param {string} method
   * @param {string} path below `/api/v1`
   * @param {{query?: object, body?: object, signal?: AbortSignal, timeout?: number}} [options]
   * @returns {Promise<any>} the answer's JSON; undefined where it has none
   */
  async request(method, path, { query, body, signal, timeout = this.timing.request } = {}) {
    const limit = limited(signal, timeout);
    try {
      const url = this.url(path, query);
      const init = { method, signal: limit.signal };
      if (body !== undefined) {
        init.body = JSON.stringify(body);
        init.headers = { 'content-type': 'application/json' };
      }
      const response = await this.open(url, init);
      const text = await response.text();
      return text === '' ? undefined : JSON.parse(text);
    } catch (error) {
      throw asRidewireError(error, signal);
    } finally {
      limit.done();
    }
  }

  /**
   * The answer to a request, once its head is there. A token that is refused is replaced once.
   * @param {string} url
   * @param {RequestInit} init
   * @returns {Promise<Response>}
   */
  async open(url, init) {
    for (let isFirst = true; ; isFirst = false) {
      const token = await this.#currentToken();
      const headers = { ...init.headers, authorization: `Bearer ${token}` };
      const response = await this.fetch(url, { ...init, headers });
      if (response.ok) return response;
      const error = await errorOf(response);
      if (response.status !== 401) throw error;
      this.forget(token);
      if (!isFirst) throw error;
    }
  }

  /** The token that is in use. */
  get token() {
    return this.#token;
  }

  /** Asks for another token while the one in use still counts: that is kept until there is one. */
  renew() {
    this.#renewal ??= this.#replace();
    return this.#renewal;
  }

  async #replace() {
    try {
      this.#token = await this.askToken();
      this.#asked = Promise.resolve(this.#token);
    } finally {
      this.#renewal = undefined;
    }
  }

  /** Forgets the token, so that the next request asks for another; not where another has replaced it already. */
  forget(refused) {
    if (refused === this.#token) this.#token = this.#asked = undefined;
  }

  /** The token; those who need one at the same time ask once. */
  #currentToken() {
    this.#asked ??= this.#ask();
    return this.#asked;
  }

  async #ask() {
    try {
      this.#token = await this.askToken();
      return this.#token;
    } catch (cause) {
      this.#asked = undefined;
      throw new RidewireError({ status: 0, code: 'no_token', detail: 'the application gave no token', cause });
    }
  }
}

/** A signal that ends with the caller's, or after a time; `done` lets go of both. */
function limited(signal, timeout) {
  const controller = new AbortController();
  const stop = () => controller.abort(signal.reason);
  const detail = `no answer in ${timeout} ms`;
  const late = () => controller.abort(new RidewireError({ status: 0, code: 'timeout', detail }));
  const timer = setTimeout(late, timeout);
  if (signal?.aborted) stop();
  else signal?.addEventListener('abort', stop, { once: true });
  const done = () => {
    clearTimeout(timer);
    signal?.removeEventListener('abort', stop);
  };
  return { signal: controller.signal, done };
}

/** Whatever kept an answer away, as one kind of error; but who gave up themselves gets their own reason back. */
export function asRidewireError(error, signal) {
  if (signal?.aborted) return signal.reason;
  if (error instanceof RidewireError) return error;
  return new RidewireError({ status: 0, code: 'network', detail: error?.message, cause: error });
}
