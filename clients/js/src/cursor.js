/**
 * The position of a subscription. It ensures that no event is delivered twice.
 *
 * On a ride it is a number, so an event that was delivered before is recognized, whichever connection it comes from. On the
 * merged stream it is opaque and can only be replaced by the next one. There, the guarantee has another reason: each
 * connection starts at the last delivered cursor, after the previous connection has ended.
 */
export class Cursor {
  /**
   * @param {boolean} isSeq
   * @param {string} [position]
   */
  constructor(isSeq, position) {
    this.isSeq = isSeq;
    this.position = position;
  }

  /**
   * Moves to an event.
   * @param {string} id
   * @returns {boolean} false if the event was delivered before
   */
  take(id) {
    if (this.#isBehind(id)) return false;
    this.position = id;
    return true;
  }

  /** Moves without an event: past a gap, or past events that the filter excludes. */
  advance(position) {
    if (!this.#isBehind(position)) this.position = position;
  }

  /** Restarts at another position: the server does not have the old one, so its log was replaced. */
  restart(position) {
    this.position = position;
  }

  #isBehind(id) {
    return this.isSeq && this.position !== undefined && Number(id) <= Number(this.position);
  }
}
