import { h, say } from './dom.js';
import { icon } from './icons.js';

/** While somebody types it is said again this often; the server forgets it after six seconds. */
const AGAIN = 3_000;

/** The longest message, in characters (Unicode scalar values), and from when on they are counted for the writer. */
const LONGEST = 4_000;
const COUNTED = 3_800;

const PLACEHOLDERS = { open: 'Message', none: 'No chat yet', readOnly: 'The chat has ended' };

/** Where a message is written, or one that was sent is changed. */
export class Composer {
  #input;
  #editing;
  #cancel;
  #send;
  #room;
  #isOpen = false;
  #on;
  #saidAt = 0;
  #stop;

  /** @param {{label: string, onSend: (text: string) => void, onEdit: (message: object, text: string) => void, onTyping: (typing: boolean) => void}} on */
  constructor({ label, ...on }) {
    this.#on = on;
    const onkeydown = (event) => this.#key(event);
    const oninput = () => this.#typed();
    this.#input = h('textarea', { class: 'composer__input', rows: '1', dir: 'auto', placeholder: 'Message',
      'aria-label': label, onkeydown, oninput });
    this.#cancel = h('button', { type: 'button', class: 'button button--bare', hidden: true, 'aria-label': 'Cancel the edit', onclick: () => this.#end() }, icon('close'));
    this.#send = h('button', { class: 'composer__send', 'aria-label': 'Send' }, icon('send'));
    const onsubmit = (event) => {
      event.preventDefault();
      this.#submit();
    };
    this.#room = h('p', { class: 'composer__room', role: 'status', hidden: true });
    this.element = h('form', { class: 'composer', onsubmit }, this.#cancel, this.#input, this.#send, this.#room);
    this.chat = undefined;
  }

  /** Forgets what is being written: it was for another ride. */
  clear() {
    this.#end();
    this.chat = undefined;
  }

  /** Changes a message instead of writing a new one. */
  edit(message) {
    this.#editing = message;
    this.#input.value = message.content;
    this.#cancel.hidden = false;
    this.#send.setAttribute('aria-label', 'Save');
    this.#grow();
    this.#input.focus();
  }

  /** How the ride's chat is: `none`, `open` or `readOnly`; undefined where there is no ride. */
  set chat(chat) {
    this.#isOpen = chat === 'open';
    this.#input.disabled = !this.#isOpen;
    this.#input.placeholder = PLACEHOLDERS[chat] ?? '';
    this.#measure();
  }

  /** A text that the server would reject cannot be sent, and none is cut off unnoticed. */
  #measure() {
    const length = [...this.#input.value.trim()].length;
    this.#room.hidden = length < COUNTED;
    say(this.#room, length < COUNTED ? '' : `${length.toLocaleString('en')} of ${LONGEST.toLocaleString('en')} characters`);
    this.#room.classList.toggle('is-over', length > LONGEST);
    this.#send.disabled = !this.#isOpen || length > LONGEST;
  }

  #key(event) {
    if (event.key === 'Escape' && this.#editing) this.#end();
    // Not while an input method composes.
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
    clearTimeout(this.#stop);
    this.#saidAt = 0;
    this.#grow();
  }

  #typed() {
    this.#grow();
    if (this.#editing) return;
    clearTimeout(this.#stop);
    const isTyping = this.#input.value !== '';
    if (!isTyping || Date.now() - this.#saidAt > AGAIN) {
      this.#saidAt = isTyping ? Date.now() : 0;
      this.#on.onTyping(isTyping);
    }
    if (isTyping) this.#stop = setTimeout(() => this.#rest(), AGAIN);
  }

  #rest() {
    this.#saidAt = 0;
    this.#on.onTyping(false);
  }

  #grow() {
    this.#measure();
    this.#input.style.height = 'auto';
    this.#input.style.height = `${Math.min(this.#input.scrollHeight, 112)}px`;
  }
}
