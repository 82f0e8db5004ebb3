/** Webhook signatures, verified by independent libraries. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { after, before, test } from 'node:test';

import { startServer, token } from '../../clients/js/test/server.js';

const require = createRequire(new URL('../../docs/how-to/stock-clients/package.json', import.meta.url));
const { RIDEWIRE_PYTHON } = process.env;
const VERIFY = `
import json, sys
from standardwebhooks.webhooks import Webhook
given = json.load(sys.stdin)
for secret in given["secrets"]:
    print(json.dumps(Webhook(secret).verify(given["body"], given["headers"])))
`;

function library() {
  try {
    return require('standardwebhooks').Webhook;
  } catch {
    return undefined;
  }
}
const Webhook = library();

let server;
let receiver;
let received;
let secrets;

async function callApi(method, path, body) {
  const response = await fetch(`${server.url}/api/v1/${path}`, {
    method,
    headers: { authorization: `Bearer ${token('platform', 'service')}` },
    body: body && JSON.stringify(body),
  });
  assert.ok(response.ok, `${method} ${path}: ${response.status}`);
  return response.json();
}

before(async () => {
  server = await startServer({ RIDEWIRE_WEBHOOK_ALLOW_HOSTS: '127.0.0.1' });
  let arrived;
  const first = new Promise((resolve) => {
    arrived = resolve;
  });
  receiver = createServer(async (request, response) => {
    let body = '';
    for await (const part of request.setEncoding('utf8')) body += part;
    response.writeHead(204).end();
    arrived({ headers: request.headers, body });
  }).listen(0, '127.0.0.1');
  await once(receiver, 'listening');
  const url = `http://127.0.0.1:${receiver.address().port}/`;
  const webhook = await callApi('POST', 'webhooks', { url, types: ['ride.participants'] });
  const rotated = await callApi('POST', `webhooks/${webhook.id}/secret`);
  secrets = [webhook.secret, rotated.secret];
  await callApi('PUT', 'rides/ride_w1', { riderId: 'rider_1', driverId: 'driver_1' });
  received = await first;
});
after(async () => {
  receiver.close();
  receiver.closeAllConnections();
  await server.stop();
});

test('the library for Node verifies either secret, and no other', { skip: !Webhook && 'not installed' }, () => {
  for (const secret of secrets) {
    const event = new Webhook(secret).verify(received.body, received.headers);
    assert.equal(event.type, 'ride.participants');
    assert.equal(event.data.topic, 'ride/ride_w1');
  }
  const other = `whsec_${Buffer.alloc(32, 1).toString('base64')}`;
  assert.throws(() => new Webhook(other).verify(received.body, received.headers));
  assert.throws(() => new Webhook(secrets[0]).verify(`${received.body} `, received.headers));
});

test('the library for Python verifies either secret', { skip: !RIDEWIRE_PYTHON && 'not installed' }, () => {
  const input = JSON.stringify({ ...received, secrets });
  const { stdout, stderr } = spawnSync(RIDEWIRE_PYTHON, ['-c', VERIFY], { input, encoding: 'utf8' });
  const events = stdout.trim().split('\n').filter(Boolean);
  assert.equal(events.length, 2, stderr);
  for (const event of events) assert.deepEqual(JSON.parse(event), JSON.parse(received.body));
});
