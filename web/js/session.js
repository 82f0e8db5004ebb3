import { createElement } from './dom.js';

export const ROLES = ['rider', 'driver', 'support'];

/**
 * The users of the phones: those of the server's demo, or those whose tokens the user has pasted.
 * @typedef {object} Session
 * @property {boolean} isDemo
 * @property {string} ride
 * @property {string[]} roles the roles that have a token
 * @property {boolean} hasPlatform whether there is a token with the role `service`
 * @property {(role: string) => string | Promise<string>} token
 * @property {(role: string) => string} user
 */

/** @returns {Promise<Session>} */
export async function openSession(stage) {
  const session = await demo();
  return session ? demoSession(session) : paste(stage);
}

/** Returns the ride and tokens of the server's demo; undefined if the server has no demo. */
export async function demo() {
  for (;;) {
    const response = await fetch('/console/session', { cache: 'no-store' });
    if (response.status === 200) return response.json();
    if (response.status !== 503) return undefined;
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
}

function demoSession({ ride, tokens }) {
  const first = { ...tokens };
  return {
    isDemo: true,
    ride,
    roles: ROLES,
    hasPlatform: Boolean(tokens.service),
    user: (role) => subject(tokens[role]),
    /** Returns the token that was loaded first; after that, a new one. */
    async token(role) {
      const token = first[role] ?? (await demo())?.tokens[role];
      delete first[role];
      return token;
    },
  };
}

/** Asks the user for tokens. They are kept only in the page's memory. */
function paste(stage) {
  return new Promise((resolve) => {
    const field = (name, label, required) =>
      createElement('label', { class: 'field' }, label, createElement('input', { name, required, autocomplete: 'off', spellcheck: 'false' }));
    const problem = createElement('p', { class: 'paste__error', role: 'alert' });
    const onsubmit = (event) => {
      event.preventDefault();
      const { ride, ...tokens } = Object.fromEntries(new FormData(event.target));
      const roles = ROLES.filter((role) => tokens[role].trim());
      const pasted = [...roles, ...(tokens.service.trim() ? ['service'] : [])];
      if (roles.length === 0 || !pasted.every((role) => subject(tokens[role]))) {
        problem.textContent = 'Paste at least one token of a rider, driver or support user: three parts separated by dots.';
        return;
      }
      form.remove();
      const token = (role) => tokens[role].trim();
      const hasPlatform = pasted.includes('service');
      resolve({ isDemo: false, ride: ride.trim(), roles, hasPlatform, token, user: (role) => subject(tokens[role]) });
    };
    const form = createElement('form', { class: 'paste', onsubmit },
      createElement('h2', {}, 'Tokens'),
      createElement('p', {}, 'Paste tokens of a ride’s participants. They are kept only in this page, until it is closed.'),
      field('ride', 'Ride', true),
      field('rider', 'Rider’s token'),
      field('driver', 'Driver’s token'),
      field('support', 'Support’s token'),
      field('service', 'Platform’s token'),
      problem,
      createElement('button', { class: 'button button--main' }, 'Connect'));
    form.elements.ride.value = new URLSearchParams(location.search).get('ride') ?? '';
    stage.replaceChildren(form);
    form.elements.ride.focus();
  });
}

/** Returns the user of a token. */
function subject(token) {
  try {
    const [, claims] = token.trim().split('.');
    return JSON.parse(atob(claims.replaceAll('-', '+').replaceAll('_', '/'))).sub;
  } catch {
    return undefined;
  }
}
