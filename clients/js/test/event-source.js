import { SseParser } from '../src/sse.js';

/**
 * An `EventSource` after the HTML standard (section 9.2), for a platform without one. It reconnects when its stream ends, and
 * closes permanently after a response that is no stream.
 */
export class EventSource extends EventTarget {
  /** All instances, for tests. */
  static instances = [];

  readyState = 0;
  #controller = new AbortController();
  #lastEventId = '';
  #retry = 50;

  constructor(url) {
    super();
    this.url = url;
    EventSource.instances.push(this);
    this.#connect();
  }

  close() {
    this.readyState = 2;
    this.#controller.abort();
  }

  async #connect() {
    while (this.readyState !== 2) {
      try {
        await this.#read();
      } catch {
        // After a network error, it reconnects.
      }
      if (this.readyState === 2) return;
      this.readyState = 0;
      this.#fire('error');
      await new Promise((resolve) => setTimeout(resolve, this.#retry));
    }
  }

  async #read() {
    const headers = this.#lastEventId ? { 'last-event-id': this.#lastEventId } : {};
    const response = await fetch(this.url, { headers, signal: this.#controller.signal });
    if (response.status !== 200 || !response.headers.get('content-type')?.startsWith('text/event-stream')) {
      this.close();
      this.#fire('error');
      return;
    }
    this.readyState = 1;
    this.#fire('open');
    const parser = new SseParser(
      ({ type, id, data }) => {
        this.#lastEventId = id ?? this.#lastEventId;
        if (this.readyState === 2) return;
        this.dispatchEvent(Object.assign(new Event(type), { data, lastEventId: this.#lastEventId }));
      },
      (ms) => {
        this.#retry = ms;
      },
    );
    for await (const chunk of response.body) parser.push(chunk);
  }

  #fire(type) {
    const event = new Event(type);
    this[`on${type}`]?.(event);
    this.dispatchEvent(event);
  }
}
