import { createElement, setText } from './dom.js';
import { icon } from './icons.js';

/** How often the typing indicator is renewed, in milliseconds. The server ends it after six seconds. */
const TYPING_INTERVAL = 3_000;

/** The maximum length of a message, and the length from which on it is shown, in characters (Unicode scalar values). */
const MAX_LENGTH = 4_000;
const SHOW_LENGTH_FROM = 3_800;

const PLACEHOLDERS = { open: 'Message', none: 'No chat yet', readOnly: 'The chat has ended' };

/** The form for writing and editing messages. */
export class Composer {
  #input;
  #editing;
  #cancel;
  #send;
  #length;
  #isOpen = false;
  #on;
  #typingSentAt = 0;
  #typingTimer;

  /** @param {{label: string, onSend: (text: string) => void, onEdit: (message: object, text: string) => void, onTyping: (typing: boolean) => void}} on */
  constructor({ label, ...on }) {
    this.#on = on;
    const onkeydown = (event) => this.#key(event);
    const oninput = () => this.#onInput();
    this.#input = createElement('textarea', { class: 'composer__input', rows: '1', dir: 'auto', placeholder: 'Message',
      'aria-label': label, onkeydown, oninput });
    this.#cancel = createElement('button', { type: 'button', class: 'button button--bare', hidden: true, 'aria-label': 'Cancel the edit', onclick: () => this.#end() }, icon('close'));
    this.#send = createElement('button', { class: 'composer__send', 'aria-label': 'Send' }, icon('send'));
    const onsubmit = (event) => {
      event.preventDefault();
      this.#submit();
    };
    this.#length = createElement('p', { class: 'composer__length', role: 'status', hidden: true });
    this.element = createElement('form', { class: 'composer', onsubmit }, this.#cancel, this.#input, this.#send, this.#length);
    this.chat = undefined;
  }

  /** Discards the draft, because the phone opens another ride. */
  clear() {
    this.#end();
    this.chat = undefined;
  }

  /** Starts editing a message. */
  edit(message) {
    this.#editing = message;
    this.#input.value = message.content;
    this.#cancel.hidden = false;
    this.#send.setAttribute('aria-label', 'Save');
    this.#grow();
    this.#input.focus();
  }

  /** The state of the ride's chat: `none`, `open` or `readOnly`; undefined without a ride. */
  set chat(chat) {
    this.#isOpen = chat === 'open';
    this.#input.disabled = !this.#isOpen;
    this.#input.placeholder = PLACEHOLDERS[chat] ?? '';
    this.#measure();
  }

  /** Shows the length of a long text. Disables the button where the server would reject the text; the text is never cut off. */
  #measure() {
    const length = [...this.#input.value.trim()].length;
    this.#length.hidden = length < SHOW_LENGTH_FROM;
    setText(this.#length, length < SHOW_LENGTH_FROM ? '' : `${length.toLocaleString('en')} of ${MAX_LENGTH.toLocaleString('en')} characters`);
    this.#length.classList.toggle('is-over', length > MAX_LENGTH);
    this.#send.disabled = !this.#isOpen || length > MAX_LENGTH;
  }

  #key(event) {
    if (event.key === 'Escape' && this.#editing) this.#end();
    // Ignores Enter while an input method composes.
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.#submit();
  }

  #submit() {
    const text = this.#input.value.trim();
    if (!text || this.#send.disabled) return;
    if (this.#editing) this.#on.onEdit(this.#editing, text);
    else this.#on.onSend(text);
    this.#end();
  }

  #end() {
    this.#editing = undefined;
    this.#input.value = '';
    this.#cancel.hidden = true;
    this.#send.setAttribute('aria-label', 'Send');
    clearTimeout(this.#typingTimer);
    this.#typingSentAt = 0;
    this.#grow();
  }

  #onInput() {
    this.#grow();
    if (this.#editing) return;
    clearTimeout(this.#typingTimer);
    const isTyping = this.#input.value !== '';
    if (!isTyping || Date.now() - this.#typingSentAt > TYPING_INTERVAL) {
      this.#typingSentAt = isTyping ? Date.now() : 0;
      this.#on.onTyping(isTyping);
    }
    if (isTyping) this.#typingTimer = setTimeout(() => this.#stopTyping(), TYPING_INTERVAL);
  }

  #stopTyping() {
    this.#typingSentAt = 0;
    this.#on.onTyping(false);
  }

  #grow() {
    this.#measure();
    this.#input.style.height = 'auto';
    this.#input.style.height = `${Math.min(this.#input.scrollHeight, 112)}px`;
  }
}
