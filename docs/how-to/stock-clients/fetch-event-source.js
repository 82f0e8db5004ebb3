// Follows a ride with the npm package `@microsoft/fetch-event-source`, in a browser.
import { fetchEventSource } from '@microsoft/fetch-event-source';

class PermanentError extends Error {}

/**
 * Follows a ride. Resolves with the reason when the ride is closed or the user was removed, and rejects if the server rejects the request.
 *
 * @param {{server: string, ride: string, token: () => string, after?: string, onMessage: (message: object) => void}} options
 */
export async function follow({ server, ride, token, after = '0', onMessage }) {
  let cursor = after;
  let failures = 0;
  let closeReason;
  const done = new AbortController();
  const end = (reason) => {
    closeReason = reason;
    done.abort();
  };
  await fetchEventSource(`${server}/api/v1/messages/rides/${ride}/events`, {
    signal: done.signal,
    // Otherwise a hidden page has no stream.
    openWhenHidden: true,
    // The library stores the id of a frame that is cut off after it, and would continue after an event that it never delivered.
    // Here the id is that of the last handled event. The token is read for each request.
    fetch: (input, init) => fetch(input, {
      ...init,
      headers: { ...init.headers, 'last-event-id': cursor, authorization: `Bearer ${token()}` },
    }),
    // Without this handler it retries permanent errors and closed rides forever, because it checks only the content type.
    async onopen({ ok, status }) {
      if (status === 204) return end('ride_over');
      if (ok) return undefined;
      const isTemporary = status >= 500 || [408, 425, 429].includes(status);
      throw isTemporary ? new Error(`temporary error: ${status}`) : new PermanentError(String(status));
    },
    onmessage({ id, event, data }) {
      // A comment is reported as an empty message.
      if (data === '') return;
      const payload = JSON.parse(data);
      if (event === 'stream:sync') failures = 0;
      if (event === 'message:new') onMessage(payload);
      if (event === 'stream:closing' && ['ride_over', 'removed'].includes(payload.reason)) end(payload.reason);
      cursor = id || cursor;
    },
    // The library treats an end as success and would not reconnect, for example after a restart of the server.
    onclose() {
      if (!closeReason) throw new Error('ended');
    },
    onerror(error) {
      if (error instanceof PermanentError) throw error;
      // Returns the delay. Without a return value the library uses `retry:`, without jitter or backoff.
      const pause = Math.max(1_000, Math.min(30_000, 500 * 2 ** failures)) * (1 + Math.random() / 2);
      failures += 1;
      return pause;
    },
  });
  return closeReason;
}
