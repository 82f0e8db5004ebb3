import { once } from 'node:events';
import http from 'node:http';

const proxies = [];

export function closeProxies() {
  for (const proxy of proxies) proxy.close();
}

/**
 * Starts a proxy. `forwardResponse` is called with the request, the response, and the upstream's response. `intercept` may
 * respond before the upstream receives the request.
 */
export async function startProxy(target, handlers = {}) {
  const proxy = { ...handlers, requests: [] };
  const server = http.createServer((req, res) => {
    proxy.requests.push(`${req.method} ${req.url.split('?')[0]}`);
    if (proxy.intercept?.(req, res)) return;
    const options = { method: req.method, path: req.url, headers: req.headers };
    const upstream = http.request(proxy.target, options, (upstreamResponse) => {
      (proxy.forwardResponse ?? pass)(req, res, upstreamResponse);
      upstreamResponse.on('error', () => res.destroy());
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

export function isStream(upstreamResponse) {
  return upstreamResponse.headers['content-type'] === 'text/event-stream';
}

export function pass(req, res, upstreamResponse) {
  res.writeHead(upstreamResponse.statusCode, upstreamResponse.headers);
  res.flushHeaders();
  upstreamResponse.pipe(res);
  upstreamResponse.on('aborted', () => res.destroy());
}

/** Buffers a response until its end, as a proxy without support for streams does. */
export function buffer(req, res, upstreamResponse) {
  const chunks = [];
  upstreamResponse.on('data', (chunk) => chunks.push(chunk));
  upstreamResponse.on('end', () => {
    res.writeHead(upstreamResponse.statusCode, upstreamResponse.headers);
    res.end(Buffer.concat(chunks));
  });
}

/** Forwards some frames of a stream, then stalls it without closing it. */
export function stallAfter(frames) {
  return (req, res, upstreamResponse) => {
    if (!isStream(upstreamResponse)) return pass(req, res, upstreamResponse);
    res.writeHead(upstreamResponse.statusCode, upstreamResponse.headers);
    res.flushHeaders();
    let seen = 0;
    upstreamResponse.on('data', (chunk) => {
      seen += chunk.toString().split('\n\n').length - 1;
      if (seen <= frames) res.write(chunk);
    });
    return undefined;
  };
}

/** Cuts a stream after `count` chunks, in the middle of the next one. */
export function cutAfter(count) {
  return (req, res, upstreamResponse) => {
    if (!isStream(upstreamResponse)) return pass(req, res, upstreamResponse);
    res.writeHead(upstreamResponse.statusCode, upstreamResponse.headers);
    let seen = 0;
    upstreamResponse.on('data', (chunk) => {
      seen += 1;
      if (seen <= count) res.write(chunk);
      if (seen === count + 1) res.write(chunk.subarray(0, chunk.length / 2), () => res.destroy());
    });
    return undefined;
  };
}

/** Cuts each stream after `age` milliseconds. */
export function cutEvery(age) {
  return (req, res, upstreamResponse) => {
    pass(req, res, upstreamResponse);
    if (isStream(upstreamResponse)) setTimeout(() => res.destroy(), age).unref();
  };
}

/** Repeats the last `count` frames of a stream after each chunk and at the start of the next stream. */
export function replay(count) {
  let last = [];
  return (req, res, upstreamResponse) => {
    if (!isStream(upstreamResponse)) return pass(req, res, upstreamResponse);
    res.writeHead(upstreamResponse.statusCode, upstreamResponse.headers);
    const repeat = () => last.forEach((frame) => res.write(frame));
    repeat();
    upstreamResponse.on('data', (chunk) => {
      res.write(chunk);
      const frames = chunk.toString().split(/(?<=\n\n)/);
      last = [...last, ...frames.filter((frame) => frame.startsWith('id: '))].slice(-count);
      repeat();
    });
    return undefined;
  };
}
