/** Faults between a client and the server, for `startProxy`: connection resets, lost responses, and error responses. */
import { isStream, pass } from '../../clients/js/test/proxy.js';

/** Positions within a frame at which it is cut: after its id, and within its data. */
export const CUT_POSITIONS = [
  (frame) => frame.indexOf('\n') + 1,
  (frame) => frame.indexOf('data: ') + 20,
];

const isPoll = (req) => /\/poll\?/.test(req.url);
const isSend = (req) => req.method === 'POST' && req.url === '/api/v1/messages';

/** Sends the first bytes of a response and then resets the connection. */
function reset(res, bytes) {
  res.write(bytes, () => res.socket?.resetAndDestroy());
}

/**
 * Resets the first streams within a message, one at each of these positions, and as many polls within their response. Loses
 * the first response to each send. Counts the faults in `done`.
 *
 * A reset may discard bytes that the client has not read yet. With `holds`, the reset waits for `done.reset()`, so that the
 * client can read them first.
 */
export function injectFaults({ positions = CUT_POSITIONS, holds = false } = {}) {
  const done = { cuts: 0, lost: new Set(), holds };
  const forwardResponse = (req, res, response) => {
    if (isSend(req) && response.statusCode === 201) {
      done.lost.add(response.headers.location);
      return res.destroy();
    }
    if (done.cuts === positions.length || response.statusCode !== 200) return pass(req, res, response);
    if (isStream(response)) return cutStream(res, response, positions, done);
    if (isPoll(req)) return cutPoll(res, response, done);
    return pass(req, res, response);
  };
  return { done, forwardResponse };
}

/** Forwards two messages and a part of the third one, so each stream makes progress. */
function cutStream(res, response, positions, done) {
  res.writeHead(response.statusCode, response.headers);
  let [rest, seen] = ['', 0];
  response.setEncoding('utf8');
  response.on('data', (chunk) => {
    const frames = (rest + chunk).split(/(?<=\n\n)/);
    rest = frames.at(-1).endsWith('\n\n') ? '' : frames.pop();
    let passed = '';
    for (const frame of frames) {
      if (seen > 2) return;
      seen += Number(frame.includes('event: message:new'));
      if (seen <= 2) {
        passed += frame;
        continue;
      }
      passed += frame.slice(0, positions[done.cuts](frame));
      done.cuts += 1;
      done.reset = () => res.socket?.resetAndDestroy();
      return done.holds ? res.write(passed) : reset(res, passed);
    }
    if (passed !== '') res.write(passed);
    return undefined;
  });
  response.on('end', () => res.end());
}

function cutPoll(res, response, done) {
  res.writeHead(response.statusCode, response.headers);
  const chunks = [];
  response.on('data', (chunk) => chunks.push(chunk));
  response.on('end', () => {
    const body = Buffer.concat(chunks);
    if (JSON.parse(body).events.length === 0) return res.end(body);
    done.cuts += 1;
    return reset(res, body.subarray(0, body.length / 2));
  });
}

/** Responds with 502 to this many stream and poll requests, and cuts open connections. */
export function rejectTimes(proxy, times) {
  let rejected = 0;
  return new Promise((resolve) => {
    proxy.intercept = (req, res) => {
      if (!/\/(events|poll)\?|\/events$/.test(req.url)) return false;
      rejected += 1;
      if (rejected === times) {
        proxy.intercept = undefined;
        resolve();
      }
      res.writeHead(502, { 'content-type': 'text/html' }).end('<h1>Bad gateway</h1>');
      return true;
    };
    proxy.cut();
  });
}

const STREAM = { 'content-type': 'text/event-stream', 'access-control-allow-origin': '*' };

/** For `startProxy`: responds to each stream request with this status. */
export function respondWith(status) {
  return {
    intercept: (req, res) => req.method === 'GET' && res.writeHead(status, { 'access-control-allow-origin': '*' }).end(),
  };
}

/**
 * For `startProxy`: returns an empty stream with a `retry:` of so many milliseconds, which is more than the default. `pauses`
 * resolves to the first two reconnect delays. A slow machine makes them longer but never shorter.
 */
export function respondWithRetry(pause) {
  const times = [];
  const treatment = {};
  treatment.pauses = new Promise((resolve) => {
    treatment.intercept = (_, res) => {
      times.push(performance.now());
      if (times.length === 3) resolve([times[1] - times[0], times[2] - times[1]]);
      res.writeHead(200, STREAM).end(`retry: ${pause}\n\n`);
      return true;
    };
  });
  return treatment;
}
