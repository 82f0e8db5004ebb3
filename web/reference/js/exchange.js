import { SseParser } from '/client/sse.js';

/**
 * Sends a request and passes the response to callbacks: first the head, then the text, or the frames of a stream one by one.
 *
 * @param {ReturnType<import('./request.js').build>} request
 * @param {{token?: string, signal: AbortSignal}} options
 * @param {{head: Function, text: Function, frame: Function, comment: Function}} on
 */
export async function exchange(request, { token, signal }, on) {
  const { method, url, body } = request;
  const headers = { ...request.headers };
  if (token) headers.authorization = `Bearer ${token}`;
  if (body !== undefined) headers['content-type'] = 'application/json';
  const began = performance.now();
  // Bypasses the browser's cache, so that the response is the server's.
  const response = await fetch(url, { method, headers, body, signal, cache: 'no-store' });
  on.head({ status: response.status, headers: [...response.headers], ms: performance.now() - began });
  if (!response.headers.get('content-type')?.startsWith('text/event-stream')) return on.text(await response.text());
  const parser = new SseParser(on.frame, (ms) => on.frame({ type: 'retry', data: String(ms) }));
  const decoder = new TextDecoder();
  for (const reader = response.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) return undefined;
    parser.push(value);
    // The parser skips comments, which are the stream's heartbeats.
    for (const _ of decoder.decode(value, { stream: true }).matchAll(/^:/gm)) on.comment();
  }
}
