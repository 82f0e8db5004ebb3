/** The programs of docs/tutorial/quickstart, unchanged, against a real server. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { EventCollector, sendNumbers } from '../../clients/js/test/event-collector.js';
import { closeProxies, pass, stallAfter, startProxy } from '../../clients/js/test/proxy.js';
import { newRide, startServer, token } from '../../clients/js/test/server.js';
import { Program } from './program.js';
import {
  SHORT_RETENTION,
  endsWhenTokenIsRevoked,
  endsWhenDriverIsReplaced,
  survivesAllFaults,
  printedLog,
  reportsGap,
} from './scenario.js';

/**
 * Python with the packages of requirements.txt, the path of the Java classes, and jq. Each is unset if
 * scripts/quickstarts.sh could not install it.
 */
const { RIDEWIRE_PYTHON, RIDEWIRE_JAVA, RIDEWIRE_JQ } = process.env;

const JAVA = { command: RIDEWIRE_JAVA && 'java', args: ['-XX:TieredStopAtLevel=1', '-cp', RIDEWIRE_JAVA, 'Chat'] };
const PROGRAMS = {
  'node/chat.js': { command: process.execPath, args: ['tutorial/quickstart/node/chat.js'] },
  'node/fetch.js': { command: process.execPath, args: ['tutorial/quickstart/node/fetch.js'] },
  'curl/chat.sh': { command: RIDEWIRE_JQ && 'sh', args: ['tutorial/quickstart/curl/chat.sh'] },
  'python/chat.py': { command: RIDEWIRE_PYTHON, args: ['tutorial/quickstart/python/chat.py'] },
  'python/chat.py --poll': { command: RIDEWIRE_PYTHON, args: ['tutorial/quickstart/python/chat.py', '--poll'] },
  'java/Chat.java': JAVA,
};

let server;
let shortRetention;
before(async () => {
  const env = { RIDEWIRE_CHAT_GRACE: '1s', RIDEWIRE_HEARTBEAT: '1s' };
  [server, shortRetention] = await Promise.all([startServer(env), startServer(SHORT_RETENTION)]);
  const replica = server.replica;
  server.replica = () => replica(env);
});
after(async () => {
  await Program.killAll();
  EventCollector.closeAll();
  closeProxies();
  await Promise.all([server.stop(), shortRetention.stop()]);
});

const starter = (how) => async ({ url, rideId, token: TOKEN }) => new Program(how, { SERVER: url, RIDE: rideId, TOKEN });

describe('a quick start', { concurrency: 8 }, () => {
  for (const [name, how] of Object.entries(PROGRAMS)) {
    const skip = !how.command && 'its requirements are not installed';
    test(`survives all faults: ${name}`, { skip }, () => survivesAllFaults(server, starter(how)));
    test(`ends when its token is revoked: ${name}`, { skip }, () => endsWhenTokenIsRevoked(server, starter(how)));
    test(`ends when the driver is replaced: ${name}`, { skip }, () => endsWhenDriverIsReplaced(server, starter(how)));
    test(`reports expired events: ${name}`, { skip }, () => reportsGap(shortRetention, starter(how)));
  }

  for (const name of ['node/fetch.js', 'python/chat.py']) {
    const { [name]: how } = PROGRAMS;
    test(`detects a stalled stream: ${name}`, { skip: !how.command && 'its requirements are not installed' }, async () => {
      const proxy = await startProxy(server.url, { forwardResponse: stallAfter(6) });
      const { rideId, rider } = await newRide(server);
      await rider.send(rideId, '1');
      const env = { SERVER: proxy.url, RIDE: rideId, TOKEN: token('driver_1', 'driver'), SILENCE: '3' };
      const program = new Program(how, env);
      await program.waitForLine(': 1');
      // The open stream is stalled without being closed. The next one works.
      await sendNumbers(rider, rideId, 2, 10);
      proxy.forwardResponse = pass;
      await program.waitForLine(': 10');
      assert.deepEqual(await program.lines(), await printedLog(rider, rideId));
      await program.kill();
    });
  }

  test('resumes after it was killed: java/Chat.java', { skip: !JAVA.command && 'no JDK is installed' }, async () => {
    const { rideId, rider } = await newRide(server);
    const follower = new EventCollector(rider.ride(rideId));
    await follower.became('live');
    const env = { SERVER: server.url, RIDE: rideId, TOKEN: token('driver_1', 'driver') };
    const first = new Program(JAVA, env);
    const hello = await rider.send(rideId, 'hello');
    // The program marks the messages that it has stored as read.
    const isRead = ({ type, data }) => type === 'message:read' && data.seq === hello.seq;
    await follower.until('a read receipt', () => follower.durable.some(isRead));
    await first.kill();

    await rider.send(rideId, 'are you there?');
    const second = new Program(JAVA, env, first.directory);
    await second.send('again');
    await second.waitForLine('driver_1: again');
    const lines = [...(await first.lines()), ...(await second.lines())];
    assert.deepEqual(lines, await printedLog(rider, rideId));
  });
});
