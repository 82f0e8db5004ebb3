/**
 * Receives `message.undelivered` from Ridewire, and pushes it to phones with FCM (Android) and APNs (iOS). Needs Node 20 or newer
 * and no packages. docs/how-to/push.md describes its environment variables.
 */
import { createHmac, sign, timingSafeEqual } from 'node:crypto';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { connect } from 'node:http2';

const {
  PORT = '3000',
  RIDEWIRE_WEBHOOK_SECRET,
  DEVICES = 'devices.json',
  FCM_ACCOUNT,
  FCM_URL = 'https://fcm.googleapis.com',
  APNS_KEY,
  APNS_KEY_ID,
  APNS_TEAM_ID,
  APNS_TOPIC,
  APNS_URL = 'https://api.push.apple.com',
} = process.env;

/** The time to live of a push, in seconds. */
const TTL = 24 * 3_600;
/** The maximum difference between the clocks of Ridewire and this machine, in seconds. */
const TOLERANCE = 300;
const seconds = () => Math.floor(Date.now() / 1_000);

/** A temporary failure: Ridewire sends the event again, after `retryAfter` seconds if given. */
class RetryableError extends Error {
  constructor(message, retryAfter) {
    super(message);
    this.retryAfter = retryAfter;
  }
}

/** The tokens of each user's devices: `{"driver_1": [{"platform": "fcm", "token": "…"}]}`. Replace it with a database table. */
class Devices {
  #users;
  #saved = Promise.resolve();

  static async load() {
    const devices = new Devices();
    devices.#users = JSON.parse(await readFile(DEVICES, 'utf8'));
    return devices;
  }

  of(userId) {
    return this.#users[userId] ?? [];
  }

  async remove(userId, { token }) {
    this.#users[userId] = this.of(userId).filter((device) => device.token !== token);
    this.#saved = this.#saved.then(() => this.#save());
    await this.#saved;
    console.log(`removed a token of ${userId}`);
  }

  async #save() {
    await writeFile(`${DEVICES}.new`, JSON.stringify(this.#users, null, 2));
    await rename(`${DEVICES}.new`, DEVICES);
  }
}

/** Returns whether Ridewire signed a request within the last minutes (Standard Webhooks 1.0). */
function isSigned(headers, body) {
  const { 'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': signatures = '' } = headers;
  if (!(Math.abs(seconds() - Number(timestamp)) <= TOLERANCE)) return false;
  const secret = Buffer.from(RIDEWIRE_WEBHOOK_SECRET.replace(/^whsec_/, ''), 'base64');
  const expected = Buffer.from(`v1,${createHmac('sha256', secret).update(`${id}.${timestamp}.`).update(body).digest('base64')}`);
  // There are two signatures while the secret is rotated.
  return signatures.split(' ').map((text) => Buffer.from(text))
    .some((given) => given.length === expected.length && timingSafeEqual(given, expected));
}

/** Returns a signed JSON Web Token. */
function jwt(header, claims, key) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = `${part({ typ: 'JWT', ...header })}.${part(claims)}`;
  return `${signed}.${sign('sha256', Buffer.from(signed), { key, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
}

/** Firebase Cloud Messaging, HTTP v1. */
class Fcm {
  #account;
  #access;

  static async load() {
    const fcm = new Fcm();
    fcm.#account = JSON.parse(await readFile(FCM_ACCOUNT, 'utf8'));
    return fcm;
  }

  /** Returns whether the token is still registered. */
  async push(token, { rideId, messageId, unreadCount, title, body, left }) {
    const message = {
      token,
      notification: { title, body },
      data: { rideId, messageId, unreadCount: String(unreadCount) },
      android: {
        // Reaches a phone in Doze.
        priority: 'HIGH',
        ttl: `${left}s`,
        // Only the last waiting push and the last notification of each ride remain.
        collapse_key: rideId,
        notification: { tag: rideId, notification_count: unreadCount },
      },
    };
    const response = await fetch(`${FCM_URL}/v1/projects/${this.#account.project_id}/messages:send`, {
      method: 'POST',
      headers: { authorization: `Bearer ${await this.#token()}`, 'content-type': 'application/json' },
      body: JSON.stringify({ message }),
      signal: AbortSignal.timeout(10_000),
    });
    if (response.ok) return true;
    const { error = {} } = await response.json().catch(() => ({}));
    const codes = [error.status, ...(error.details ?? []).map(({ errorCode }) => errorCode)];
    if (codes.includes('UNREGISTERED')) return false;
    if (response.status === 401) this.#access = undefined;
    if (response.status === 401 || response.status === 429 || response.status >= 500) {
      throw new RetryableError(`FCM: ${response.status}`, response.headers.get('retry-after'));
    }
    console.error(`FCM rejected a push: ${response.status} ${error.message}`);
    return true;
  }

  /** Returns an access token of the service account, cached until it expires. */
  async #token() {
    if (this.#access?.until > seconds()) return this.#access.token;
    const { client_email: iss, private_key: key, token_uri: aud } = this.#account;
    const scope = 'https://www.googleapis.com/auth/firebase.messaging';
    const assertion = jwt({ alg: 'RS256' }, { iss, scope, aud, iat: seconds(), exp: seconds() + 3_600 }, key);
    const body = new URLSearchParams({ grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer', assertion });
    const response = await fetch(aud, { method: 'POST', body, signal: AbortSignal.timeout(10_000) });
    if (!response.ok) throw new RetryableError(`Google's token server: ${response.status}`);
    const { access_token: token, expires_in: lifetime } = await response.json();
    this.#access = { token, until: seconds() + lifetime - 60 };
    return token;
  }
}

/** Apple Push Notification service, over one HTTP/2 connection. */
class Apns {
  #key;
  #session;
  #provider;

  static async load() {
    const apns = new Apns();
    apns.#key = await readFile(APNS_KEY, 'utf8');
    return apns;
  }

  /** Returns whether the token is still registered. */
  async push(token, { rideId, messageId, unreadCount, title, body, left }) {
    const aps = { alert: { title, body }, badge: unreadCount, sound: 'default', 'thread-id': rideId };
    const { status, reason, retryAfter } = await this.#request(`/3/device/${token}`, {
      authorization: `bearer ${this.#token()}`,
      'apns-topic': APNS_TOPIC,
      'apns-push-type': 'alert',
      'apns-priority': '10',
      'apns-expiration': String(seconds() + left),
      // The next push of the ride replaces this one. At most 64 bytes, which a ride's id never exceeds.
      'apns-collapse-id': rideId,
    }, JSON.stringify({ aps, rideId, messageId }));
    if (status === 200) return true;
    if (status === 410 || reason === 'BadDeviceToken') return false;
    if (reason === 'ExpiredProviderToken') this.#provider = undefined;
    if (reason === 'ExpiredProviderToken' || status === 429 || status >= 500) throw new RetryableError(`APNs: ${status} ${reason}`, retryAfter);
    console.error(`APNs rejected a push: ${status} ${reason}`);
    return true;
  }

  /** Returns a provider token. APNs requires a new one within an hour, and at most one every 20 minutes. */
  #token() {
    if (!(this.#provider?.until > seconds())) {
      const token = jwt({ alg: 'ES256', kid: APNS_KEY_ID }, { iss: APNS_TEAM_ID, iat: seconds() }, this.#key);
      this.#provider = { token, until: seconds() + 2_400 };
    }
    return this.#provider.token;
  }

  #request(path, headers, body) {
    return new Promise((resolve, reject) => {
      const failed = (error) => reject(new RetryableError(`APNs: ${error.message}`));
      if (!this.#session || this.#session.closed || this.#session.destroyed) {
        const session = connect(APNS_URL);
        session.on('error', failed).on('goaway', () => session.close());
        this.#session = session;
      }
      const stream = this.#session.request({ ':method': 'POST', ':path': path, ...headers });
      let head;
      let text = '';
      stream.setTimeout(10_000, () => stream.destroy(new Error('no response')));
      stream.on('response', (given) => {
        head = given;
      });
      stream.setEncoding('utf8').on('data', (part) => {
        text += part;
      });
      stream.on('error', failed);
      stream.on('end', () => {
        const reason = text && JSON.parse(text).reason;
        if (head) resolve({ status: head[':status'], reason, retryAfter: head['retry-after'] });
      });
      stream.on('close', () => failed(new Error('the connection was closed')));
      stream.end(body);
    });
  }
}

const devices = await Devices.load();
const services = { fcm: FCM_ACCOUNT && (await Fcm.load()), apns: APNS_KEY && (await Apns.load()) };

/**
 * The devices that have received an event, by its id, which is the same at each attempt. Replace it with a table with a unique key.
 * A lost entry costs a repeated push, which replaces the earlier one.
 */
const pushed = new Map();

function pushedOf(id) {
  if (!pushed.has(id)) pushed.set(id, new Set());
  if (pushed.size > 10_000) pushed.delete(pushed.keys().next().value);
  return pushed.get(id);
}

/** Pushes an event to the devices of its user that have not received it. Throws if the event must be sent again. */
async function push(id, { rideId, userId, messageId, unreadCount, at }) {
  const left = Math.floor(Date.parse(at) / 1_000) + TTL - seconds();
  if (left <= 0) return;
  const title = 'New message';
  const body = unreadCount > 1 ? `${unreadCount} unread messages on your ride` : 'You have a new message on your ride';
  const done = pushedOf(id);
  const waiting = devices.of(userId).filter(({ platform, token }) => services[platform] && !done.has(token));
  const outcomes = await Promise.allSettled(waiting.map(async (device) => {
    const content = { rideId, messageId, unreadCount, title, body, left };
    const isRegistered = await services[device.platform].push(device.token, content);
    done.add(device.token);
    if (!isRegistered) await devices.remove(userId, device);
  }));
  const failed = outcomes.find(({ status }) => status === 'rejected');
  if (failed) throw failed.reason;
}

const server = createServer(async (request, response) => {
  const parts = [];
  for await (const part of request) parts.push(part);
  const body = Buffer.concat(parts);
  if (request.method !== 'POST' || !isSigned(request.headers, body)) return response.writeHead(401).end();
  try {
    const { type, data } = JSON.parse(body);
    if (type === 'message.undelivered') await push(request.headers['webhook-id'], data.data);
    response.writeHead(204).end();
  } catch (error) {
    console.error(error.message);
    response.writeHead(503, error.retryAfter ? { 'retry-after': error.retryAfter } : {}).end();
  }
});
server.listen(Number(PORT), () => console.log(`listening on port ${server.address().port}`));
