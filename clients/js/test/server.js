import { spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { chmod, mkdtemp, readFile, rm } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import { connect } from '../src/index.js';

export const SECRET = 'a secret of the tests, of 32 bytes or more';
const BINARY = process.env.RIDEWIRE_BIN ?? fileURLToPath(new URL('../../../target/release/ridewire', import.meta.url));

// The runner sends SIGTERM to a test file that hangs. Servers are stopped on exit, which a signal alone does not trigger.
for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, () => process.exit(1));

/** Creates a token as a login would. `ttl` is in seconds. */
export function token(sub, role, ttl = 3_600) {
  const now = Math.floor(Date.now() / 1_000);
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const text = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ sub, role, iat: now - 60, exp: now + ttl })}`;
  return `${text}.${createHmac('sha256', SECRET).update(text).digest('base64url')}`;
}

/** Starts a server with a private Postgres. Its replicas stop with it. */
export async function startServer(env = {}) {
  const directory = await mkdtemp('/tmp/ridewire-js-');
  // When the server runs as root, Postgres runs as another user, who needs access to the directory.
  await chmod(directory, 0o711);
  const dataDir = `${directory}/data`;
  const server = await start({ RIDEWIRE_DATA_DIR: dataDir, ...env });
  const replicas = [];
  const databaseUrl = (await readFile(`${dataDir}/lock`, 'utf8')).trim();
  return {
    ...server,
    async replica(env = {}) {
      const replica = await start({ DATABASE_URL: databaseUrl, ...env });
      replicas.push(replica);
      return replica;
    },
    async stop() {
      await Promise.all(replicas.map((replica) => replica.stop()));
      await server.stop();
      await rm(directory, { recursive: true });
    },
  };
}

async function start(env) {
  const child = spawn(BINARY, ['serve'], {
    env: {
      PATH: process.env.PATH,
      RIDEWIRE_LISTEN: '127.0.0.1:0',
      RIDEWIRE_JWT_SECRET: SECRET,
      RIDEWIRE_LOG: 'error',
      RIDEWIRE_DRAIN_WINDOW: '1s',
      // A long timeout, because the machine may be busy.
      RIDEWIRE_DATABASE_TIMEOUT: '60s',
      ...env,
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const exited = once(child, 'exit');
  process.on('exit', () => child.kill('SIGTERM'));
  const url = await new Promise((resolve, reject) => {
    createInterface(child.stdout).on('line', (line) => {
      const [, address] = /^listening on (\S+)$/.exec(line) ?? [];
      if (address) resolve(address);
    });
    child.on('error', reject);
    child.on('exit', (code) => reject(new Error(`ridewire ended with ${code}`)));
  });
  const end = async (signal) => {
    child.kill(signal);
    await exited;
  };
  return { url, stop: () => end('SIGTERM'), kill: () => end('SIGKILL') };
}

/** Long timeouts for slow machines. Other tests cover lost requests. */
const LONG_TIMEOUTS = { request: 60_000, send: 120_000 };

/** Creates a new ride, with clients for its participants. */
let rides = 0;
export async function newRide(server, { riderId = 'rider_1', driverId = 'driver_1' } = {}) {
  rides += 1;
  const rideId = `ride_${rides}`;
  const at = (url, sub, role, { timing, ...options } = {}) =>
    connect({ baseUrl: url, token: () => token(sub, role), timing: { ...LONG_TIMEOUTS, ...timing }, ...options });
  const service = at(server.url, 'platform', 'service');
  await service.request('PUT', `/rides/${rideId}`, { body: { riderId, driverId } });
  return {
    rideId,
    service,
    rider: at(server.url, riderId, 'rider'),
    /** The driver's client, optionally through a proxy. */
    driver: (options = {}, url = server.url) => at(url, 'driver_1', 'driver', options),
  };
}
