import { h } from '/console/js/dom.js';

/** Text with words of code between backticks, as openapi.yaml has it. */
export const inline = (text) => text.split('`').map((part, place) => (place % 2 === 1 ? h('code', {}, part) : part));

/** The paragraphs of a description. */
export const prose = (text = '') => text.split(/\n{2,}/).filter(Boolean).map((paragraph) => h('p', { class: 'prose' }, inline(paragraph)));

const TOKEN = /("(?:[^"\\]|\\.)*")(\s*:)?|\b(?:true|false|null)\b|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

/** JSON in colours. Text stays text: what is not JSON is shown as it is. */
export function json(value) {
  const text = typeof value === 'string' ? value : JSON.stringify(value, null, 2);
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(TOKEN)) {
    const [whole, string, colon] = match;
    const kind = string ? (colon ? 'key' : 'string') : 'value';
    parts.push(text.slice(end, match.index), h('span', { class: `json__${kind}` }, string ?? whole), colon ?? '');
    end = match.index + whole.length;
  }
  return [...parts, text.slice(end)];
}

/** A block of code that can be scrolled by keys as well. */
export const block = (label, ...children) => h('pre', { class: 'block', tabindex: '0', role: 'group', 'aria-label': label, dir: 'ltr' }, ...children);
