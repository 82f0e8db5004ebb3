import { h } from './dom.js';

const TRANSPORTS = [['auto', 'Auto'], ['stream', 'SSE'], ['poll', 'Poll']];

/** Servers that were named, for all phones. */
const servers = [];

/** What can be done to a phone's line: its transport, its network, its server. */
export class Controls {
  #line;
  #radios;
  #online;
  #server;
  #other;

  /** @param {import('./line.js').Line} line */
  constructor(line) {
    this.#line = line;
    const radio = ([value, label]) =>
      h('label', { class: 'segment' },
        h('input', { type: 'radio', name: `transport-${line.role}`, value, checked: value === line.transport, onchange: () => line.via(value) }),
        h('span', {}, label));
    this.#radios = TRANSPORTS.map(radio);
    const toggle = () => {
      line.isOffline = !line.isOffline;
    };
    this.#online = h('button', { class: 'switch', role: 'switch', 'aria-checked': 'true', onclick: toggle }, h('span', { class: 'switch__knob' }), 'Online');
    this.#server = h('select', { class: 'select', 'aria-label': 'Server', onchange: () => this.#choose() });
    this.#other = h('form', { class: 'controls__other', hidden: true, onsubmit: (event) => this.#name(event) },
      h('input', { type: 'url', name: 'url', required: true, placeholder: 'http://127.0.0.1:8081', 'aria-label': 'Address of another server' }),
      h('button', { class: 'button' }, 'Use'));
    this.#offer();
    this.element = h('div', { class: 'controls', role: 'group', 'aria-label': 'Connection' },
      h('div', { class: 'segments', role: 'radiogroup', 'aria-label': 'Transport' }, this.#radios),
      this.#online, this.#server, this.#other);
  }

  update() {
    const { isOffline, isSending } = this.#line;
    this.#online.setAttribute('aria-checked', String(!isOffline));
    // What is being sent goes with the client that sends it.
    for (const radio of this.#radios) radio.firstChild.disabled = isSending;
    this.#server.disabled = isSending;
  }

  #offer() {
    const option = (value, label) => h('option', { value, selected: value === this.#line.server }, label);
    this.#server.replaceChildren(option('', 'This server'),
      ...servers.map((server) => option(server, server.replace(/^https?:\/\//, ''))), option('other', 'Other…'));
  }

  #choose() {
    const { value } = this.#server;
    this.#other.hidden = value !== 'other';
    if (value === 'other') this.#other.elements.url.focus();
    else this.#line.moveTo(value);
  }

  #name(event) {
    event.preventDefault();
    const { origin } = new URL(this.#other.elements.url.value);
    if (!servers.includes(origin)) servers.push(origin);
    this.#other.hidden = true;
    this.#line.moveTo(origin);
    this.#offer();
  }
}
