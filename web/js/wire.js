/** What goes over the wire, of all phones: the last of it, in order. */

/** How many rows are kept, and how many events of one row. */
const LONGEST = 300;
const LONGEST_RUN = 20;
/** An event that is older than this when it comes was replayed: how long it took says nothing of the wire. */
const REPLAYED = 30_000;

/**
 * @typedef {object} Entry
 * @property {number} at
 * @property {string} phone
 * @property {'frame' | 'request' | 'line'} kind
 * @property {'sse' | 'poll' | 'rest'} via
 * @property {string} type the event's, or what was done
 * @property {string} [id]
 * @property {string} text
 * @property {number} [bytes]
 * @property {number} [ms] an event's latency, or how long a request took
 * @property {unknown} [json] all of it; of several events the last ones, newest first
 * @property {number} [count] how many events the row stands for
 * @property {boolean} [isGone] it was taken away, so that a log that is paused shows it no longer
 */

export class Wire {
  /** @type {Entry[]} */
  entries = [];
  /** How many rows of each phone are kept no longer. */
  #dropped = new Map();
  #phones = new Map();
  #listeners = new Set();

  /** @param {Omit<Entry, 'at'>} entry */
  add(entry) {
    this.entries.push({ at: Date.now(), ...entry });
    while (this.entries.length > LONGEST) {
      const { phone } = this.entries.shift();
      this.#dropped.set(phone, (this.#dropped.get(phone) ?? 0) + 1);
    }
    this.#tell();
  }

  /** How many rows there have been since the start, or since they were cleared. */
  get total() {
    return [...this.#dropped.values()].reduce((sum, count) => sum + count, this.entries.length);
  }

  /** Adds an event of a stream or a poll. */
  frame(phone, via, { type, id, data }, bytes) {
    const at = data?.editedAt ?? data?.at ?? data?.createdAt ?? data?.ride?.updatedAt;
    const age = at ? Math.max(0, Date.now() - Date.parse(at)) : undefined;
    const ms = age < REPLAYED ? age : undefined;
    const known = this.phone(phone);
    if (ms !== undefined && type !== 'stream:sync') known.latencies = [...known.latencies, ms].slice(-30);
    if (type === 'stream:sync') known.cursor = data.cursor;
    else if (id !== undefined) known.cursor = id;
    const entry = { phone, kind: 'frame', via, type, id, text: brief(type, data), bytes, ms, json: { type, id, data } };
    const run = type === 'ride:location' ? this.#run(phone) : undefined;
    if (run) this.#join(run, entry);
    else this.add(entry);
  }

  /** The row of locations that the next one of this phone belongs to: nothing but locations has come since. */
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
      json: [json, ...all].slice(0, LONGEST_RUN),
    });
    this.#tell();
  }

  /** What is known of a phone's connection. */
  phone(name) {
    if (!this.#phones.has(name)) {
      this.#phones.set(name, { state: 'connecting', via: '', cursor: '', connects: 0, latencies: [], curl: '' });
    }
    return this.#phones.get(name);
  }

  update(name, what) {
    Object.assign(this.phone(name), what);
    this.#tell();
  }

  /** Takes away what there is of a phone: it turns to another ride. */
  forget(name) {
    for (const entry of this.entries) entry.isGone ||= entry.phone === name;
    this.entries = this.entries.filter(({ isGone }) => !isGone);
    this.#dropped.delete(name);
    this.#phones.delete(name);
    this.#tell();
  }

  clear() {
    for (const entry of this.entries) entry.isGone = true;
    this.entries = [];
    this.#dropped.clear();
    this.#tell();
  }

  subscribe(listener) {
    this.#listeners.add(listener);
  }

  #tell() {
    for (const listener of this.#listeners) listener();
  }
}

/** An event's data in a line. */
export function brief(type, data) {
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
