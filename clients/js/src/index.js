/**
 * Ridewire's client, for browsers and Node 20 or newer. The way of one event:
 *
 *     fetch-stream.js ─┐ frames
 *     event-source.js ─┴► stream.js ─┐ one connection: its beginning, its silences, its end
 *     http.js (one long poll) ───────┴► subscription.js: which transport, from where, when again
 *                                         └► cursor.js: in order, once ─► emitter.js ─► the application
 *                                                                          └► conversation.js, log.js
 */
export { connect } from './client.js';
export { RidewireError } from './error.js';
