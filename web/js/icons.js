import { createSvgElement } from './dom.js';

const PATHS = {
  sending: 'M8 4.5V8l2.2 1.6M8 2.2a5.8 5.8 0 1 0 0 11.6A5.8 5.8 0 0 0 8 2.2Z',
  sent: 'm3.5 8.5 3 3 6-7',
  delivered: 'm1.5 8.5 3 3 6-7m-2.6 6.2.8.8 6-7',
  read: 'm1.5 8.5 3 3 6-7m-2.6 6.2.8.8 6-7',
  failed: 'M8 4.4v4.2m0 2.6v.2M8 2.2a5.8 5.8 0 1 0 0 11.6A5.8 5.8 0 0 0 8 2.2Z',
  more: 'M3.6 8h.01M8 8h.01M12.4 8h.01',
  bell: 'M4.2 11.2V7.4a3.8 3.8 0 0 1 7.6 0v3.8M2.8 11.2h10.4M6.8 13.6h2.4',
  lock: 'M4.5 7.5V5.2a3.5 3.5 0 0 1 7 0v2.3M3.6 7.5h8.8v6H3.6z',
  send: 'M8 13V3.4M3.6 7.6 8 3.2l4.4 4.4',
  copy: 'M6 6h7v7H6zM3 10V3h7',
  close: 'm4 4 8 8m0-8-8 8',
  down: 'M8 3v10m-4-4 4 4 4-4',
};

/** Creates an icon. It has no text alternative; the caller adds one where it is needed. */
export function icon(name) {
  const path = createSvgElement('path', {
    d: PATHS[name],
    fill: 'none',
    stroke: 'currentColor',
    'stroke-width': name === 'more' ? 2.4 : 1.6,
    'stroke-linecap': 'round',
    'stroke-linejoin': 'round',
  });
  return createSvgElement('svg', { viewBox: '0 0 16 16', class: 'icon', 'aria-hidden': 'true', focusable: 'false' }, path);
}
