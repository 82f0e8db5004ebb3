import { createElement } from '/console/js/dom.js';

/** Renders text with code between backticks, as in openapi.yaml. */
export const inline = (text) => text.split('`').map((part, index) => (index % 2 === 1 ? createElement('code', {}, part) : part));

/** Renders the paragraphs of a description. */
export const prose = (text = '') => text.split(/\n{2,}/).filter(Boolean).map((paragraph) => createElement('p', { class: 'prose' }, inline(paragraph)));

const TOKEN = /("(?:[^"\\]|\\.)*")(\s*:)?|\b(?:true|false|null)\b|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

/** Highlights JSON. Text that is not JSON is shown unchanged. */
export function json(value) {
  const text = typeof value === 'string' ? value : JSON.stringify(value, null, 2);
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(TOKEN)) {
    const [whole, string, colon] = match;
    const kind = string ? (colon ? 'key' : 'string') : 'value';
    parts.push(text.slice(end, match.index), createElement('span', { class: `json__${kind}` }, string ?? whole), colon ?? '');
    end = match.index + whole.length;
  }
  return [...parts, text.slice(end)];
}

/** Creates a block of code that can be scrolled with the keyboard. */
export const block = (label, ...children) => createElement('pre', { class: 'block', tabindex: '0', role: 'group', 'aria-label': label, dir: 'ltr' }, ...children);
