/** A request as it is filled in: its address, its headers, its body, and the same for curl. */

/**
 * @param {import('./spec.js').Operation} operation
 * @param {Record<string, string>} values by the parameters' names; empty ones are left out
 * @param {string} body
 */
export function build(operation, values, body) {
  const given = operation.parameters.filter(({ name }) => values[name]);
  const of = (place) => given.filter((parameter) => parameter.in === place).map(({ name }) => [name, values[name]]);
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

/** The same as a command. Quotes are the shell's: what stands between them is taken as it is. */
export function curl({ method, url, headers, body, isStream }, { origin, token }) {
  const quoted = (text) => `'${text.replaceAll("'", String.raw`'\''`)}'`;
  const parts = [`curl${isStream ? ' -N' : ''}${method === 'GET' ? '' : ` -X ${method}`} ${quoted(origin + url)}`];
  if (token) parts.push(`-H "Authorization: Bearer ${token}"`);
  parts.push(...Object.entries(headers).map(([name, value]) => `-H ${quoted(`${name}: ${value}`)}`));
  if (body !== undefined) parts.push(`-d ${quoted(compact(body))}`);
  return parts.join(' \\\n  ');
}

/** JSON on one line; what is none is left as it is. */
function compact(body) {
  try {
    return JSON.stringify(JSON.parse(body));
  } catch {
    return body;
  }
}
