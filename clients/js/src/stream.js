import { RidewireError } from './error.js';

/**
 * What a connection tells of itself.
 * @typedef {object} Receiver
 * @property {AbortSignal} signal aborted when it is no longer wanted
 * @property {() => void} heard something came, if only a comment
 * @property {(frame: {type: string, id?: string, data: string}) => void} frame
 * @property {(ms: number) => void} retry the server's hint when to come back
 */

/**
 * How a stream ended: `over` for good; `expired`, its token; `cut`; `silent`; `unsynced`, without a word;
 * `refused`, nobody knows why; `left`, by the caller.
 * @typedef {{why: string, reason?: string, retry?: number, wasSynced: boolean}} End
 */

/** Those of the server's reasons for closing after which there is nothing to come back to. */
const FINAL = ['ride_over', 'removed'];

/**
 * One connection to an event stream, from its opening to its end. Frames are handed over from the first `stream:sync`
 * on, and none after the end, however late they come.
 */
export class Stream {
  #controller = new AbortController();
  #quietTimer;
  #heardAt = Date.now();
  #retry;
  #resolve;
  #reject;
  #wasSynced = false;

  /**
   * @param {object} options
   * @param {(receiver: Receiver) => Promise<'end' | 'nothing' | 'refused'>} options.carry
   * @param {object} options.timing
   * @param {(frame: object, isFirst: boolean) => void} options.onSync
   * @param {(frame: object) => void} options.onEvent
   * @param {(stream: Stream) => void} options.onQuiet it has been silent for longer than a live one would be
   */
  constructor({ carry, timing, onSync, onEvent, onQuiet }) {
    Object.assign(this, { timing, onSync, onEvent, onQuiet });
    /** @type {Promise<End>} */
    this.ended = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.#quietTimer = setTimeout(() => this.end('unsynced'), timing.sync);
    const { signal } = this;
    const receiver = {
      signal,
      heard: () => this.#heard(),
      frame: (frame) => signal.aborted || this.#take(frame),
      retry: (ms) => {
        this.#retry = ms;
      },
    };
    const ends = { end: 'cut', nothing: 'over', refused: 'refused' };
    carry(receiver).then(
      (how) => this.end(ends[how], how === 'nothing' ? 'ride_over' : undefined),
      (error) => this.#failed(error),
    );
  }

  /** Aborted when it ends. */
  get signal() {
    return this.#controller.signal;
  }

  get isOpen() {
    return !this.signal.aborted;
  }

  /** For how long nothing has come. */
  get silence() {
    return Date.now() - this.#heardAt;
  }

  /** Ends the connection, and says why. */
  end(why, reason) {
    this.#finish(() => this.#resolve({ why, reason, retry: this.#retry, wasSynced: this.#wasSynced }));
  }

  #finish(settle) {
    if (!this.isOpen) return;
    clearTimeout(this.#quietTimer);
    this.#controller.abort();
    settle();
  }

  #failed(error) {
    if (error instanceof RidewireError && !error.isTransient) return this.#finish(() => this.#reject(error));
    this.#retry = error.retryAfter ?? this.#retry;
    return this.end('cut');
  }

  #heard() {
    this.#heardAt = Date.now();
    // Before the first sync no sign of life counts: a proxy may send some of its own.
    if (this.#wasSynced && this.isOpen) this.#watch();
  }

  #watch() {
    clearTimeout(this.#quietTimer);
    this.#quietTimer = setTimeout(() => {
      this.#watch();
      this.onQuiet(this);
    }, this.timing.silence);
  }

  #take({ type, id, data }) {
    const frame = { type, id, data: parsed(data) };
    // Whatever has mangled it may have mangled more.
    if (frame.data === undefined) return this.end('cut');
    if (type === 'stream:sync') {
      const isFirst = !this.#wasSynced;
      this.#wasSynced = true;
      if (isFirst) this.#watch();
      this.onSync(frame.data, isFirst);
    } else if (type === 'auth:expired') {
      this.end('expired');
    } else if (type === 'stream:closing') {
      this.end(FINAL.includes(frame.data.reason) ? 'over' : 'cut', frame.data.reason);
    } else if (this.#wasSynced) {
      this.onEvent(frame);
    }
    return undefined;
  }
}

function parsed(json) {
  try {
    return JSON.parse(json);
  } catch {
    return undefined;
  }
}
