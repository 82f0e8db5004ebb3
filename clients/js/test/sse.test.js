import assert from 'node:assert/strict';
import { test } from 'node:test';

import { SseParser } from '../src/sse.js';

function parse(chunks) {
  const [frames, retries] = [[], []];
  const parser = new SseParser((frame) => frames.push(frame), (ms) => retries.push(ms));
  for (const chunk of chunks) parser.push(chunk);
  return { frames, retries };
}

const bytes = (text) => new TextEncoder().encode(text);

const TEXT =
  '\uFEFF:\n\nretry: 1500\nid: 7\nevent: message:new\ndata: {"content":"a 🚕 für dich"}\n\n' +
  'event:x\rdata:no space\rdata:  two\r\rid: 8\r\ndata\r\n\r\nretry: soon\nevent: without data\n\ndata: cut off';

const FRAMES = [
  { type: 'message:new', id: '7', data: '{"content":"a 🚕 für dich"}' },
  { type: 'x', id: undefined, data: 'no space\n two' },
  { type: 'message', id: '8', data: '' },
];

test('a stream is parsed as the standard requires', () => {
  assert.deepEqual(parse([bytes(TEXT)]), { frames: FRAMES, retries: [1500] });
});

test('a stream may be split anywhere, also within a character or a CRLF', () => {
  const whole = bytes(TEXT);
  for (let at = 0; at <= whole.length; at += 1) {
    assert.deepEqual(parse([whole.subarray(0, at), whole.subarray(at)]).frames, FRAMES, `cut at ${at}`);
  }
  assert.deepEqual(parse(Array.from(whole, (byte) => Uint8Array.of(byte))).frames, FRAMES);
});

test('an id that contains NUL is ignored', () => {
  assert.equal(parse([bytes('id: a\0b\ndata: x\n\n')]).frames[0].id, undefined);
});
