import { h } from '/console/js/dom.js';
import { inline } from './prose.js';

/** What a value must be, in a few words. */
export function typeName(spec, schema) {
  const { name, type, format, items, additionalProperties, isNullable, enum: choices } = spec.shape(schema);
  let text = name && !choices ? name : type ?? 'any';
  if (type === 'array') text = `${typeName(spec, items)}[]`;
  if (type === 'object' && !name && additionalProperties) {
    text = additionalProperties.$ref ? `map of ${typeName(spec, additionalProperties)}` : 'object';
  }
  if (format === 'date-time' || format === 'uuid') text = format;
  return isNullable ? `${text} or null` : text;
}

/** The limits of a value that its description may not name. */
function limits({ minLength, maxLength, minimum, maximum, minItems, maxItems, pattern, enum: choices }) {
  const range = (from, to, what) => {
    if (from !== undefined && to !== undefined) return `${from} to ${to}${what}`;
    if (to !== undefined) return `at most ${to}${what}`;
    return from > 0 ? `at least ${from}${what}` : undefined;
  };
  return [
    choices && `\`${choices.join('`, `')}\``,
    range(minLength, maxLength, ' characters'),
    range(minimum, maximum, ''),
    range(minItems, maxItems, ' items'),
    pattern && pattern !== '\\S' && `\`${pattern}\``,
  ].filter(Boolean).join(' · ');
}

/** One field or parameter. */
export function field(spec, { name, schema, description, isRequired, place }) {
  const shape = spec.shape(schema);
  const inner = nested(spec, schema);
  const said = description ?? shape.description;
  const bounds = limits(shape);
  return h('li', { class: 'prop' },
    h('p', { class: 'prop__head' },
      h('code', { class: 'prop__name' }, name),
      h('span', { class: 'prop__type' }, typeName(spec, schema)),
      place && h('span', { class: 'prop__place' }, place),
      isRequired && h('span', { class: 'prop__must' }, 'required')),
    said && h('p', { class: 'prop__said' }, inline(said)),
    bounds && h('p', { class: 'prop__limits' }, inline(bounds)),
    inner && later(`Fields of ${shape.name ?? name}`, () => fields(spec, inner)));
}

/** What has fields of its own: an object, what a list holds, what a map leads to. */
function nested(spec, schema) {
  const { type, items, properties, additionalProperties } = spec.shape(schema);
  if (type === 'array') return nested(spec, items);
  if (properties) return schema;
  return additionalProperties?.$ref ? additionalProperties : undefined;
}

/** @param {{isSent?: boolean}} [options] whether it says what must be given: of an answer, all of it is there */
export function fields(spec, schema, { isSent = false } = {}) {
  const { properties = {}, required = [] } = spec.shape(nested(spec, schema) ?? schema);
  const rank = (name) => (required.includes(name) ? required.indexOf(name) : required.length);
  const names = Object.keys(properties).sort((one, other) => rank(one) - rank(other));
  const row = (name) => field(spec, { name, schema: properties[name], isRequired: isSent && required.includes(name) });
  return h('ul', { class: 'props' }, names.map(row));
}

/** What is made when it is opened, so that a schema may hold itself. */
export function later(label, make, props = {}) {
  const details = h('details', { class: 'more', ...props }, h('summary', {}, label));
  details.addEventListener('toggle', () => details.childElementCount === 1 && details.append(make()));
  return details;
}
