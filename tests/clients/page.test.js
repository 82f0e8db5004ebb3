/** The page of docs/tutorial/quickstart/browser in Chromium, from another origin than the server. */
import { after, before, describe, test } from 'node:test';

import { EventCollector } from '../../clients/js/test/event-collector.js';
import { closeProxies } from '../../clients/js/test/proxy.js';
import { startServer } from '../../clients/js/test/server.js';
import { Page, serveDocs } from './page.js';
import {
  SHORT_RETENTION,
  endsWhenTokenIsRevoked,
  endsWhenDriverIsReplaced,
  survivesAllFaults,
  reportsGap,
} from './scenario.js';

const skip = !process.env.CHROMIUM && 'Chromium is not installed';

let docs;
let server;
let shortRetention;
let browser;
before(async () => {
  if (skip) return;
  docs = await serveDocs();
  const cors = { RIDEWIRE_CORS_ORIGINS: docs.url };
  const env = { RIDEWIRE_CHAT_GRACE: '1s', RIDEWIRE_HEARTBEAT: '1s', ...cors };
  [server, shortRetention] = await Promise.all([startServer(env), startServer({ ...SHORT_RETENTION, ...cors })]);
  const replica = server.replica;
  server.replica = () => replica(env);
  browser = await (await import('../../web/test/browser.js')).launch();
});
after(async () => {
  await browser?.close();
  EventCollector.closeAll();
  closeProxies();
  docs?.close();
  await Promise.all([server?.stop(), shortRetention?.stop()]);
});

const start = (at) => Page.open(browser, docs, at);

describe('the page', { concurrency: true, skip }, () => {
  test('survives all faults', () => survivesAllFaults(server, start));
  test('ends when its token is revoked', () => endsWhenTokenIsRevoked(server, start));
  test('ends when the driver is replaced', () => endsWhenDriverIsReplaced(server, start));
  test('reports expired events', () => reportsGap(shortRetention, start));
});
