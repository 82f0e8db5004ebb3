/** Runs the commands of docs/tutorial/quickstart.md, and checks that the code in docs/how-to/stock-clients.md is that of its files. */
import assert from 'node:assert/strict';
import { access, readFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { SECRET, startServer } from '../../clients/js/test/server.js';
import { Program } from './program.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const QUICKSTART = new URL('../../docs/tutorial/quickstart.md', import.meta.url);
const STOCK_CLIENTS = new URL('../../docs/how-to/stock-clients.md', import.meta.url);
const read = (page) => readFile(page, 'utf8');

/** Returns a document's code blocks in these languages, each with the last program linked before it. */
function blocks(text, languages) {
  let file;
  const found = [];
  const programs = /\]\(((?:\.\.\/tutorial\/)?(?:quickstart|stock-clients)\/[\w/.-]+)\)|^```(\w+)\n(.*?)^```$/gms;
  for (const [, link, language, block] of text.matchAll(programs)) {
    file = link ?? file;
    if (languages.includes(language)) found.push({ file, block });
  }
  return found;
}

const [SETUP, ...starts] = blocks(await read(QUICKSTART), ['bash']);
const { RIDEWIRE_PYTHON, RIDEWIRE_JAVA, RIDEWIRE_JQ } = process.env;
const INSTALLED = { '.py': RIDEWIRE_PYTHON, '.java': RIDEWIRE_JAVA, '.sh': RIDEWIRE_JQ, '.js': 'node' };

let server;
before(async () => {
  server = await startServer();
});
after(async () => {
  await Program.killAll();
  await server.stop();
});

/** Runs blocks in a shell, with this test's server, ride and binary in place of the document's. */
function paste(rideId, ...pasted) {
  const script = pasted
    .join('\n')
    .replaceAll('http://127.0.0.1:8080', server.url)
    .replaceAll('target/release/ridewire', process.env.RIDEWIRE_BIN)
    .replaceAll('ride_42', rideId)
    .replaceAll('target/phone', '"$STATE"/phone');
  const args = ['-ec', `cd "$REPOSITORY"\n${script}`];
  return new Program({ command: 'sh', args }, { REPOSITORY: ROOT, RIDEWIRE_JWT_SECRET: SECRET });
}

describe('the quick start page', { concurrency: 4 }, () => {
  test('names each program and its start command', () => {
    const files = starts.map(({ file }) => file.replace('quickstart/', ''));
    // Python has a block to install its packages, and one for each transport.
    const expected = ['curl/chat.sh', 'node/chat.js', 'node/fetch.js', ...Array(3).fill('python/chat.py'), 'java/Chat.java'];
    assert.deepEqual(files, expected);
  });

  for (const [number, { file, block }] of starts.entries()) {
    // scripts/quickstarts.sh has installed the packages already.
    if (block.includes('pip install')) continue;
    const skip = !INSTALLED[file.match(/\.\w+$/)[0]] && 'its requirements are not installed';
    test(`works as written: ${block.trim()}`, { skip }, async () => {
      const shell = paste(`ride_of_start_${number}`, SETUP.block, block);
      await shell.send('hello');
      await shell.waitForLine('driver_1: hello');
      await shell.kill();
    });
  }
});

test('the links of the pages have a target', async () => {
  for (const page of [QUICKSTART, STOCK_CLIENTS]) {
    const links = [...(await read(page)).matchAll(/\]\(([\w/.-]+)\)/g)].map(([, link]) => link);
    assert.ok(links.length > 5);
    for (const link of links) await access(new URL(link, page));
  }
});

test('the page of stock clients shows the code of their files', async () => {
  const shown = blocks(await read(STOCK_CLIENTS), ['js', 'python', 'sh']);
  assert.ok(shown.length > 5);
  for (const { file, block } of shown) {
    assert.ok((await read(new URL(file, STOCK_CLIENTS))).includes(block), `${file} does not contain:\n${block}`);
  }
});
