import { Backoff, sleep } from '/client/backoff.js';
import { placesAt } from '/client/places.js';
import { SseParser } from '/client/sse.js';

const API = '/api/v1';
/** After how many seconds of silence the server sends a comment, and after how many milliseconds a stream is taken for dead. */
const HEARTBEAT = 15;
const SILENCE = 37_500;
/** How often it is looked for events where other windows have all connections that may wait. */
const LOOK = 2_000;

/** Reads the platform's feed: a stream where there is a connection to spare, else polls. */
export class Feed {
  /** `connecting`, `live`, `polling`, `offline`, or `closed`. */
  state = 'connecting';
  /** Why it is closed. */
  problem = '';
  #cursor;
  #token;
  #renew;
  #onEvent;
  #onChange;
  #backoff = new Backoff(1_000, 30_000, Math.random);

  /** @param {{token: () => Promise<string>, onEvent: (event: object) => void, onChange: () => void}} options */
  constructor({ token, onEvent, onChange }) {
    this.#renew = token;
    this.#onEvent = onEvent;
    this.#onChange = onChange;
  }

  async run() {
    const places = placesAt(location.origin);
    while (this.state !== 'closed') {
      const turn = new AbortController();
      const wake = () => turn.abort('awake');
      addEventListener('online', wake);
      let leave;
      try {
        leave = await places.take(() => turn.abort('wanted'));
        if (leave) await this.#stream(turn);
        else await this.#look(turn.signal);
      } catch (error) {
        await this.#failed(error, turn.signal).catch(() => {});
      } finally {
        removeEventListener('online', wake);
        leave?.();
      }
    }
  }

  #become(state, problem = '') {
    if (state === this.state) return;
    this.state = state;
    this.problem = problem;
    this.#onChange();
  }

  async #failed(error, signal) {
    if (signal.aborted) return undefined;
    if (error.status === 404) return this.#become('closed', 'The feed is off (RIDEWIRE_FEED).');
    if (error.status === 403) return this.#become('closed', 'This token is not one of the platform: its role is not service.');
    if (error.status === 401) this.#token = undefined;
    this.#become(this.#backoff.isFresh ? 'connecting' : 'offline');
    return sleep(Math.max(error.retryAfter ?? 0, this.#backoff.next()), signal);
  }

  async #open(path, query, signal) {
    this.#token ??= await this.#renew();
    const given = Object.entries(query).filter(([, value]) => value !== undefined);
    const headers = { authorization: `Bearer ${this.#token}` };
    const response = await fetch(`${API}${path}?${new URLSearchParams(given)}`, { headers, signal, cache: 'no-store' });
    if (response.ok) return response;
    const retryAfter = Number(response.headers.get('retry-after') ?? 0) * 1_000;
    throw Object.assign(new Error(`${path}: ${response.status}`), { status: response.status, retryAfter });
  }

  /** One stream, until it ends. */
  async #stream(turn) {
    const response = await this.#open('/feed', { after: this.#cursor, heartbeat: HEARTBEAT }, turn.signal);
    const parser = new SseParser((frame) => this.#take(frame), () => {});
    const reader = response.body.getReader();
    let silence;
    try {
      for (;;) {
        clearTimeout(silence);
        silence = setTimeout(() => turn.abort('silent'), SILENCE);
        const { done, value } = await reader.read();
        if (done) throw new Error('the stream has ended');
        parser.push(value);
      }
    } finally {
      clearTimeout(silence);
    }
  }

  #take({ type, id, data }) {
    if (type === 'stream:sync') {
      const { cursor, gap } = JSON.parse(data);
      this.#backoff.reset();
      this.#become('live');
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

  /** One poll that waits for nothing, and a pause. */
  async #look(signal) {
    const response = await this.#open('/feed/poll', { after: this.#cursor, wait: 0 }, signal);
    const { events, cursor, gap, hasMore } = await response.json();
    this.#backoff.reset();
    this.#become('polling');
    for (const event of events) this.#onEvent(event);
    this.#synced(cursor, gap);
    if (!hasMore) await sleep(LOOK, signal);
  }
}
