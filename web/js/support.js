import { h, nameOf } from './dom.js';
import { statusName } from './steps.js';

/** The rides that support may turn to: those of the people here, and any that is named. */
export class Rides {
  #list = h('ul', { class: 'rides__list' });
  #onOpen;
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
      this.#list);
  }

  /** Asks for the rides of these people; support itself has none. */
  async update(clients, current) {
    const pages = await Promise.all(clients.map((client) => client.rides({ limit: 6 }).catch(() => ({ rides: [] }))));
    const rides = new Map(pages.flatMap(({ rides }) => rides).map((ride) => [ride.rideId, ride]));
    const shown = JSON.stringify([current, ...[...rides.values()].map(({ rideId, status }) => [rideId, status])]);
    // As it is, where nothing has changed: the focus may be in it.
    if (shown === this.#shown) return;
    this.#shown = shown;
    this.#list.replaceChildren(...[...rides.values()].slice(0, 6).map((ride) => this.#row(ride, ride.rideId === current)));
  }

  #row({ rideId, status, riderId, driverId }, isCurrent) {
    const people = [riderId, driverId].filter(Boolean).map(nameOf).join(' and ');
    const props = { class: 'rides__ride', 'aria-current': isCurrent && 'true', onclick: () => this.#onOpen(rideId) };
    return h('li', {}, h('button', props, h('b', {}, rideId), h('span', {}, people), h('i', { 'data-status': status }, statusName(status))));
  }
}
