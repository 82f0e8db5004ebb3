import { SseParser } from './sse.js';

/**
 * Reads an event stream with `fetch`. Unlike `EventSource`, `fetch` can send a token and shows comments. Resolves to `end` when
 * the server ends the stream, or to `nothing` if the ride is closed and no event remains (204).
 *
 * @param {import('./http.js').Http} http
 * @param {string} url
 * @param {import('./stream.js').Receiver} receiver
 * @returns {Promise<'end' | 'nothing'>}
 */
export async function fetchStream(http, url, { signal, onActivity, onFrame, onRetry }) {
  const headers = { accept: 'text/event-stream' };
  const response = await http.open(url, { headers, signal, cache: 'no-store' });
  if (response.status === 204) return 'nothing';
  const parser = new SseParser(onFrame, onRetry);
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return 'end';
    onActivity();
    parser.push(value);
  }
}
