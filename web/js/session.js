import { h } from './dom.js';

export const ROLES = ['rider', 'driver', 'support'];

/**
 * Whose phones these are: the people of the server's demo, or those whose tokens are pasted.
 * @typedef {object} Session
 * @property {boolean} isDemo
 * @property {string} ride
 * @property {string[]} roles those that there are tokens for
 * @property {boolean} hasPlatform whether there is a token of the platform
 * @property {(role: string) => string | Promise<string>} token
 * @property {(role: string) => string} user
 */

/** @returns {Promise<Session>} */
export async function openSession(stage) {
  const given = await demo();
  return given ? demoSession(given) : paste(stage);
}

/** What the server's demo gives; undefined where it is none. */
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
    /** The one that came with the page; when that counts no more, another. */
    async token(role) {
      const token = first[role] ?? (await demo())?.tokens[role];
      delete first[role];
      return token;
    },
  };
}

/** Asks for tokens. They are kept by the page alone, so they are gone with it. */
function paste(stage) {
  return new Promise((resolve) => {
    const field = (name, label, required) =>
      h('label', { class: 'field' }, label, h('input', { name, required, autocomplete: 'off', spellcheck: 'false' }));
    const problem = h('p', { class: 'paste__problem', role: 'alert' });
    const onsubmit = (event) => {
      event.preventDefault();
      const { ride, ...given } = Object.fromEntries(new FormData(event.target));
      const roles = ROLES.filter((role) => given[role].trim());
      const pasted = [...roles, ...(given.service.trim() ? ['service'] : [])];
      if (roles.length === 0 || !pasted.every((role) => subject(given[role]))) {
        problem.textContent = 'Paste at least one token of a person: three parts with dots between them.';
        return;
      }
      form.remove();
      const token = (role) => given[role].trim();
      const hasPlatform = pasted.includes('service');
      resolve({ isDemo: false, ride: ride.trim(), roles, hasPlatform, token, user: (role) => subject(given[role]) });
    };
    const form = h('form', { class: 'paste', onsubmit },
      h('h2', {}, 'Whose phones?'),
      h('p', {}, 'Paste tokens of the people of a ride. They stay in this page, and are gone when it is closed.'),
      field('ride', 'Ride', true),
      field('rider', 'Rider’s token'),
      field('driver', 'Driver’s token'),
      field('support', 'Support’s token'),
      field('service', 'Platform’s token'),
      problem,
      h('button', { class: 'button button--main' }, 'Connect'));
    form.elements.ride.value = new URLSearchParams(location.search).get('ride') ?? '';
    stage.replaceChildren(form);
    form.elements.ride.focus();
  });
}

/** Whose token it is. */
function subject(token) {
  try {
    const [, claims] = token.trim().split('.');
    return JSON.parse(atob(claims.replaceAll('-', '+').replaceAll('_', '/'))).sub;
  } catch {
    return undefined;
  }
}
