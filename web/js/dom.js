/** Elements, briefly. Text is always text: nothing here parses HTML. */

const SVG = 'http://www.w3.org/2000/svg';

/**
 * @param {string} tag
 * @param {Record<string, unknown>} [props] `onclick` and the like are listeners; `false`, null and undefined are left out
 * @param {...(Node | string | null | false)} children
 */
export function h(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same for SVG. */
export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== false && child !== undefined));
  return element;
}

/** Text for those who listen. */
export const spoken = (text) => h('span', { class: 'spoken' }, text);

/** A name as people write it: ids are lower case. */
export const nameOf = (userId) => (userId ? userId.charAt(0).toUpperCase() + userId.slice(1) : '');

/** Sets text only where it differs, so that what is live does not say it again. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export const time = (at) => new Date(at).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', hour12: false });
