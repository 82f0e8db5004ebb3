import { once } from 'node:events';
import http from 'node:http';

const proxies = [];

export function closeProxies() {
  for (const proxy of proxies) proxy.close();
}

/**
 * A proxy that does to each answer what `treat` says: a function of the request, the response, and the upstream's
 * response, which pipes or does not. `refuse` may answer before the upstream is asked.
 */
export async function startProxy(target, treatments = {}) {
  const proxy = { ...treatments, requests: [] };
  const server = http.createServer((req, res) => {
    proxy.requests.push(`${req.method} ${req.url.split('?')[0]}`);
    if (proxy.refuse?.(req, res)) return;
    const options = { method: req.method, path: req.url, headers: req.headers };
    const upstream = http.request(proxy.target, options, (answer) => {
      (proxy.treat ?? pass)(req, res, answer);
      answer.on('error', () => res.destroy());
    });
    upstream.on('error', () => res.destroy());
    res.on('close', () => upstream.destroy());
    req.pipe(upstream);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  proxy.target = target;
  proxy.url = `http://127.0.0.1:${server.address().port}`;
  proxy.cut = () => server.closeAllConnections();
  proxy.close = () => {
    server.closeAllConnections();
    server.close();
  };
  proxies.push(proxy);
  return proxy;
}

export function isStream(answer) {
  return answer.headers['content-type'] === 'text/event-stream';
}

export function pass(req, res, answer) {
  res.writeHead(answer.statusCode, answer.headers);
  res.flushHeaders();
  answer.pipe(res);
  answer.on('aborted', () => res.destroy());
}

/** Keeps an answer until its end, as a proxy does that has not heard of streams. */
export function buffer(req, res, answer) {
  const chunks = [];
  answer.on('data', (chunk) => chunks.push(chunk));
  answer.on('end', () => {
    res.writeHead(answer.statusCode, answer.headers);
    res.end(Buffer.concat(chunks));
  });
}

/** Lets a stream pass for a while, then no more, without closing it. */
export function stallAfter(frames) {
  return (req, res, answer) => {
    if (!isStream(answer)) return pass(req, res, answer);
    res.writeHead(answer.statusCode, answer.headers);
    res.flushHeaders();
    let seen = 0;
    answer.on('data', (chunk) => {
      seen += chunk.toString().split('\n\n').length - 1;
      if (seen <= frames) res.write(chunk);
    });
    return undefined;
  };
}

/** Cuts a stream after so many chunks, in the middle of the last. */
export function cutAfter(count) {
  return (req, res, answer) => {
    if (!isStream(answer)) return pass(req, res, answer);
    res.writeHead(answer.statusCode, answer.headers);
    let seen = 0;
    answer.on('data', (chunk) => {
      seen += 1;
      if (seen <= count) res.write(chunk);
      if (seen === count + 1) res.write(chunk.subarray(0, chunk.length / 2), () => res.destroy());
    });
    return undefined;
  };
}

/** Cuts each stream when it is so old, in milliseconds. */
export function cutEvery(age) {
  return (req, res, answer) => {
    pass(req, res, answer);
    if (isStream(answer)) setTimeout(() => res.destroy(), age).unref();
  };
}

/** Says the last few frames of a stream again, behind each chunk and at the beginning of the next stream. */
export function replay(count) {
  let last = [];
  return (req, res, answer) => {
    if (!isStream(answer)) return pass(req, res, answer);
    res.writeHead(answer.statusCode, answer.headers);
    const again = () => last.forEach((frame) => res.write(frame));
    again();
    answer.on('data', (chunk) => {
      res.write(chunk);
      const frames = chunk.toString().split(/(?<=\n\n)/);
      last = [...last, ...frames.filter((frame) => frame.startsWith('id: '))].slice(-count);
      again();
    });
    return undefined;
  };
}
