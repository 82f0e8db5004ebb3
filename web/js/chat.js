import { bubble } from './bubble.js';
import { h, say } from './dom.js';
import { icon } from './icons.js';

/** How near to the end of the list counts as being there, in pixels. */
const NEAR = 24;

/** The messages of a conversation. What has not changed is not touched, so a screen reader says what is new alone. */
export class Chat {
  #me;
  #actions;
  #rows = new Map();
  #list = h('ol', { class: 'chat__list' });
  #earlier;
  #empty = h('p', { class: 'chat__empty' }, 'No messages yet');
  #typing = h('p', { class: 'chat__typing', role: 'status' });
  #down;
  #isAtEnd = true;
  #firstId;

  /** @param {{me: string, actions: object, onEarlier: () => void, onScroll: () => void}} options */
  constructor({ me, actions, onEarlier, onScroll }) {
    this.#me = me;
    this.#actions = actions;
    this.#earlier = h('button', { class: 'button chat__earlier', onclick: onEarlier }, 'Earlier messages');
    this.log = h('div', { class: 'chat__log', role: 'log', 'aria-label': 'Messages', 'aria-relevant': 'additions', tabindex: '0' },
      this.#earlier, this.#empty, this.#list);
    this.log.addEventListener('scroll', () => {
      this.#isAtEnd = this.#distance < NEAR;
      onScroll();
    }, { passive: true });
    const end = () => this.#toEnd();
    this.#down = h('button', { class: 'chat__down', hidden: true, onclick: end }, icon('down'), h('span'));
    this.element = h('div', { class: 'chat' }, this.log, this.#down, this.#typing);
    // A list that gets lower, as when a keyboard opens, shows its end as before.
    new ResizeObserver(() => this.#isAtEnd && this.#toEnd()).observe(this.log);
  }

  /** Whether the newest message can be seen. */
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

  /** Only one list on the page speaks: that of the phone in hand. */
  set isSpeaking(isSpeaking) {
    this.log.setAttribute('aria-live', isSpeaking ? 'polite' : 'off');
  }

  /** Shows nothing of a ride, and says why. */
  clear(why) {
    this.update({ messages: [], typing: [], hasMore: false }, 0);
    say(this.#empty, why);
    this.#toEnd();
  }

  update({ messages, typing, hasMore }, unread) {
    const before = this.#distance;
    const isOlder = this.#rows.size > 0 && messages[0]?.id !== this.#firstId;
    this.#firstId = messages[0]?.id;
    this.#show(messages);
    this.#earlier.hidden = !hasMore;
    this.#empty.hidden = messages.length > 0;
    say(this.#empty, 'No messages yet');
    const others = typing.filter((user) => user !== this.#me);
    say(this.#typing, others.length === 0 ? '' : `${others.join(' and ')} ${others.length > 1 ? 'are' : 'is'} typing`);
    this.#typing.classList.toggle('is-on', others.length > 0);
    this.#down.hidden = this.#isAtEnd;
    say(this.#down.lastChild, unread > 0 ? `${unread.toLocaleString('en')} new` : 'Newest');
    if (this.#isAtEnd) this.#toEnd();
    // What was in view stays there when older ones come above it.
    else if (isOlder) this.log.scrollTop = this.log.scrollHeight - this.log.clientHeight - before;
  }

  #show(messages) {
    const keys = new Set();
    let previous = null;
    for (const message of messages) {
      const key = `${message.senderId ?? this.#me} ${message.clientMessageId ?? message.id}`;
      keys.add(key);
      const row = this.#row(key, message);
      const place = previous ? previous.nextSibling : this.#list.firstChild;
      if (row !== place) this.#list.insertBefore(row, place);
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
    const known = this.#rows.get(key);
    if (known?.message === message) return known.element;
    const fresh = bubble(message, { me: this.#me, actions: this.#actions });
    fresh.dataset.from = message.senderId ?? this.#me;
    if (!known) {
      this.#rows.set(key, { message, element: fresh });
      return fresh;
    }
    // In place, and with the focus where it was.
    const focus = known.element.contains(document.activeElement) && document.activeElement.dataset.focus;
    known.element.className = fresh.className;
    known.element.replaceChildren(...fresh.childNodes);
    known.message = message;
    // What had it may be gone, as with a message that is deleted.
    if (focus) ([...known.element.querySelectorAll('[data-focus]')].find(({ dataset }) => dataset.focus === focus) ?? this.log).focus();
    return known.element;
  }
}
