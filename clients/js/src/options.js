/**
 * Rejects unknown options by name. Otherwise a misspelt option would silently have no effect.
 *
 * @param {string} method the method's name
 * @param {object | undefined} options
 * @param {readonly string[]} known
 * @returns {object} the options
 */
export function checkOptions(method, options, known) {
  if (options === undefined) return {};
  if (options === null || typeof options !== 'object') throw new TypeError(`${method}: the options must be an object`);
  const unknown = Object.keys(options).filter((name) => !known.includes(name));
  if (unknown.length > 0) {
    const names = unknown.map((name) => `"${name}"`).join(', ');
    throw new TypeError(`${method}: unknown option${unknown.length > 1 ? 's' : ''} ${names}; known: ${known.join(', ')}`);
  }
  return options;
}

/**
 * Rejects a missing id. Otherwise it would become part of a path as `undefined`, or select everything.
 *
 * @param {string} name the parameter's name
 * @param {unknown} id
 * @returns {string} the id
 */
export function checkId(name, id) {
  if (typeof id !== 'string' || id === '') throw new TypeError(`${name} must be a string that is not empty`);
  return id;
}

const TRANSPORTS = ['auto', 'stream', 'poll'];

/**
 * Checks the options of `connect`, so that a mistake is reported there and not by the first request.
 *
 * @param {object | undefined} options
 * @param {readonly string[]} timing the names that `timing` can override
 */
export function checkConnection(options, timing) {
  const known = ['baseUrl', 'token', 'transport', 'fetch', 'EventSource', 'timing', 'random'];
  const given = checkOptions('connect', options, known);
  if (typeof given.token !== 'function') throw new TypeError('connect: the option "token" must be a function that returns a token');
  if (given.transport !== undefined && !TRANSPORTS.includes(given.transport)) {
    throw new TypeError(`connect: the option "transport" must be ${TRANSPORTS.join(', ')}`);
  }
  checkOptions('connect: timing', given.timing, timing);
}
