/** What docs/quickstart.md tells to paste is pasted; what docs/stock-clients.md shows stands in the files that it names. */
import assert from 'node:assert/strict';
import { access, readFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { SECRET, startServer } from '../../clients/js/test/server.js';
import { Program } from './program.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const read = (name) => readFile(new URL(`../../docs/${name}`, import.meta.url), 'utf8');

/** The blocks of a document that are in these languages, each with the program that is linked last before it. */
function blocks(text, languages) {
  let file;
  const found = [];
  const programs = /\]\(((?:quickstart|stock-clients)\/[\w/.-]+)\)|^```(\w+)\n(.*?)^```$/gms;
  for (const [, link, language, block] of text.matchAll(programs)) {
    file = link ?? file;
    if (languages.includes(language)) found.push({ file, block });
  }
  return found;
}

const [SETUP, ...starts] = blocks(await read('quickstart.md'), ['bash']);
const { RIDEWIRE_PYTHON, RIDEWIRE_JAVA, RIDEWIRE_JQ } = process.env;
const INSTALLED = { '.py': RIDEWIRE_PYTHON, '.java': RIDEWIRE_JAVA, '.sh': RIDEWIRE_JQ, '.js': 'node' };

let server;
before(async () => {
  server = await startServer();
});
after(async () => {
  await Program.endAll();
  await server.stop();
});

/** A shell in which blocks are pasted: on another server and ride than the document's, with the binary that is tested. */
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

describe('the page of quick starts', { concurrency: 4 }, () => {
  test('names each of the programs, and how to start it', () => {
    const files = starts.map(({ file }) => file.replace('quickstart/', ''));
    // Python's has one to install, and one for each way to follow.
    const expected = ['curl/chat.sh', 'node/chat.js', 'node/fetch.js', ...Array(3).fill('python/chat.py'), 'java/Chat.java'];
    assert.deepEqual(files, expected);
  });

  for (const [number, { file, block }] of starts.entries()) {
    // What scripts/quickstarts.sh has done already.
    if (block.includes('pip install')) continue;
    const skip = !INSTALLED[file.match(/\.\w+$/)[0]] && 'what it needs is not installed';
    test(`can be pasted: ${block.trim()}`, { skip }, async () => {
      const shell = paste(`ride_of_start_${number}`, SETUP.block, block);
      await shell.say('hello');
      await shell.printed('driver_1: hello');
      await shell.kill();
    });
  }
});

test('the pages link to what is there', async () => {
  for (const page of ['quickstart.md', 'stock-clients.md']) {
    const links = [...(await read(page)).matchAll(/\]\(([\w/.-]+)\)/g)].map(([, link]) => link);
    assert.ok(links.length > 5);
    for (const link of links) await access(new URL(`../../docs/${link}`, import.meta.url));
  }
});

test('the page of stock clients shows what stands in their files', async () => {
  const shown = blocks(await read('stock-clients.md'), ['js', 'python', 'sh']);
  assert.ok(shown.length > 5);
  for (const { file, block } of shown) {
    assert.ok((await read(file)).includes(block), `${file} does not say:\n${block}`);
  }
});
