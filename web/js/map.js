import { createElement, createSvgElement } from './dom.js';

const WIDTH = 400;
const HEIGHT = 210;

/** The minimum width of the map, relative to the element's width. */
const ZOOM = 1.3;

let town;

/** Loads the demo's fictional town. The page draws it itself, so no map service is needed. */
export async function loadTown() {
  town ??= await (await fetch('/console/route.json')).json();
  return town;
}

/** The map with the driver's location. */
export class RideMap {
  #town;
  #drawing;
  #car;
  #body;
  #way;
  #angle = 0;
  #centre = [WIDTH / 2, HEIGHT / 2];
  #isPlaced = false;

  constructor(town) {
    this.#town = town;
    const line = (points) => points.map((point) => this.#at(...point).join()).join(' ');
    const street = ({ points, width }) => createSvgElement('polyline', { points: line(points), class: `map__street map__street--${width}` });
    this.#way = { approach: createSvgElement('polyline', { points: line(town.approach), class: 'map__way' }),
      trip: createSvgElement('polyline', { points: line(town.trip), class: 'map__way' }) };
    this.#body = createSvgElement('g', { class: 'map__heading' },
      createSvgElement('path', { d: 'M0-9 6.5 7 0 3.6-6.5 7Z', class: 'map__arrow' }));
    this.#car = createSvgElement('g', { class: 'map__car', visibility: 'hidden' }, createSvgElement('circle', { r: 13, class: 'map__halo' }), this.#body);
    this.element = createElement('div', { class: 'map', role: 'img', 'aria-label': 'Map' });
    this.#drawing = createSvgElement('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, 'aria-hidden': 'true' },
      town.parks.map((points) => createSvgElement('polygon', { points: line(points), class: 'map__park' })),
      createSvgElement('polyline', { points: line(town.river), class: 'map__river' }),
      town.streets.map(street),
      this.#way.trip,
      this.#way.approach,
      this.#pin(town.trip[0], town.pickup, 'map__pin'),
      this.#pin(town.trip.at(-1), town.destination, 'map__pin map__pin--end'),
      this.#car);
    this.element.append(this.#drawing);
    new ResizeObserver(() => this.#follow()).observe(this.element);
  }

  /** @param {import('../../clients/js/index.d.ts').Location | null} location */
  update(status, location) {
    this.#way.approach.classList.toggle('is-now', status === 'requested' || status === 'accepted');
    this.#way.trip.classList.toggle('is-now', status === 'arrived' || status === 'in_progress');
    this.#car.setAttribute('visibility', location ? 'visible' : 'hidden');
    this.element.setAttribute('aria-label', this.#label(status, location));
    const { lat, lng } = location ?? {};
    const [x, y] = location ? this.#at(lat, lng) : this.#at(...this.#town.trip[0]);
    this.#centre = [x, y];
    this.element.classList.toggle('is-moving', this.#isPlaced && Boolean(location));
    this.#follow();
    this.#isPlaced = Boolean(location);
    if (!location) return;
    // Turns in the shorter direction, so that the arrow does not spin from 359° to 1°.
    const turn = ((location.heading ?? this.#angle) - this.#angle) % 360;
    this.#angle += turn > 180 ? turn - 360 : turn < -180 ? turn + 360 : turn;
    this.#car.style.transform = `translate(${x}px, ${y}px)`;
    this.#body.style.transform = `rotate(${this.#angle}deg)`;
  }

  /** Centres the map on the car, within the bounds of the town. */
  #follow() {
    const { clientWidth: width, clientHeight: height } = this.element;
    const scale = Math.max((width * ZOOM) / WIDTH, height / HEIGHT);
    const shift = (at, room, size) => Math.min(0, Math.max(room - size * scale, room / 2 - at * scale));
    this.#drawing.style.width = `${WIDTH * scale}px`;
    this.#drawing.style.transform = `translate(${shift(this.#centre[0], width, WIDTH)}px, ${shift(this.#centre[1], height, HEIGHT)}px)`;
  }

  #label(status, location) {
    if (!location) return 'Map: the driver’s location is unknown';
    const goal = status === 'in_progress' || status === 'completed' ? this.#town.destination : this.#town.pickup;
    const compass = ['north', 'north-east', 'east', 'south-east', 'south', 'south-west', 'west', 'north-west'];
    const direction = compass[Math.round((location.heading ?? 0) / 45) % 8];
    return `Map: the driver is heading ${direction}, on the way to ${goal}`;
  }

  #pin(point, label, name) {
    const [x, y] = this.#at(...point);
    return createSvgElement('g', { class: name, transform: `translate(${x} ${y})` },
      createSvgElement('circle', { r: 5.5 }),
      createSvgElement('text', { x: 0, y: -11, 'text-anchor': 'middle' }, label));
  }

  #at(lat, lng) {
    const { south, north, west, east } = this.#town.bounds;
    const x = ((lng - west) / (east - west)) * WIDTH;
    const y = ((north - lat) / (north - south)) * HEIGHT;
    return [x, y].map((value) => Number(value.toFixed(1)));
  }
}
