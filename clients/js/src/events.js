/** The event types for which an `EventSource` needs a listener each. */
export const TYPES = Object.freeze([
  'message:new',
  'message:edited',
  'message:deleted',
  'message:reaction',
  'message:read',
  'message:delivered',
  'typing:indicator',
  'presence:online',
  'presence:offline',
  'ride:accept',
  'ride:cancel',
  'ride:status',
  'ride:participants',
  'ride:location',
  'ride:reopened',
  'ride:assigned',
  'ride:closed',
  'notice',
  'driver:availability',
  'stream:sync',
  'stream:closing',
  'auth:expired',
]);

const TYPES_WITHOUT_ID = new Set([
  'typing:indicator',
  'presence:online',
  'presence:offline',
  'ride:location',
  'driver:availability',
  'stream:closing',
  'auth:expired',
]);

/** Events of the user topic. On a ride's stream, `ride:closed` is not from the ride's log and has no id. */
const USER_TOPIC_TYPES = new Set(['ride:assigned', 'ride:closed', 'notice']);

/** Whether an event is in the log that is read, and therefore has an id. */
export function isDurable(type, isOneRide) {
  return !TYPES_WITHOUT_ID.has(type) && !(isOneRide && USER_TOPIC_TYPES.has(type));
}
