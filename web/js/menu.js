import { createElement } from './dom.js';

const EMOJI = [['👍', 'thumbs up'], ['❤️', 'heart'], ['😂', 'laughing'], ['😮', 'surprised'], ['🙏', 'thanks']];

/** The menu with the actions of a message. Each phone has one menu, which opens beside the message. */
export class MessageMenu {
  #message;
  /** The message's list item. It stays the same when its content is updated. */
  #row;
  #hadFocus = false;
  #me;
  #actions;

  /** @param {{me: string, actions: {react: Function, edit: Function, remove: Function}, canDelete: boolean}} options */
  constructor({ me, actions, canDelete }) {
    this.#me = me;
    this.#actions = actions;
    this.canDelete = canDelete;
    this.element = createElement('div', { class: 'menu', role: 'menu', popover: 'auto', 'aria-label': 'Message', onkeydown: (event) => this.#key(event) });
    this.element.addEventListener('beforetoggle', () => {
      this.#hadFocus = this.element.contains(document.activeElement);
    });
    this.element.addEventListener('toggle', ({ newState }) => newState === 'closed' && this.#restoreFocus());
  }

  open(message, opener) {
    this.#message = message;
    this.#row = opener.closest('li');
    const isMine = message.senderId === this.#me;
    this.element.replaceChildren(...[
      createElement('div', { class: 'menu__emoji', role: 'group', 'aria-label': 'React' }, EMOJI.map((emoji) => this.#emoji(...emoji))),
      isMine && this.#item('Edit', () => this.#actions.edit(this.#message)),
      (isMine || this.canDelete) && this.#item('Delete', () => this.#actions.remove(this.#message.id), 'is-danger'),
    ].filter(Boolean));
    this.element.showPopover();
    this.#place(opener.getBoundingClientRect());
    this.#items[0].focus();
  }

  /** Moves the focus to the message's button, or to the list if the button is gone. Does nothing if the focus has moved elsewhere. */
  #restoreFocus() {
    // The hidden menu keeps the focus until the browser renders the page ("focus fixup" in the HTML standard).
    const isLost = document.activeElement === document.body || this.element.contains(document.activeElement);
    if (!this.#hadFocus || !isLost) return;
    (this.#row.querySelector('[data-focus="more"]') ?? this.#row.closest('[role="log"]'))?.focus();
  }

  get #items() {
    return [...this.element.querySelectorAll('button')];
  }

  #emoji(emoji, name) {
    const has = this.#message.reactions.some((reaction) => reaction.emoji === emoji && reaction.userIds.includes(this.#me));
    const act = () => this.#choose(() => this.#actions.react(this.#message.id, emoji, !has));
    const props = { role: 'menuitemcheckbox', 'aria-checked': String(has), 'aria-label': name, tabindex: '-1' };
    return createElement('button', { ...props, onclick: act }, emoji);
  }

  #item(label, act, name = '') {
    const onclick = () => this.#choose(act);
    return createElement('button', { role: 'menuitem', class: `menu__item ${name}`, tabindex: '-1', onclick }, label);
  }

  #choose(act) {
    this.element.hidePopover();
    act();
  }

  #place({ left, right, top, bottom }) {
    const { offsetWidth: width, offsetHeight: height } = this.element;
    const isRight = left + width > innerWidth - 8;
    const isUp = bottom + height > innerHeight - 8;
    this.element.style.left = `${Math.max(8, isRight ? right - width : left)}px`;
    this.element.style.top = `${isUp ? top - height - 4 : bottom + 4}px`;
  }

  #key(event) {
    const items = this.#items;
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    const at = items.indexOf(document.activeElement);
    if (step) items.at((at + step) % items.length).focus();
    else if (event.key === 'Home') items[0].focus();
    else if (event.key === 'End') items.at(-1).focus();
    else if (event.key === 'Tab') this.element.hidePopover();
    else return;
    event.preventDefault();
  }
}
