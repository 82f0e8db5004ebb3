/** What may lie between a client and the server, for `startProxy`: connections that are reset, and answers that are lost. */
import { isStream, pass } from '../../clients/js/test/proxy.js';

/** Places in a frame, none of them its end: after its id, and within its data. */
export const PLACES = [
  (frame) => frame.indexOf('\n') + 1,
  (frame) => frame.indexOf('data: ') + 20,
];

const isPoll = (req) => /\/poll\?/.test(req.url);
const isSend = (req) => req.method === 'POST' && req.url === '/api/v1/messages';

/** Sends the first bytes of an answer, and then a reset in place of the rest. */
function reset(res, bytes) {
  res.write(bytes, () => res.socket?.resetAndDestroy());
}

/**
 * Resets the first streams in the middle of a message, one at each of these places, and as many polls in the middle of their
 * answer; and loses the first answer to each message that is sent. Counts what it has done.
 *
 * What has come before a reset and was not read may be gone with it. Who has to see it is given time: `holds` leaves the
 * reset to `done.reset()`.
 */
export function troubles({ places = PLACES, holds = false } = {}) {
  const done = { cuts: 0, lost: new Set(), holds };
  const treat = (req, res, answer) => {
    if (isSend(req) && answer.statusCode === 201) {
      done.lost.add(answer.headers.location);
      return res.destroy();
    }
    if (done.cuts === places.length || answer.statusCode !== 200) return pass(req, res, answer);
    if (isStream(answer)) return cutStream(res, answer, places, done);
    if (isPoll(req)) return cutPoll(res, answer, done);
    return pass(req, res, answer);
  };
  return { done, treat };
}

/** Lets two messages pass, so that each stream gets further, and a part of the third. */
function cutStream(res, answer, places, done) {
  res.writeHead(answer.statusCode, answer.headers);
  let [rest, seen] = ['', 0];
  answer.setEncoding('utf8');
  answer.on('data', (chunk) => {
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
      passed += frame.slice(0, places[done.cuts](frame));
      done.cuts += 1;
      done.reset = () => res.socket?.resetAndDestroy();
      return done.holds ? res.write(passed) : reset(res, passed);
    }
    if (passed !== '') res.write(passed);
    return undefined;
  });
  answer.on('end', () => res.end());
}

function cutPoll(res, answer, done) {
  res.writeHead(answer.statusCode, answer.headers);
  const chunks = [];
  answer.on('data', (chunk) => chunks.push(chunk));
  answer.on('end', () => {
    const body = Buffer.concat(chunks);
    if (JSON.parse(body).events.length === 0) return res.end(body);
    done.cuts += 1;
    return reset(res, body.subarray(0, body.length / 2));
  });
}

/** Answers 502 to whoever wants to follow, until that was in vain so often. */
export function refusing(proxy, times) {
  let refused = 0;
  return new Promise((resolve) => {
    proxy.refuse = (req, res) => {
      if (!/\/(events|poll)\?|\/events$/.test(req.url)) return false;
      refused += 1;
      if (refused === times) {
        proxy.refuse = undefined;
        resolve();
      }
      res.writeHead(502, { 'content-type': 'text/html' }).end('<h1>Bad gateway</h1>');
      return true;
    };
    proxy.cut();
  });
}

const STREAM = { 'content-type': 'text/event-stream', 'access-control-allow-origin': '*' };

/** For `startProxy`: answers each who wants to follow with this status. */
export function answering(status) {
  return {
    refuse: (req, res) => req.method === 'GET' && res.writeHead(status, { 'access-control-allow-origin': '*' }).end(),
  };
}

/**
 * For `startProxy`: asks each to come back after so many milliseconds, more than it would take by itself, and ends. Tells after
 * how long it came back the first two times: a slow machine makes it later, and never earlier.
 */
export function callingBack(pause) {
  const came = [];
  const treatment = {};
  treatment.pauses = new Promise((resolve) => {
    treatment.refuse = (_, res) => {
      came.push(performance.now());
      if (came.length === 3) resolve([came[1] - came[0], came[2] - came[1]]);
      res.writeHead(200, STREAM).end(`retry: ${pause}\n\n`);
      return true;
    };
  });
  return treatment;
}
