/**
 * An incremental parser of event streams (HTML standard, section 9.2.6).
 *
 * Unlike an `EventSource`, it reports which frames have an id of their own: those of the log.
 */
export class SseParser {
  /** `stream: true` keeps the bytes of a character that is split between chunks. It removes a BOM, as the standard requires. */
  #decoder = new TextDecoder('utf-8');
  #line = '';
  #endedInCr = false;
  #frame = { type: '', id: undefined, data: [] };

  /**
   * @param {(frame: {type: string, id?: string, data: string}) => void} onFrame
   * @param {(ms: number) => void} onRetry
   */
  constructor(onFrame, onRetry) {
    this.onFrame = onFrame;
    this.onRetry = onRetry;
  }

  /** @param {Uint8Array} chunk */
  push(chunk) {
    let text = this.#decoder.decode(chunk, { stream: true });
    if (text === '') return;
    // The LF of a CRLF that is split between chunks ends no second line.
    if (this.#endedInCr && text.startsWith('\n')) text = text.slice(1);
    this.#endedInCr = text.endsWith('\r');
    const lines = text.split(/\r\n|\r|\n/);
    lines[0] = this.#line + lines[0];
    this.#line = lines.pop();
    for (const line of lines) this.#processLine(line);
  }

  #processLine(line) {
    if (line === '') return this.#dispatch();
    const colon = line.indexOf(':');
    if (colon === 0) return;
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (name === 'event') this.#frame.type = value;
    else if (name === 'data') this.#frame.data.push(value);
    else if (name === 'id' && !value.includes('\0')) this.#frame.id = value;
    else if (name === 'retry' && /^\d+$/.test(value)) this.onRetry(Number(value));
  }

  #dispatch() {
    const { type, id, data } = this.#frame;
    this.#frame = { type: '', id: undefined, data: [] };
    if (data.length > 0) this.onFrame({ type: type || 'message', id, data: data.join('\n') });
  }
}
