import { createElement, screenReaderText, setText } from '/console/js/dom.js';
import { icon } from '/console/js/icons.js';
import { ResponseView } from './response.js';
import { exchange } from './exchange.js';
import { method } from './operation.js';
import { build, curl } from './request.js';

/** How long the button shows that the command was copied, in milliseconds. */
const COPIED_TIME = 2_000;

/** The panel that tries an operation: the form of the request, the equivalent curl command, and the response. */
export class TryPanel {
  #spec;
  #operation;
  #caller;
  #examples;
  #inputs = new Map();
  #body;
  #response = new ResponseView();
  #command = createElement('code');
  #send;
  #stop;
  /** Aborts the current request; undefined if there is none. */
  #abort;
  /** The inputs that the user has changed. They are no longer filled automatically. */
  #touched = new Set();

  /** @param {import('./spec.js').Spec} spec @param {import('./spec.js').Operation} operation */
  constructor(spec, operation, { caller, examples }) {
    this.#spec = spec;
    this.#operation = operation;
    this.#caller = caller;
    this.#examples = examples;
    this.element = this.#build();
    this.#fill();
    examples.addEventListener('change', () => this.#fill());
    caller.addEventListener('change', () => this.#updateCommand());
    this.#response.showExample(spec, typicalSuccess(operation.responses));
  }

  get #request() {
    const values = Object.fromEntries([...this.#inputs].map(([name, input]) => [name, input.value]));
    return build(this.#operation, values, this.#body?.value ?? '');
  }

  /** Fills the inputs that the user has not changed. */
  #fill() {
    for (const { name, in: location, schema } of this.#operation.parameters) {
      const input = this.#inputs.get(name);
      if (location === 'path' && !this.#touched.has(input)) input.value = this.#examples.parameter(name, this.#spec.example(schema));
    }
    if (this.#body && !this.#touched.has(this.#body)) {
      this.#body.value = this.#examples.body(this.#spec.example(this.#operation.body.schema, true));
      this.#body.rows = Math.min(12, this.#body.value.split('\n').length);
    }
    this.#updateCommand();
  }

  #updateCommand() {
    const token = this.#operation.isOpen || this.#caller.role === 'none' ? undefined : '$TOKEN';
    setText(this.#command, curl(this.#request, { origin: location.origin, token }));
  }

  #build() {
    const { id, method: name, parameters, body, summary, isStream } = this.#operation;
    const oninput = ({ target }) => {
      this.#touched.add(target);
      this.#updateCommand();
    };
    const input = (parameter) => {
      const control = this.#control(parameter, oninput);
      this.#inputs.set(parameter.name, control);
      return createElement('label', { class: 'try__field' }, createElement('span', {}, createElement('code', {}, parameter.name), parameter.required ? '' : createElement('i', {}, parameter.in)), control);
    };
    const inputs = parameters.map(input);
    if (body) {
      this.#body = createElement('textarea', { class: 'try__body', spellcheck: 'false', dir: 'ltr', oninput });
      inputs.push(createElement('label', { class: 'try__field try__field--body' }, createElement('span', {}, 'Body'), this.#body));
    }
    this.#send = createElement('button', { class: 'button button--main' }, isStream ? 'Open the stream' : 'Send');
    this.#stop = createElement('button', { type: 'button', class: 'button', hidden: true, onclick: () => this.#abort?.abort() }, 'Stop');
    const onsubmit = (event) => {
      event.preventDefault();
      this.#run();
    };
    const copy = createElement('button', { type: 'button', class: 'button button--small try__copy', onclick: () => this.#copy(copy) }, icon('copy'), createElement('span', {}, 'Copy'), screenReaderText(` as a curl command: ${summary}`));
    return createElement('div', { class: 'try', role: 'group', 'aria-label': `Try: ${summary}` },
      createElement('form', { class: 'try__form', onsubmit, id: `try-${id}` },
        createElement('p', { class: 'try__head' }, createElement('b', {}, 'Try it'), method(name)),
        inputs,
        createElement('div', { class: 'try__actions' }, this.#send, this.#stop)),
      createElement('div', { class: 'try__curl' }, copy, createElement('pre', { class: 'block', tabindex: '0', role: 'group', 'aria-label': `curl: ${summary}`, dir: 'ltr' }, this.#command)),
      this.#response.element);
  }

  #control({ name, required, schema, example }, oninput) {
    const { enum: choices, type } = this.#spec.shape(schema);
    if (choices) {
      return createElement('select', { class: 'try__input', name, onchange: oninput }, createElement('option', { value: '' }, 'any'), choices.map((choice) => createElement('option', {}, choice)));
    }
    const placeholder = required ? undefined : example;
    return createElement('input', { class: 'try__input', name, required, placeholder, inputmode: type === 'integer' ? 'numeric' : undefined, autocomplete: 'off', spellcheck: 'false', dir: 'ltr', oninput });
  }

  async #run() {
    this.#abort?.abort();
    const abort = new AbortController();
    this.#abort = abort;
    const request = this.#request;
    this.#response.begin();
    this.#isRunning(true);
    let status;
    try {
      const token = this.#operation.isOpen ? undefined : await this.#caller.token();
      await exchange(request, { token, signal: abort.signal }, {
        head: (head) => {
          status = head.status;
          this.#response.head(head);
          if (status === 401) this.#caller.discardToken();
        },
        text: (text) => {
          this.#response.text(text);
          this.#examples.update({ operation: this.#operation.id, status, text });
        },
        frame: (frame) => this.#response.frame(frame),
        comment: () => this.#response.comment(),
      });
      if (request.isStream && status === 200) this.#response.end('The server ended the stream');
    } catch (error) {
      if (this.#abort !== abort) return;
      if (!abort.signal.aborted) this.#response.fail(`No response: ${error.message}`);
      else if (status) this.#response.end('Stopped');
      else this.#response.fail('Stopped before the response');
    }
    if (this.#abort === abort) this.#isRunning(false);
  }

  #isRunning(isRunning) {
    if (!isRunning && document.activeElement === this.#stop) this.#send.focus();
    this.#stop.hidden = !isRunning;
    if (!isRunning) this.#abort = undefined;
  }

  /** Copies the command. It contains a demo's token, so that it can be run; a pasted token is never copied. */
  async #copy(button) {
    const isOpen = this.#operation.isOpen || this.#caller.role === 'none';
    const isOwn = this.#caller.role === 'own';
    const token = isOpen ? undefined : isOwn ? '$TOKEN' : await this.#caller.token();
    await navigator.clipboard.writeText(curl(this.#request, { origin: location.origin, token }));
    const label = button.querySelector('span');
    setText(label, 'Copied');
    setTimeout(() => setText(label, 'Copy'), COPIED_TIME);
  }
}

/** Returns the typical success response: the last one with a schema, such as 201 for a created resource. */
const typicalSuccess = (responses) =>
  responses.findLast(({ status, schema }) => status.startsWith('2') && schema) ?? responses[0];
