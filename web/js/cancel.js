import { h } from './dom.js';

/** The statuses of a ride that may still be called off. */
const OPEN = ['requested', 'accepted', 'arrived', 'in_progress'];

/** Calling a ride off: a button where its status allows that, and a question before it is done. */
export class Cancel {
  #onCancel;
  #reason = h('input', { class: 'sheet__reason', name: 'reason', maxlength: '500', placeholder: 'Reason, if you like', 'aria-label': 'Reason', autocomplete: 'off', dir: 'auto' });

  /** @param {string} role whose phone it is @param {(reason?: string) => void} onCancel */
  constructor(role, onCancel) {
    this.#onCancel = onCancel;
    const title = `cancel-${role}`;
    this.button = h('button', { class: 'button steps__cancel', hidden: true, onclick: () => this.#ask() }, 'Cancel ride');
    const onsubmit = (event) => {
      event.preventDefault();
      this.sheet.close();
      this.#onCancel(this.#reason.value.trim() || undefined);
    };
    // Not modal: the other phones go on.
    this.sheet = h('dialog', { class: 'sheet', 'aria-labelledby': title, onkeydown: (event) => event.key === 'Escape' && this.sheet.close() },
      h('form', { class: 'sheet__form', onsubmit },
        h('p', { class: 'sheet__title', id: title }, 'Cancel this ride?'),
        this.#reason,
        h('button', { class: 'button sheet__yes' }, 'Cancel the ride'),
        h('button', { type: 'button', class: 'button', onclick: () => this.sheet.close() }, 'Keep the ride')));
  }

  update(status) {
    this.button.hidden = !OPEN.includes(status);
    if (this.button.hidden && this.sheet.open) this.sheet.close();
  }

  #ask() {
    this.#reason.value = '';
    this.sheet.show();
    this.#reason.focus();
  }
}
