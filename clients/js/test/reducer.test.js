import assert from 'node:assert/strict';
import { test } from 'node:test';

import { EMPTY, fromHistory, withEvent, withPage, withSync, withoutMessages } from '../src/reducer.js';

const participants = [
  { userId: 'rider_1', role: 'rider', online: false, since: null },
  { userId: 'driver_1', role: 'driver', online: false, since: null },
];

function message(seq, changes = {}) {
  return {
    id: `m${seq}`,
    seq,
    senderId: 'rider_1',
    content: `${seq}`,
    metadata: { a: 1 },
    deletedAt: null,
    reactions: [],
    isDelivered: false,
    isRead: false,
    ...changes,
  };
}

const START = fromHistory({ messages: [message(2), message(4)], cursor: '4', participants, receipts: [], hasMore: true });

/** Events from seq 5 on, applied one after the other. */
function after(...events) {
  return events.reduce((state, [type, data], index) => withEvent(state, { type, data, id: `${index + 5}` }), START);
}

const seqs = ({ messages }) => messages.map(({ seq }) => seq);
const find = ({ messages }, seq) => messages.find((message) => message.seq === seq);

test('messages are ordered by seq and unique', () => {
  const state = after(['message:new', message(7)], ['message:new', message(5)], ['message:new', message(7)]);
  assert.deepEqual(seqs(state), [2, 4, 5, 7]);
  assert.deepEqual(seqs(START), [2, 4], 'the previous state is unchanged');
});

test('an edit and a deletion change loaded messages only', () => {
  const state = after(
    ['message:edited', message(2, { content: 'new' })],
    ['message:deleted', { messageId: 'm4', at: 'then' }],
    ['message:edited', message(1, { content: 'old' })],
  );
  assert.deepEqual(seqs(state), [2, 4]);
  assert.equal(find(state, 2).content, 'new');
  const { content, metadata, deletedAt } = find(state, 4);
  assert.deepEqual([content, metadata, deletedAt], [null, null, 'then']);
});

test('reactions are added and removed per emoji and user, idempotently', () => {
  const react = (userId, emoji, removed = false) => ['message:reaction', { messageId: 'm4', userId, emoji, removed }];
  const state = after(react('a', '👍'), react('b', '👍'), react('b', '👍'), react('a', '🚕'), react('a', '🚕', true), react('c', '?', true));
  assert.deepEqual(find(state, 4).reactions, [{ emoji: '👍', userIds: ['a', 'b'] }]);
});

test('all reactions of an erased user are removed', () => {
  const react = (userId, emoji, removed = false) => ['message:reaction', { messageId: 'm4', userId, emoji, removed }];
  const state = after(react('a', '👍'), react('b', '👍'), react('a', '🚕'), react('a', null, true));
  assert.deepEqual(state.messages.find(({ id }) => id === 'm4').reactions, [{ emoji: '👍', userIds: ['b'] }]);
});

test('watermarks move receipts forward and set flags on others\' messages', () => {
  const mark = (kind, userId, seq) => [`message:${kind}`, { userId, seq }];
  const state = after(['message:new', message(5, { senderId: 'driver_1' })], mark('read', 'driver_1', 2), mark('delivered', 'driver_1', 4));
  assert.deepEqual(state.receipts, [{ userId: 'driver_1', deliveredSeq: 4, readSeq: 2 }]);
  const flags = state.messages.map(({ isDelivered, isRead }) => [isDelivered, isRead]);
  assert.deepEqual(flags, [[true, true], [true, false], [false, false]]);
  const late = after(mark('read', 'driver_1', 4), mark('delivered', 'driver_1', 2));
  assert.deepEqual(late.receipts, [{ userId: 'driver_1', deliveredSeq: 4, readSeq: 4 }]);
  assert.equal(find(after(mark('read', 'support_1', 4)), 4).isRead, false, 'the watermark of support sets no flag');
});

test('events change participants, presence, typing and location', () => {
  const ride = { rideId: 'r', driverId: 'driver_2' };
  const replaced = { ride, joined: [{ userId: 'driver_2', role: 'driver' }], left: [{ userId: 'driver_1', role: 'driver' }] };
  const state = after(
    ['ride:participants', replaced],
    ['presence:online', { userId: 'driver_2', at: 'now' }],
    ['typing:indicator', { userId: 'driver_2', typing: true }],
    ['typing:indicator', { userId: 'rider_1', typing: true }],
    ['message:new', message(9, { senderId: 'driver_2' })],
    ['ride:location', { lat: 1 }],
  );
  assert.deepEqual(state.participants, [participants[0], { userId: 'driver_2', role: 'driver', online: true, since: 'now' }]);
  assert.deepEqual([state.ride, state.typing, state.location], [ride, ['rider_1'], { lat: 1 }]);
});

test('an event that the state already includes does not change it', () => {
  const state = { asOf: 9, ride: { status: 'arrived' }, participants, receipts: [], location: null, typing: [] };
  const synced = withSync(START, state);
  const accepted = { type: 'ride:accept', data: { ride: { status: 'accepted' } } };
  assert.equal(withEvent(synced, { ...accepted, id: '9' }).ride.status, 'arrived');
  assert.equal(withEvent(synced, { ...accepted, id: '10' }).ride.status, 'accepted');
  assert.equal(withSync(synced, { ...state, asOf: 8, ride: null }), synced, 'an older state');
  assert.deepEqual(seqs(withEvent(synced, { type: 'message:new', id: '8', data: message(8) })), [2, 4, 8]);
});

test('an older page is merged with the events that arrived while it was loaded', () => {
  const deleted = (id) => ({ type: 'message:deleted', id, data: { messageId: 'm1', at: id } });
  const page = { messages: [message(1), message(2, { content: 'as of the page' })], cursor: '6', hasMore: false };
  const state = withPage(START, page, [deleted('6'), { type: 'message:edited', id: '7', data: message(1, { content: 'x' }) }]);
  assert.deepEqual([seqs(state), state.hasMore], [[1, 2, 4], false]);
  assert.equal(find(state, 1).content, 'x', 'the edit is newer than the page');
  assert.equal(find(state, 1).deletedAt, null);
  assert.equal(find(withPage(START, page, [deleted('7')]), 1).content, null);
});

test('removing the messages keeps the participants', () => {
  const state = withoutMessages(START);
  assert.deepEqual([state.messages, state.participants, EMPTY.messages], [[], participants, []]);
});
