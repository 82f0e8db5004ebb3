/** The log of the network traffic of all phones: the latest entries, in order. */

/** The maximum number of entries, and of events in one entry. */
const MAX_ENTRIES = 300;
const MAX_EVENTS = 20;
/** An event that is older than this on arrival was replayed, so its age is not a latency. In milliseconds. */
const MAX_LATENCY = 30_000;

/**
 * @typedef {object} Entry
 * @property {number} at
 * @property {string} phone
 * @property {'frame' | 'request' | 'connection'} kind
 * @property {'sse' | 'poll' | 'rest'} via
 * @property {string} type the event's type, the request, or what happened to the connection
 * @property {string} [id]
 * @property {string} text
 * @property {number} [bytes]
 * @property {number} [ms] the latency of an event, or the duration of a request
 * @property {unknown} [json] the complete data; for several events the latest ones, newest first
 * @property {number} [count] the number of events in the entry
 * @property {boolean} [isGone] whether the entry was removed, so that a paused log does not show it any more
 */

export class Wire {
  /** @type {Entry[]} */
  entries = [];
  /** The number of dropped entries of each phone. */
  #dropped = new Map();
  #phones = new Map();
  #listeners = new Set();

  /** @param {Omit<Entry, 'at'>} entry */
  add(entry) {
    this.entries.push({ at: Date.now(), ...entry });
    while (this.entries.length > MAX_ENTRIES) {
      const { phone } = this.entries.shift();
      this.#dropped.set(phone, (this.#dropped.get(phone) ?? 0) + 1);
    }
    this.#notify();
  }

  /** The number of entries since the start, or since the log was cleared. */
  get total() {
    return [...this.#dropped.values()].reduce((sum, count) => sum + count, this.entries.length);
  }

  /** Adds an event of a stream or a poll. */
  frame(phone, via, { type, id, data }, bytes) {
    const at = data?.editedAt ?? data?.at ?? data?.createdAt ?? data?.ride?.updatedAt;
    const age = at ? Math.max(0, Date.now() - Date.parse(at)) : undefined;
    const ms = age < MAX_LATENCY ? age : undefined;
    const stats = this.phone(phone);
    if (ms !== undefined && type !== 'stream:sync') stats.latencies = [...stats.latencies, ms].slice(-30);
    if (type === 'stream:sync') stats.cursor = data.cursor;
    else if (id !== undefined) stats.cursor = id;
    const entry = { phone, kind: 'frame', via, type, id, text: summarize(type, data), bytes, ms, json: { type, id, data } };
    const run = type === 'ride:location' ? this.#run(phone) : undefined;
    if (run) this.#join(run, entry);
    else this.add(entry);
  }

  /** Returns the entry to which the next location of this phone is added: only locations have followed it. */
  #run(phone) {
    for (const entry of this.entries.toReversed()) {
      if (entry.type !== 'ride:location') return undefined;
      if (entry.phone === phone) return entry;
    }
    return undefined;
  }

  #join(run, { json, bytes, ...entry }) {
    const all = run.count ? run.json : [run.json];
    Object.assign(run, entry, {
      at: Date.now(),
      count: (run.count ?? 1) + 1,
      bytes: run.bytes + bytes,
      json: [json, ...all].slice(0, MAX_EVENTS),
    });
    this.#notify();
  }

  /** Returns the statistics of a phone's connection. */
  phone(name) {
    if (!this.#phones.has(name)) {
      this.#phones.set(name, { state: 'connecting', via: '', cursor: '', connects: 0, latencies: [], curl: '' });
    }
    return this.#phones.get(name);
  }

  update(name, what) {
    Object.assign(this.phone(name), what);
    this.#notify();
  }

  /** Removes everything of a phone, because it opens another ride. */
  removePhone(name) {
    for (const entry of this.entries) entry.isGone ||= entry.phone === name;
    this.entries = this.entries.filter(({ isGone }) => !isGone);
    this.#dropped.delete(name);
    this.#phones.delete(name);
    this.#notify();
  }

  clear() {
    for (const entry of this.entries) entry.isGone = true;
    this.entries = [];
    this.#dropped.clear();
    this.#notify();
  }

  subscribe(listener) {
    this.#listeners.add(listener);
  }

  #notify() {
    for (const listener of this.#listeners) listener();
  }
}

/** Summarizes an event's data in one line. */
export function summarize(type, data) {
  if (type === 'stream:sync') return `resumed ${data.resumed}${data.gap ? `, gap ${data.gap.from}–${data.gap.to}` : ''}`;
  if (type === 'message:new' || type === 'message:edited') return `${data.senderId}: ${data.content ?? 'deleted'}`;
  if (type === 'message:reaction') return `${data.userId} ${data.removed ? '−' : '+'}${data.emoji ?? 'all'}`;
  if (type === 'message:undelivered') return `${data.userId} has ${data.unreadCount} unread`;
  if (type === 'ride:location') return `${data.lat.toFixed(5)}, ${data.lng.toFixed(5)} · ${Math.round(data.heading ?? 0)}°`;
  if (type === 'typing:indicator') return `${data.userId} ${data.typing ? 'types' : 'stops'}`;
  if (data?.ride) return `${data.ride.status}`;
  if (data?.userId) return `${data.userId}${data.seq ? ` up to ${data.seq}` : ''}`;
  return JSON.stringify(data);
}
