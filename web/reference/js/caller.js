import { createElement } from '/console/js/dom.js';
import { demo } from '/console/js/session.js';

/** How long before its expiry a demo's token is replaced, in milliseconds. */
const RENEW_BEFORE = 60_000;

/** The selection of the caller: a user of the server's demo, a pasted token, or no token. Tokens are kept only in the page's memory. */
export class CallerSelect extends EventTarget {
  isDemo = false;
  role = 'own';
  #tokens = {};
  #own;

  static async open(container) {
    const caller = new CallerSelect();
    caller.#setSession(await demo());
    caller.#show(container);
    return caller;
  }

  /** Returns the demo's user with a role. */
  user(role) {
    return claims(this.#tokens[role])?.sub;
  }

  /** @returns {Promise<string | undefined>} undefined: no token */
  async token(role = this.role) {
    if (role === 'none') return undefined;
    if (role === 'own') return this.#own.value.trim() || undefined;
    if (!(claims(this.#tokens[role])?.exp * 1_000 > Date.now() + RENEW_BEFORE)) this.#setSession(await demo());
    return this.#tokens[role];
  }

  /** Discards the demo's token after the server has rejected it. */
  discardToken() {
    if (this.isDemo) this.#tokens[this.role] = undefined;
  }

  #setSession(session) {
    this.isDemo = Boolean(session);
    this.#tokens = session?.tokens ?? {};
    if (this.isDemo && this.role === 'own') this.role = 'rider';
  }

  #show(container) {
    const option = (value, label) => createElement('option', { value, selected: value === this.role }, label);
    const roles = Object.keys(this.#tokens).sort((one, other) => ORDER.indexOf(one) - ORDER.indexOf(other));
    const onchange = () => {
      this.role = select.value;
      this.#own.hidden = this.role !== 'own';
      if (!this.#own.hidden) this.#own.focus();
      this.dispatchEvent(new Event('change'));
    };
    const select = createElement('select', { class: 'caller__select', 'aria-label': 'Caller', onchange },
      roles.map((role) => option(role, `${title(this.user(role))}, ${role}`)),
      option('own', 'Your own token'), option('none', 'No token'));
    this.#own = createElement('input', { class: 'caller__token', 'aria-label': 'Token', placeholder: 'Paste a token', autocomplete: 'off', spellcheck: 'false', hidden: this.role !== 'own' });
    this.#own.addEventListener('input', () => this.dispatchEvent(new Event('change')));
    container.replaceChildren(createElement('span', { class: 'caller__label', 'aria-hidden': 'true' }, 'As'), select, this.#own);
  }
}

const ORDER = ['rider', 'driver', 'support', 'service'];

const title = (name = '') => name.charAt(0).toUpperCase() + name.slice(1);

/** Returns the claims of a token. Only its expiry and its user are used; the server verifies the token. */
function claims(token) {
  try {
    return JSON.parse(atob(token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/')));
  } catch {
    return undefined;
  }
}
