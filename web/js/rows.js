/**
 * Rows that are one stop of the Tab key, however many there are: from one to the next go the arrow keys (a roving tabindex).
 */
export class Rows {
  #container;
  #selector;

  /** @param {HTMLElement} container @param {string} selector what has the focus in each row */
  constructor(container, selector) {
    this.#container = container;
    this.#selector = selector;
    container.addEventListener('keydown', (event) => this.#key(event));
    container.addEventListener('focusin', ({ target }) => target.matches(selector) && this.#stopAt(target));
  }

  get #all() {
    return [...this.#container.querySelectorAll(this.#selector)];
  }

  /** To be called when rows have come or gone: one of them is the stop, this one or the last if there is none. */
  settle(stop) {
    const all = this.#all;
    if (!all.some(({ tabIndex }) => tabIndex === 0)) this.#stopAt(stop ?? all.at(-1));
  }

  #stopAt(row) {
    for (const each of this.#all) each.tabIndex = each === row ? 0 : -1;
  }

  #key(event) {
    const all = this.#all;
    const at = all.indexOf(event.target);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    all[Math.min(Math.max(to, 0), all.length - 1)].focus();
  }
}
