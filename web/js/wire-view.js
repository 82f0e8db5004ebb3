import { h, say } from './dom.js';
import { icon } from './icons.js';

const NAMES = { rider: 'Rider', driver: 'Driver', support: 'Support' };
const VIAS = { sse: 'SSE', poll: 'Poll', rest: 'REST' };
const COLUMNS = ['Time', 'Phone', 'Via', 'Id', 'What', 'Data', 'Bytes', 'Took'];

/** What is shown of the wire. */
const FILTERS = [
  ['requests', 'Requests', ({ kind }) => kind === 'request'],
  ['positions', 'Positions', ({ type }) => type === 'ride:location'],
];

/** The wire, as it is going on: a log of frames, and how each phone's connection is. */
export class WireView {
  #wire;
  #hidden = new Set(['requests']);
  #isPaused = false;
  #isDrawn = true;
  #rows = new WeakMap();
  #body = h('tbody');
  #stats;
  #scroll;

  /** @param {import('./wire.js').Wire} wire @param {string[]} phones */
  constructor(wire, phones) {
    this.#wire = wire;
    this.#stats = new Map(phones.map((phone) => [phone, this.#stat(phone)]));
    this.#scroll = h('div', { class: 'wire__scroll', tabindex: '0', role: 'region', 'aria-label': 'Frames' },
      h('table', { class: 'wire__table', dir: 'ltr' },
        h('thead', {}, h('tr', {}, COLUMNS.map((name) => h('th', { scope: 'col' }, name)))),
        this.#body));
    this.element = h('section', { class: 'wire', id: 'panel-wire', 'aria-labelledby': 'title-wire' },
      h('div', { class: 'wire__head' },
        h('h2', { class: 'wire__title', id: 'title-wire' }, 'Wire'),
        h('div', { class: 'wire__tools', role: 'group', 'aria-label': 'Show' },
          phones.map((phone) => this.#toggle(phone, NAMES[phone])),
          FILTERS.map(([name, label]) => this.#toggle(name, label))),
        this.#pause(),
        h('button', { class: 'button button--small', onclick: () => wire.clear() }, 'Clear')),
      h('ul', { class: 'wire__stats' }, [...this.#stats.values()].map(({ element }) => element)),
      this.#scroll);
    wire.subscribe(() => this.#later());
  }

  #toggle(name, label) {
    const onclick = ({ currentTarget }) => {
      const isHidden = !this.#hidden.delete(name) && Boolean(this.#hidden.add(name));
      currentTarget.setAttribute('aria-pressed', String(!isHidden));
      this.#draw();
    };
    return h('button', { class: 'pill', 'data-role': name, 'aria-pressed': String(!this.#hidden.has(name)), onclick }, label);
  }

  #pause() {
    const onclick = ({ currentTarget }) => {
      this.#isPaused = !this.#isPaused;
      currentTarget.setAttribute('aria-pressed', String(this.#isPaused));
      this.#draw();
    };
    return h('button', { class: 'pill wire__pause', 'aria-pressed': 'false', onclick }, 'Pause');
  }

  #stat(phone) {
    const text = h('span', { class: 'stat__text', dir: 'ltr' });
    const onclick = async ({ currentTarget }) => {
      await navigator.clipboard.writeText(this.#wire.phone(phone).curl);
      currentTarget.classList.add('is-done');
      setTimeout(() => currentTarget.classList.remove('is-done'), 1_200);
    };
    const copy = h('button', { class: 'button button--small stat__copy', 'aria-label': `Copy ${phone}’s connection as a curl command`, onclick }, icon('copy'), 'curl');
    return { text, element: h('li', { class: 'stat', 'data-role': phone }, h('b', {}, NAMES[phone]), text, copy) };
  }

  /** Once for all that comes until the next frame is painted. */
  #later() {
    if (!this.#isDrawn) return;
    this.#isDrawn = false;
    requestAnimationFrame(() => {
      this.#isDrawn = true;
      this.#draw();
    });
  }

  #draw() {
    for (const [phone, { text }] of this.#stats) say(text, this.#summary(this.#wire.phone(phone)));
    if (this.#isPaused) return;
    const isAtEnd = this.#scroll.scrollHeight - this.#scroll.scrollTop - this.#scroll.clientHeight < 32;
    const hides = FILTERS.filter(([name]) => this.#hidden.has(name)).map(([, , isMeant]) => isMeant);
    const shown = this.#wire.entries.filter((entry) => !this.#hidden.has(entry.phone) && !hides.some((isMeant) => isMeant(entry)));
    this.#show(shown.map((entry) => this.#row(entry)));
    if (isAtEnd) this.#scroll.scrollTop = this.#scroll.scrollHeight;
  }

  /** Only what has come and gone is touched: the log may be long, and its rows may be selected. */
  #show(rows) {
    const wanted = new Set(rows);
    for (const row of [...this.#body.children]) if (!wanted.has(row)) row.remove();
    let place = this.#body.firstChild;
    for (const row of rows) {
      if (row === place) place = place.nextSibling;
      else this.#body.insertBefore(row, place);
    }
  }

  #summary({ state, via, cursor, connects, latencies }) {
    const sorted = latencies.toSorted((one, other) => one - other);
    const median = sorted.length > 0 ? duration(sorted[Math.floor(sorted.length / 2)]) : '–';
    const line = state === 'live' ? `${VIAS[via]} live` : state;
    const again = connects > 1 ? ` · ${connects - 1} reconnect${connects > 2 ? 's' : ''}` : '';
    return `${line} · cursor ${cursor || '–'} · ${median}${again}`;
  }

  #row(entry) {
    if (!this.#rows.has(entry)) this.#rows.set(entry, row(entry));
    return this.#rows.get(entry);
  }
}

const duration = (ms) => (ms < 1_000 ? `${Math.round(ms)} ms` : `${(ms / 1_000).toFixed(1)} s`);

function row({ at, phone, kind, via, id, type, text, bytes, ms }) {
  const clock = new Date(at).toLocaleTimeString([], { hour12: false }) + `.${String(at % 1_000).padStart(3, '0')}`;
  const cells = [clock, NAMES[phone], VIAS[via] ?? '', id ?? '', type, text, bytes ?? '', ms === undefined ? '' : duration(ms)];
  return h('tr', { class: `wire__row is-${kind}`, 'data-role': phone },
    cells.map((cell, place) => h('td', place === 5 ? { title: text, dir: 'auto' } : {}, String(cell))));
}
