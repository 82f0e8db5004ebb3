/** The OpenAPI document, converted to the form that the page needs. */

const METHODS = ['get', 'post', 'put', 'patch', 'delete'];

/** The order of the groups. Others follow. */
const ORDER = ['messages', 'live', 'rides', 'drivers', 'operations'];

/** Examples for formats, where the document has no example. */
const SAMPLES = { 'date-time': '2026-01-22T22:45:00.123Z', uuid: '01a2064a-3f01-7521-8e7a-2efe52754594' };

/**
 * @typedef {object} Operation
 * @property {string} id
 * @property {string} method in capitals
 * @property {string} path
 * @property {string} summary
 * @property {string} [description]
 * @property {object[]} parameters
 * @property {{schema: object, isRequired: boolean} | undefined} body
 * @property {{status: string, description: string, type?: string, schema?: object, examples: [string, object][]}[]} responses
 * @property {boolean} isStream
 * @property {boolean} isOpen whether it needs no token
 */

export class Spec {
  #document;

  constructor(document) {
    this.#document = document;
    this.info = document.info;
    const operations = Object.entries(document.paths).flatMap(([path, item]) =>
      METHODS.filter((method) => item[method]).map((method) => this.#operation(method, path, item[method])));
    const rank = (name) => (ORDER.includes(name) ? ORDER.indexOf(name) : ORDER.length);
    const tags = document.tags.toSorted((one, other) => rank(one.name) - rank(other.name));
    /** @type {{name: string, description: string, operations: Operation[]}[]} */
    this.groups = tags.map(({ name, description }) => ({
      name,
      description,
      operations: operations.filter(({ tag }) => tag === name),
    }));
  }

  static async load() {
    const response = await fetch('/openapi.json');
    if (!response.ok) throw new Error(`openapi.json: ${response.status}`);
    return new Spec(await response.json());
  }

  #operation(method, path, { operationId, summary, description, tags, parameters = [], requestBody, responses, security }) {
    const all = Object.entries(responses).map(([status, response]) => this.#response(status, response));
    return {
      id: operationId,
      tag: tags[0],
      method: method.toUpperCase(),
      path,
      summary,
      description,
      parameters,
      body: requestBody && { schema: requestBody.content['application/json'].schema, isRequired: requestBody.required },
      responses: all,
      isStream: all.some(({ type }) => type === 'text/event-stream'),
      isOpen: security.length === 0,
    };
  }

  #response(status, { description, content = {} }) {
    const [[type, { schema, examples = {} }] = [undefined, {}]] = Object.entries(content);
    const named = Object.entries(examples).map(([name, { $ref, value }]) => [name, $ref ? this.#find($ref).value : value]);
    return { status, description, type, schema, examples: named };
  }

  #find(reference) {
    return reference.slice(2).split('/').reduce((part, name) => part[name], this.#document);
  }

  /** Returns a schema with its references resolved, and with `null` as the flag `isNullable`. */
  shape(schema) {
    // Siblings of `$ref`, `oneOf` and `anyOf` take precedence over the referenced schema.
    const { $ref, oneOf, anyOf, ...siblings } = schema;
    if ($ref) return { name: $ref.split('/').at(-1), ...this.shape(this.#find($ref)), ...siblings };
    if (oneOf) return { ...this.shape(oneOf.find(({ type }) => type !== 'null')), ...siblings, isNullable: true };
    // The first alternative is the usual one.
    if (anyOf) return { ...this.shape(anyOf[0]), ...siblings };
    const types = [schema.type ?? []].flat();
    const shape = { ...schema, isNullable: types.includes('null') };
    if (types.length > 0) shape.type = types.find((type) => type !== 'null');
    return shape;
  }

  /**
   * Returns an example value for a schema.
   * @param {boolean} [isBrief] includes only required members and members with an example
   */
  example(schema, isBrief = false) {
    const shape = this.shape(schema);
    const documented = shape.example ?? shape.examples?.[0];
    if (documented !== undefined) return documented;
    if (shape.isNullable) return null;
    if (shape.enum) return shape.enum[0];
    const { type, format, pattern, minimum, items, properties, required = [], additionalProperties } = shape;
    if (type === 'array') return [this.example(items)];
    if (type === 'integer' || type === 'number') return minimum > 0 ? minimum : 0;
    if (type === 'boolean') return true;
    if (type === 'string') return SAMPLES[format] ?? (pattern === '^[0-9]+$' ? '4' : '…');
    const isShown = ([name, part]) => !isBrief || required.includes(name) || this.shape(part).examples;
    const members = Object.entries(properties ?? {}).filter(isShown).map(([name, part]) => [name, this.example(part)]);
    if (additionalProperties?.$ref) members.push(['ride_123', this.example(additionalProperties)]);
    // Required members first, in the order of `required`.
    const rank = ([name]) => (required.includes(name) ? required.indexOf(name) : required.length);
    return Object.fromEntries(members.sort((one, other) => rank(one) - rank(other)));
  }
}
