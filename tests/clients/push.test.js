/** The receiver of docs/how-to/push.md with fakes of FCM and APNs, and Web Push decrypted by an independent library. */
import assert from 'node:assert/strict';
import { createECDH, createHmac, createPublicKey, generateKeyPairSync, randomBytes, verify } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createServer as createHttp2Server } from 'node:http2';
import { createRequire } from 'node:module';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { newRide, startServer, token } from '../../clients/js/test/server.js';
import { Program } from './program.js';

const RECEIVER = fileURLToPath(new URL('../../docs/how-to/push/receiver.mjs', import.meta.url));
const GOOGLE = generateKeyPairSync('rsa', { modulusLength: 2_048 });
const APPLE = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const pem = ({ privateKey }) => privateKey.export({ type: 'pkcs8', format: 'pem' });
const ece = library();

let directory;
let server;
let receiver;
let webhook;
const servers = [];
/** The requests that each service received: `{path, headers, body}`. */
const arrived = { fcm: [], apns: [], web: [] };
/** FCM's next responses for a token other than 200. */
const failures = new Map();

function library() {
  try {
    return createRequire(new URL('../../web/package.json', import.meta.url))('http_ece');
  } catch {
    return undefined;
  }
}

async function waitFor(what, condition) {
  const deadline = Date.now() + 120_000;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`timeout while waiting for ${what}; output of the receiver: ${receiver?.errors}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function serve(listener, create = createServer) {
  const serving = create(async (request, response) => {
    const parts = [];
    for await (const part of request) parts.push(part);
    listener(request, response, Buffer.concat(parts));
  }).listen(0, '127.0.0.1');
  servers.push(serving);
  await once(serving, 'listening');
  return `http://127.0.0.1:${serving.address().port}`;
}

async function callApi(method, path, body) {
  const headers = { authorization: `Bearer ${token('platform', 'service')}` };
  const response = await fetch(`${server.url}/api/v1/${path}`, { method, headers, body: body && JSON.stringify(body) });
  assert.ok(response.ok, `${method} ${path}: ${response.status}`);
  return response.status === 202 ? undefined : response.json();
}

/** Verifies the signature of a token and returns its claims. */
function claims(jwt, algorithm, publicKey) {
  const [header, payload, signature] = jwt.split('.');
  assert.equal(JSON.parse(Buffer.from(header, 'base64url')).alg, algorithm);
  const key = { key: publicKey, dsaEncoding: 'ieee-p1363' };
  assert.ok(verify('sha256', Buffer.from(`${header}.${payload}`), key, Buffer.from(signature, 'base64url')), 'the signature');
  return JSON.parse(Buffer.from(payload, 'base64url'));
}

/** A fake of Google: access tokens for a service account, and FCM. */
function google(request, response, body) {
  if (request.url === '/token') {
    const { scope, iss } = claims(new URLSearchParams(body.toString()).get('assertion'), 'RS256', GOOGLE.publicKey);
    assert.deepEqual([scope, iss], ['https://www.googleapis.com/auth/firebase.messaging', 'push@demo.example']);
    return response.end(JSON.stringify({ access_token: 'an-access-token', expires_in: 3_600 }));
  }
  assert.deepEqual([request.url, request.headers.authorization], ['/v1/projects/demo/messages:send', 'Bearer an-access-token']);
  const { message } = JSON.parse(body);
  arrived.fcm.push(message);
  const { status = 200, headers = {}, error } = failures.get(message.token)?.shift() ?? {};
  return response.writeHead(status, headers).end(JSON.stringify(error ? { error } : { name: 'projects/demo/messages/1' }));
}

function apple(request, response, body) {
  const [scheme, jwt] = request.headers.authorization.split(' ');
  assert.equal(scheme, 'bearer');
  assert.equal(claims(jwt, 'ES256', APPLE.publicKey).iss, 'TEAM');
  const device = request.url.replace('/3/device/', '');
  arrived.apns.push({ device, headers: request.headers, body: JSON.parse(body) });
  if (device === 'left') return response.writeHead(410).end(JSON.stringify({ reason: 'Unregistered' }));
  return response.writeHead(200).end();
}

before(async () => {
  directory = await mkdtemp('/tmp/ridewire-push-');
  const googleUrl = await serve(google);
  const appleUrl = await serve(apple, createHttp2Server);
  const account = { project_id: 'demo', client_email: 'push@demo.example', private_key: pem(GOOGLE), token_uri: `${googleUrl}/token` };
  const devices = {
    driver_1: [
      { platform: 'fcm', token: 'android' },
      { platform: 'fcm', token: 'uninstalled' },
      { platform: 'apns', token: 'iphone' },
      { platform: 'apns', token: 'left' },
    ],
  };
  for (const [name, text] of [['account.json', JSON.stringify(account)], ['apns.p8', pem(APPLE)], ['devices.json', JSON.stringify(devices)]]) {
    await writeFile(`${directory}/${name}`, text);
  }
  server = await startServer({
    RIDEWIRE_WEBHOOK_ALLOW_HOSTS: '127.0.0.1',
    RIDEWIRE_WEBHOOK_RETRIES: '200ms',
    RIDEWIRE_PUSH_AFTER: '1s',
    RIDEWIRE_VAPID_SUBJECT: 'mailto:operations@example.com',
  });
  // The receiver needs the secret, so the webhook is created first.
  webhook = await callApi('POST', 'webhooks', { url: 'http://127.0.0.1:9/', types: ['message.undelivered'] });
  receiver = new Program({ command: process.execPath, args: [RECEIVER] }, {
    PORT: '0',
    RIDEWIRE_WEBHOOK_SECRET: webhook.secret,
    DEVICES: `${directory}/devices.json`,
    FCM_ACCOUNT: `${directory}/account.json`,
    FCM_URL: googleUrl,
    APNS_KEY: `${directory}/apns.p8`,
    APNS_KEY_ID: 'KEY',
    APNS_TEAM_ID: 'TEAM',
    APNS_TOPIC: 'example.rides',
    APNS_URL: appleUrl,
  });
  await waitFor('the receiver', async () => (await receiver.lines()).some((line) => line.startsWith('listening on port ')));
  const port = (await receiver.lines())[0].split(' ').at(-1);
  await callApi('PATCH', `webhooks/${webhook.id}`, { url: `http://127.0.0.1:${port}/` });
});

after(async () => {
  await Program.killAll();
  for (const serving of servers) {
    serving.close();
    serving.closeAllConnections?.();
  }
  await server.stop();
  await rm(directory, { recursive: true });
});

const of = (device) => [...arrived.fcm.filter((message) => message.token === device), ...arrived.apns.filter((push) => push.device === device)];

test('devices get each event once despite service failures, and unregistered tokens are removed', async () => {
  failures.set('android', [{ status: 503, headers: { 'retry-after': '1' }, error: { status: 'UNAVAILABLE' } }]);
  failures.set('uninstalled', [{ status: 404, error: { status: 'NOT_FOUND', details: [{ errorCode: 'UNREGISTERED' }] } }]);
  const { rideId, rider } = await newRide(server);
  const { id } = await rider.send(rideId, 'a secret message of the rider');
  await waitFor('the retried push', () => of('android').length === 2);
  const [, message] = of('android');
  const { android, data, notification } = message;
  assert.deepEqual(data, { rideId, messageId: id, unreadCount: '1' });
  assert.deepEqual([android.priority, android.collapse_key, android.notification], ['HIGH', rideId, { tag: rideId, notification_count: 1 }]);
  assert.match(android.ttl, /^8[56]\d{3}s$/);
  assert.equal(notification.body, 'You have a new message on your ride');
  assert.deepEqual(of('iphone').length, 1, 'a delivered push is not repeated');
  const [{ headers, body }] = of('iphone');
  assert.deepEqual(
    ['apns-topic', 'apns-push-type', 'apns-priority', 'apns-collapse-id'].map((name) => headers[name]),
    ['example.rides', 'alert', '10', rideId],
  );
  assert.deepEqual([body.aps.badge, body.aps['thread-id'], body.rideId, body.messageId], [1, rideId, rideId, id]);
  assert.ok(!JSON.stringify(arrived).includes('a secret'));
  await waitFor('the tokens’ removal', async () => JSON.parse(await readFile(`${directory}/devices.json`, 'utf8')).driver_1.length === 2);
  await waitFor('the delivery', async () => {
    const { deliveries } = await callApi('GET', `webhooks/${webhook.id}/deliveries?state=delivered`);
    return deliveries.length === 1;
  });

  // A replayed event has the same id, so the receiver ignores it.
  const counts = () => [of('android').length, of('iphone').length, of('uninstalled').length, of('left').length];
  assert.deepEqual(counts(), [2, 1, 1, 1]);
  await callApi('POST', `webhooks/${webhook.id}/replay`, { after: '0' });
  const next = await newRide(server);
  await next.rider.send(next.rideId, 'Hello');
  await waitFor('the next ride’s push', () => of('android').length === 3 && of('iphone').length === 2);
  await waitFor('all deliveries', async () => {
    const [delivered, pending] = await Promise.all(['delivered', 'pending'].map((state) => callApi('GET', `webhooks/${webhook.id}/deliveries?state=${state}`)));
    return delivered.deliveries.length === 2 && pending.deliveries.length === 0;
  });
  assert.deepEqual(counts(), [3, 2, 1, 1], 'removed tokens are not used again');
});

test('requests with an invalid or old signature are rejected', async () => {
  const port = (await receiver.lines())[0].split(' ').at(-1);
  const before = arrived.fcm.length + arrived.apns.length;
  const data = { rideId: 'ride_x', userId: 'driver_1', messageId: 'm', unreadCount: 1, at: new Date().toISOString() };
  const body = JSON.stringify({ type: 'message.undelivered', data: { data } });
  const post = (secret, timestamp) => {
    const key = Buffer.from(secret.replace('whsec_', ''), 'base64');
    const signature = createHmac('sha256', key).update(`evt_x.${timestamp}.${body}`).digest('base64');
    const headers = { 'webhook-id': 'evt_x', 'webhook-timestamp': timestamp, 'webhook-signature': `v1,${signature}` };
    return fetch(`http://127.0.0.1:${port}/`, { method: 'POST', headers, body });
  };
  const now = Math.floor(Date.now() / 1_000);
  for (const [secret, timestamp] of [[`whsec_${randomBytes(32).toString('base64')}`, now], [webhook.secret, now - 3_600], [webhook.secret, 'soon']]) {
    assert.equal((await post(secret, String(timestamp))).status, 401);
  }
  const unsigned = await fetch(`http://127.0.0.1:${port}/`, { method: 'POST', body });
  assert.equal(unsigned.status, 401);
  assert.equal(arrived.fcm.length + arrived.apns.length, before);
  assert.equal((await post(webhook.secret, String(now))).status, 204);
});

test('a browser’s push can be decrypted by http_ece and is signed for its push service', { skip: !ece && 'http_ece is not installed' }, async () => {
  const url = await serve((request, response, body) => {
    arrived.web.push({ headers: request.headers, body });
    response.writeHead(201).end();
  });
  const browser = createECDH('prime256v1');
  browser.generateKeys();
  const auth = randomBytes(16);
  const { rideId, rider, driver } = await newRide(server);
  const client = driver();
  const subscription = {
    endpoint: `${url}/send/1`,
    expirationTime: null,
    keys: { p256dh: browser.getPublicKey('base64url'), auth: auth.toString('base64url') },
  };
  await client.subscribePush(subscription);
  const { id } = await rider.send(rideId, 'Hello');
  await waitFor('the push', () => arrived.web.length === 1);
  const [{ headers, body }] = arrived.web;
  const plain = ece.decrypt(body, { version: 'aes128gcm', privateKey: browser, authSecret: auth });
  assert.deepEqual(JSON.parse(plain), { type: 'message:undelivered', rideId, messageId: id, unreadCount: 1 });

  const [, jwt, key] = /^vapid t=(\S+), k=(\S+)$/.exec(headers.authorization);
  assert.equal(key, await client.pushKey());
  const point = Buffer.from(key, 'base64url');
  const [x, y] = [point.subarray(1, 33), point.subarray(33)].map((part) => part.toString('base64url'));
  const publicKey = createPublicKey({ format: 'jwk', key: { kty: 'EC', crv: 'P-256', x, y } });
  const { aud, sub, exp } = claims(jwt, 'ES256', publicKey);
  assert.deepEqual([aud, sub], [url, 'mailto:operations@example.com']);
  assert.ok(exp > Date.now() / 1_000 && exp < Date.now() / 1_000 + 86_400);

  // This browser has unsubscribed, so it gets no push of another ride.
  await client.unsubscribePush(subscription.endpoint);
  const next = await newRide(server);
  await next.rider.send(next.rideId, 'Hello');
  await waitFor('the next ride’s push to the phone', () => of('android').some(({ data }) => data.rideId === next.rideId));
  assert.equal(arrived.web.length, 1);
});
