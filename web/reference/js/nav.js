import { createElement, setText } from '/console/js/dom.js';
import { method } from './operation.js';

/** The list of operations by group, with a filter field. The current operation is marked. */
export class Nav {
  #links = new Map();
  #groups;
  #search;
  #count = createElement('p', { class: 'nav__count', role: 'status' });
  #onFilter;
  #toggle;
  #place;

  /**
   * @param {HTMLElement} place
   * @param {HTMLButtonElement} toggle shows the list where there is no room beside the content
   * @param {import('./spec.js').Spec} spec
   * @param {(ids: Set<string>) => void} onFilter called with the operations that match the filter
   */
  constructor(place, toggle, spec, onFilter) {
    this.#place = place;
    this.#toggle = toggle;
    this.#onFilter = onFilter;
    this.#search = createElement('input', { type: 'search', class: 'nav__search', placeholder: 'Filter', 'aria-label': 'Filter operations', 'aria-keyshortcuts': '/', autocomplete: 'off', spellcheck: 'false', oninput: () => this.#filter() });
    this.#search.addEventListener('keydown', (event) => this.#key(event));
    this.#groups = spec.groups.map((group) => this.#group(group));
    place.replaceChildren(this.#search, this.#count, ...this.#groups.map(({ element }) => element));
    toggle.addEventListener('click', () => this.#open(toggle.getAttribute('aria-expanded') !== 'true'));
    place.addEventListener('click', ({ target }) => target.closest('a') && this.#open(false));
    document.addEventListener('keydown', (event) => {
      const isTyping = event.target.closest('input, textarea, select');
      if (event.key === 'Escape' && !isTyping) this.#open(false);
      if (event.key !== '/' || isTyping || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      this.#open(true);
      this.#search.focus();
    });
  }

  /** Marks the current operation. */
  set current(id) {
    for (const [each, link] of this.#links) {
      if (each !== id) link.removeAttribute('aria-current');
      else if (!link.hasAttribute('aria-current')) {
        link.setAttribute('aria-current', 'true');
        this.#reveal(link);
      }
    }
  }

  /** Clears the filter. */
  clear() {
    this.#search.value = '';
    this.#filter();
  }

  #group({ name, operations }) {
    const title = `nav-${name}`;
    const rows = operations.map((operation) => {
      const link = createElement('a', { class: 'nav__link', href: `#${operation.id}` }, createElement('span', {}, operation.summary), method(operation.method));
      this.#links.set(operation.id, link);
      const text = [name, operation.id, operation.method, operation.path, operation.summary, operation.description].join(' ').toLowerCase();
      return { id: operation.id, text, element: createElement('li', {}, link) };
    });
    const element = createElement('div', { class: 'nav__group', role: 'group', 'aria-labelledby': title },
      createElement('h2', { class: 'nav__title', id: title }, name), createElement('ul', {}, rows.map((row) => row.element)));
    return { rows, element };
  }

  #filter() {
    const words = this.#search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const fitting = new Set();
    for (const { rows, element } of this.#groups) {
      for (const row of rows) {
        row.element.hidden = !words.every((word) => row.text.includes(word));
        if (!row.element.hidden) fitting.add(row.id);
      }
      element.hidden = rows.every((row) => row.element.hidden);
    }
    setText(this.#count, words.length === 0 ? '' : `${fitting.size} ${fitting.size === 1 ? 'operation' : 'operations'}`);
    this.#onFilter(fitting);
  }

  #key(event) {
    if (event.key === 'Escape') this.clear();
    if (event.key !== 'Enter' && event.key !== 'ArrowDown') return undefined;
    event.preventDefault();
    const first = [...this.#links.values()].find((link) => !link.closest('[hidden]'));
    if (event.key === 'ArrowDown') return first?.focus();
    // The filter is cleared, so that the operation is shown among the others.
    if (first) this.clear();
    return first?.click();
  }

  #open(isOpen) {
    this.#toggle.setAttribute('aria-expanded', String(isOpen));
    this.#place.classList.toggle('is-open', isOpen);
  }

  /** Scrolls only the list, never the page. */
  #reveal(link) {
    const { top, bottom } = link.getBoundingClientRect();
    const frame = this.#place.getBoundingClientRect();
    if (top < frame.top + 60) this.#place.scrollTop += top - frame.top - 60;
    else if (bottom > frame.bottom - 20) this.#place.scrollTop += bottom - frame.bottom + 20;
  }
}
