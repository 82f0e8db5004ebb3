/** Timeouts and intervals, in milliseconds unless stated otherwise. */
export const TIMING = Object.freeze({
  /** The timeout of a request that returns immediately. */
  request: 10_000,
  /** How long a stream may take until its first `stream:sync`. After that, a buffering proxy is suspected. */
  sync: 5_000,
  /** After how many seconds of silence the server sends a comment. */
  heartbeat: 15,
  /** After how much silence a stream counts as dead: two and a half heartbeats. */
  silence: 37_500,
  /** How many seconds a poll waits for an event. */
  wait: 25,
  /** The delay until a stream is tried again while polls replace it. It doubles each time, up to the longest. */
  trial: 30_000,
  longestTrial: 600_000,
  /** How often to poll without a connection slot, on a visible and on a hidden page. */
  look: 2_000,
  hiddenLook: 10_000,
  /** How long before a ticket expires the next one is requested. */
  renewal: 30_000,
  /** The first delay before reconnecting, and the longest. */
  backoff: 1_000,
  longestBackoff: 30_000,
  /** How long a send is repeated. */
  send: 30_000,
});
