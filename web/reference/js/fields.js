import { createElement } from '/console/js/dom.js';
import { inline } from './prose.js';

/** Returns a short name of a schema's type. */
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

/** Returns the limits of a value, which its description may not contain. */
function limits({ minLength, maxLength, minimum, maximum, minItems, maxItems, pattern, enum: choices }) {
  const range = (from, to, unit) => {
    if (from !== undefined && to !== undefined) return `${from} to ${to}${unit}`;
    if (to !== undefined) return `at most ${to}${unit}`;
    return from > 0 ? `at least ${from}${unit}` : undefined;
  };
  return [
    choices && `\`${choices.join('`, `')}\``,
    range(minLength, maxLength, ' characters'),
    range(minimum, maximum, ''),
    range(minItems, maxItems, ' items'),
    pattern && pattern !== '\\S' && `\`${pattern}\``,
  ].filter(Boolean).join(' · ');
}

/** Creates the list item of a field or parameter. */
export function field(spec, { name, schema, description, isRequired, location }) {
  const shape = spec.shape(schema);
  const inner = nested(spec, schema);
  const text = description ?? shape.description;
  const bounds = limits(shape);
  return createElement('li', { class: 'prop' },
    createElement('p', { class: 'prop__head' },
      createElement('code', { class: 'prop__name' }, name),
      createElement('span', { class: 'prop__type' }, typeName(spec, schema)),
      location && createElement('span', { class: 'prop__location' }, location),
      isRequired && createElement('span', { class: 'prop__required' }, 'required')),
    text && createElement('p', { class: 'prop__description' }, inline(text)),
    bounds && createElement('p', { class: 'prop__limits' }, inline(bounds)),
    inner && lazyDetails(`Fields of ${shape.name ?? name}`, () => fields(spec, inner)));
}

/** Returns the schema whose fields are shown: an object's, or that of the items of a list or the values of a map. */
function nested(spec, schema) {
  const { type, items, properties, additionalProperties } = spec.shape(schema);
  if (type === 'array') return nested(spec, items);
  if (properties) return schema;
  return additionalProperties?.$ref ? additionalProperties : undefined;
}

/** @param {{isSent?: boolean}} [options] whether required fields are marked. In a response, all fields are present */
export function fields(spec, schema, { isSent = false } = {}) {
  const { properties = {}, required = [] } = spec.shape(nested(spec, schema) ?? schema);
  const rank = (name) => (required.includes(name) ? required.indexOf(name) : required.length);
  const names = Object.keys(properties).sort((one, other) => rank(one) - rank(other));
  const row = (name) => field(spec, { name, schema: properties[name], isRequired: isSent && required.includes(name) });
  return createElement('ul', { class: 'props' }, names.map(row));
}

/** Creates an element whose content is created when it is opened, so that a schema can be recursive. */
export function lazyDetails(label, create, props = {}) {
  const details = createElement('details', { class: 'more', ...props }, createElement('summary', {}, label));
  details.addEventListener('toggle', () => details.childElementCount === 1 && details.append(create()));
  return details;
}
