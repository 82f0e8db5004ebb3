import { h } from '/console/js/dom.js';
import { demo } from '/console/js/session.js';

/** How long before its end a demo's token is exchanged for another. */
const EARLY = 60_000;

/** Who asks: the people of the server's demo, or whoever's token is pasted. It is kept by the page alone. */
export class Who extends EventTarget {
  isDemo = false;
  role = 'own';
  #tokens = {};
  #own;

  static async open(place) {
    const who = new Who();
    who.#take(await demo());
    who.#show(place);
    return who;
  }

  /** The name of somebody of the demo, by their role. */
  name(role) {
    return claims(this.#tokens[role])?.sub;
  }

  /** @returns {Promise<string | undefined>} undefined: nobody */
  async token(role = this.role) {
    if (role === 'nobody') return undefined;
    if (role === 'own') return this.#own.value.trim() || undefined;
    if (!(claims(this.#tokens[role])?.exp * 1_000 > Date.now() + EARLY)) this.#take(await demo());
    return this.#tokens[role];
  }

  /** A token that was refused is not shown again. */
  forget() {
    if (this.isDemo) this.#tokens[this.role] = undefined;
  }

  #take(given) {
    this.isDemo = Boolean(given);
    this.#tokens = given?.tokens ?? {};
    if (this.isDemo && this.role === 'own') this.role = 'rider';
  }

  #show(place) {
    const option = (value, label) => h('option', { value, selected: value === this.role }, label);
    const people = Object.keys(this.#tokens).sort((one, other) => ORDER.indexOf(one) - ORDER.indexOf(other));
    const onchange = () => {
      this.role = select.value;
      this.#own.hidden = this.role !== 'own';
      if (!this.#own.hidden) this.#own.focus();
      this.dispatchEvent(new Event('change'));
    };
    const select = h('select', { class: 'who__select', 'aria-label': 'Who asks', onchange },
      people.map((role) => option(role, `${title(this.name(role))}, ${role}`)),
      option('own', 'A token of your own'), option('nobody', 'Nobody'));
    this.#own = h('input', { class: 'who__token', 'aria-label': 'Token', placeholder: 'Paste a token', autocomplete: 'off', spellcheck: 'false', hidden: this.role !== 'own' });
    this.#own.addEventListener('input', () => this.dispatchEvent(new Event('change')));
    place.replaceChildren(h('span', { class: 'who__label', 'aria-hidden': 'true' }, 'As'), select, this.#own);
  }
}

const ORDER = ['rider', 'driver', 'support', 'service'];

const title = (name = '') => name.charAt(0).toUpperCase() + name.slice(1);

/** What a token says. It is read for its end and its name alone: whether it counts is the server's to know. */
function claims(token) {
  try {
    return JSON.parse(atob(token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/')));
  } catch {
    return undefined;
  }
}
