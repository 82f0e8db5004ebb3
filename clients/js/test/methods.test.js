import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { connect } from '../src/index.js';
import { newRide, startServer } from './server.js';

let server;
before(async () => {
  server = await startServer({ RIDEWIRE_CHAT_GRACE: '1h' });
});
after(() => server?.stop());

/** Members that the classes use internally, and that `index.d.ts` does not declare. */
const INTERNAL = ['emit'];

/** Returns an object's methods, detached from it, and the names of those that were not called yet. */
function detached(object) {
  const names = Object.getOwnPropertyNames(object).filter((name) => typeof object[name] === 'function' && !INTERNAL.includes(name));
  const unused = new Set(names);
  const call = (name) => (...values) => {
    const method = object[name];
    unused.delete(name);
    return method(...values);
  };
  return { unused, ...Object.fromEntries(names.map((name) => [name, call(name)])) };
}

test('every method of a client works on its own', async () => {
  const { rideId, rider, driver, service } = await newRide(server);
  const { unused, ...client } = detached(rider);
  const asDriver = detached(driver());

  await client.request('GET', `/rides/${rideId}`);
  const sent = await client.send(rideId, 'Hello', { metadata: { gate: 1 } });
  assert.equal((await client.message(sent.id)).content, 'Hello');
  assert.equal((await client.edit(sent.id, { content: 'Hello!' })).content, 'Hello!');
  const theirs = await asDriver.send(rideId, 'On my way');
  assert.equal((await client.unread()).total, 1);
  assert.equal((await client.unread(rideId)).unreadCount, 1);
  await client.delivered(theirs.id);
  assert.equal((await client.read(theirs.id)).readSeq, theirs.seq);
  await client.react(theirs.id, '👍');
  await client.unreact(theirs.id, '👍');
  await client.typing(rideId, true);
  assert.equal((await client.presence(rideId)).participants.length, 2);
  assert.deepEqual((await client.history(rideId, { limit: 1 })).messages.map(({ content }) => content), ['On my way']);
  assert.ok((await client.rides({ limit: 1 })).rides.some((ride) => ride.rideId === rideId));
  await client.delete(sent.id);
  assert.match(await client.pushKey(), /^[\w-]{87}$/);
  const endpoint = 'https://push.example/1';
  const keys = { p256dh: await client.pushKey(), auth: 'AAAAAAAAAAAAAAAAAAAAAA' };
  await client.subscribePush({ endpoint, expirationTime: null, keys });
  await client.unsubscribePush(endpoint);

  const own = client.ride(rideId, { after: 0 });
  const all = client.all({ types: ['message:*'] });
  const conversation = client.conversation(rideId);
  for (const each of [own, all, conversation]) each.close();

  await asDriver.location(rideId, { lat: 52.52, lng: 13.4 });
  assert.equal((await asDriver.status(rideId, 'arrived')).status, 'arrived');
  assert.equal((await client.cancel(rideId, 'The train is late')).status, 'cancelled');
  const until = new Date(Date.now() + 3_600_000).toISOString();
  assert.equal((await detached(service).reopen(rideId, until, 'An umbrella')).chat, 'open');

  const offered = `offered_${Date.now()}`;
  await detached(service).request('PUT', `/rides/${offered}`, { body: { riderId: 'rider_1' } });
  assert.equal((await asDriver.accept(offered)).driverId, 'driver_1');
  assert.deepEqual([...unused].filter((name) => !['accept', 'status', 'location', 'reopen'].includes(name)), []);
});

test('every method of a subscription works on its own', async () => {
  const { rideId, rider } = await newRide(server);
  const { unused, on, off, close } = detached(rider.ride(rideId, { after: 0 }));
  const seen = [];
  const listener = ({ data }) => seen.push(data.content);
  on('message:new', listener);
  const arrived = new Promise((resolve) => on('message:new', ({ data }) => data.content === 'two' && resolve()));
  await rider.send(rideId, 'one');
  while (seen.length === 0) await new Promise((resolve) => setTimeout(resolve, 20));
  off('message:new', listener);
  await rider.send(rideId, 'two');
  await arrived;
  const closed = new Promise((resolve) => on('closed', resolve));
  close();
  assert.equal((await closed).reason, 'closed');
  assert.deepEqual([seen, [...unused]], [['one'], []]);
});

/** Simulates React's use of a store: a snapshot must be the same until `subscribe` has reported a change. */
function useSyncExternalStore(subscribe, getSnapshot) {
  const snapshots = [getSnapshot()];
  const unsubscribe = subscribe(() => {
    const snapshot = getSnapshot();
    assert.equal(snapshot, getSnapshot(), 'a snapshot that is new each time renders forever');
    snapshots.push(snapshot);
  });
  return { snapshots, unsubscribe };
}

test('every method of a conversation works on its own, as in useSyncExternalStore', async () => {
  const { rideId, rider, driver } = await newRide(server);
  const { send } = driver();
  for (let number = 1; number <= 51; number += 1) await send(rideId, String(number));
  const conversation = rider.conversation(rideId);
  const { unused, ...methods } = detached(conversation);
  const { snapshots, unsubscribe } = useSyncExternalStore(methods.subscribe, () => conversation.messages);
  const until = async (holds) => {
    while (!holds(snapshots.at(-1))) await new Promise((resolve) => setTimeout(resolve, 20));
  };
  await until((messages) => messages.length === 50);
  await methods.loadMore();
  await until((messages) => messages.length === 51);
  methods.send('I see you', { metadata: { gate: 1 } });
  await until((messages) => messages.some(({ content, seq }) => content === 'I see you' && seq));
  // A content that the server rejects.
  const failed = methods.send('x'.repeat(4_001));
  await until((messages) => messages.at(-1).status === 'failed');
  const before = snapshots.length;
  methods.retry(failed);
  await until((messages) => messages.at(-1).status === 'failed' && snapshots.length >= before + 2);
  assert.ok(snapshots.slice(before).some((messages) => messages.at(-1).status === 'sending'));
  methods.discard(failed);
  await until((messages) => messages.length === 52);
  unsubscribe();
  methods.close();
  assert.deepEqual([...unused], []);
});

test('an unknown option is rejected by name', async () => {
  const token = () => 'token';
  const named = (name) => ({ name: 'TypeError', message: new RegExp(`unknown option "${name}"; known: `) });
  const client = connect({ baseUrl: server.url, token });
  assert.throws(() => connect({ baseURL: server.url, token }), named('baseURL'));
  assert.throws(() => connect({ token, timing: { waits: 1 } }), named('waits'));
  assert.throws(() => client.ride('ride_1', { since: 0 }), named('since'));
  assert.throws(() => client.all({ type: 'message:*' }), named('type'));
  const conversation = client.conversation('ride_1');
  assert.throws(() => conversation.send('Hello', { meta: {} }), named('meta'));
  conversation.close();
  await assert.rejects(client.send('ride_1', 'Hello', { clientMessageID: 'm-1' }), named('clientMessageID'));
  await assert.rejects(client.request('GET', '/rides', { params: {} }), named('params'));
  await assert.rejects(client.history('ride_1', { offset: 1 }), named('offset'));
  await assert.rejects(client.rides({ user: 'rider_1' }), named('user'));
  assert.throws(() => connect({ token, one: 1, two: 2 }), /unknown options "one", "two"; known: baseUrl, token/);
});

test('a missing id is rejected by name', async () => {
  const client = connect({ baseUrl: server.url, token: () => 'token' });
  const named = (name) => ({ name: 'TypeError', message: `${name} must be a string that is not empty` });
  assert.throws(() => client.ride(undefined), named('rideId'));
  assert.throws(() => client.conversation(''), named('rideId'));
  await assert.rejects(client.history(undefined), named('rideId'));
  await assert.rejects(client.accept(null), named('rideId'));
  await assert.rejects(client.read(7), named('messageId'));
});

test('an invalid option is rejected by name', async () => {
  const token = () => 'token';
  assert.throws(() => connect(), /the option "token" must be a function/);
  assert.throws(() => connect({ token: 'eyJ…' }), /the option "token" must be a function/);
  assert.throws(() => connect({ token, transport: 'websocket' }), /the option "transport" must be auto, stream, poll/);
  assert.throws(() => connect({ token }).ride('ride_1', 5), /ride: the options must be an object/);
  await assert.rejects(connect({ token }).history('ride_1', null), /history: the options must be an object/);
});

test('the platform’s fetch is not called as a method of another object', async () => {
  let receiver = 'not called';
  async function fetch() {
    receiver = this;
    return new Response('{"rides":[]}');
  }
  const client = connect({ baseUrl: 'http://there', token: () => 'token', fetch });
  await client.rides();
  assert.equal(receiver, undefined);
});
