import { TYPES, isDurable } from './events.js';

/**
 * Reads an event stream with the platform's `EventSource`. `EventSource` cannot set headers, so each one gets its own ticket.
 * It would reconnect with its old URL and ticket, so it is closed at its first error. It does not report comments, nor why it
 * was rejected.
 *
 * @param {{EventSource: typeof EventSource, types: string[], isOneRide: boolean}} options
 * @param {string} url with its ticket
 * @param {import('./stream.js').Receiver} receiver
 * @returns {Promise<'end' | 'rejected'>}
 */
export function eventSourceStream({ EventSource, types, isOneRide }, url, { signal, onActivity, onFrame }) {
  return new Promise((resolve) => {
    const source = new EventSource(url);
    const close = (why) => {
      source.close();
      signal.removeEventListener('abort', close);
      resolve(why);
    };
    if (signal.aborted) return close('end');
    signal.addEventListener('abort', close, { once: true });
    source.onopen = onActivity;
    // After a status other than 200 it stays closed. After any other error it would reconnect by itself.
    source.onerror = () => close(source.readyState === 2 ? 'rejected' : 'end');
    for (const type of new Set([...TYPES, ...types.filter((type) => !type.endsWith('*'))])) {
      source.addEventListener(type, ({ data, lastEventId }) => {
        onActivity();
        // For an event without an id, `lastEventId` is that of an earlier event.
        onFrame({ type, id: isDurable(type, isOneRide) ? lastEventId : undefined, data });
      });
    }
    return undefined;
  });
}
