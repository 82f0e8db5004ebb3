import { createElement } from './dom.js';

/** The ride statuses in which a ride can be cancelled. */
const CANCELLABLE = ['requested', 'accepted', 'arrived', 'in_progress'];

/** The button that cancels a ride, where its status allows that, and the confirmation dialog. */
export class CancelDialog {
  #onCancel;
  #reason = createElement('input', { class: 'sheet__reason', name: 'reason', maxlength: '500', placeholder: 'Reason (optional)', 'aria-label': 'Reason', autocomplete: 'off', dir: 'auto' });

  /** @param {string} role whose phone it is @param {(reason?: string) => void} onCancel */
  constructor(role, onCancel) {
    this.#onCancel = onCancel;
    const title = `cancel-${role}`;
    this.button = createElement('button', { class: 'button steps__cancel', hidden: true, onclick: () => this.#open() }, 'Cancel ride');
    const onsubmit = (event) => {
      event.preventDefault();
      this.sheet.close();
      this.#onCancel(this.#reason.value.trim() || undefined);
    };
    // Not modal, so that the other phones stay usable.
    this.sheet = createElement('dialog', { class: 'sheet', 'aria-labelledby': title, onkeydown: (event) => event.key === 'Escape' && this.sheet.close() },
      createElement('form', { class: 'sheet__form', onsubmit },
        createElement('p', { class: 'sheet__title', id: title }, 'Cancel this ride?'),
        this.#reason,
        createElement('button', { class: 'button sheet__yes' }, 'Cancel the ride'),
        createElement('button', { type: 'button', class: 'button', onclick: () => this.sheet.close() }, 'Keep the ride')));
  }

  update(status) {
    this.button.hidden = !CANCELLABLE.includes(status);
    if (this.button.hidden && this.sheet.open) this.sheet.close();
  }

  #open() {
    this.#reason.value = '';
    this.sheet.show();
    this.#reason.focus();
  }
}
