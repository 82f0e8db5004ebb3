/** Checks openapi.yaml with client generators and a linter, and compares it with the types of the JavaScript client. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const DOCUMENT = `${ROOT}openapi.yaml`;
const NODE = `${ROOT}target/contracts-node/`;
const PYTHON = `${ROOT}target/contracts-python/bin/`;
/** The output directory of the tools. */
const OUTPUT = `${ROOT}target/contracts/`;

const { parse } = createRequire(NODE)('yaml');
const document = parse(readFileSync(DOCUMENT, 'utf8'));
const schemas = Object.entries(document.components.schemas);
const operations = Object.values(document.paths).flatMap((item) =>
  ['get', 'put', 'post', 'patch', 'delete'].map((method) => item[method]?.operationId).filter(Boolean));

/** Runs a program with telemetry and update checks off, and returns its output. */
function run(program, args, cwd = OUTPUT) {
  const env = { ...process.env, REDOCLY_TELEMETRY: 'off', REDOCLY_SUPPRESS_UPDATE_NOTICE: 'true', NO_COLOR: '1' };
  const { status, stdout, stderr, error } = spawnSync(program, args, { cwd, env, encoding: 'utf8', timeout: 240_000 });
  assert.ifError(error);
  return { status, stdout, output: stdout + stderr };
}

const nodeTool = (name) => `${NODE}node_modules/.bin/${name}`;

before(() => {
  rmSync(OUTPUT, { recursive: true, force: true });
  mkdirSync(OUTPUT, { recursive: true });
});

test('redocly reports no problem', () => {
  const args = ['lint', DOCUMENT, '--config', `${ROOT}tests/contracts/redocly.yaml`, '--format', 'json', '--max-problems', '1000'];
  const { stdout, output } = run(nodeTool('redocly'), args);
  assert.match(stdout, /^\{/, output);
  const problems = JSON.parse(stdout).problems.map(({ ruleId, severity, message, location }) =>
    `${severity} ${ruleId}: ${message} at ${location?.[0]?.pointer}`);
  assert.deepEqual(problems, []);
});

test('openapi-typescript reports no problem, and the types compile with every schema and operation', () => {
  const generated = run(nodeTool('openapi-typescript'), [DOCUMENT, '-o', `${OUTPUT}openapi.ts`]);
  assert.equal(generated.status, 0, generated.output);
  assert.doesNotMatch(generated.output, /warn|error|⚠|✖/i);
  // A missing type does not compile.
  const named = [
    "import type { components, operations } from './openapi';",
    ...schemas.map(([name]) => `export type Schema${name} = components['schemas']['${name}'];`),
    ...operations.map((name) => `export type Operation${name} = operations['${name}'];`),
  ];
  writeFileSync(`${OUTPUT}named.ts`, named.join('\n'));
  compile(['es2022'], 'named.ts', 'api.ts');
});

test('the types of the JavaScript client compile and match openapi.yaml', () => {
  const generated = run(nodeTool('openapi-typescript'), [DOCUMENT, '-o', `${OUTPUT}openapi.ts`]);
  assert.equal(generated.status, 0, generated.output);
  copyFileSync(`${ROOT}clients/js/index.d.ts`, `${OUTPUT}ridewire.d.ts`);
  compile(['es2022', 'dom'], 'client.ts');
});

/** Compiles files of this folder, and the generated ones, in strict mode. */
function compile(lib, ...files) {
  for (const file of files.filter((file) => file !== 'named.ts')) {
    copyFileSync(`${ROOT}tests/contracts/${file}`, `${OUTPUT}${file}`);
  }
  const compilerOptions = {
    strict: true,
    noEmit: true,
    exactOptionalPropertyTypes: true,
    target: 'es2022',
    module: 'esnext',
    moduleResolution: 'bundler',
    lib,
    types: [],
  };
  writeFileSync(`${OUTPUT}tsconfig.json`, JSON.stringify({ compilerOptions, files }));
  const { status, output } = run(nodeTool('tsc'), ['--project', 'tsconfig.json']);
  assert.equal(status, 0, output);
}

test('openapi-python-client reports no problem, and the client has every type and operation', () => {
  writeFileSync(`${OUTPUT}python.json`, JSON.stringify({ package_name_override: 'ridewire_api', post_hooks: [] }));
  const generated = run(`${PYTHON}openapi-python-client`, [
    'generate', '--path', DOCUMENT, '--config', 'python.json', '--meta', 'none', '--output-path', `${OUTPUT}ridewire_api`, '--fail-on-warning',
  ]);
  assert.equal(generated.status, 0, generated.output);
  assert.doesNotMatch(generated.output, /warning|error|unable|skipping/i);
  const isClass = ([, { type, enum: values }]) => type === 'object' || values;
  writeFileSync(`${OUTPUT}expected.json`, JSON.stringify({ schemas: schemas.filter(isClass).map(([name]) => name), operations, message: message() }));
  const checked = run(`${PYTHON}python`, [`${ROOT}tests/contracts/check.py`, OUTPUT]);
  assert.equal(checked.status, 0, checked.output);
  assert.match(checked.output, new RegExp(`^${schemas.filter(isClass).length} types and ${operations.length} operations$`, 'm'));
});

/** Returns the example message of docs/reference/events.md, which a server test compares with real events. */
function message() {
  const [, text] = readFileSync(`${ROOT}docs/reference/events.md`, 'utf8').split('### `message:new`');
  return JSON.parse(text.split('```json\n')[1].split('```')[0]);
}
