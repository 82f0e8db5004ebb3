/**
 * What has reached a phone's user, and what they have seen: marks both, and counts what they have not seen.
 *
 * A phone that is on has been reached; what is on a screen that is looked at has been read.
 */
export class Reading {
  unread = 0;
  #line;
  #rideId;
  #delivered = 0;
  #read = 0;

  /** @param {import('./line.js').Line} line */
  constructor(line) {
    this.#line = line;
  }

  /** @param {boolean} isLooking whether the newest message is in front of the user */
  update(isLooking) {
    const { conversation, rideId, userId, role } = this.#line;
    if (!this.#line.isReady) return;
    if (rideId !== this.#rideId) this.#begin(rideId);
    const mine = conversation.receipts.find((receipt) => receipt.userId === userId);
    this.#delivered = Math.max(this.#delivered, mine?.deliveredSeq ?? 0);
    this.#read = Math.max(this.#read, mine?.readSeq ?? 0);
    const theirs = conversation.messages.filter(({ seq, senderId }) => seq && senderId !== userId);
    const last = theirs.at(-1);
    if (last && isLooking && last.seq > this.#read) this.#mark('read', last);
    // Support reads without being noticed.
    else if (last && role !== 'support' && last.seq > this.#delivered) this.#mark('delivered', last);
    this.unread = theirs.filter(({ seq, deletedAt }) => seq > this.#read && !deletedAt).length;
  }

  #begin(rideId) {
    this.#rideId = rideId;
    this.#delivered = 0;
    this.#read = 0;
  }

  async #mark(what, message) {
    const before = [this.#delivered, this.#read];
    this.#delivered = Math.max(this.#delivered, message.seq);
    if (what === 'read') this.#read = message.seq;
    if (this.#line.role === 'support') return;
    try {
      await this.#line.client[what](message.id);
    } catch {
      // It was not told: the next change, such as coming back online, has it told again.
      if (this.#rideId === message.rideId) [this.#delivered, this.#read] = before;
    }
  }
}
