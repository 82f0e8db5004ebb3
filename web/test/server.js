import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, readFile, rm } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const BINARY = process.env.RIDEWIRE_BIN ?? fileURLToPath(new URL('../../target/release/ridewire', import.meta.url));

// A test file that hangs gets SIGTERM. Child servers are stopped on exit, which a signal alone does not trigger.
for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, () => process.exit(1));

/** Long timeouts, so that a busy machine does not fail the tests. */
const SETTINGS = { RIDEWIRE_DRAIN_WINDOW: '1s', RIDEWIRE_DATABASE_TIMEOUT: '60s' };

/** Starts a server with a private Postgres, by default with the demo. */
export async function startServer({ args = ['serve', '--demo'], env = {} } = {}) {
  const directory = await mkdtemp('/tmp/ridewire-console-');
  // As root, Postgres runs as another user, who needs access to the directory.
  await chmod(directory, 0o755);
  const dataDir = `${directory}/data`;
  const server = await start(args, { RIDEWIRE_DATA_DIR: dataDir, ...env });
  return {
    ...server,
    /** Issues a token. */
    async token(sub, role) {
      const settings = { env: { PATH: process.env.PATH, RIDEWIRE_DATA_DIR: dataDir } };
      const { stdout } = await promisify(execFile)(BINARY, ['token', '--sub', sub, '--role', role], settings);
      return stdout.trim();
    },
    /** Starts another replica on the same database, with CORS for the pages of the first replica. */
    async replica() {
      const [url, secret] = await Promise.all([readFile(`${dataDir}/lock`, 'utf8'), readFile(`${dataDir}/jwt-secret`, 'utf8')]);
      return start(['serve'], { DATABASE_URL: url.trim(), RIDEWIRE_JWT_SECRET: secret, RIDEWIRE_CORS_ORIGINS: server.url });
    },
    async stop() {
      await server.stop();
      await rm(directory, { recursive: true });
    },
  };
}

async function start(args, env) {
  const child = spawn(BINARY, args, {
    env: { PATH: process.env.PATH, RIDEWIRE_LISTEN: '127.0.0.1:0', RIDEWIRE_LOG: 'warn', ...SETTINGS, ...env },
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
  return {
    url,
    async stop() {
      child.kill('SIGTERM');
      await exited;
    },
  };
}
