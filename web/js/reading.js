/**
 * What has reached a phone's user, and what they have seen: marks both, and counts what they have not seen.
 *
 * A phone that is on has been reached; what is on a screen that is looked at has been read.
 */
export class Reading {
  unread = 0;
  #line;
  #onCounted;
  #rideId;
  #delivered = 0;
  #read = 0;
  /** How many unread messages are older than those that are loaded, and what that was counted for. */
  #older = 0;
  #countedFor;
  /** The first message that was loaded when it was last looked. */
  #oldest = 0;

  /** @param {import('./line.js').Line} line @param {() => void} onCounted `unread` has changed meanwhile */
  constructor(line, onCounted) {
    this.#line = line;
    this.#onCounted = onCounted;
  }

  /** Begins anew: another ride, or none. */
  begin(rideId) {
    this.#rideId = rideId;
    this.#delivered = this.#read = this.#older = this.#oldest = this.unread = 0;
    this.#countedFor = undefined;
  }

  /** @param {boolean} isLooking whether the newest message is in front of the user */
  update(isLooking) {
    const { conversation, rideId, userId, role } = this.#line;
    if (!this.#line.isReady) return;
    if (rideId !== this.#rideId) this.begin(rideId);
    const mine = conversation.receipts.find((receipt) => receipt.userId === userId);
    this.#delivered = Math.max(this.#delivered, mine?.deliveredSeq ?? 0);
    this.#read = Math.max(this.#read, mine?.readSeq ?? 0);
    const theirs = this.#theirs;
    const last = theirs.at(-1);
    if (last && isLooking && last.seq > this.#read) this.#mark('read', last);
    // Support reads without being noticed.
    else if (last && role !== 'support' && last.seq > this.#delivered) this.#mark('delivered', last);
    this.#countOlder(mine?.readSeq ?? 0);
    this.unread = this.#older + this.#loaded;
  }

  get #theirs() {
    const { conversation, userId } = this.#line;
    return conversation.messages.filter(({ seq, senderId }) => seq && senderId !== userId);
  }

  /** The unread messages that are loaded. */
  get #loaded() {
    return this.#theirs.filter(({ seq, deletedAt }) => seq > this.#read && !deletedAt).length;
  }

  /**
   * Has the server count where unread messages go back further than what is loaded: how many there are is only known there.
   * @param {number} known the read mark that the server counts from
   */
  async #countOlder(known) {
    const { conversation, client, rideId } = this.#line;
    const oldest = conversation.messages.find(({ seq }) => seq)?.seq;
    if (!conversation.hasMore || oldest === undefined || oldest <= this.#read + 1 || known !== this.#read) {
      this.#older = 0;
      this.#countedFor = undefined;
      return;
    }
    // Those that have been loaded meanwhile are counted with the loaded ones.
    const isNowLoaded = ({ seq, deletedAt }) => seq < this.#oldest && seq > this.#read && !deletedAt;
    this.#older = Math.max(0, this.#older - this.#theirs.filter(isNowLoaded).length);
    this.#oldest = oldest;
    const isFor = `${rideId} ${oldest} ${this.#read}`;
    if (this.#countedFor === isFor) return;
    this.#countedFor = isFor;
    const head = conversation.messages.findLast(({ seq }) => seq)?.seq;
    try {
      const { unreadCount } = await client.unread(rideId);
      if (this.#countedFor !== isFor) return;
      // A message that has come meanwhile may have been counted, or not.
      if (conversation.messages.findLast(({ seq }) => seq)?.seq !== head) this.#countedFor = undefined;
      else this.#older = Math.max(0, unreadCount - this.#loaded);
    } catch {
      this.#countedFor = undefined;
      return;
    }
    this.#onCounted();
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
