/** The programs of docs/quickstart, each as it stands there, against a real server. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { Follower, sendNumbers } from '../../clients/js/test/follower.js';
import { closeProxies, pass, stallAfter, startProxy } from '../../clients/js/test/proxy.js';
import { newRide, startServer, token } from '../../clients/js/test/server.js';
import { Program } from './program.js';
import {
  FORGETFUL,
  endsWithItsLogin,
  endsWithItsRights,
  goesThroughEverything,
  printedLog,
  tellsWhatIsNoLongerKept,
} from './scenario.js';

/**
 * Python with what requirements.txt names, where Java's classes are, and jq: unset where scripts/quickstarts.sh could not have
 * them.
 */
const { RIDEWIRE_PYTHON, RIDEWIRE_JAVA, RIDEWIRE_JQ } = process.env;

const JAVA = { command: RIDEWIRE_JAVA && 'java', args: ['-XX:TieredStopAtLevel=1', '-cp', RIDEWIRE_JAVA, 'Chat'] };
const PROGRAMS = {
  'node/chat.js': { command: process.execPath, args: ['quickstart/node/chat.js'] },
  'node/fetch.js': { command: process.execPath, args: ['quickstart/node/fetch.js'] },
  'curl/chat.sh': { command: RIDEWIRE_JQ && 'sh', args: ['quickstart/curl/chat.sh'] },
  'python/chat.py': { command: RIDEWIRE_PYTHON, args: ['quickstart/python/chat.py'] },
  'python/chat.py --poll': { command: RIDEWIRE_PYTHON, args: ['quickstart/python/chat.py', '--poll'] },
  'java/Chat.java': JAVA,
};

let server;
let forgetful;
before(async () => {
  const env = { RIDEWIRE_CHAT_GRACE: '1s', RIDEWIRE_HEARTBEAT: '1s' };
  [server, forgetful] = await Promise.all([startServer(env), startServer(FORGETFUL)]);
  const replica = server.replica;
  server.replica = () => replica(env);
});
after(async () => {
  await Program.endAll();
  Follower.closeAll();
  closeProxies();
  await Promise.all([server.stop(), forgetful.stop()]);
});

const starter = (how) => async ({ url, rideId, token: TOKEN }) => new Program(how, { SERVER: url, RIDE: rideId, TOKEN });

describe('a quick start', { concurrency: 8 }, () => {
  for (const [name, how] of Object.entries(PROGRAMS)) {
    const skip = !how.command && 'what it is written for is not installed';
    test(`goes through everything that may happen: ${name}`, { skip }, () => goesThroughEverything(server, starter(how)));
    test(`ends with its login: ${name}`, { skip }, () => endsWithItsLogin(server, starter(how)));
    test(`ends with its rights: ${name}`, { skip }, () => endsWithItsRights(server, starter(how)));
    test(`tells what is gone: ${name}`, { skip }, () => tellsWhatIsNoLongerKept(forgetful, starter(how)));
  }

  for (const name of ['node/fetch.js', 'python/chat.py']) {
    const { [name]: how } = PROGRAMS;
    test(`notices a silence: ${name}`, { skip: !how.command && 'what it is written for is not installed' }, async () => {
      const proxy = await startProxy(server.url, { treat: stallAfter(6) });
      const { rideId, rider } = await newRide(server);
      await rider.send(rideId, '1');
      const env = { SERVER: proxy.url, RIDE: rideId, TOKEN: token('driver_1', 'driver'), SILENCE: '3' };
      const program = new Program(how, env);
      await program.printed(': 1');
      // The stream that there is lets nothing more pass, and does not end; the next one will do.
      await sendNumbers(rider, rideId, 2, 10);
      proxy.treat = pass;
      await program.printed(': 10');
      assert.deepEqual(await program.lines(), await printedLog(rider, rideId));
      await program.kill();
    });
  }

  test('of a phone goes on after it was killed: java/Chat.java', { skip: !JAVA.command && 'there is no JDK' }, async () => {
    const { rideId, rider } = await newRide(server);
    const follower = new Follower(rider.ride(rideId));
    await follower.became('live');
    const env = { SERVER: server.url, RIDE: rideId, TOKEN: token('driver_1', 'driver') };
    const first = new Program(JAVA, env);
    const hello = await rider.send(rideId, 'hello');
    // It marks what it has kept.
    const isRead = ({ type, data }) => type === 'message:read' && data.seq === hello.seq;
    await follower.until('a mark', () => follower.durable.some(isRead));
    await first.kill();

    await rider.send(rideId, 'are you there?');
    const second = new Program(JAVA, env, first.directory);
    await second.say('again');
    await second.printed('driver_1: again');
    const lines = [...(await first.lines()), ...(await second.lines())];
    assert.deepEqual(lines, await printedLog(rider, rideId));
  });
});
