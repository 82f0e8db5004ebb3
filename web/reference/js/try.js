import { h, say, spoken } from '/console/js/dom.js';
import { icon } from '/console/js/icons.js';
import { Answer } from './answer.js';
import { exchange } from './exchange.js';
import { method } from './operation.js';
import { build, curl } from './request.js';

/** How long it is said that something was copied. */
const COPIED = 2_000;

/** The panel that tries an operation: what to send, the same for curl, what was answered. */
export class Try {
  #spec;
  #operation;
  #who;
  #known;
  #inputs = new Map();
  #body;
  #answer = new Answer();
  #command = h('code');
  #send;
  #stop;
  /** Ends what is going on; undefined while nothing is. */
  #abort;
  /** The inputs that a person has filled in: these are not touched any more. */
  #touched = new Set();

  /** @param {import('./spec.js').Spec} spec @param {import('./spec.js').Operation} operation */
  constructor(spec, operation, { who, known }) {
    this.#spec = spec;
    this.#operation = operation;
    this.#who = who;
    this.#known = known;
    this.element = this.#build();
    this.#fill();
    known.addEventListener('change', () => this.#fill());
    who.addEventListener('change', () => this.#changed());
    this.#answer.suggest(spec, usual(operation.answers));
  }

  get #request() {
    const values = Object.fromEntries([...this.#inputs].map(([name, input]) => [name, input.value]));
    return build(this.#operation, values, this.#body?.value ?? '');
  }

  /** What a person has not written yet is what is known best. */
  #fill() {
    for (const { name, in: place, schema } of this.#operation.parameters) {
      const input = this.#inputs.get(name);
      if (place === 'path' && !this.#touched.has(input)) input.value = this.#known.parameter(name, this.#spec.example(schema));
    }
    if (this.#body && !this.#touched.has(this.#body)) {
      this.#body.value = this.#known.body(this.#spec.example(this.#operation.body.schema, true));
      this.#body.rows = Math.min(12, this.#body.value.split('\n').length);
    }
    this.#changed();
  }

  #changed() {
    const token = this.#operation.isOpen || this.#who.role === 'nobody' ? undefined : '$TOKEN';
    say(this.#command, curl(this.#request, { origin: location.origin, token }));
  }

  #build() {
    const { id, method: name, parameters, body, summary, isStream } = this.#operation;
    const oninput = ({ target }) => {
      this.#touched.add(target);
      this.#changed();
    };
    const input = (parameter) => {
      const control = this.#control(parameter, oninput);
      this.#inputs.set(parameter.name, control);
      return h('label', { class: 'try__field' }, h('span', {}, h('code', {}, parameter.name), parameter.required ? '' : h('i', {}, parameter.in)), control);
    };
    const inputs = parameters.map(input);
    if (body) {
      this.#body = h('textarea', { class: 'try__body', spellcheck: 'false', dir: 'ltr', oninput });
      inputs.push(h('label', { class: 'try__field try__field--body' }, h('span', {}, 'Body'), this.#body));
    }
    this.#send = h('button', { class: 'button button--main' }, isStream ? 'Open the stream' : 'Send');
    this.#stop = h('button', { type: 'button', class: 'button', hidden: true, onclick: () => this.#abort?.abort() }, 'Stop');
    const onsubmit = (event) => {
      event.preventDefault();
      this.#run();
    };
    const copy = h('button', { type: 'button', class: 'button button--small try__copy', onclick: () => this.#copy(copy) }, icon('copy'), h('span', {}, 'Copy'), spoken(` as a curl command: ${summary}`));
    return h('div', { class: 'try', role: 'group', 'aria-label': `Try: ${summary}` },
      h('form', { class: 'try__form', onsubmit, id: `try-${id}` },
        h('p', { class: 'try__head' }, h('b', {}, 'Try it'), method(name)),
        inputs,
        h('div', { class: 'try__actions' }, this.#send, this.#stop)),
      h('div', { class: 'try__curl' }, copy, h('pre', { class: 'block', tabindex: '0', role: 'group', 'aria-label': `curl: ${summary}`, dir: 'ltr' }, this.#command)),
      this.#answer.element);
  }

  #control({ name, required, schema, example }, oninput) {
    const { enum: choices, type } = this.#spec.shape(schema);
    if (choices) {
      return h('select', { class: 'try__input', name, onchange: oninput }, h('option', { value: '' }, 'any'), choices.map((choice) => h('option', {}, choice)));
    }
    const placeholder = required ? undefined : example;
    return h('input', { class: 'try__input', name, required, placeholder, inputmode: type === 'integer' ? 'numeric' : undefined, autocomplete: 'off', spellcheck: 'false', dir: 'ltr', oninput });
  }

  async #run() {
    this.#abort?.abort();
    const abort = new AbortController();
    this.#abort = abort;
    const request = this.#request;
    this.#answer.begin();
    this.#isRunning(true);
    let status;
    try {
      const token = this.#operation.isOpen ? undefined : await this.#who.token();
      await exchange(request, { token, signal: abort.signal }, {
        head: (head) => {
          status = head.status;
          this.#answer.head(head);
          if (status === 401) this.#who.forget();
        },
        text: (text) => {
          this.#answer.text(text);
          this.#known.learn({ operation: this.#operation.id, status, text });
        },
        frame: (frame) => this.#answer.frame(frame),
        comment: () => this.#answer.comment(),
      });
      if (request.isStream && status === 200) this.#answer.end('The server ended the stream');
    } catch (error) {
      if (this.#abort !== abort) return;
      if (!abort.signal.aborted) this.#answer.fail(`No answer: ${error.message}`);
      else if (status) this.#answer.end('Stopped');
      else this.#answer.fail('Stopped before an answer came');
    }
    if (this.#abort === abort) this.#isRunning(false);
  }

  #isRunning(isRunning) {
    if (!isRunning && document.activeElement === this.#stop) this.#send.focus();
    this.#stop.hidden = !isRunning;
    if (!isRunning) this.#abort = undefined;
  }

  /** A demo's token goes with the command, so that it can be run; one that was pasted is not shown again. */
  async #copy(button) {
    const isOpen = this.#operation.isOpen || this.#who.role === 'nobody';
    const isOwn = this.#who.role === 'own';
    const token = isOpen ? undefined : isOwn ? '$TOKEN' : await this.#who.token();
    await navigator.clipboard.writeText(curl(this.#request, { origin: location.origin, token }));
    const label = button.querySelector('span');
    say(label, 'Copied');
    setTimeout(() => say(label, 'Copy'), COPIED);
  }
}

/** What is answered when all is well: of several the one that says that something is new. */
const usual = (answers) => answers.findLast(({ status, schema }) => status.startsWith('2') && schema) ?? answers[0];
