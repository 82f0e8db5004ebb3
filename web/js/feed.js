import { Backoff, sleep } from '/client/backoff.js';
import { connectionSlots } from '/client/connection-slots.js';
import { SseParser } from '/client/sse.js';

const API = '/api/v1';
/** The heartbeat interval in seconds, and the silence after which a stream counts as dead, in milliseconds. */
const HEARTBEAT = 15;
const SILENCE_TIMEOUT = 37_500;
/** The interval of polls where other windows use all connections that may stay open, in milliseconds. */
const POLL_INTERVAL = 2_000;

/** Reads the platform's feed: as a stream where the browser has a free connection, otherwise by polling. */
export class Feed {
  /** `connecting`, `live`, `polling`, `offline`, or `closed`. */
  state = 'connecting';
  /** Why the feed is closed. */
  problem = '';
  #cursor;
  #token;
  #loadToken;
  #onEvent;
  #onChange;
  #backoff = new Backoff(1_000, 30_000, Math.random);

  /** @param {{token: () => Promise<string>, onEvent: (event: object) => void, onChange: () => void}} options */
  constructor({ token, onEvent, onChange }) {
    this.#loadToken = token;
    this.#onEvent = onEvent;
    this.#onChange = onChange;
  }

  async run() {
    const slots = connectionSlots(location.origin);
    while (this.state !== 'closed') {
      const attempt = new AbortController();
      const wake = () => attempt.abort('awake');
      addEventListener('online', wake);
      let release;
      try {
        release = await slots.acquire(() => attempt.abort('wanted'));
        if (release) await this.#stream(attempt);
        else await this.#poll(attempt.signal);
      } catch (error) {
        await this.#handleError(error, attempt.signal).catch(() => {});
      } finally {
        removeEventListener('online', wake);
        release?.();
      }
    }
  }

  #setState(state, problem = '') {
    if (state === this.state) return;
    this.state = state;
    this.problem = problem;
    this.#onChange();
  }

  async #handleError(error, signal) {
    if (signal.aborted) return undefined;
    if (error.status === 404) return this.#setState('closed', 'The feed is off (RIDEWIRE_FEED).');
    if (error.status === 403) return this.#setState('closed', 'The token’s role is not service.');
    if (error.status === 401) this.#token = undefined;
    this.#setState(this.#backoff.isFresh ? 'connecting' : 'offline');
    return sleep(Math.max(error.retryAfter ?? 0, this.#backoff.next()), signal);
  }

  async #request(path, query, signal) {
    this.#token ??= await this.#loadToken();
    const parameters = Object.entries(query).filter(([, value]) => value !== undefined);
    const headers = { authorization: `Bearer ${this.#token}` };
    const response = await fetch(`${API}${path}?${new URLSearchParams(parameters)}`, { headers, signal, cache: 'no-store' });
    if (response.ok) return response;
    const retryAfter = Number(response.headers.get('retry-after') ?? 0) * 1_000;
    throw Object.assign(new Error(`${path}: ${response.status}`), { status: response.status, retryAfter });
  }

  /** Reads a stream until it ends. */
  async #stream(attempt) {
    const response = await this.#request('/feed', { after: this.#cursor, heartbeat: HEARTBEAT }, attempt.signal);
    const parser = new SseParser((frame) => this.#handleFrame(frame), () => {});
    const reader = response.body.getReader();
    let silence;
    try {
      for (;;) {
        clearTimeout(silence);
        silence = setTimeout(() => attempt.abort('silent'), SILENCE_TIMEOUT);
        const { done, value } = await reader.read();
        if (done) throw new Error('the stream has ended');
        parser.push(value);
      }
    } finally {
      clearTimeout(silence);
    }
  }

  #handleFrame({ type, id, data }) {
    if (type === 'stream:sync') {
      const { cursor, gap } = JSON.parse(data);
      this.#backoff.reset();
      this.#setState('live');
      this.#synced(cursor, gap);
    } else if (type === 'auth:expired') {
      this.#token = undefined;
    } else if (id !== undefined) {
      this.#cursor = id;
      this.#onEvent({ id, type, data: JSON.parse(data) });
    }
  }

  #synced(cursor, gap) {
    this.#cursor = cursor;
    if (gap) this.#onEvent({ type: 'gap', data: gap });
  }

  /** Polls once without waiting, then pauses. */
  async #poll(signal) {
    const response = await this.#request('/feed/poll', { after: this.#cursor, wait: 0 }, signal);
    const { events, cursor, gap, hasMore } = await response.json();
    this.#backoff.reset();
    this.#setState('polling');
    for (const event of events) this.#onEvent(event);
    this.#synced(cursor, gap);
    if (!hasMore) await sleep(POLL_INTERVAL, signal);
  }
}
