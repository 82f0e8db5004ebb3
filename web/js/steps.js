import { h, say } from './dom.js';

const STEPS = [
  ['requested', 'Requested'],
  ['accepted', 'Accepted'],
  ['arrived', 'Arrived'],
  ['in_progress', 'On the way'],
  ['completed', 'Completed'],
];

/** What the driver does next, by the ride's status. */
const NEXT = {
  accepted: ['arrived', 'I have arrived'],
  arrived: ['in_progress', 'Start the ride'],
  in_progress: ['completed', 'Complete the ride'],
};

export const statusName = (status) => STEPS.find(([step]) => step === status)?.[1] ?? 'Cancelled';

/** The ride's status as steps; and, for its driver, the next one to take. What calls it off stands beside that. */
export class Steps {
  #steps = STEPS.map(([, label]) => h('li', { class: 'steps__step' }, h('span', {}, label)));
  #next;

  /** @param {((status: string) => void) | undefined} onStep @param {HTMLElement} cancel */
  constructor(onStep, cancel) {
    this.#next = onStep && h('button', { class: 'button steps__next', hidden: true, onclick: () => onStep(this.#next.value) });
    this.list = h('ol', { class: 'steps__list', 'aria-label': 'Status of the ride' }, this.#steps);
    this.element = h('div', { class: 'steps' }, this.list);
    this.actions = h('div', { class: 'steps__actions' }, this.#next, cancel);
  }

  update(status) {
    const at = STEPS.findIndex(([step]) => step === status);
    this.element.classList.toggle('steps--cancelled', status === 'cancelled');
    this.#steps.forEach((step, place) => {
      step.classList.toggle('is-done', place < at || status === 'completed');
      if (place === at) step.setAttribute('aria-current', 'step');
      else step.removeAttribute('aria-current');
    });
    if (!this.#next) return;
    const [next, label] = NEXT[status] ?? [];
    this.#next.hidden = !next;
    this.#next.value = next ?? '';
    say(this.#next, label ?? '');
  }
}
