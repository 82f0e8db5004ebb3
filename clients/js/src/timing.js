/** How long things may take, in milliseconds where no other unit is given. */
export const TIMING = Object.freeze({
  /** For a request that is answered at once. */
  request: 10_000,
  /** For a stream to say its first `stream:sync`, before it is suspected of sitting in a proxy's buffer. */
  sync: 5_000,
  /** After how many seconds of silence the server is asked to send a comment. */
  heartbeat: 15,
  /** After how much silence a stream is taken for dead: two and a half heartbeats. */
  silence: 37_500,
  /** How many seconds a poll waits for an event. */
  wait: 25,
  /** Until a stream is tried again where there are polls instead; it doubles each time, up to the longest. */
  trial: 30_000,
  longestTrial: 600_000,
  /** How often it is looked for events where there is no place to wait for them, and where nobody looks at the page either. */
  look: 2_000,
  hiddenLook: 10_000,
  /** How long before a ticket's end the next one is asked for. */
  renewal: 30_000,
  /** The first pause before coming back, and the longest. */
  backoff: 1_000,
  longestBackoff: 30_000,
  /** For how long a send is repeated. */
  send: 30_000,
});
