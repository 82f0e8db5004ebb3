/**
 * What a ride's events make of what is known of it: pure functions, each state a new object.
 *
 * All that an event says is absolute or can be said twice, so what a page of history has shown already may be told
 * again by events that are older than the page, and is right again at the page's position.
 */

/** Before anything is known. */
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

/** What a first page of history shows. */
export function begin({ messages, cursor, participants, receipts, hasMore }) {
  return { ...EMPTY, asOf: Number(cursor), messages, participants, receipts, hasMore };
}

/**
 * Takes another page. Events that came while it was on its way, and that it is too old to show, were told of messages
 * that were not there yet: they are told again.
 */
export function withPage(state, { messages, cursor, hasMore }, events) {
  const merged = { ...state, messages: messages.reduce(insert, state.messages), hasMore };
  return events.filter(({ id }) => Number(id) > Number(cursor)).reduce(withEvent, merged);
}

/** Forgets the messages: what is known of them has a hole, or is of another log. */
export function withoutMessages(state) {
  return { ...state, asOf: 0, messages: [], hasMore: false };
}

/** Takes the state of a `stream:sync` or a poll. */
export function withSync(state, { asOf, ride, participants, receipts, location, typing }) {
  if (asOf < state.asOf) return state;
  return { ...state, asOf, ride, participants, receipts, location, typing };
}

/** Puts a message where it belongs, unless it is there: what is there may be newer. */
export function insert(messages, message) {
  let place = messages.length;
  while (place > 0 && messages[place - 1].seq > message.seq) place -= 1;
  if (place > 0 && messages[place - 1].seq === message.seq) return messages;
  return messages.toSpliced(place, 0, message);
}

/** Takes an event of the ride. */
export function withEvent(state, { type, id, data }) {
  const [kind, what] = type.split(':');
  if (kind === 'message') return messageEvents[what]?.(state, data, isKnown(state, id)) ?? state;
  if (kind === 'presence') return present(state, data, what === 'online');
  if (type === 'typing:indicator') return { ...state, typing: typists(state, data.userId, data.typing) };
  if (type === 'ride:location') return { ...state, location: data };
  if (kind === 'ride' && data.ride && !isKnown(state, id)) return rideEvent(state, data);
  return state;
}

/** Whether what an event says of the ride and its people is in the state already, or has been overtaken there. */
const isKnown = (state, id) => Number(id) <= state.asOf;

const messageEvents = {
  new: (state, message) => ({
    ...state,
    messages: insert(state.messages, message),
    typing: typists(state, message.senderId, false),
  }),

  edited: (state, message) => change(state, (known) => known.id === message.id, () => message),

  deleted: (state, { messageId, at }) =>
    change(state, ({ id }) => id === messageId, (known) => ({
      ...known,
      content: null,
      metadata: null,
      reactions: [],
      deletedAt: at,
    })),

  reaction: (state, { messageId, userId, emoji, removed }) =>
    change(state, ({ id }) => id === messageId, (known) => ({
      ...known,
      reactions: reacted(known.reactions, emoji, userId, removed),
    })),

  read: (state, { userId, seq }, isKnown) => marked(state, userId, seq, { isDelivered: true, isRead: true }, isKnown),

  delivered: (state, { userId, seq }, isKnown) => marked(state, userId, seq, { isDelivered: true }, isKnown),
};

function change(state, isMeant, to) {
  return { ...state, messages: state.messages.map((message) => (isMeant(message) ? to(message) : message)) };
}

function reacted(reactions, emoji, userId, removed) {
  const others = (userIds) => userIds.filter((id) => id !== userId);
  // The user was erased: all of theirs are gone.
  if (emoji === null) {
    return reactions
      .map((reaction) => ({ ...reaction, userIds: others(reaction.userIds) }))
      .filter(({ userIds }) => userIds.length > 0);
  }
  const known = reactions.some((reaction) => reaction.emoji === emoji);
  const all = known || removed ? reactions : [...reactions, { emoji, userIds: [] }];
  return all
    .map((reaction) => {
      if (reaction.emoji !== emoji) return reaction;
      return { emoji, userIds: removed ? others(reaction.userIds) : [...others(reaction.userIds), userId] };
    })
    .filter(({ userIds }) => userIds.length > 0);
}

/** A watermark: of the user's receipt, and on others' messages up to there. Support reads without being noticed. */
function marked(state, userId, seq, flags, isKnown) {
  const isOnRide = state.participants.some((participant) => participant.userId === userId);
  const reached = (message) => isOnRide && message.seq <= seq && message.senderId !== userId;
  const flagged = change(state, reached, (message) => ({ ...message, ...flags }));
  if (isKnown) return flagged;
  const before = state.receipts.find((receipt) => receipt.userId === userId);
  const deliveredSeq = Math.max(before?.deliveredSeq ?? 0, seq);
  const readSeq = flags.isRead ? Math.max(before?.readSeq ?? 0, seq) : (before?.readSeq ?? 0);
  const others = state.receipts.filter((receipt) => receipt !== before);
  return { ...flagged, receipts: [...others, { userId, deliveredSeq, readSeq }] };
}

function present(state, { userId, at }, online) {
  const participants = state.participants.map((participant) =>
    participant.userId === userId ? { ...participant, online, since: at } : participant,
  );
  return { ...state, participants };
}

function typists(state, userId, typing) {
  const others = state.typing.filter((id) => id !== userId);
  return typing ? [...others, userId] : others;
}

function rideEvent(state, { ride, joined = [], left = [] }) {
  const gone = new Set([...left, ...joined].map(({ userId }) => userId));
  const stay = state.participants.filter(({ userId }) => !gone.has(userId));
  const come = joined.map((person) => ({ ...person, online: false, since: null }));
  return { ...state, ride, participants: [...stay, ...come] };
}
