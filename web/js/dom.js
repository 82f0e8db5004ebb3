/** Functions that create elements and format values. Strings become text nodes: no function parses HTML. */

const SVG = 'http://www.w3.org/2000/svg';

/**
 * Creates an HTML element.
 * @param {string} tag
 * @param {Record<string, unknown>} [props] attributes; names with `on` are event listeners; `false`, null and undefined are omitted
 * @param {...(Node | string | null | false)} children
 */
export function createElement(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** Creates an SVG element, with the same parameters. */
export function createSvgElement(tag, props = {}, ...children) {
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

/** Creates text that only screen readers present. */
export const screenReaderText = (text) => createElement('span', { class: 'visually-hidden' }, text);

/** Sets an element's text only if it differs, so that a screen reader does not announce a live region again. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Formats a count with its noun: `1 event`, `1,204 events`. */
export const formatCount = (count, word) => `${count.toLocaleString('en')} ${word}${count === 1 ? '' : 's'}`;

/** Returns at most `max` characters of a text, with an ellipsis if there are more. Never splits a surrogate pair. */
export function truncate(text, max) {
  const characters = [...text];
  return characters.length > max ? `${characters.slice(0, max).join('')}…` : text;
}

/** Formats a time for a log, with milliseconds. */
export function formatTimestamp(at) {
  const date = new Date(at);
  return `${date.toLocaleTimeString([], { hour12: false })}.${String(date.getMilliseconds()).padStart(3, '0')}`;
}

export const formatDuration = (ms) => (ms < 1_000 ? `${Math.round(ms)} ms` : `${(ms / 1_000).toFixed(1)} s`);

export const formatTime = (at) => new Date(at).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', hour12: false });
