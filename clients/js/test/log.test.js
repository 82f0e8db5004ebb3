import assert from 'node:assert/strict';
import { test } from 'node:test';

import { EMPTY, begin, withEvent, withPage, withSync, withoutMessages } from '../src/log.js';

const people = [
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

const START = begin({ messages: [message(2), message(4)], cursor: '4', participants: people, receipts: [], hasMore: true });

/** Events from seq 5 on, applied one after the other. */
function after(...events) {
  return events.reduce((state, [type, data], index) => withEvent(state, { type, data, id: `${index + 5}` }), START);
}

const seqs = ({ messages }) => messages.map(({ seq }) => seq);
const find = ({ messages }, seq) => messages.find((known) => known.seq === seq);

test('messages are ordered by seq and each is there once', () => {
  const state = after(['message:new', message(7)], ['message:new', message(5)], ['message:new', message(7)]);
  assert.deepEqual(seqs(state), [2, 4, 5, 7]);
  assert.deepEqual(seqs(START), [2, 4], 'the state before is as it was');
});

test('an edit shows, a deletion leaves a tombstone, and neither brings back what is not loaded', () => {
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

test('reactions come and go, by emoji and user, however often they are told', () => {
  const react = (userId, emoji, removed = false) => ['message:reaction', { messageId: 'm4', userId, emoji, removed }];
  const state = after(react('a', '👍'), react('b', '👍'), react('b', '👍'), react('a', '🚕'), react('a', '🚕', true), react('c', '?', true));
  assert.deepEqual(find(state, 4).reactions, [{ emoji: '👍', userIds: ['a', 'b'] }]);
});

test('all reactions of a user who was erased go', () => {
  const react = (userId, emoji, removed = false) => ['message:reaction', { messageId: 'm4', userId, emoji, removed }];
  const state = after(react('a', '👍'), react('b', '👍'), react('a', '🚕'), react('a', null, true));
  assert.deepEqual(state.messages.find(({ id }) => id === 'm4').reactions, [{ emoji: '👍', userIds: ['b'] }]);
});

test('marks move receipts forwards and show on the messages of others', () => {
  const mark = (kind, userId, seq) => [`message:${kind}`, { userId, seq }];
  const state = after(['message:new', message(5, { senderId: 'driver_1' })], mark('read', 'driver_1', 2), mark('delivered', 'driver_1', 4));
  assert.deepEqual(state.receipts, [{ userId: 'driver_1', deliveredSeq: 4, readSeq: 2 }]);
  const flags = state.messages.map(({ isDelivered, isRead }) => [isDelivered, isRead]);
  assert.deepEqual(flags, [[true, true], [true, false], [false, false]]);
  const late = after(mark('read', 'driver_1', 4), mark('delivered', 'driver_1', 2));
  assert.deepEqual(late.receipts, [{ userId: 'driver_1', deliveredSeq: 4, readSeq: 4 }]);
  assert.equal(find(after(mark('read', 'support_1', 4)), 4).isRead, false, 'support reads without being noticed');
});

test('people come and go, are there or not, type and drive', () => {
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
  assert.deepEqual(state.participants, [people[0], { userId: 'driver_2', role: 'driver', online: true, since: 'now' }]);
  assert.deepEqual([state.ride, state.typing, state.location], [ride, ['rider_1'], { lat: 1 }]);
});

test('what a state has seen already does not change it any more', () => {
  const state = { asOf: 9, ride: { status: 'arrived' }, participants: people, receipts: [], location: null, typing: [] };
  const synced = withSync(START, state);
  const accepted = { type: 'ride:accept', data: { ride: { status: 'accepted' } } };
  assert.equal(withEvent(synced, { ...accepted, id: '9' }).ride.status, 'arrived');
  assert.equal(withEvent(synced, { ...accepted, id: '10' }).ride.status, 'accepted');
  assert.equal(withSync(synced, { ...state, asOf: 8, ride: null }), synced, 'an older state');
  assert.deepEqual(seqs(withEvent(synced, { type: 'message:new', id: '8', data: message(8) })), [2, 4, 8]);
});

test('a page is put before the rest, and what happened to it on its way is not lost', () => {
  const deleted = (id) => ({ type: 'message:deleted', id, data: { messageId: 'm1', at: id } });
  const page = { messages: [message(1), message(2, { content: 'as of the page' })], cursor: '6', hasMore: false };
  const state = withPage(START, page, [deleted('6'), { type: 'message:edited', id: '7', data: message(1, { content: 'x' }) }]);
  assert.deepEqual([seqs(state), state.hasMore], [[1, 2, 4], false]);
  assert.equal(find(state, 1).content, 'x', 'newer than the page; what is older is in it');
  assert.equal(find(state, 1).deletedAt, null);
  assert.equal(find(withPage(START, page, [deleted('7')]), 1).content, null);
});

test('without its messages a conversation keeps its people', () => {
  const state = withoutMessages(START);
  assert.deepEqual([state.messages, state.participants, EMPTY.messages], [[], people, []]);
});
