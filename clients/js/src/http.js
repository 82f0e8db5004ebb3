import { RidewireError, errorOf } from './error.js';

/** Sends requests with a token. Requests a token from the application when there is none, or when the server rejects it. */
export class Http {
  #token;
  #tokenPromise;
  #renewal;

  /** @param {{baseUrl: string, token: () => string | Promise<string>, fetch: typeof fetch, timing: object}} options */
  constructor({ baseUrl, token, fetch, timing }) {
    this.base = `${baseUrl.replace(/\/+$/, '')}/api/v1`;
    this.tokenFromApplication = token;
    // A plain function: the browser's `fetch` throws if it is called as a method of another object.
    this.fetch = (...request) => fetch(...request);
    this.timing = timing;
  }

  url(path, query = {}) {
    const present = Object.entries(query).filter(([, value]) => value !== undefined && value !== null);
    return present.length > 0 ? `${this.base}${path}?${new URLSearchParams(present)}` : this.base + path;
  }

  /**
   * @param {string} method
   * @param {string} path below `/api/v1`
   * @param {{query?: object, body?: object, signal?: AbortSignal, timeout?: number}} [options]
   * @returns {Promise<any>} the response's JSON, or undefined if it has no body
   */
  async request(method, path, { query, body, signal, timeout = this.timing.request } = {}) {
    const limit = signalWithTimeout(signal, timeout);
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
   * Returns a response as soon as its status and headers have arrived. A rejected token is replaced once.
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
      this.discard(token);
      if (!isFirst) throw error;
    }
  }

  /** The current token, or undefined. */
  get token() {
    return this.#token;
  }

  /** Requests a new token while the current one is still valid. The current one is used until the new one arrives. */
  renew() {
    this.#renewal ??= this.#replaceToken();
    return this.#renewal;
  }

  async #replaceToken() {
    try {
      this.#token = await this.tokenFromApplication();
      this.#tokenPromise = Promise.resolve(this.#token);
    } finally {
      this.#renewal = undefined;
    }
  }

  /** Discards a token, so that the next request uses a new one. Does nothing if it was replaced already. */
  discard(rejected) {
    if (rejected === this.#token) this.#token = this.#tokenPromise = undefined;
  }

  /** Returns the token. Concurrent callers share one request for it. */
  #currentToken() {
    this.#tokenPromise ??= this.#requestToken();
    return this.#tokenPromise;
  }

  async #requestToken() {
    try {
      this.#token = await this.tokenFromApplication();
      return this.#token;
    } catch (cause) {
      this.#tokenPromise = undefined;
      throw new RidewireError({ status: 0, code: 'no_token', detail: 'the application returned no token', cause });
    }
  }
}

/** A signal that is aborted with the caller's, or after a timeout. `done` clears the timer and removes the listener. */
function signalWithTimeout(signal, timeout) {
  const controller = new AbortController();
  const stop = () => controller.abort(signal.reason);
  const detail = `no response within ${timeout} ms`;
  const expire = () => controller.abort(new RidewireError({ status: 0, code: 'timeout', detail }));
  const timer = setTimeout(expire, timeout);
  if (signal?.aborted) stop();
  else signal?.addEventListener('abort', stop, { once: true });
  const done = () => {
    clearTimeout(timer);
    signal?.removeEventListener('abort', stop);
  };
  return { signal: controller.signal, done };
}

/** Converts a failure into a `RidewireError`. If the caller aborted the request, it returns the caller's reason. */
export function asRidewireError(error, signal) {
  if (signal?.aborted) return signal.reason;
  if (error instanceof RidewireError) return error;
  return new RidewireError({ status: 0, code: 'network', detail: error?.message, cause: error });
}
