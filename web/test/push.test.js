/** Web Push in the console: the subscription, the pushes of the server, and the notifications while the page is closed. */
import assert from 'node:assert/strict';
import { createECDH, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { after, before, test } from 'node:test';

import { launch, open, violations } from './browser.js';
import { createRide } from './demo.js';
import { startServer } from './server.js';

const ece = createRequire(import.meta.url)('http_ece');

let server;
let browser;
let pushService;
const pushes = [];

before(async () => {
  server = await startServer({ env: { RIDEWIRE_WEBHOOK_ALLOW_HOSTS: '127.0.0.1', RIDEWIRE_PUSH_AFTER: '2s', RIDEWIRE_PRESENCE_GRACE: '1s' } });
  browser = await launch();
  pushService = createServer(async (request, response) => {
    const parts = [];
    for await (const part of request) parts.push(part);
    pushes.push({ role: request.url.slice(1), body: Buffer.concat(parts) });
    response.writeHead(201).end();
  }).listen(0, '127.0.0.1');
  await once(pushService, 'listening');
});

after(async () => {
  await browser?.close();
  pushService?.close();
  pushService?.closeAllConnections();
  await server?.stop();
});

/** Creates a subscription at the push service of this test, with the keys of a browser. */
function subscriptionOf(role) {
  const keys = createECDH('prime256v1');
  keys.generateKeys();
  const auth = randomBytes(16);
  const endpoint = `http://127.0.0.1:${pushService.address().port}/${role}`;
  return {
    json: { endpoint, expirationTime: null, keys: { p256dh: keys.getPublicKey('base64url'), auth: auth.toString('base64url') } },
    read: (body) => ece.decrypt(body, { version: 'aes128gcm', privateKey: keys, authSecret: auth }).toString(),
  };
}

/** Replaces the part that needs the push service of the browser's vendor: the subscription. */
function fakePushManager(subscriptions) {
  Object.defineProperty(ServiceWorkerRegistration.prototype, 'pushManager', {
    get() {
      const role = this.scope.split('/').at(-2);
      const json = subscriptions[role];
      const unsubscribe = async () => localStorage.removeItem(role);
      const subscription = { endpoint: json.endpoint, toJSON: () => json, unsubscribe };
      return {
        async subscribe({ userVisibleOnly, applicationServerKey }) {
          if (!userVisibleOnly) throw new TypeError('a push has to be shown');
          localStorage.setItem(role, applicationServerKey);
          return subscription;
        },
        getSubscription: async () => (localStorage.getItem(role) ? subscription : null),
      };
    },
  });
}

async function until(expected, condition) {
  const deadline = Date.now() + 60_000;
  for (;;) {
    const found = await condition();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`timed out while waiting for ${expected}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

test('a phone gets notifications while its page is closed, until it unsubscribes', async () => {
  const subscriptions = { rider: subscriptionOf('rider'), driver: subscriptionOf('driver') };
  const init = [fakePushManager, { rider: subscriptions.rider.json, driver: subscriptions.driver.json }];
  const { page, errors } = await open(browser, server.url, { permissions: ['notifications'], init });
  const context = page.context();
  const button = page.getByRole('button', { name: 'Notify me when this page is closed' });
  await button.waitFor();
  const { rideId } = await createRide(page);

  await button.click();
  await page.locator('[aria-pressed="true"]', { hasText: 'Notify me' }).waitFor();
  assert.deepEqual(await violations(page), []);
  const [lena, amir] = [await server.token('lena', 'rider'), await server.token('amir', 'driver')];
  const api = async (method, path, token, body) => {
    const headers = { authorization: `Bearer ${token}` };
    const response = await fetch(`${server.url}/api/v1/${path}`, { method, headers, body: body && JSON.stringify(body) });
    assert.ok(response.ok, `${method} ${path}: ${response.status}`);
    return response.json();
  };
  const { publicKey } = await api('GET', 'push-key', lena);
  assert.equal(await page.evaluate(() => localStorage.getItem('rider')), publicKey);
  assert.deepEqual(errors, []);
  await page.close();

  // Only a message that is sent after the last stream of the page has ended is certain to be undelivered.
  await until('the rider to be offline', async () => {
    const { participants } = await api('GET', `messages/rides/${rideId}/presence`, amir);
    return participants.some(({ userId, online }) => userId === 'lena' && !online);
  });
  const { id } = await api('POST', 'messages', amir, { rideId, content: 'I am here' });
  const isOfRide = ({ role, body }) => role === 'rider' && JSON.parse(subscriptions.rider.read(body)).rideId === rideId;
  const { body } = await until('the push', () => pushes.find(isOfRide));
  const data = subscriptions.rider.read(body);
  assert.deepEqual(JSON.parse(data), { type: 'message:undelivered', rideId, messageId: id, unreadCount: 1 });

  // The push service of this test cannot reach the browser; its developer tools can.
  const other = await context.newPage();
  await other.goto(`${server.url}/docs`);
  const tools = await context.newCDPSession(other);
  const registrations = [];
  tools.on('ServiceWorker.workerRegistrationUpdated', (event) => registrations.push(...event.registrations));
  await tools.send('ServiceWorker.enable');
  const { registrationId } = await until('the worker', () => registrations.find(({ scopeURL }) => scopeURL.endsWith('/console/rider/')));
  const deliver = (data) => tools.send('ServiceWorker.deliverPushMessage', { origin: server.url, registrationId, data });
  const shown = () => other.evaluate(async () => {
    const registration = await navigator.serviceWorker.getRegistration('/console/rider/');
    return (await registration.getNotifications()).map(({ title, body, tag }) => ({ title, body, tag }));
  });
  await deliver(data);
  assert.deepEqual(await until('a notification', async () => (await shown()).length && shown()), [{ title: 'Rider', body: 'A new message', tag: rideId }]);
  // The next notification of the ride replaces it.
  await deliver(JSON.stringify({ ...JSON.parse(data), unreadCount: 3 }));
  await until('the next one', async () => (await shown())[0]?.body === '3 unread messages');
  assert.equal((await shown()).length, 1);
  // An unreadable push is shown, too, because browsers require that.
  await deliver('nonsense');
  await until('one more', async () => (await shown()).length === 2);

  let worker;
  for (const each of context.serviceWorkers()) {
    if ((await each.evaluate(() => registration.scope)).endsWith('/console/rider/')) worker = each;
  }
  const opened = await worker.evaluate(async (tag) => {
    let opened;
    clients.openWindow = async (url) => {
      opened = url;
    };
    const [notification] = await registration.getNotifications({ tag });
    let waiting;
    const event = new NotificationEvent('notificationclick', { notification });
    event.waitUntil = (promise) => {
      waiting = promise;
    };
    dispatchEvent(event);
    await waiting;
    return opened;
  }, rideId);
  assert.equal(opened, `/?ride=${rideId}`);

  // When the page is open again, its notifications are closed.
  await other.goto(`${server.url}/?ride=${rideId}`);
  await other.locator('[aria-pressed="true"]', { hasText: 'Notify me' }).waitFor();
  await until('no notifications', async () => (await shown()).length === 0);
  const removed = ['rider', 'driver'].map((role) => other.waitForRequest((request) =>
    request.method() === 'DELETE' && request.postDataJSON().endpoint === subscriptions[role].json.endpoint));
  await other.getByRole('button', { name: 'Notify me when this page is closed' }).click();
  await Promise.all(removed);
  await other.locator('[aria-pressed="false"]', { hasText: 'Notify me' }).waitFor();
  assert.deepEqual(await other.evaluate(() => [localStorage.getItem('rider'), localStorage.getItem('driver')]), [null, null]);
  await context.close();
});

test('the button reports that notifications are blocked', async () => {
  const init = [() => {
    Notification.requestPermission = async () => 'denied';
  }];
  const { page } = await open(browser, server.url, { init });
  await page.getByRole('button', { name: 'Notify me when this page is closed' }).click();
  await page.getByRole('alert').filter({ hasText: 'The browser blocks notifications of this site' }).waitFor();
  await page.context().close();
});
