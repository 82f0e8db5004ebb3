import { SseParser } from './sse.js';

/**
 * Reads an event stream through `fetch`, which can send a token and sees comments.
 * Resolves when the server ends it: `nothing` where it says that there is nothing to come any more (204).
 *
 * @param {import('./http.js').Http} http
 * @param {string} url
 * @param {import('./stream.js').Receiver} receiver
 * @returns {Promise<'end' | 'nothing'>}
 */
export async function fetchStream(http, url, { signal, heard, frame, retry }) {
  const headers = { accept: 'text/event-stream' };
  const response = await http.open(url, { headers, signal, cache: 'no-store' });
  if (response.status === 204) return 'nothing';
  const parser = new SseParser(frame, retry);
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return 'end';
    heard();
    parser.push(value);
  }
}
