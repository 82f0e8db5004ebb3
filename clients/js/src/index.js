/**
 * The JavaScript client of Ridewire, for browsers and Node 20 or newer. The path of an event:
 *
 *     fetch-stream.js ─┐ frames
 *     event-source.js ─┴► stream.js ─┐ one connection: start, detection of silence, end
 *     http.js (one long poll) ───────┴► subscription.js: choice of transport, start position, reconnects
 *                                         └► cursor.js: order, no repeats ─► emitter.js ─► the application
 *     emitter.js ─► conversation.js (uses reducer.js) ─► the application
 */
export { connect } from './client.js';
export { RidewireError } from './error.js';
