import { createElement } from './dom.js';
import { statusName } from './steps.js';

/** The number of rides that are listed at first, and that are added each time. */
const PAGE = 8;

/** The rides that support can open: a list of all rides, newest first, and a field for a ride's id. */
export class RideList {
  #list = createElement('ul', { class: 'rides__list', 'aria-label': 'Rides' });
  #more = createElement('button', { class: 'link rides__more', hidden: true, onclick: () => this.#showMore() }, 'More rides');
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
    const field = createElement('input', { name: 'ride', required: true, pattern: '[A-Za-z0-9_.\\-]{1,64}', placeholder: 'Ride’s id', 'aria-label': 'Ride’s id', autocomplete: 'off' });
    this.element = createElement('div', { class: 'rides' },
      createElement('form', { class: 'rides__form', onsubmit }, field, createElement('button', { class: 'button' }, 'Open')),
      createElement('div', { class: 'rides__scroll' }, this.#list, this.#more));
  }

  /** @param {object} client support's @param {string | undefined} current the ride that is open */
  async update(client, current) {
    this.#client = client;
    this.#current = current;
    // If the request fails, the list stays as it is.
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
    // An unchanged list is not replaced, because it may have the focus.
    if (shown === this.#shown) return;
    this.#shown = shown;
    const focused = this.#list.contains(document.activeElement) && document.activeElement.dataset.ride;
    this.#list.replaceChildren(...rides.map((ride) => this.#row(ride, ride.rideId === this.#current)));
    if (focused) [...this.#list.querySelectorAll('button')].find(({ dataset }) => dataset.ride === focused)?.focus();
  }

  #row({ rideId, status, riderId, driverId }, isCurrent) {
    const participants = [riderId, driverId].filter(Boolean).join(', ');
    const props = { class: 'rides__ride', 'data-ride': rideId, 'aria-current': isCurrent && 'true', onclick: () => this.#onOpen(rideId) };
    return createElement('li', {}, createElement('button', props, createElement('b', {}, rideId), createElement('span', {}, participants), createElement('i', { 'data-status': status }, statusName(status))));
  }
}
