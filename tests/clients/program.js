import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../../docs/', import.meta.url));
const PATIENCE = 120_000;

/** A program of the documents that runs: what it prints, line by line, and how it ends. */
export class Program {
  static #all = [];

  static {
    process.on('exit', () => Program.#all.forEach((program) => program.#end()));
  }

  /** What a test that failed has left. */
  static async endAll() {
    await Promise.all(Program.#all.map((program) => program.kill()));
    await Promise.all(Program.#all.map(({ directory }) => rm(directory, { recursive: true, force: true })));
  }

  #lines = [];
  #waiting = new Set();
  errors = '';

  /**
   * @param {{command: string, args: string[]}} how with paths below `docs`, where they are not absolute
   * @param {Record<string, string>} env
   * @param {string} [directory] to run in; one of its own where none is given
   */
  constructor({ command, args }, env, directory = mkdtempSync('/tmp/ridewire-program-')) {
    Program.#all.push(this);
    this.directory = directory;
    const isBelowDocs = (arg) => /^(quickstart|stock-clients)\//.test(arg);
    const { PATH, HOME } = process.env;
    this.child = spawn(command, args.map((arg) => (isBelowDocs(arg) ? ROOT + arg : arg)), {
      cwd: directory,
      env: { PATH, HOME, STATE: directory, ...env },
      // A shell and what it has started are a group, and end together.
      detached: true,
    });
    let rest = '';
    // Not readline: for that, U+2028 ends a line.
    this.child.stdout.setEncoding('utf8').on('data', (text) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop();
      this.#lines.push(...lines);
      this.#look();
    });
    this.child.stderr.setEncoding('utf8').on('data', (text) => {
      this.errors += text;
      this.#look();
    });
    this.child.stdin.on('error', () => {}); // It may have ended.
    this.exited = once(this.child, 'close').then(([code]) => code);
  }

  #end() {
    try {
      process.kill(-this.child.pid, 'SIGKILL');
    } catch {
      // It has ended.
    }
  }

  async lines() {
    return this.#lines;
  }

  async say(line) {
    this.child.stdin.write(`${line}\n`);
  }

  /** Waits until it has printed a line that ends so. */
  async printed(end) {
    await this.#until(`a line that ends in ${end}`, () => this.#lines.some((line) => line.endsWith(end)));
  }

  /** Waits until it has said this of itself. */
  async told(what) {
    await this.#until(what, () => this.errors.includes(what));
  }

  /** Waits until it has ended well, and said so. */
  async isOver() {
    await this.#until('the end', () => this.errors.includes('the end'));
    const code = await this.exited;
    if (code !== 0) throw new Error(`it ended with ${code}: ${this.errors}`);
  }

  /** Waits until it has ended because its token is refused. */
  async isRefused() {
    await this.#until('sign in again', () => this.errors.includes('sign in again'));
    const code = await this.exited;
    if (code !== 1) throw new Error(`it ended with ${code}: ${this.errors}`);
  }

  async kill() {
    this.#end();
    await this.exited;
  }

  #until(what, holds) {
    return new Promise((resolve, reject) => {
      const failed = (why) => reject(new Error(`${why} ${what}; it printed:\n${this.#lines.join('\n')}\n${this.errors}`));
      const timer = setTimeout(() => failed('waited in vain for'), PATIENCE);
      const waiting = { holds, done: () => (clearTimeout(timer), resolve()) };
      this.#waiting.add(waiting);
      this.exited.then(() => {
        clearTimeout(timer);
        if (this.#waiting.has(waiting)) failed('it ended without');
      });
      this.#look();
    });
  }

  #look() {
    for (const waiting of this.#waiting) {
      if (!waiting.holds()) continue;
      this.#waiting.delete(waiting);
      waiting.done();
    }
  }
}
