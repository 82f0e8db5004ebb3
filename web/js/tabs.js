import { createElement, screenReaderText, setText } from './dom.js';

/** Shows one panel at a time on a narrow screen (the tabs pattern of ARIA). */
export class Tabs {
  #tabs;
  #panels;
  #onSelect;
  #selected;
  #narrow = matchMedia('(max-width: 47.99rem)');

  /**
   * @param {HTMLElement} list
   * @param {{name: string, title: string, element: HTMLElement}[]} panels
   * @param {(name: string | undefined) => void} onSelect called with the shown panel, or undefined if all are shown
   */
  constructor(list, panels, onSelect) {
    this.#panels = panels;
    this.#onSelect = onSelect;
    this.#selected = panels[0].name;
    this.#tabs = panels.map(({ name, title, element }) => {
      const props = { class: 'tabs__tab', role: 'tab', id: `tab-${name}`, 'aria-controls': element.id, 'data-role': name };
      return createElement('button', { ...props, onclick: () => this.select(name) }, title, createElement('span', { class: 'badge', hidden: true }));
    });
    list.replaceChildren(...this.#tabs);
    list.addEventListener('keydown', (event) => this.#key(event));
    this.#narrow.addEventListener('change', () => this.#show());
    this.#show();
  }

  select(name) {
    this.#selected = name;
    this.#show();
  }

  /** Shows the number of unread messages on a tab. */
  count(name, unread) {
    const badge = this.#tabs[this.#panels.findIndex((panel) => panel.name === name)]?.lastChild;
    if (!badge || badge.dataset.count === String(unread)) return;
    badge.dataset.count = unread;
    badge.hidden = unread === 0;
    badge.replaceChildren(unread.toLocaleString('en'), screenReaderText(' unread'));
  }

  #key({ key }) {
    const at = this.#panels.findIndex(({ name }) => name === this.#selected);
    const isRtl = getComputedStyle(this.#tabs[0]).direction === 'rtl';
    const step = { ArrowRight: isRtl ? -1 : 1, ArrowLeft: isRtl ? 1 : -1 }[key];
    const to = key === 'Home' ? 0 : key === 'End' ? this.#panels.length - 1 : step && (at + step) % this.#panels.length;
    if (to === undefined) return;
    this.select(this.#panels.at(to).name);
    this.#tabs.at(to).focus();
  }

  #show() {
    const isNarrow = this.#narrow.matches;
    this.#panels.forEach(({ name, element }, index) => {
      const isSelected = name === this.#selected;
      this.#tabs[index].setAttribute('aria-selected', String(isSelected));
      this.#tabs[index].tabIndex = isSelected ? 0 : -1;
      element.hidden = isNarrow && !isSelected;
      if (isNarrow) element.setAttribute('role', 'tabpanel');
      else element.removeAttribute('role');
    });
    this.#onSelect(isNarrow ? this.#selected : undefined);
  }
}

/** Shows the number of unread messages in the page's title. */
export const showUnread = (unread) => setText(document.querySelector('title'), unread > 0 ? `(${unread.toLocaleString('en')}) Ridewire` : 'Ridewire');
