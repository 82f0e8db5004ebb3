import { RidewireError } from './error.js';

/**
 * The callbacks of a connection.
 * @typedef {object} Receiver
 * @property {AbortSignal} signal aborted when the connection is no longer needed
 * @property {() => void} onActivity bytes have arrived, possibly only a comment
 * @property {(frame: {type: string, id?: string, data: string}) => void} onFrame
 * @property {(ms: number) => void} onRetry the server's reconnect delay
 */

/**
 * Why a stream has ended: `closed` (no events remain), `expired` (its token), `disconnected`, `silent`, `unsynced` (no
 * `stream:sync` arrived in time), `rejected` (for an unknown reason), `cancelled` (by the caller).
 * @typedef {{why: string, reason?: string, retry?: number, wasSynced: boolean}} End
 */

/** The server's reasons for closing after which the client does not reconnect. */
const FINAL_REASONS = ['ride_over', 'removed'];

/**
 * One connection to an event stream, from its opening to its end. It delivers frames from the first `stream:sync` on, and none
 * after the end, however late they arrive.
 */
export class Stream {
  #controller = new AbortController();
  #silenceTimer;
  #activeAt = Date.now();
  #retry;
  #resolve;
  #reject;
  #wasSynced = false;

  /**
   * @param {object} options
   * @param {(receiver: Receiver) => Promise<'end' | 'nothing' | 'rejected'>} options.connect reads the stream
   * @param {object} options.timing
   * @param {(frame: object, isFirst: boolean) => void} options.onSync
   * @param {(frame: object) => void} options.onEvent
   * @param {(stream: Stream) => void} options.onSilent it has been silent for longer than the heartbeat allows
   */
  constructor({ connect, timing, onSync, onEvent, onSilent }) {
    Object.assign(this, { timing, onSync, onEvent, onSilent });
    /** @type {Promise<End>} */
    this.ended = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.#silenceTimer = setTimeout(() => this.end('unsynced'), timing.sync);
    const { signal } = this;
    const receiver = {
      signal,
      onActivity: () => this.#onActivity(),
      onFrame: (frame) => signal.aborted || this.#onFrame(frame),
      onRetry: (ms) => {
        this.#retry = ms;
      },
    };
    const reasons = { end: 'disconnected', nothing: 'closed', rejected: 'rejected' };
    connect(receiver).then(
      (how) => this.end(reasons[how], how === 'nothing' ? 'ride_over' : undefined),
      (error) => this.#onError(error),
    );
  }

  /** Aborted when the stream ends. */
  get signal() {
    return this.#controller.signal;
  }

  get isOpen() {
    return !this.signal.aborted;
  }

  /** Milliseconds since the last activity. */
  get silence() {
    return Date.now() - this.#activeAt;
  }

  /** Ends the connection for a reason. */
  end(why, reason) {
    this.#finish(() => this.#resolve({ why, reason, retry: this.#retry, wasSynced: this.#wasSynced }));
  }

  #finish(settle) {
    if (!this.isOpen) return;
    clearTimeout(this.#silenceTimer);
    this.#controller.abort();
    settle();
  }

  #onError(error) {
    if (error instanceof RidewireError && !error.isTransient) return this.#finish(() => this.#reject(error));
    this.#retry = error.retryAfter ?? this.#retry;
    return this.end('disconnected');
  }

  #onActivity() {
    this.#activeAt = Date.now();
    // Before the first sync no activity counts: a proxy may send bytes of its own.
    if (this.#wasSynced && this.isOpen) this.#restartSilenceTimer();
  }

  #restartSilenceTimer() {
    clearTimeout(this.#silenceTimer);
    this.#silenceTimer = setTimeout(() => {
      this.#restartSilenceTimer();
      this.onSilent(this);
    }, this.timing.silence);
  }

  #onFrame({ type, id, data }) {
    const frame = { type, id, data: tryParse(data) };
    // If this frame is corrupted, others may be too.
    if (frame.data === undefined) return this.end('disconnected');
    if (type === 'stream:sync') {
      const isFirst = !this.#wasSynced;
      this.#wasSynced = true;
      if (isFirst) this.#restartSilenceTimer();
      this.onSync(frame.data, isFirst);
    } else if (type === 'auth:expired') {
      this.end('expired');
    } else if (type === 'stream:closing') {
      this.end(FINAL_REASONS.includes(frame.data.reason) ? 'closed' : 'disconnected', frame.data.reason);
    } else if (this.#wasSynced) {
      this.onEvent(frame);
    }
    return undefined;
  }
}

function tryParse(json) {
  try {
    return JSON.parse(json);
  } catch {
    return undefined;
  }
}
