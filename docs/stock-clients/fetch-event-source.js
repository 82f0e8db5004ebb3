// Follows a ride with the npm package `@microsoft/fetch-event-source`, in a browser.
import { fetchEventSource } from '@microsoft/fetch-event-source';

class Final extends Error {}

/**
 * Resolves with the reason when there is nothing more to come; rejects where the server refuses.
 *
 * @param {{server: string, ride: string, token: () => string, after?: string, onMessage: (message: object) => void}} options
 */
export async function follow({ server, ride, token, after = '0', onMessage }) {
  let cursor = after;
  let failures = 0;
  let over;
  const done = new AbortController();
  const end = (reason) => {
    over = reason;
    done.abort();
  };
  await fetchEventSource(`${server}/api/v1/messages/rides/${ride}/events`, {
    signal: done.signal,
    // Otherwise a page that is not looked at has no stream.
    openWhenHidden: true,
    // It keeps the id of a frame that was cut behind it, and would continue past an event that it never handed over. Here the
    // id is that of the last event that was taken; and the token is asked for each time.
    fetch: (input, init) => fetch(input, {
      ...init,
      headers: { ...init.headers, 'last-event-id': cursor, authorization: `Bearer ${token()}` },
    }),
    // Without this one it tries for ever what is refused for good, and what is over: it looks at the content type alone.
    async onopen({ ok, status }) {
      if (status === 204) return end('ride_over');
      if (ok) return undefined;
      const isForNow = status >= 500 || [408, 425, 429].includes(status);
      throw isForNow ? new Error(`refused for now: ${status}`) : new Final(String(status));
    },
    onmessage({ id, event, data }) {
      // A comment comes as an empty message.
      if (data === '') return;
      const said = JSON.parse(data);
      if (event === 'stream:sync') failures = 0;
      if (event === 'message:new') onMessage(said);
      if (event === 'stream:closing' && ['ride_over', 'removed'].includes(said.reason)) end(said.reason);
      cursor = id || cursor;
    },
    // An end is no error to it, and it would not come back: a restarted server would be the last that was heard.
    onclose() {
      if (!over) throw new Error('ended');
    },
    onerror(error) {
      if (error instanceof Final) throw error;
      // What is returned is the pause. `retry:` counts where nothing is, without jitter and without growing.
      const pause = Math.max(1_000, Math.min(30_000, 500 * 2 ** failures)) * (1 + Math.random() / 2);
      failures += 1;
      return pause;
    },
  });
  return over;
}
