import { bubble } from './bubble.js';
import { createElement, setText } from './dom.js';
import { icon } from './icons.js';

/** The distance from the end of the list at which it counts as scrolled to the end, in pixels. */
const END_TOLERANCE = 24;

/** The list of a conversation's messages. Unchanged messages are not updated, so a screen reader announces only new ones. */
export class Chat {
  #me;
  #actions;
  #rows = new Map();
  #list = createElement('ol', { class: 'chat__list' });
  #earlier;
  #empty = createElement('p', { class: 'chat__empty' }, 'No messages yet');
  #typing = createElement('p', { class: 'chat__typing', role: 'status' });
  #down;
  #isAtEnd = true;
  #firstId;

  /** @param {{me: string, actions: object, onEarlier: () => void, onScroll: () => void}} options */
  constructor({ me, actions, onEarlier, onScroll }) {
    this.#me = me;
    this.#actions = actions;
    this.#earlier = createElement('button', { class: 'button chat__earlier', onclick: onEarlier }, 'Earlier messages');
    this.log = createElement('div', { class: 'chat__log', role: 'log', 'aria-label': 'Messages', 'aria-relevant': 'additions', tabindex: '0' },
      this.#earlier, this.#empty, this.#list);
    this.log.addEventListener('scroll', () => {
      this.#isAtEnd = this.#distance < END_TOLERANCE;
      onScroll();
    }, { passive: true });
    const end = () => this.#toEnd();
    this.#down = createElement('button', { class: 'chat__down', hidden: true, onclick: end }, icon('down'), createElement('span'));
    this.element = createElement('div', { class: 'chat' }, this.log, this.#down, this.#typing);
    // When the list shrinks, for example because an on-screen keyboard opens, it stays scrolled to its end.
    new ResizeObserver(() => this.#isAtEnd && this.#toEnd()).observe(this.log);
  }

  /** Whether the newest message is visible. */
  get isAtEnd() {
    return this.#isAtEnd;
  }

  get #distance() {
    return this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight;
  }

  #toEnd() {
    this.log.scrollTop = this.log.scrollHeight;
    this.#isAtEnd = true;
  }

  /** Whether screen readers announce new messages. True for only one list on the page: that of the active phone. */
  set isLive(isLive) {
    this.log.setAttribute('aria-live', isLive ? 'polite' : 'off');
  }

  /** Removes all messages and shows a reason. */
  clear(reason) {
    this.update({ messages: [], typing: [], hasMore: false }, 0);
    setText(this.#empty, reason);
    this.#toEnd();
  }

  update({ messages, typing, hasMore }, unread) {
    const before = this.#distance;
    const isOlder = this.#rows.size > 0 && messages[0]?.id !== this.#firstId;
    this.#firstId = messages[0]?.id;
    this.#show(messages);
    this.#earlier.hidden = !hasMore;
    this.#empty.hidden = messages.length > 0;
    setText(this.#empty, 'No messages yet');
    const others = typing.filter((user) => user !== this.#me);
    setText(this.#typing, others.length === 0 ? '' : `${others.join(' and ')} ${others.length > 1 ? 'are' : 'is'} typing`);
    this.#typing.classList.toggle('is-on', others.length > 0);
    this.#down.hidden = this.#isAtEnd;
    setText(this.#down.lastChild, unread > 0 ? `${unread.toLocaleString('en')} new` : 'Newest');
    if (this.#isAtEnd) this.#toEnd();
    // When older messages are inserted above, the visible messages stay where they are.
    else if (isOlder) this.log.scrollTop = this.log.scrollHeight - this.log.clientHeight - before;
  }

  #show(messages) {
    const keys = new Set();
    let previous = null;
    for (const message of messages) {
      const key = `${message.senderId ?? this.#me} ${message.clientMessageId ?? message.id}`;
      keys.add(key);
      const row = this.#row(key, message);
      const next = previous ? previous.nextSibling : this.#list.firstChild;
      if (row !== next) this.#list.insertBefore(row, next);
      row.classList.toggle('is-next', previous?.dataset.from === row.dataset.from);
      previous = row;
    }
    for (const [key, { element }] of this.#rows) {
      if (keys.has(key)) continue;
      element.remove();
      this.#rows.delete(key);
    }
  }

  #row(key, message) {
    const existing = this.#rows.get(key);
    if (existing?.message === message) return existing.element;
    const created = bubble(message, { me: this.#me, actions: this.#actions });
    created.dataset.from = message.senderId ?? this.#me;
    if (!existing) {
      this.#rows.set(key, { message, element: created });
      return created;
    }
    // The element is updated in place, and keeps the focus.
    const focus = existing.element.contains(document.activeElement) && document.activeElement.dataset.focus;
    existing.element.className = created.className;
    existing.element.replaceChildren(...created.childNodes);
    existing.message = message;
    // The focused element may no longer exist, for example after a deletion.
    if (focus) ([...existing.element.querySelectorAll('[data-focus]')].find(({ dataset }) => dataset.focus === focus) ?? this.log).focus();
    return existing.element;
  }
}
