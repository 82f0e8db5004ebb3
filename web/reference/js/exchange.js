import { SseParser } from '/client/sse.js';

/**
 * Sends a request and tells what comes: the head, then the text, or a stream's frames one by one.
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
  // Nothing of the browser's cache: what is shown is what the server says.
  const response = await fetch(url, { method, headers, body, signal, cache: 'no-store' });
  on.head({ status: response.status, headers: [...response.headers], ms: performance.now() - began });
  if (!response.headers.get('content-type')?.startsWith('text/event-stream')) return on.text(await response.text());
  const parser = new SseParser(on.frame, (ms) => on.frame({ type: 'retry', data: String(ms) }));
  const decoder = new TextDecoder();
  for (const reader = response.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) return undefined;
    parser.push(value);
    // The parser passes over comments, which are the stream's heartbeat.
    for (const _ of decoder.decode(value, { stream: true }).matchAll(/^:/gm)) on.comment();
  }
}
