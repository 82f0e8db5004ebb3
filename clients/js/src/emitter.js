import { bindMethods } from './bind.js';

/**
 * Listeners by type, `*` for all of the server's events, and asynchronous iteration over those.
 */
export class Emitter {
  #listeners = new Map();
  /** How it ended, for those who begin to iterate after that. */
  #end;

  constructor() {
    bindMethods(this);
  }

  /**
   * @param {string} type
   * @param {(event: any) => void} listener
   * @returns {() => void} takes the listener off again
   */
  on(type, listener) {
    if (!this.#listeners.has(type)) this.#listeners.set(type, new Set());
    this.#listeners.get(type).add(listener);
    return () => this.off(type, listener);
  }

  off(type, listener) {
    this.#listeners.get(type)?.delete(listener);
  }

  /** Tells the listeners of a type. One that throws is reported as an `EventTarget` would, and hinders nobody else. */
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

  /** The server's events, from now on, until the end; throws where that is an error. */
  async *[Symbol.asyncIterator]() {
    const events = [];
    let wake = () => {};
    const offs = [
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
      for (const off of offs) off();
    }
  }
}
