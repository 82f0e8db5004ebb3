/**
 * Measures the prose of the files that the command line names: Markdown, and the doc comments of Rust, JavaScript and
 * TypeScript. `scripts/prose.sh` runs it and documents its output.
 */
import { readFileSync } from 'node:fs';
import { parse } from '@textlint/markdown-to-ast';
import { split } from 'sentence-splitter';
import writeGood from 'write-good';

/** A longer sentence fails the run. */
const MAX_WORDS = 35;
/** A higher mean fails the run. */
const MAX_MEAN = 16;

const PASSIVE = {
  passive: true, illusion: false, so: false, thereIs: false, weasel: false, adverb: false, tooWordy: false, cliches: false,
  eprime: false,
};

/** Nodes whose text is not a sentence. */
const NO_PROSE = new Set(['Header', 'CodeBlock', 'Table', 'Html', 'HtmlBlock', 'Definition', 'HorizontalRule', 'Image', 'Comment', 'Yaml']);

/** Returns the Markdown of a file with the line numbers of the file: lines that are not documentation are empty. */
function markdown(path, text) {
  if (path.endsWith('.md')) return text;
  if (path.endsWith('.rs')) {
    return text.split('\n').map((line) => /^\s*\/\/[/!](?!\/)\s?(.*)$/.exec(line)?.[1].replace(/^!\s?/, '') ?? '').join('\n');
  }
  // JavaScript and TypeScript: each tag of a `/** */` comment becomes an item of a list.
  let isInside = false;
  return text.split('\n').map((line) => {
    let rest = line;
    if (!isInside) {
      const start = /^\s*\/\*\*(?!\/)(.*)$/.exec(line);
      if (!start) return '';
      isInside = true;
      rest = start[1];
    }
    const end = rest.indexOf('*/');
    if (end >= 0) {
      isInside = false;
      rest = rest.slice(0, end);
    }
    return rest.replace(/^\s*\* ?/, '').replace(/^\s/, '')
      .replace(/^@(typedef|type|template|import|satisfies)\b.*$/, '')
      .replace(/@\w+ (\{.*\} )?(\[?[\w.]+\]?( |$))?/g, '\n').replace(/\n/g, '- ')
      .replace(/^- $/, '');
  }).join('\n');
}

/** Appends the characters of a node to `out`, each with its offset in the Markdown. Inline code becomes one word. */
function flatten(node, source, out) {
  if (node.type === 'Code') {
    out.push(...[...'Code'].map((char) => [char, node.range[0]]));
  } else if (node.type === 'Str') {
    for (let at = node.range[0]; at < node.range[1]; at += 1) out.push([source[at] === '\n' ? ' ' : source[at], at]);
  } else if (node.type === 'Break') {
    out.push([' ', node.range[0]]);
  } else if (!NO_PROSE.has(node.type)) {
    for (const child of node.children ?? []) flatten(child, source, out);
  }
}

/** Yields the paragraphs of a tree; an item of a list without a paragraph of its own is one too. */
function* paragraphs(node) {
  if (NO_PROSE.has(node.type)) return;
  if (node.type === 'Paragraph') yield node;
  else for (const child of node.children ?? []) yield* paragraphs(child);
}

/** Yields the sentences of a file: the line on which each starts, its text and the number of its words. */
function* sentences(path) {
  const source = markdown(path, readFileSync(path, 'utf8'));
  const lineOf = (offset) => source.slice(0, offset).split('\n').length;
  for (const paragraph of paragraphs(parse(source))) {
    const chars = [];
    flatten(paragraph, source, chars);
    const text = chars.map(([char]) => char).join('');
    for (const node of split(text)) {
      if (node.type !== 'Sentence') continue;
      const words = node.raw.split(/\s+/).filter((word) => /[\p{L}\p{N}]/u.test(word)).length;
      const start = node.range[0] + (node.raw.length - node.raw.trimStart().length);
      if (words > 0) yield { path, line: lineOf(chars[start]?.[1] ?? 0), text: node.raw.trim(), words };
    }
  }
}

const all = process.argv.slice(2).flatMap((path) => [...sentences(path)]);
const words = all.reduce((sum, sentence) => sum + sentence.words, 0);
const long = all.filter((sentence) => sentence.words > MAX_WORDS);
const passive = all.filter((sentence) => writeGood(sentence.text, PASSIVE).length > 0);
const mean = all.length ? words / all.length : 0;

for (const { path, line, words: length, text } of long) {
  console.log(`${path}:${line}: ${length} words: ${text.slice(0, 100)}${text.length > 100 ? '…' : ''}`);
}
if (process.env.PROSE_PASSIVE) for (const { path, line, text } of passive) console.log(`${path}:${line}: passive: ${text}`);
console.log(`sentences: ${all.length}`);
console.log(`words per sentence: ${mean.toFixed(1)} (limit ${MAX_MEAN})`);
console.log(`sentences over ${MAX_WORDS} words: ${long.length} (limit 0)`);
console.log(`passive sentences: ${all.length ? ((100 * passive.length) / all.length).toFixed(1) : 0} %`);
process.exitCode = mean > MAX_MEAN || long.length > 0 ? 1 : 0;
