import { h } from '/console/js/dom.js';
import { field, fields, later, typeName } from './fields.js';
import { block, inline, json, prose } from './prose.js';

export const method = (name) => h('span', { class: 'method', 'data-method': name }, name);

/** One operation: what it is for, what it takes, what it answers; and the panel to try it. */
export function operation(spec, said, panel) {
  const title = `title-${said.id}`;
  return h('article', { class: 'operation', id: said.id, 'aria-labelledby': title },
    h('div', { class: 'operation__said' },
      h('h3', { class: 'operation__title', id: title }, h('a', { href: `#${said.id}` }, said.summary)),
      h('p', { class: 'operation__path' }, method(said.method), h('code', {}, breakable(said.path))),
      prose(said.description),
      parameters(spec, said),
      body(spec, said),
      answers(spec, said.answers.filter(({ status }) => status < '400')),
      refusals(said.answers.filter(({ status }) => status >= '400' && status !== 'default'))),
    panel);
}

/** A path that may be broken before its slashes. */
const breakable = (path) => path.split(/(?=\/)/).flatMap((part) => [part, h('wbr')]);

const section = (title, ...children) => [h('h4', { class: 'operation__part' }, title), ...children];

function parameters(spec, { parameters }) {
  if (parameters.length === 0) return [];
  const row = ({ name, in: place, required, description, schema }) =>
    field(spec, { name, schema, description, isRequired: required, place });
  return section('Parameters', h('ul', { class: 'props' }, parameters.map(row)));
}

function body(spec, { body }) {
  if (!body) return [];
  const name = typeName(spec, body.schema);
  const { description } = spec.shape(body.schema);
  return section('Body',
    h('p', { class: 'prose' }, h('code', {}, name), body.isRequired ? '' : ', may be left out', '. ', inline(description ?? '')),
    fields(spec, body.schema, { isSent: true }));
}

function answers(spec, answers) {
  const row = ({ status, description, type, schema }) => h('li', { class: 'reply' },
    h('p', { class: 'reply__head' }, h('b', { class: 'code code--fine' }, status), h('span', {}, inline(description))),
    schema && type === 'application/json' && later(`${typeName(spec, schema)}: its fields`, () => fields(spec, schema)));
  return section('Answers', h('ul', { class: 'replies' }, answers.map(row)));
}

/** Each by its status, and each code of it with an example. */
function refusals(refusals) {
  if (refusals.length === 0) return [];
  const row = ({ status, description, type, examples }) => h('li', { class: 'reply' },
    h('p', { class: 'reply__head' }, h('b', { class: 'code' }, status), h('span', {}, inline(description))),
    examples.map(([code, value]) =>
      later(examples.length > 1 ? h('code', {}, code) : 'Example', () => block(`Example of ${code}`, json(value)), { class: 'more more--code', title: type })));
  return section('Errors', h('ul', { class: 'replies' }, refusals.map(row)));
}
