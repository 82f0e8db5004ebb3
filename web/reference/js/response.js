import { createElement, setText } from '/console/js/dom.js';
import { block, json } from './prose.js';

/** The maximum number of frames that are shown. */
const MAX_FRAMES = 200;

/** The view of a response. Before the first request, it shows an example. */
export class ResponseView {
  #head = createElement('p', { class: 'response__head', role: 'status' });
  #rest = createElement('div', { class: 'response__rest' });
  #frames;
  #beats = 0;
  #count;

  constructor() {
    this.element = createElement('div', { class: 'response' }, this.#head, this.#rest);
  }

  /** Shows an example of a successful response. */
  showExample(spec, { status, description, schema, type }) {
    this.#head.replaceChildren(createElement('b', { class: 'code code--fine' }, status), createElement('span', { class: 'response__note' }, 'Example'));
    if (type === 'application/json') this.#rest.replaceChildren(block('Example response', json(spec.example(schema))));
    else this.#rest.replaceChildren(createElement('p', { class: 'response__note' }, type === 'text/event-stream' ? 'A stream of events. Open it to see the events.' : description));
  }

  begin() {
    this.#head.replaceChildren(createElement('span', { class: 'response__note' }, 'Waiting for the response'));
    this.#rest.replaceChildren();
    this.#frames = undefined;
    this.#beats = 0;
  }

  head({ status, headers, ms }) {
    const isFine = status < 400;
    this.#head.replaceChildren(
      createElement('b', { class: isFine ? 'code code--fine' : 'code' }, String(status)),
      createElement('span', { class: 'response__note' }, `${Math.round(ms)} ms`));
    const rows = headers.flatMap(([name, value]) => [createElement('dt', {}, name), createElement('dd', {}, value)]);
    this.#rest.replaceChildren(createElement('details', { class: 'more' }, createElement('summary', {}, `${headers.length} headers`), createElement('dl', { class: 'headers' }, rows)));
  }

  text(text) {
    if (text === '') this.#rest.append(createElement('p', { class: 'response__note' }, 'No body'));
    else this.#rest.append(block('Response body', json(pretty(text))));
  }

  frame({ type, id, data }) {
    const frames = this.#list();
    const row = createElement('li', { class: 'frame' },
      createElement('p', { class: 'frame__head' }, createElement('b', {}, type), id !== undefined && createElement('span', {}, `id ${id}`), createElement('time', {}, clock())),
      block(`Data of ${type}`, json(pretty(data))));
    frames.append(row);
    if (frames.childElementCount > MAX_FRAMES) frames.firstElementChild.remove();
    this.#scrollToEnd(row);
  }

  comment() {
    this.#list();
    this.#beats += 1;
    setText(this.#count, `${this.#beats} ${this.#beats === 1 ? 'heartbeat' : 'heartbeats'}`);
  }

  /** Adds a note about how the response ended. */
  end(note) {
    this.#head.append(createElement('span', { class: 'response__note' }, note));
  }

  fail(message) {
    this.#head.replaceChildren(createElement('span', { class: 'response__trouble' }, message));
  }

  #list() {
    if (!this.#frames) {
      this.#frames = createElement('ol', { class: 'frames', tabindex: '0', 'aria-label': 'Frames' });
      this.#count = createElement('p', { class: 'response__note' });
      this.#rest.append(this.#frames, this.#count);
    }
    return this.#frames;
  }

  /** Scrolls to the new frame, unless the user has scrolled up. */
  #scrollToEnd(row) {
    const { scrollTop, scrollHeight, clientHeight } = this.#frames;
    if (scrollHeight - scrollTop - clientHeight < row.offsetHeight + 40) this.#frames.scrollTop = scrollHeight;
  }
}

const clock = () => new Date().toLocaleTimeString([], { hour12: false });

/** Formats JSON with line breaks. Text that is not JSON stays unchanged. */
function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
