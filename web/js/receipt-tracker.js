/**
 * Marks a phone's messages as delivered and read, and counts the unread ones.
 *
 * A message is delivered when the phone has received it. It is read when it is visible on the screen.
 */
export class ReceiptTracker {
  unread = 0;
  #connection;
  #onCounted;
  #rideId;
  #delivered = 0;
  #read = 0;
  /** The number of unread messages before the loaded ones, and the state for which the server counted them. */
  #older = 0;
  #countedFor;
  /** The seq of the first loaded message at the last update. */
  #oldest = 0;

  /** @param {import('./connection.js').Connection} connection @param {() => void} onCounted called when `unread` has changed later */
  constructor(connection, onCounted) {
    this.#connection = connection;
    this.#onCounted = onCounted;
  }

  /** Starts from zero, for another ride or none. */
  reset(rideId) {
    this.#rideId = rideId;
    this.#delivered = this.#read = this.#older = this.#oldest = this.unread = 0;
    this.#countedFor = undefined;
  }

  /** @param {boolean} isVisible whether the newest message is visible */
  update(isVisible) {
    const { conversation, rideId, userId, role } = this.#connection;
    if (!this.#connection.isReady) return;
    if (rideId !== this.#rideId) this.reset(rideId);
    const own = conversation.receipts.find((receipt) => receipt.userId === userId);
    this.#delivered = Math.max(this.#delivered, own?.deliveredSeq ?? 0);
    this.#read = Math.max(this.#read, own?.readSeq ?? 0);
    const theirs = this.#theirs;
    const last = theirs.at(-1);
    if (last && isVisible && last.seq > this.#read) this.#mark('read', last);
    // Support sends no receipts.
    else if (last && role !== 'support' && last.seq > this.#delivered) this.#mark('delivered', last);
    this.#countOlder(own?.readSeq ?? 0);
    this.unread = this.#older + this.#loaded;
  }

  get #theirs() {
    const { conversation, userId } = this.#connection;
    return conversation.messages.filter(({ seq, senderId }) => seq && senderId !== userId);
  }

  /** The number of loaded unread messages. */
  get #loaded() {
    return this.#theirs.filter(({ seq, deletedAt }) => seq > this.#read && !deletedAt).length;
  }

  /**
   * Requests the unread count where unread messages may be older than the loaded ones.
   * @param {number} readSeq the read watermark from which the server counts
   */
  async #countOlder(readSeq) {
    const { conversation, client, rideId } = this.#connection;
    const oldest = conversation.messages.find(({ seq }) => seq)?.seq;
    if (!conversation.hasMore || oldest === undefined || oldest <= this.#read + 1 || readSeq !== this.#read) {
      this.#older = 0;
      this.#countedFor = undefined;
      return;
    }
    // Messages that have been loaded meanwhile are counted with the loaded ones.
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
      // A message that arrived meanwhile may or may not be in the count, so the count is repeated.
      if (conversation.messages.findLast(({ seq }) => seq)?.seq !== head) this.#countedFor = undefined;
      else this.#older = Math.max(0, unreadCount - this.#loaded);
    } catch {
      this.#countedFor = undefined;
      return;
    }
    this.#onCounted();
  }

  async #mark(kind, message) {
    const before = [this.#delivered, this.#read];
    this.#delivered = Math.max(this.#delivered, message.seq);
    if (kind === 'read') this.#read = message.seq;
    if (this.#connection.role === 'support') return;
    try {
      await this.#connection.client[kind](message.id);
    } catch {
      // The request failed. It is repeated at the next update, for example when the phone is online again.
      if (this.#rideId === message.rideId) [this.#delivered, this.#read] = before;
    }
  }
}
