import { clock, counted, duration, h, say } from './dom.js';
import { icon } from './icons.js';
import { Rows } from './rows.js';

const NAMES = { rider: 'Rider', driver: 'Driver', support: 'Support' };
const VIAS = { sse: 'SSE', poll: 'Poll', rest: 'REST' };
const COLUMNS = ['Time', 'Phone', 'Via', 'Id', 'What', 'Data', 'Bytes', 'Took'];

/** What is shown of the wire. */
const FILTERS = [
  ['requests', 'Requests', ({ kind }) => kind === 'request'],
  ['positions', 'Locations', ({ type }) => type === 'ride:location'],
];

/** The wire, as it is going on: a log of frames, and how each phone's connection is. */
export class WireView {
  #wire;
  #hidden = new Set(['requests']);
  /** The entries that there were when it was paused. */
  #paused;
  #isDrawn = true;
  /** The row of each entry, and what it was drawn of. */
  #rows = new WeakMap();
  #body = h('tbody');
  #stops;
  #count = h('p', { class: 'wire__count' });
  #stats;
  #scroll;

  /** @param {import('./wire.js').Wire} wire @param {string[]} phones */
  constructor(wire, phones) {
    this.#wire = wire;
    this.#stats = new Map(phones.map((phone) => [phone, this.#stat(phone)]));
    this.#stops = new Rows(this.#body, '.wire__what');
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
        h('ul', { class: 'wire__stats' }, [...this.#stats.values()].map(({ element }) => element)),
        this.#count,
        this.#pause(),
        h('button', { class: 'button button--small', onclick: () => wire.clear() }, 'Clear'),
        this.#size()),
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
      this.#paused = this.#paused ? undefined : [...this.#wire.entries];
      currentTarget.setAttribute('aria-pressed', String(Boolean(this.#paused)));
      this.#draw();
    };
    return h('button', { class: 'pill wire__pause', 'aria-pressed': 'false', onclick }, 'Pause');
  }

  /** More room, to read what a row has expanded to. */
  #size() {
    const onclick = ({ currentTarget }) => {
      const isLarge = this.element.classList.toggle('is-large');
      currentTarget.setAttribute('aria-pressed', String(isLarge));
    };
    return h('button', { class: 'pill wire__size', 'aria-pressed': 'false', onclick }, 'Enlarge');
  }

  #stat(phone) {
    const text = h('span', { class: 'stat__text', dir: 'ltr' });
    const onclick = async ({ currentTarget }) => {
      await navigator.clipboard.writeText(this.#wire.phone(phone).curl);
      currentTarget.classList.add('is-done');
      setTimeout(() => currentTarget.classList.remove('is-done'), 1_200);
    };
    const copy = h('button', { class: 'button button--small stat__copy', 'aria-label': `Copy ${phone}’s connection as a curl command`, title: 'Copy as a curl command', onclick }, icon('copy'));
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
    for (const [phone, { text }] of this.#stats) say(text, summary(this.#wire.phone(phone)));
    const entries = this.#paused?.filter(({ isGone }) => !isGone) ?? this.#wire.entries;
    const isAtEnd = this.#scroll.scrollHeight - this.#scroll.scrollTop - this.#scroll.clientHeight < 32;
    const hides = FILTERS.filter(([name]) => this.#hidden.has(name)).map(([, , isMeant]) => isMeant);
    const shown = entries.filter((entry) => !this.#hidden.has(entry.phone) && !hides.some((isMeant) => isMeant(entry)));
    const { total } = this.#wire;
    say(this.#count, shown.length === total ? counted(total, 'row') : `${shown.length.toLocaleString('en')} of ${counted(total, 'row')}`);
    this.#show(shown.flatMap((entry) => this.#row(entry)));
    this.#stops.settle();
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

  /** An entry's row, and what it has expanded to. */
  #row(entry) {
    if (!this.#rows.has(entry)) this.#rows.set(entry, new Row(() => this.#draw()));
    return this.#rows.get(entry).of(entry, Boolean(this.#paused));
  }
}

/** One row of the log. It expands to the JSON of its entry. */
class Row {
  #count;
  #isOpen = false;
  #cells = COLUMNS.map(() => h('td'));
  #what = h('button', { class: 'wire__what', tabindex: '-1', 'aria-expanded': 'false' });
  #element = h('tr', {}, this.#cells);
  #json = h('pre', { class: 'json', role: 'group', tabindex: '0', dir: 'ltr' });
  #detail = h('tr', { class: 'wire__detail' }, h('td', { colspan: String(COLUMNS.length) }, this.#json));

  /** @param {() => void} onToggle */
  constructor(onToggle) {
    const onclick = () => {
      // Whoever selects text wants to copy it.
      if (String(getSelection()) !== '') return;
      this.#isOpen = !this.#isOpen;
      this.#what.setAttribute('aria-expanded', String(this.#isOpen));
      onToggle();
    };
    this.#element.addEventListener('click', onclick);
    this.#cells[4].append(this.#what);
  }

  /** The rows that show an entry as it is now, or, in a log that is paused, as it was. */
  of(entry, isPaused) {
    if (this.#count === undefined || (!isPaused && this.#count !== (entry.count ?? 1))) this.#draw(entry);
    return this.#isOpen ? [this.#element, this.#detail] : [this.#element];
  }

  #draw(entry) {
    const { at, phone, kind, via, id, type, text, bytes, ms, count = 1, json = { type, text } } = entry;
    this.#count = count;
    this.#element.className = `wire__row is-${kind}`;
    this.#element.dataset.role = phone;
    const what = count > 1 ? `${type} × ${count.toLocaleString('en')}` : type;
    const texts = [clock(at), NAMES[phone], VIAS[via] ?? '', id ?? '', what, text, bytes ?? '', ms === undefined ? '' : duration(ms)];
    texts.forEach((text, place) => say(place === 4 ? this.#what : this.#cells[place], String(text)));
    this.#cells[5].dir = 'auto';
    const isCut = Array.isArray(json) && json.length < count;
    const note = isCut ? `// the last ${json.length} of ${counted(count, 'event')}, newest first\n` : '';
    say(this.#json, note + JSON.stringify(json, null, 2));
    this.#json.setAttribute('aria-label', `JSON of ${what}`);
  }
}

function summary({ state, via, cursor, connects, latencies }) {
  const sorted = latencies.toSorted((one, other) => one - other);
  const median = sorted.length > 0 ? duration(sorted[Math.floor(sorted.length / 2)]) : '–';
  const line = state === 'live' ? `${VIAS[via]} live` : state;
  const again = connects > 1 ? ` · ${counted(connects - 1, 'reconnect')}` : '';
  return `${line} · cursor ${cursor || '–'} · ${median}${again}`;
}
