import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../../docs/', import.meta.url));
const TIMEOUT = 120_000;

/** A running program of the documents: its input, its output line by line, and its exit. */
export class Program {
  static #all = [];

  static {
    process.on('exit', () => Program.#all.forEach((program) => program.#kill()));
  }

  /** Kills all programs, also those that a failed test has left running. */
  static async killAll() {
    await Promise.all(Program.#all.map((program) => program.kill()));
    await Promise.all(Program.#all.map(({ directory }) => rm(directory, { recursive: true, force: true })));
  }

  #lines = [];
  #waiting = new Set();
  errors = '';

  /**
   * @param {{command: string, args: string[]}} how paths are relative to `docs` or absolute
   * @param {Record<string, string>} env
   * @param {string} [directory] the working directory; a new one by default
   */
  constructor({ command, args }, env, directory = mkdtempSync('/tmp/ridewire-program-')) {
    Program.#all.push(this);
    this.directory = directory;
    const isBelowDocs = (arg) => /^(tutorial|how-to)\//.test(arg);
    const { PATH, HOME } = process.env;
    this.child = spawn(command, args.map((arg) => (isBelowDocs(arg) ? ROOT + arg : arg)), {
      cwd: directory,
      env: { PATH, HOME, STATE: directory, ...env },
      // A shell and its children are one process group, which is killed as a whole.
      detached: true,
    });
    let rest = '';
    // Not readline, which treats U+2028 as the end of a line.
    this.child.stdout.setEncoding('utf8').on('data', (text) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop();
      this.#lines.push(...lines);
      this.#check();
    });
    this.child.stderr.setEncoding('utf8').on('data', (text) => {
      this.errors += text;
      this.#check();
    });
    this.child.stdin.on('error', () => {}); // The program may have exited.
    this.exited = once(this.child, 'close').then(([code]) => code);
  }

  #kill() {
    try {
      process.kill(-this.child.pid, 'SIGKILL');
    } catch {
      // The program has exited.
    }
  }

  async lines() {
    return this.#lines;
  }

  async send(line) {
    this.child.stdin.write(`${line}\n`);
  }

  /** Waits for a line on standard output that ends with this text. */
  async waitForLine(end) {
    await this.#waitFor(`a line that ends in ${end}`, () => this.#lines.some((line) => line.endsWith(end)));
  }

  /** Waits for this text on standard error. */
  async reported(what) {
    await this.#waitFor(what, () => this.errors.includes(what));
  }

  /** Waits until the program reports the end and exits with 0. */
  async waitForEnd() {
    await this.#waitFor('the end', () => this.errors.includes('the end'));
    const code = await this.exited;
    if (code !== 0) throw new Error(`the program exited with ${code}: ${this.errors}`);
  }

  /** Waits until the program exits with 1 because its token is rejected. */
  async waitForRejection() {
    await this.#waitFor('sign in again', () => this.errors.includes('sign in again'));
    const code = await this.exited;
    if (code !== 1) throw new Error(`the program exited with ${code}: ${this.errors}`);
  }

  async kill() {
    this.#kill();
    await this.exited;
  }

  #waitFor(what, condition) {
    return new Promise((resolve, reject) => {
      const failed = (why) => reject(new Error(`${why} ${what}; its output was:\n${this.#lines.join('\n')}\n${this.errors}`));
      const timer = setTimeout(() => failed('timeout while waiting for'), TIMEOUT);
      const waiting = { condition, done: () => (clearTimeout(timer), resolve()) };
      this.#waiting.add(waiting);
      this.exited.then(() => {
        clearTimeout(timer);
        if (this.#waiting.has(waiting)) failed('the program exited without');
      });
      this.#check();
    });
  }

  #check() {
    for (const waiting of this.#waiting) {
      if (!waiting.condition()) continue;
      this.#waiting.delete(waiting);
      waiting.done();
    }
  }
}
