/** Builds requests from the values of a form, and the equivalent curl commands. */

/**
 * Builds a request.
 * @param {import('./spec.js').Operation} operation
 * @param {Record<string, string>} values values by parameter name; empty ones are omitted
 * @param {string} body
 */
export function build(operation, values, body) {
  const filled = operation.parameters.filter(({ name }) => values[name]);
  const of = (location) => filled.filter((parameter) => parameter.in === location).map(({ name }) => [name, values[name]]);
  let path = operation.path;
  for (const { name } of operation.parameters.filter((parameter) => parameter.in === 'path')) {
    path = path.replace(`{${name}}`, encodeURIComponent(values[name] ?? ''));
  }
  const query = new URLSearchParams(of('query')).toString();
  return {
    method: operation.method,
    url: query ? `${path}?${query}` : path,
    headers: Object.fromEntries(of('header')),
    body: operation.body && body.trim() ? body : undefined,
    isStream: operation.isStream,
  };
}

/** Returns the equivalent curl command. Single quotes protect the text from the shell. */
export function curl({ method, url, headers, body, isStream }, { origin, token }) {
  const quoted = (text) => `'${text.replaceAll("'", String.raw`'\''`)}'`;
  const parts = [`curl${isStream ? ' -N' : ''}${method === 'GET' ? '' : ` -X ${method}`} ${quoted(origin + url)}`];
  if (token) parts.push(`-H "Authorization: Bearer ${token}"`);
  parts.push(...Object.entries(headers).map(([name, value]) => `-H ${quoted(`${name}: ${value}`)}`));
  if (body !== undefined) parts.push(`-d ${quoted(compact(body))}`);
  return parts.join(' \\\n  ');
}

/** Compacts JSON to one line. Text that is not JSON stays unchanged. */
function compact(body) {
  try {
    return JSON.stringify(JSON.parse(body));
  } catch {
    return body;
  }
}
