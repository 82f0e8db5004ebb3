import { h, say } from '/console/js/dom.js';
import { block, json } from './prose.js';

/** The most frames that are kept in view. */
const LONGEST = 200;

/** What was answered: before anything was sent, an example of it. */
export class Answer {
  #head = h('p', { class: 'answer__head', role: 'status' });
  #rest = h('div', { class: 'answer__rest' });
  #frames;
  #beats = 0;
  #count;

  constructor() {
    this.element = h('div', { class: 'answer' }, this.#head, this.#rest);
  }

  /** Shows what a good answer looks like. */
  suggest(spec, { status, description, schema, type }) {
    this.#head.replaceChildren(h('b', { class: 'code code--fine' }, status), h('span', { class: 'answer__note' }, 'Example'));
    if (type === 'application/json') this.#rest.replaceChildren(block('Example of an answer', json(spec.example(schema))));
    else this.#rest.replaceChildren(h('p', { class: 'answer__note' }, type === 'text/event-stream' ? 'A stream of events: open it to see them come.' : description));
  }

  begin() {
    this.#head.replaceChildren(h('span', { class: 'answer__note' }, 'Waiting for the answer'));
    this.#rest.replaceChildren();
    this.#frames = undefined;
    this.#beats = 0;
  }

  head({ status, headers, ms }) {
    const isFine = status < 400;
    this.#head.replaceChildren(
      h('b', { class: isFine ? 'code code--fine' : 'code' }, String(status)),
      h('span', { class: 'answer__note' }, `${Math.round(ms)} ms`));
    const rows = headers.flatMap(([name, value]) => [h('dt', {}, name), h('dd', {}, value)]);
    this.#rest.replaceChildren(h('details', { class: 'more' }, h('summary', {}, `${headers.length} headers`), h('dl', { class: 'headers' }, rows)));
  }

  text(text) {
    if (text === '') this.#rest.append(h('p', { class: 'answer__note' }, 'No body'));
    else this.#rest.append(block('Body of the answer', json(pretty(text))));
  }

  frame({ type, id, data }) {
    const frames = this.#list();
    const row = h('li', { class: 'frame' },
      h('p', { class: 'frame__head' }, h('b', {}, type), id !== undefined && h('span', {}, `id ${id}`), h('time', {}, clock())),
      block(`Data of ${type}`, json(pretty(data))));
    frames.append(row);
    if (frames.childElementCount > LONGEST) frames.firstElementChild.remove();
    this.#toEnd(row);
  }

  comment() {
    this.#list();
    this.#beats += 1;
    say(this.#count, `${this.#beats} ${this.#beats === 1 ? 'heartbeat' : 'heartbeats'}`);
  }

  /** Says how it ended, where that is not plain from the answer. */
  end(note) {
    this.#head.append(h('span', { class: 'answer__note' }, note));
  }

  fail(message) {
    this.#head.replaceChildren(h('span', { class: 'answer__trouble' }, message));
  }

  #list() {
    if (!this.#frames) {
      this.#frames = h('ol', { class: 'frames', tabindex: '0', 'aria-label': 'Frames' });
      this.#count = h('p', { class: 'answer__note' });
      this.#rest.append(this.#frames, this.#count);
    }
    return this.#frames;
  }

  /** Follows what comes, unless somebody reads what was before. */
  #toEnd(row) {
    const { scrollTop, scrollHeight, clientHeight } = this.#frames;
    if (scrollHeight - scrollTop - clientHeight < row.offsetHeight + 40) this.#frames.scrollTop = scrollHeight;
  }
}

const clock = () => new Date().toLocaleTimeString([], { hour12: false });

/** JSON with its lines; what is none as it came. */
function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
