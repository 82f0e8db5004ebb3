/** The page of docs/quickstart/browser, in Chromium, from another site than the server's. */
import { after, before, describe, test } from 'node:test';

import { Follower } from '../../clients/js/test/follower.js';
import { closeProxies } from '../../clients/js/test/proxy.js';
import { startServer } from '../../clients/js/test/server.js';
import { Page, serveDocs } from './page.js';
import {
  FORGETFUL,
  endsWithItsLogin,
  endsWithItsRights,
  goesThroughEverything,
  tellsWhatIsNoLongerKept,
} from './scenario.js';

const skip = !process.env.CHROMIUM && 'Chromium is not installed';

let docs;
let server;
let forgetful;
let browser;
before(async () => {
  if (skip) return;
  docs = await serveDocs();
  const cors = { RIDEWIRE_CORS_ORIGINS: docs.url };
  const env = { RIDEWIRE_CHAT_GRACE: '1s', RIDEWIRE_HEARTBEAT: '1s', ...cors };
  [server, forgetful] = await Promise.all([startServer(env), startServer({ ...FORGETFUL, ...cors })]);
  const replica = server.replica;
  server.replica = () => replica(env);
  browser = await (await import('../../web/test/browser.js')).launch();
});
after(async () => {
  await browser?.close();
  Follower.closeAll();
  closeProxies();
  docs?.close();
  await Promise.all([server?.stop(), forgetful?.stop()]);
});

const start = (at) => Page.open(browser, docs, at);

describe('the page', { concurrency: true, skip }, () => {
  test('goes through everything that may happen', () => goesThroughEverything(server, start));
  test('ends with its login', () => endsWithItsLogin(server, start));
  test('ends with its rights', () => endsWithItsRights(server, start));
  test('tells what is gone', () => tellsWhatIsNoLongerKept(forgetful, start));
});
