/**
 * Applies a ride's events to its state: pure functions that return a new state.
 *
 * Every event is absolute or idempotent. So events that are older than a loaded page may be applied again, and the state is
 * correct again at the page's position.
 */

/** The state before anything is loaded. */
export const EMPTY = Object.freeze({
  asOf: 0,
  ride: null,
  messages: [],
  hasMore: false,
  participants: [],
  receipts: [],
  location: null,
  typing: [],
});

/** Returns the state of a first page of history. */
export function fromHistory({ messages, cursor, participants, receipts, hasMore }) {
  return { ...EMPTY, asOf: Number(cursor), messages, participants, receipts, hasMore };
}

/**
 * Adds another page. Events that arrived after the page's position, while it was being loaded, could not be applied to its
 * messages. They are applied again.
 */
export function withPage(state, { messages, cursor, hasMore }, events) {
  const merged = { ...state, messages: messages.reduce(insert, state.messages), hasMore };
  return events.filter(({ id }) => Number(id) > Number(cursor)).reduce(withEvent, merged);
}

/** Removes the messages, because some are missing or belong to another log. */
export function withoutMessages(state) {
  return { ...state, asOf: 0, messages: [], hasMore: false };
}

/** Applies the state of a `stream:sync` or a poll. */
export function withSync(state, { asOf, ride, participants, receipts, location, typing }) {
  if (asOf < state.asOf) return state;
  return { ...state, asOf, ride, participants, receipts, location, typing };
}

/** Inserts a message in order, unless it is there already: that one may be newer. */
export function insert(messages, message) {
  let index = messages.length;
  while (index > 0 && messages[index - 1].seq > message.seq) index -= 1;
  if (index > 0 && messages[index - 1].seq === message.seq) return messages;
  return messages.toSpliced(index, 0, message);
}

/** Applies an event of the ride. */
export function withEvent(state, { type, id, data }) {
  const [kind, what] = type.split(':');
  if (kind === 'message') return messageEvents[what]?.(state, data, isApplied(state, id)) ?? state;
  if (kind === 'presence') return withPresence(state, data, what === 'online');
  if (type === 'typing:indicator') return { ...state, typing: withTyping(state, data.userId, data.typing) };
  if (type === 'ride:location') return { ...state, location: data };
  if (kind === 'ride' && data.ride && !isApplied(state, id)) return rideEvent(state, data);
  return state;
}

/** Whether the state already includes what an event reports about the ride and its participants, or something newer. */
const isApplied = (state, id) => Number(id) <= state.asOf;

const messageEvents = {
  new: (state, message) => ({
    ...state,
    messages: insert(state.messages, message),
    typing: withTyping(state, message.senderId, false),
  }),

  edited: (state, message) => changeMessages(state, ({ id }) => id === message.id, () => message),

  deleted: (state, { messageId, at }) =>
    changeMessages(state, ({ id }) => id === messageId, (current) => ({
      ...current,
      content: null,
      metadata: null,
      reactions: [],
      deletedAt: at,
    })),

  reaction: (state, { messageId, userId, emoji, removed }) =>
    changeMessages(state, ({ id }) => id === messageId, (current) => ({
      ...current,
      reactions: withReaction(current.reactions, emoji, userId, removed),
    })),

  read: (state, { userId, seq }, isApplied) => withWatermark(state, userId, seq, { isDelivered: true, isRead: true }, isApplied),

  delivered: (state, { userId, seq }, isApplied) => withWatermark(state, userId, seq, { isDelivered: true }, isApplied),
};

function changeMessages(state, matches, to) {
  return { ...state, messages: state.messages.map((message) => (matches(message) ? to(message) : message)) };
}

function withReaction(reactions, emoji, userId, removed) {
  const others = (userIds) => userIds.filter((id) => id !== userId);
  // The user was erased, so all of their reactions are removed.
  if (emoji === null) {
    return reactions
      .map((reaction) => ({ ...reaction, userIds: others(reaction.userIds) }))
      .filter(({ userIds }) => userIds.length > 0);
  }
  const exists = reactions.some((reaction) => reaction.emoji === emoji);
  const all = exists || removed ? reactions : [...reactions, { emoji, userIds: [] }];
  return all
    .map((reaction) => {
      if (reaction.emoji !== emoji) return reaction;
      return { emoji, userIds: removed ? others(reaction.userIds) : [...others(reaction.userIds), userId] };
    })
    .filter(({ userIds }) => userIds.length > 0);
}

/** Applies a watermark: to the user's receipt, and to others' messages up to there. Support's watermark changes no messages. */
function withWatermark(state, userId, seq, flags, isApplied) {
  const isOnRide = state.participants.some((participant) => participant.userId === userId);
  const reached = (message) => isOnRide && message.seq <= seq && message.senderId !== userId;
  const flagged = changeMessages(state, reached, (message) => ({ ...message, ...flags }));
  if (isApplied) return flagged;
  const before = state.receipts.find((receipt) => receipt.userId === userId);
  const deliveredSeq = Math.max(before?.deliveredSeq ?? 0, seq);
  const readSeq = flags.isRead ? Math.max(before?.readSeq ?? 0, seq) : (before?.readSeq ?? 0);
  const others = state.receipts.filter((receipt) => receipt !== before);
  return { ...flagged, receipts: [...others, { userId, deliveredSeq, readSeq }] };
}

function withPresence(state, { userId, at }, online) {
  const participants = state.participants.map((participant) =>
    participant.userId === userId ? { ...participant, online, since: at } : participant,
  );
  return { ...state, participants };
}

function withTyping(state, userId, typing) {
  const others = state.typing.filter((id) => id !== userId);
  return typing ? [...others, userId] : others;
}

function rideEvent(state, { ride, joined = [], left = [] }) {
  const changed = new Set([...left, ...joined].map(({ userId }) => userId));
  const unchanged = state.participants.filter(({ userId }) => !changed.has(userId));
  const added = joined.map((participant) => ({ ...participant, online: false, since: null }));
  return { ...state, ride, participants: [...unchanged, ...added] };
}
