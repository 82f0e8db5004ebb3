import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';

import { sleep } from '../src/backoff.js';

/** Whether nginx is installed. */
export const hasNginx = (() => {
  try {
    execFileSync('nginx', ['-v'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
})();

/**
 * Starts an nginx that buffers responses, as its default configuration does. It then sends HTTP/1.0 requests, and ignores
 * `X-Accel-Buffering`.
 */
export async function startNginx(target) {
  const directory = await mkdtemp('/tmp/ridewire-nginx-');
  // When nginx runs as root, its workers run as another user, who needs access to the directory.
  await chmod(directory, 0o755);
  const port = await freePort();
  const configure = (buffering) => writeFile(`${directory}/nginx.conf`, configuration(directory, port, target, buffering));
  await configure('on');
  const args = ['-p', directory, '-c', `${directory}/nginx.conf`, '-e', `${directory}/error.log`, '-g', 'daemon off;'];
  const child = spawn('nginx', args, { stdio: ['ignore', 'ignore', 'inherit'] });
  const exited = once(child, 'exit');
  process.on('exit', () => child.kill('SIGTERM'));
  while (!(await isOpen(port))) await sleep(20);
  return {
    url: `http://127.0.0.1:${port}`,
    /** Applies to new connections. */
    async setBuffering(isOn) {
      await configure(isOn ? 'on' : 'off');
      child.kill('SIGHUP');
    },
    async stop() {
      child.kill('SIGTERM');
      await exited;
      await rm(directory, { recursive: true });
    },
  };
}

const configuration = (directory, port, target, buffering) => `
worker_processes 1;
pid ${directory}/pid;
events {}
http {
  access_log off;
  client_body_temp_path ${directory}/body;
  proxy_temp_path ${directory}/proxy;
  fastcgi_temp_path ${directory}/fastcgi;
  uwsgi_temp_path ${directory}/uwsgi;
  scgi_temp_path ${directory}/scgi;
  server {
    listen 127.0.0.1:${port};
    location / {
      proxy_pass ${target};
      proxy_set_header Host $http_host;
      proxy_buffering ${buffering};
      proxy_buffer_size 64k;
      proxy_buffers 8 64k;
      proxy_ignore_headers X-Accel-Buffering;
    }
  }
}
`;

async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

function isOpen(port) {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1', () => resolve(true));
    socket.on('error', () => resolve(false)).on('connect', () => socket.destroy());
  });
}
