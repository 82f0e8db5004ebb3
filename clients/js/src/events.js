/** The events that an `EventSource` has to be told of one by one. */
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

const WITHOUT_ID = new Set([
  'typing:indicator',
  'presence:online',
  'presence:offline',
  'ride:location',
  'driver:availability',
  'stream:closing',
  'auth:expired',
]);

/** Logged on the user's own topic: where a ride's stream tells `ride:closed`, it is from elsewhere and has no id. */
const OF_THE_USER = new Set(['ride:assigned', 'ride:closed', 'notice']);

/** Whether an event is in the log that is followed, and so has an id. */
export function isDurable(type, isOneRide) {
  return !WITHOUT_ID.has(type) && !(isOneRide && OF_THE_USER.has(type));
}
