import { createElement } from '/console/js/dom.js';
import { field, fields, lazyDetails, typeName } from './fields.js';
import { block, inline, json, prose } from './prose.js';

export const method = (name) => createElement('span', { class: 'method', 'data-method': name }, name);

/** Creates the article of an operation: its description, parameters, body, responses and errors, and the panel to try it. */
export function operation(spec, described, panel) {
  const title = `title-${described.id}`;
  return createElement('article', { class: 'operation', id: described.id, 'aria-labelledby': title },
    createElement('div', { class: 'operation__description' },
      createElement('h3', { class: 'operation__title', id: title }, createElement('a', { href: `#${described.id}` }, described.summary)),
      createElement('p', { class: 'operation__path' }, method(described.method), createElement('code', {}, breakable(described.path))),
      prose(described.description),
      parameters(spec, described),
      body(spec, described),
      successes(spec, described.responses.filter(({ status }) => status < '400')),
      errors(described.responses.filter(({ status }) => status >= '400' && status !== 'default'))),
    panel);
}

/** Allows line breaks before the slashes of a path. */
const breakable = (path) => path.split(/(?=\/)/).flatMap((part) => [part, createElement('wbr')]);

const section = (title, ...children) => [createElement('h4', { class: 'operation__part' }, title), ...children];

function parameters(spec, { parameters }) {
  if (parameters.length === 0) return [];
  const row = ({ name, in: location, required, description, schema }) =>
    field(spec, { name, schema, description, isRequired: required, location });
  return section('Parameters', createElement('ul', { class: 'props' }, parameters.map(row)));
}

function body(spec, { body }) {
  if (!body) return [];
  const name = typeName(spec, body.schema);
  const { description } = spec.shape(body.schema);
  return section('Body',
    createElement('p', { class: 'prose' }, createElement('code', {}, name), body.isRequired ? '' : ', optional', '. ', inline(description ?? '')),
    fields(spec, body.schema, { isSent: true }));
}

function successes(spec, responses) {
  const row = ({ status, description, type, schema }) => createElement('li', { class: 'reply' },
    createElement('p', { class: 'reply__head' }, createElement('b', { class: 'code code--fine' }, status), createElement('span', {}, inline(description))),
    schema && type === 'application/json' && lazyDetails(`Fields of ${typeName(spec, schema)}`, () => fields(spec, schema)));
  return section('Responses', createElement('ul', { class: 'replies' }, responses.map(row)));
}

/** Lists the errors by status, with an example of each code. */
function errors(responses) {
  if (responses.length === 0) return [];
  const row = ({ status, description, type, examples }) => createElement('li', { class: 'reply' },
    createElement('p', { class: 'reply__head' }, createElement('b', { class: 'code' }, status), createElement('span', {}, inline(description))),
    examples.map(([code, value]) =>
      lazyDetails(examples.length > 1 ? createElement('code', {}, code) : 'Example', () => block(`Example of ${code}`, json(value)), { class: 'more more--code', title: type })));
  return section('Errors', createElement('ul', { class: 'replies' }, responses.map(row)));
}
