import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { Conversation } from '../src/conversation.js';
import { Emitter } from '../src/emitter.js';
import { RidewireError } from '../src/index.js';
import { EventSource } from './event-source.js';
import { newRide, startServer } from './server.js';

const EMPTY_PAGE = { messages: [], cursor: '1', participants: [], receipts: [], hasMore: false };
const unavailable = new RidewireError({ status: 503, code: 'unavailable' });

/** A conversation with a simulated server. */
class Fixture {
  sends = [];
  #sent = () => {};
  pages = [EMPTY_PAGE];
  events = Object.assign(new Emitter(), { state: 'live', close() {} });

  constructor(noPage) {
    if (noPage) Object.assign(this, { pages: [], noPage });
    this.conversation = new Conversation(
      {
        history: async (_, query) => this.pages.shift() ?? this.noPage(query),
        ride: () => this.events,
        send: (_, content, { clientMessageId }) =>
          new Promise((resolve, reject) => {
            this.sends.push({ content, clientMessageId, resolve, reject });
            this.#sent();
          }),
      },
      'ride_1',
    );
  }

  get shown() {
    return this.conversation.messages.map(({ content, status, seq }) => `${seq ?? '-'} ${content} ${status ?? 'sent'}`);
  }

  message({ content, clientMessageId }, seq) {
    return { id: `m${seq}`, seq, senderId: 'me', content, clientMessageId, reactions: [], deletedAt: null };
  }

  deliver(sent, seq) {
    this.events.emit('*', { type: 'message:new', id: `${seq}`, data: this.message(sent, seq) });
  }

  /** Waits until `count` messages were sent. */
  async sent(count) {
    while (this.sends.length < count) {
      await new Promise((resolve) => {
        this.#sent = resolve;
      });
    }
  }

  /** Waits for a change after which a condition holds. */
  until(holds) {
    return until(this.conversation, holds);
  }
}

function until(conversation, holds) {
  return new Promise((resolve, reject) => {
    const seen = () => JSON.stringify([conversation.messages, conversation.state, conversation.error], null, 1);
    const timer = setTimeout(() => reject(new Error(`timed out with ${seen()}`)), 60_000);
    const check = () => {
      if (!holds(conversation)) return;
      clearTimeout(timer);
      off();
      resolve();
    };
    const off = conversation.subscribe(check);
    check();
  });
}

async function fixture() {
  const one = new Fixture();
  await until(one.conversation, ({ state }) => state === 'live');
  return one;
}

describe('an own message', () => {
  test('is shown immediately and once, if the response arrives first', async () => {
    const it = await fixture();
    const clientMessageId = it.conversation.send('hello');
    assert.deepEqual(it.shown, ['- hello sending']);
    await it.sent(1);
    assert.equal(it.sends[0].clientMessageId, clientMessageId);
    it.sends[0].resolve(it.message(it.sends[0], 3));
    await it.until(() => it.shown[0] === '3 hello sent');
    it.deliver(it.sends[0], 3);
    assert.deepEqual(it.shown, ['3 hello sent']);
  });

  test('is shown once, in order, if the event arrives first', async () => {
    const it = await fixture();
    it.conversation.send('hello');
    it.deliver({ content: 'first' }, 2);
    assert.deepEqual(it.shown, ['2 first sent', '- hello sending']);
    await it.sent(1);
    it.deliver(it.sends[0], 3);
    assert.deepEqual(it.shown, ['2 first sent', '3 hello sent']);
    it.sends[0].resolve(it.message(it.sends[0], 3));
    it.conversation.send('again');
    await it.sent(2);
    assert.deepEqual(it.shown, ['2 first sent', '3 hello sent', '- again sending']);
  });

  test('that has failed is sent again with the same clientMessageId', async () => {
    const it = await fixture();
    const clientMessageId = it.conversation.send('hello');
    await it.sent(1);
    it.sends[0].reject(unavailable);
    await it.until(() => it.shown[0] === '- hello failed');
    assert.equal(it.conversation.messages[0].error, unavailable);
    it.conversation.retry(clientMessageId);
    assert.deepEqual(it.shown, ['- hello sending']);
    await it.sent(2);
    assert.equal(it.sends[1].clientMessageId, clientMessageId);
  });

  test('that was committed after a failure is not shown as failed', async () => {
    const it = await fixture();
    const clientMessageId = it.conversation.send('hello');
    await it.sent(1);
    it.sends[0].reject(unavailable);
    await it.until(() => it.shown[0] === '- hello failed');
    it.deliver(it.sends[0], 3);
    assert.deepEqual(it.shown, ['3 hello sent']);
    it.conversation.retry(clientMessageId);
    assert.deepEqual(it.shown, ['3 hello sent']);
  });

  test('can be discarded after a failure, but not while it is being sent', async () => {
    const it = await fixture();
    const clientMessageId = it.conversation.send('hello');
    it.conversation.discard(clientMessageId);
    assert.equal(it.shown.length, 1);
    await it.sent(1);
    it.sends[0].reject(unavailable);
    await it.until(() => it.shown[0] === '- hello failed');
    it.conversation.discard(clientMessageId);
    assert.deepEqual(it.shown, []);
  });

  test('is sent after the previous one', async () => {
    const it = await fixture();
    it.conversation.send('one');
    it.conversation.send('two');
    await it.sent(1);
    assert.deepEqual(it.shown, ['- one sending', '- two sending']);
    await new Promise(setImmediate);
    assert.equal(it.sends.length, 1);
    it.sends[0].resolve(it.message(it.sends[0], 2));
    await it.sent(2);
    assert.equal(it.sends[1].content, 'two');
  });
});

describe('a conversation', () => {
  test('is reloaded after a gap, with the events that arrive meanwhile', async () => {
    const it = await fixture();
    it.deliver({ content: 'old' }, 2);
    it.noPage = () => new Promise((resolve) => Object.assign(it, { respond: resolve }));
    const state = { asOf: 9, ride: null, participants: [], receipts: [], location: null, typing: [] };
    it.events.emit('sync', { cursor: '9', resumed: false, gap: { from: 3, to: 9 }, state });
    assert.deepEqual(it.shown, []);
    it.events.emit('*', { type: 'message:deleted', id: '11', data: { messageId: 'm9', at: 'now' } });
    it.respond({ messages: [it.message({ content: 'nine' }, 9)], cursor: '10', hasMore: true });
    await it.until(({ messages }) => messages.length === 1);
    assert.deepEqual(it.shown, ['9 null sent']);
    assert.equal(it.conversation.hasMore, true);
  });

  test('ignores a page that was requested before a gap', async () => {
    const responses = [];
    const it = new Fixture(() => new Promise((resolve) => responses.push(resolve)));
    const page = (seq, hasMore) => ({ ...EMPTY_PAGE, messages: [it.message({ content: `${seq}` }, seq)], hasMore });
    responses.shift()(page(5, true));
    await it.until(({ messages }) => messages.length === 1);
    const loading = it.conversation.loadMore();
    const state = { asOf: 9, ride: null, participants: [], receipts: [], location: null, typing: [] };
    it.events.emit('sync', { cursor: '9', resumed: false, gap: { from: 6, to: 9 }, state });
    responses[1](page(9, true));
    responses[0](page(4, false));
    await loading;
    assert.deepEqual([it.shown, it.conversation.hasMore], [['9 9 sent'], true]);
  });

  test('that cannot be read has an error', async () => {
    const it = new Fixture(() => Promise.reject(new RidewireError({ status: 404, code: 'ride_not_found' })));
    await it.until(({ state }) => state === 'closed');
    assert.equal(it.conversation.error.code, 'ride_not_found');
  });

  test('notifies its listeners once for simultaneous changes', async () => {
    const it = await fixture();
    let notified = 0;
    const off = it.conversation.subscribe(() => {
      notified += 1;
    });
    for (let seq = 2; seq < 100; seq += 1) it.deliver({ content: 'x' }, seq);
    await it.until(() => notified > 0);
    assert.equal(notified, 1);
    off();
    const { messages } = it.conversation;
    assert.equal(it.conversation.messages, messages, 'the same array as long as nothing changes');
    it.deliver({ content: 'x' }, 100);
    assert.notEqual(it.conversation.messages, messages);
    assert.equal(notified, 1);
  });
});

describe('two participants', () => {
  let server;
  before(async () => {
    server = await startServer();
  });
  const open = [];
  after(async () => {
    for (const conversation of open) conversation.close();
    await server.stop();
  });

  for (const [reader, options] of Object.entries({ fetch: {}, EventSource: { EventSource }, poll: { transport: 'poll' } })) {
    test(`send, edit, react, read, and see presence (${reader})`, async () => {
      const { rideId, rider, driver: asDriver } = await newRide(server);
      const driver = asDriver(options);
      for (let number = 1; number <= 60; number += 1) await rider.send(rideId, `${number}`);
      const [theirs, ours] = [rider.conversation(rideId), driver.conversation(rideId)];
      open.push(theirs, ours);
      await until(ours, ({ messages, ride }) => messages.length === 50 && ride);
      assert.deepEqual([ours.hasMore, ours.ride.status], [true, 'accepted']);
      await ours.loadMore();
      assert.deepEqual(ours.messages.map(({ content }) => content), Array.from({ length: 60 }, (_, at) => `${at + 1}`));
      assert.equal(ours.hasMore, false);

      await until(theirs, ({ ride }) => ride);
      const last = (conversation) => conversation.messages.at(-1);
      ours.send('On my way', { metadata: { eta: 4 } });
      await until(theirs, () => last(theirs).content === 'On my way');
      await until(ours, () => last(ours).status === undefined);
      assert.equal(ours.messages.length, 61);
      const { id, metadata } = last(theirs);
      assert.deepEqual(metadata, { eta: 4 });
      await rider.react(id, '👍');
      await until(ours, () => last(ours).reactions[0]?.userIds[0] === 'rider_1');
      await rider.unreact(id, '👍');
      await driver.edit(id, { content: 'Nearly there' });
      await until(theirs, () => last(theirs).content === 'Nearly there' && last(theirs).reactions.length === 0);
      await rider.read(id);
      await until(ours, () => last(ours).isRead && ours.receipts.some(({ readSeq }) => readSeq === last(ours).seq));
      await driver.delete(id);
      await until(theirs, () => last(theirs).deletedAt !== null && last(theirs).content === null);
      await driver.location(rideId, { lat: 52.5, lng: 13.4 });
      await until(theirs, ({ location }) => location?.lat === 52.5);
      await until(theirs, ({ participants }) => participants.some(({ role, online }) => role === 'driver' && online));
      await driver.typing(rideId, true);
      await until(theirs, ({ typing }) => typing.includes('driver_1'));
      await driver.status(rideId, 'arrived');
      await until(theirs, ({ ride }) => ride.status === 'arrived');
      assert.deepEqual((await driver.history(rideId)).messages.at(-1).id, id);
      ours.close();
      assert.equal(ours.state, 'closed');
    });
  }
});
