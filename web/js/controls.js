import { createElement } from './dom.js';

const TRANSPORTS = [['auto', 'Auto'], ['stream', 'SSE'], ['poll', 'Poll']];

/** The additional servers that the user has entered, for all phones. */
const servers = [];

/** The controls of a phone's connection: transport, network and server. */
export class ConnectionControls {
  #connection;
  #radios;
  #online;
  #server;
  #other;

  /** @param {import('./connection.js').Connection} connection */
  constructor(connection) {
    this.#connection = connection;
    const radio = ([value, label]) =>
      createElement('label', { class: 'segment' },
        createElement('input', { type: 'radio', name: `transport-${connection.role}`, value, checked: value === connection.transport, onchange: () => connection.setTransport(value) }),
        createElement('span', {}, label));
    this.#radios = TRANSPORTS.map(radio);
    const toggle = () => {
      connection.isOffline = !connection.isOffline;
    };
    this.#online = createElement('button', { class: 'switch', role: 'switch', 'aria-checked': 'true', onclick: toggle }, createElement('span', { class: 'switch__knob' }), 'Online');
    this.#server = createElement('select', { class: 'select', 'aria-label': 'Server', onchange: () => this.#choose() });
    this.#other = createElement('form', { class: 'controls__other', hidden: true, onsubmit: (event) => this.#name(event) },
      createElement('input', { type: 'url', name: 'url', required: true, placeholder: 'http://127.0.0.1:8081', 'aria-label': 'Address of another server' }),
      createElement('button', { class: 'button' }, 'Use'));
    this.#offer();
    this.element = createElement('div', { class: 'controls', role: 'group', 'aria-label': 'Connection' },
      createElement('div', { class: 'segments', role: 'radiogroup', 'aria-label': 'Transport' }, this.#radios),
      this.#online, this.#server, this.#other);
  }

  update() {
    const { isOffline, isSending } = this.#connection;
    this.#online.setAttribute('aria-checked', String(!isOffline));
    // A change would replace the client and lose the messages that it is sending.
    for (const radio of this.#radios) radio.firstChild.disabled = isSending;
    this.#server.disabled = isSending;
  }

  #offer() {
    const option = (value, label) => createElement('option', { value, selected: value === this.#connection.server }, label);
    this.#server.replaceChildren(option('', 'This server'),
      ...servers.map((server) => option(server, server.replace(/^https?:\/\//, ''))), option('other', 'Other…'));
  }

  #choose() {
    const { value } = this.#server;
    this.#other.hidden = value !== 'other';
    if (value === 'other') this.#other.elements.url.focus();
    else this.#connection.setServer(value);
  }

  #name(event) {
    event.preventDefault();
    const { origin } = new URL(this.#other.elements.url.value);
    if (!servers.includes(origin)) servers.push(origin);
    this.#other.hidden = true;
    this.#connection.setServer(origin);
    this.#offer();
  }
}
