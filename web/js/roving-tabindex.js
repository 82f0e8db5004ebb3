/**
 * A roving tabindex: the rows of a list are one stop of the Tab key, and the arrow keys move between them.
 */
export class RovingTabindex {
  #container;
  #selector;

  /** @param {HTMLElement} container @param {string} selector matches the focusable element of each row */
  constructor(container, selector) {
    this.#container = container;
    this.#selector = selector;
    container.addEventListener('keydown', (event) => this.#key(event));
    container.addEventListener('focusin', ({ target }) => target.matches(selector) && this.#setStop(target));
  }

  get #all() {
    return [...this.#container.querySelectorAll(this.#selector)];
  }

  /** Must be called after rows were added or removed. If no row is the tab stop, makes `stop` or the last row the tab stop. */
  update(stop) {
    const all = this.#all;
    if (!all.some(({ tabIndex }) => tabIndex === 0)) this.#setStop(stop ?? all.at(-1));
  }

  #setStop(row) {
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
