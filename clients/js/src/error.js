/** A problem that the server returned (RFC 9457), or a failed request; then `status` is 0. */
export class RidewireError extends Error {
  /**
   * @param {{status: number, code: string, detail?: string, errors?: object[], requestId?: string, retryAfter?: number, cause?: unknown}} problem
   *   `retryAfter` in milliseconds
   */
  constructor({ status, code, detail, errors = [], requestId, retryAfter, cause }) {
    super(detail ? `${code}: ${detail}` : code, { cause });
    this.name = 'RidewireError';
    this.status = status;
    this.code = code;
    this.detail = detail;
    this.errors = errors;
    this.requestId = requestId;
    this.retryAfter = retryAfter;
  }

  /** Whether the same request may succeed later. All other 4xx statuses are permanent. */
  get isTransient() {
    return this.status < 400 || this.status >= 500 || [408, 425, 429].includes(this.status);
  }
}

/**
 * Returns the error of a response. The response of a proxy has no problem document, so only its status is used.
 * @param {Response} response
 */
export async function errorOf(response) {
  const problem = await response.json().catch(() => ({}));
  return new RidewireError({
    status: response.status,
    code: problem?.code ?? `http_${response.status}`,
    detail: problem?.detail,
    errors: problem?.errors,
    requestId: problem?.requestId ?? response.headers.get('x-request-id') ?? undefined,
    retryAfter: retryAfter(response.headers.get('retry-after')),
  });
}

/** Parses `Retry-After`: seconds or a date (RFC 9110, section 10.2.3). */
function retryAfter(value) {
  if (!value) return undefined;
  const wait = /^\d+$/.test(value.trim()) ? Number(value) * 1_000 : Date.parse(value) - Date.now();
  return Number.isNaN(wait) ? undefined : Math.max(0, wait);
}
