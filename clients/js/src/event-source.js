import { TYPES, isDurable } from './events.js';

/**
 * Reads an event stream through the platform's `EventSource`. It cannot set headers, so each one is made with a ticket
 * of its own; and since it would come back with its old address and ticket, it is closed at its first error.
 * It sees no comments, and it does not say why it was refused.
 *
 * @param {{EventSource: typeof EventSource, types: string[], isOneRide: boolean}} options
 * @param {string} url with its ticket
 * @param {import('./stream.js').Receiver} receiver
 * @returns {Promise<'end' | 'refused'>}
 */
export function eventSourceStream({ EventSource, types, isOneRide }, url, { signal, heard, frame }) {
  return new Promise((resolve) => {
    const source = new EventSource(url);
    const close = (why) => {
      source.close();
      signal.removeEventListener('abort', close);
      resolve(why);
    };
    if (signal.aborted) return close('end');
    signal.addEventListener('abort', close, { once: true });
    source.onopen = heard;
    // After an answer other than 200 it stays closed; after anything else it would come back by itself.
    source.onerror = () => close(source.readyState === 2 ? 'refused' : 'end');
    for (const type of new Set([...TYPES, ...types.filter((type) => !type.endsWith('*'))])) {
      source.addEventListener(type, ({ data, lastEventId }) => {
        heard();
        // An event without an id shows the last one's.
        frame({ type, id: isDurable(type, isOneRide) ? lastEventId : undefined, data });
      });
    }
    return undefined;
  });
}
