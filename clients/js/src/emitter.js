import { bindMethods } from './bind.js';

/**
 * Listeners per type, `*` for all of the server's events, and asynchronous iteration over the server's events.
 */
export class Emitter {
  #listeners = new Map();
  /** How the subscription ended, for iterations that start after the end. */
  #end;

  constructor() {
    bindMethods(this);
  }

  /**
   * @param {string} type
   * @param {(event: any) => void} listener
   * @returns {() => void} removes the listener
   */
  on(type, listener) {
    if (!this.#listeners.has(type)) this.#listeners.set(type, new Set());
    this.#listeners.get(type).add(listener);
    return () => this.off(type, listener);
  }

  off(type, listener) {
    this.#listeners.get(type)?.delete(listener);
  }

  /** Calls the listeners of a type. An error in one does not affect the others: it is thrown asynchronously, as by an `EventTarget`. */
  emit(type, event) {
    if (type === 'closed') this.#end ??= {};
    if (type === 'error') this.#end ??= { error: event };
    for (const listener of [...(this.#listeners.get(type) ?? [])]) {
      try {
        listener(event);
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }

  /** Iterates over the server's events from the first `next()` on, until the end. Throws if the subscription ends with an error. */
  async *[Symbol.asyncIterator]() {
    const events = [];
    let wake = () => {};
    const removeListeners = [
      this.on('*', (event) => {
        events.push(event);
        wake();
      }),
      this.on('closed', () => wake()),
      this.on('error', () => wake()),
    ];
    try {
      for (;;) {
        while (events.length > 0) yield events.shift();
        if (this.#end?.error) throw this.#end.error;
        if (this.#end) return;
        await new Promise((resolve) => {
          wake = resolve;
        });
      }
    } finally {
      for (const removeListener of removeListeners) removeListener();
    }
  }
}
