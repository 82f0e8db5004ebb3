import { h } from './dom.js';
import { statusName } from './steps.js';

/** How many rides are listed, and how many more each time. */
const PAGE = 8;

/** The rides that support may turn to: all of them, newest first, and any that is named. */
export class Rides {
  #list = h('ul', { class: 'rides__list', 'aria-label': 'Rides' });
  #more = h('button', { class: 'link rides__more', hidden: true, onclick: () => this.#showMore() }, 'More rides');
  #onOpen;
  #client;
  #current;
  #limit = PAGE;
  #shown = '';

  /** @param {(rideId: string) => void} onOpen */
  constructor(onOpen) {
    this.#onOpen = onOpen;
    const onsubmit = (event) => {
      event.preventDefault();
      onOpen(event.target.elements.ride.value.trim());
      event.target.reset();
    };
    const field = h('input', { name: 'ride', required: true, pattern: '[A-Za-z0-9_.\\-]{1,64}', placeholder: 'Ride’s id', 'aria-label': 'Ride’s id', autocomplete: 'off' });
    this.element = h('div', { class: 'rides' },
      h('form', { class: 'rides__form', onsubmit }, field, h('button', { class: 'button' }, 'Open')),
      h('div', { class: 'rides__scroll' }, this.#list, this.#more));
  }

  /** @param {object} client support's @param {string | undefined} current the ride that is open */
  async update(client, current) {
    this.#client = client;
    this.#current = current;
    // What cannot be asked for now stays as it was.
    const page = await client.rides({ limit: this.#limit }).catch(() => undefined);
    if (page && client === this.#client && current === this.#current) this.#show(page);
  }

  #showMore() {
    this.#limit = Math.min(200, this.#limit + PAGE);
    this.update(this.#client, this.#current);
  }

  #show({ rides, hasMore }) {
    this.#more.hidden = !hasMore || this.#limit === 200;
    const shown = JSON.stringify([this.#current, ...rides.map(({ rideId, status, driverId }) => [rideId, status, driverId])]);
    // As it is, where nothing has changed: the focus may be in it.
    if (shown === this.#shown) return;
    this.#shown = shown;
    const focused = this.#list.contains(document.activeElement) && document.activeElement.dataset.ride;
    this.#list.replaceChildren(...rides.map((ride) => this.#row(ride, ride.rideId === this.#current)));
    if (focused) [...this.#list.querySelectorAll('button')].find(({ dataset }) => dataset.ride === focused)?.focus();
  }

  #row({ rideId, status, riderId, driverId }, isCurrent) {
    const people = [riderId, driverId].filter(Boolean).join(', ');
    const props = { class: 'rides__ride', 'data-ride': rideId, 'aria-current': isCurrent && 'true', onclick: () => this.#onOpen(rideId) };
    return h('li', {}, h('button', props, h('b', {}, rideId), h('span', {}, people), h('i', { 'data-status': status }, statusName(status))));
  }
}
