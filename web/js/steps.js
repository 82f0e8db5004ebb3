import { createElement, setText } from './dom.js';

const STEPS = [
  ['requested', 'Requested'],
  ['accepted', 'Accepted'],
  ['arrived', 'Arrived'],
  ['in_progress', 'On the way'],
  ['completed', 'Completed'],
];

/** The driver's next step, by the ride's status. */
const NEXT = {
  accepted: ['arrived', 'I have arrived'],
  arrived: ['in_progress', 'Start the ride'],
  in_progress: ['completed', 'Complete the ride'],
};

export const statusName = (status) => STEPS.find(([step]) => step === status)?.[1] ?? 'Cancelled';

/** The ride's status as a list of steps, the driver's button for the next step, and the button that cancels the ride. */
export class Steps {
  #steps = STEPS.map(([, label]) => createElement('li', { class: 'steps__step' }, createElement('span', {}, label)));
  #next;

  /** @param {((status: string) => void) | undefined} onStep @param {HTMLElement} cancel */
  constructor(onStep, cancel) {
    this.#next = onStep && createElement('button', { class: 'button steps__next', hidden: true, onclick: () => onStep(this.#next.value) });
    this.list = createElement('ol', { class: 'steps__list', 'aria-label': 'Status of the ride' }, this.#steps);
    this.element = createElement('div', { class: 'steps' }, this.list);
    this.actions = createElement('div', { class: 'steps__actions' }, this.#next, cancel);
  }

  update(status) {
    const at = STEPS.findIndex(([step]) => step === status);
    this.element.classList.toggle('steps--cancelled', status === 'cancelled');
    this.#steps.forEach((step, index) => {
      step.classList.toggle('is-done', index < at || status === 'completed');
      if (index === at) step.setAttribute('aria-current', 'step');
      else step.removeAttribute('aria-current');
    });
    if (!this.#next) return;
    const [next, label] = NEXT[status] ?? [];
    this.#next.hidden = !next;
    this.#next.value = next ?? '';
    setText(this.#next, label ?? '');
  }
}
