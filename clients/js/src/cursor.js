/**
 * Where a follower is: what makes sure that nothing is handed over twice.
 *
 * On a ride it is a number, so what has been taken before is known by it, wherever it comes from. On the stream of
 * everything it is opaque: it can only be replaced by the next one. There, what is handed over once follows from
 * every connection beginning at the last cursor taken, when the one before has ended.
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
   * Moves on to an event.
   * @param {string} id
   * @returns {boolean} false where it has been taken before
   */
  take(id) {
    if (this.#isBehind(id)) return false;
    this.position = id;
    return true;
  }

  /** Moves on without an event: over a gap, or past what a filter has held back. */
  advance(position) {
    if (!this.#isBehind(position)) this.position = position;
  }

  /** Begins anew: the server knows no such position, so its log is another than the one that was followed. */
  restart(position) {
    this.position = position;
  }

  #isBehind(id) {
    return this.isSeq && this.position !== undefined && Number(id) <= Number(this.position);
  }
}
