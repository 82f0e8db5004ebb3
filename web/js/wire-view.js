import { createElement, formatCount, formatDuration, formatTimestamp, setText } from './dom.js';
import { icon } from './icons.js';
import { RovingTabindex } from './roving-tabindex.js';

const NAMES = { rider: 'Rider', driver: 'Driver', support: 'Support' };
const VIAS = { sse: 'SSE', poll: 'Poll', rest: 'REST' };
const COLUMNS = ['Time', 'Phone', 'Via', 'Id', 'Type', 'Data', 'Bytes', 'Duration'];

/** The filters of the log. */
const FILTERS = [
  ['requests', 'Requests', ({ kind }) => kind === 'request'],
  ['locations', 'Locations', ({ type }) => type === 'ride:location'],
];

/** The view of the wire log: the entries, and the state of each phone's connection. */
export class WireView {
  #wire;
  #hidden = new Set(['requests']);
  /** The entries at the time when the log was paused. */
  #paused;
  #isDrawn = true;
  /** The row of each entry. */
  #rows = new WeakMap();
  #body = createElement('tbody');
  #focus;
  #count = createElement('p', { class: 'wire__count' });
  #stats;
  #scroll;

  /** @param {import('./wire.js').Wire} wire @param {string[]} phones */
  constructor(wire, phones) {
    this.#wire = wire;
    this.#stats = new Map(phones.map((phone) => [phone, this.#stat(phone)]));
    this.#focus = new RovingTabindex(this.#body, '.wire__type');
    this.#scroll = createElement('div', { class: 'wire__scroll', tabindex: '0', role: 'region', 'aria-label': 'Frames' },
      createElement('table', { class: 'wire__table', dir: 'ltr' },
        createElement('thead', {}, createElement('tr', {}, COLUMNS.map((name) => createElement('th', { scope: 'col' }, name)))),
        this.#body));
    this.element = createElement('section', { class: 'wire', id: 'panel-wire', 'aria-labelledby': 'title-wire' },
      createElement('div', { class: 'wire__head' },
        createElement('h2', { class: 'wire__title', id: 'title-wire' }, 'Wire'),
        createElement('div', { class: 'wire__tools', role: 'group', 'aria-label': 'Show' },
          phones.map((phone) => this.#toggle(phone, NAMES[phone])),
          FILTERS.map(([name, label]) => this.#toggle(name, label))),
        createElement('ul', { class: 'wire__stats' }, [...this.#stats.values()].map(({ element }) => element)),
        this.#count,
        this.#pause(),
        createElement('button', { class: 'button button--small', onclick: () => wire.clear() }, 'Clear'),
        this.#size()),
      this.#scroll);
    wire.subscribe(() => this.#scheduleDraw());
  }

  #toggle(name, label) {
    const onclick = ({ currentTarget }) => {
      const isHidden = !this.#hidden.delete(name) && Boolean(this.#hidden.add(name));
      currentTarget.setAttribute('aria-pressed', String(!isHidden));
      this.#draw();
    };
    return createElement('button', { class: 'pill', 'data-role': name, 'aria-pressed': String(!this.#hidden.has(name)), onclick }, label);
  }

  #pause() {
    const onclick = ({ currentTarget }) => {
      this.#paused = this.#paused ? undefined : [...this.#wire.entries];
      currentTarget.setAttribute('aria-pressed', String(Boolean(this.#paused)));
      this.#draw();
    };
    return createElement('button', { class: 'pill wire__pause', 'aria-pressed': 'false', onclick }, 'Pause');
  }

  /** Creates the button that enlarges the log. */
  #size() {
    const onclick = ({ currentTarget }) => {
      const isLarge = this.element.classList.toggle('is-large');
      currentTarget.setAttribute('aria-pressed', String(isLarge));
    };
    return createElement('button', { class: 'pill wire__size', 'aria-pressed': 'false', onclick }, 'Enlarge');
  }

  #stat(phone) {
    const text = createElement('span', { class: 'stat__text', dir: 'ltr' });
    const onclick = async ({ currentTarget }) => {
      await navigator.clipboard.writeText(this.#wire.phone(phone).curl);
      currentTarget.classList.add('is-done');
      setTimeout(() => currentTarget.classList.remove('is-done'), 1_200);
    };
    const copy = createElement('button', { class: 'button button--small stat__copy', 'aria-label': `Copy ${phone}’s connection as a curl command`, title: 'Copy as a curl command', onclick }, icon('copy'));
    return { text, element: createElement('li', { class: 'stat', 'data-role': phone }, createElement('b', {}, NAMES[phone]), text, copy) };
  }

  /** Draws at most once per animation frame. */
  #scheduleDraw() {
    if (!this.#isDrawn) return;
    this.#isDrawn = false;
    requestAnimationFrame(() => {
      this.#isDrawn = true;
      this.#draw();
    });
  }

  #draw() {
    for (const [phone, { text }] of this.#stats) setText(text, summary(this.#wire.phone(phone)));
    const entries = this.#paused?.filter(({ isGone }) => !isGone) ?? this.#wire.entries;
    const isAtEnd = this.#scroll.scrollHeight - this.#scroll.scrollTop - this.#scroll.clientHeight < 32;
    const hides = FILTERS.filter(([name]) => this.#hidden.has(name)).map(([, , isMeant]) => isMeant);
    const shown = entries.filter((entry) => !this.#hidden.has(entry.phone) && !hides.some((isMeant) => isMeant(entry)));
    const { total } = this.#wire;
    setText(this.#count, shown.length === total ? formatCount(total, 'row') : `${shown.length.toLocaleString('en')} of ${formatCount(total, 'row')}`);
    this.#show(shown.flatMap((entry) => this.#row(entry)));
    this.#focus.update();
    if (isAtEnd) this.#scroll.scrollTop = this.#scroll.scrollHeight;
  }

  /** Adds and removes only changed rows, because the log may be long and text in it may be selected. */
  #show(rows) {
    const wanted = new Set(rows);
    for (const row of [...this.#body.children]) if (!wanted.has(row)) row.remove();
    let next = this.#body.firstChild;
    for (const row of rows) {
      if (row === next) next = next.nextSibling;
      else this.#body.insertBefore(row, next);
    }
  }

  /** Returns the row of an entry, and the detail row if it is expanded. */
  #row(entry) {
    if (!this.#rows.has(entry)) this.#rows.set(entry, new Row(() => this.#draw()));
    return this.#rows.get(entry).of(entry, Boolean(this.#paused));
  }
}

/** A row of the log, which expands to the JSON of its entry. */
class Row {
  #count;
  #isOpen = false;
  #cells = COLUMNS.map(() => createElement('td'));
  #type = createElement('button', { class: 'wire__type', tabindex: '-1', 'aria-expanded': 'false' });
  #element = createElement('tr', {}, this.#cells);
  #json = createElement('pre', { class: 'json', role: 'group', tabindex: '0', dir: 'ltr' });
  #detail = createElement('tr', { class: 'wire__detail' }, createElement('td', { colspan: String(COLUMNS.length) }, this.#json));

  /** @param {() => void} onToggle */
  constructor(onToggle) {
    const onclick = () => {
      // A click that selects text does not expand the row.
      if (String(getSelection()) !== '') return;
      this.#isOpen = !this.#isOpen;
      this.#type.setAttribute('aria-expanded', String(this.#isOpen));
      onToggle();
    };
    this.#element.addEventListener('click', onclick);
    this.#cells[4].append(this.#type);
  }

  /** Returns the rows of an entry. In a paused log, they show the entry as it was. */
  of(entry, isPaused) {
    if (this.#count === undefined || (!isPaused && this.#count !== (entry.count ?? 1))) this.#draw(entry);
    return this.#isOpen ? [this.#element, this.#detail] : [this.#element];
  }

  #draw(entry) {
    const { at, phone, kind, via, id, type, text, bytes, ms, count = 1, json = { type, text } } = entry;
    this.#count = count;
    this.#element.className = `wire__row is-${kind}`;
    this.#element.dataset.role = phone;
    const label = count > 1 ? `${type} × ${count.toLocaleString('en')}` : type;
    const texts = [formatTimestamp(at), NAMES[phone], VIAS[via] ?? '', id ?? '', label, text, bytes ?? '', ms === undefined ? '' : formatDuration(ms)];
    texts.forEach((text, index) => setText(index === 4 ? this.#type : this.#cells[index], String(text)));
    this.#cells[5].dir = 'auto';
    const isCut = Array.isArray(json) && json.length < count;
    const note = isCut ? `// the last ${json.length} of ${formatCount(count, 'event')}, newest first\n` : '';
    setText(this.#json, note + JSON.stringify(json, null, 2));
    this.#json.setAttribute('aria-label', `JSON of ${label}`);
  }
}

function summary({ state, via, cursor, connects, latencies }) {
  const sorted = latencies.toSorted((one, other) => one - other);
  const median = sorted.length > 0 ? formatDuration(sorted[Math.floor(sorted.length / 2)]) : '–';
  const status = state === 'live' ? `${VIAS[via]} live` : state;
  const reconnects = connects > 1 ? ` · ${formatCount(connects - 1, 'reconnect')}` : '';
  return `${status} · cursor ${cursor || '–'} · ${median}${reconnects}`;
}
