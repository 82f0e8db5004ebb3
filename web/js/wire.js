/** What goes over the wire, of all phones: the last of it, in order. */

const LONGEST = 300;
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
 */

export class Wire {
  entries = [];
  #phones = new Map();
  #listeners = new Set();

  /** @param {Omit<Entry, 'at'>} entry */
  add(entry) {
    this.entries.push({ at: Date.now(), ...entry });
    if (this.entries.length > LONGEST) this.entries.splice(0, this.entries.length - LONGEST);
    this.#tell();
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
    this.add({ phone, kind: 'frame', via, type, id, text: brief(type, data), bytes, ms });
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

  clear() {
    this.entries = [];
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
function brief(type, data) {
  if (type === 'stream:sync') return `resumed ${data.resumed}${data.gap ? `, gap ${data.gap.from}–${data.gap.to}` : ''}`;
  if (type === 'message:new' || type === 'message:edited') return `${data.senderId}: ${data.content}`;
  if (type === 'message:reaction') return `${data.userId} ${data.removed ? '−' : '+'}${data.emoji ?? 'all'}`;
  if (type === 'ride:location') return `${data.lat.toFixed(5)}, ${data.lng.toFixed(5)} · ${Math.round(data.heading ?? 0)}°`;
  if (type === 'typing:indicator') return `${data.userId} ${data.typing ? 'types' : 'stops'}`;
  if (data?.ride) return `${data.ride.status}`;
  if (data?.userId) return `${data.userId}${data.seq ? ` up to ${data.seq}` : ''}`;
  return JSON.stringify(data);
}
