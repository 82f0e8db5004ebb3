/** Uses the core types that openapi-typescript generates. A type that has become `unknown` or `never` does not compile. */
import type { components, paths } from './openapi';

type Schemas = components['schemas'];

const reaction: Schemas['Reaction'] = { emoji: '👍', userIds: ['driver_1'] };

export const message: Schemas['Message'] = {
  id: '01a2064a-3f01-7521-8e7a-2efe52754594',
  rideId: 'ride_123',
  seq: 4,
  senderId: 'rider_1',
  senderRole: 'rider',
  content: null,
  metadata: { gate: 1 },
  clientMessageId: null,
  createdAt: '2026-11-23T02:44:18.812Z',
  editedAt: null,
  deletedAt: null,
  labels: ['phone_number'],
  reactions: [reaction],
  isDelivered: false,
  isRead: false,
};

export const ride: Schemas['Ride'] = {
  rideId: 'ride_123',
  status: 'in_progress',
  riderId: 'rider_1',
  driverId: null,
  chat: 'open',
  chatPolicy: { opensAt: 'accepted', graceSeconds: { rider: 86_400, driver: 3_600 } },
  createdAt: '2026-11-23T02:44:18.739Z',
  updatedAt: '2026-11-23T02:44:18.739Z',
};

// @ts-expect-error an invalid role is rejected, so the type is a union of the roles
export const role: Schemas['RideRole'] = 'passenger';

type JsonResponse<Path extends keyof paths> = paths[Path] extends { get: { responses: { 200: { content: { 'application/json': infer Body } } } } } ? Body : never;

export const history: Pick<JsonResponse<'/api/v1/messages/rides/{rideId}'>, 'messages' | 'hasMore'> = { messages: [message], hasMore: false };
export const poll: Pick<JsonResponse<'/api/v1/messages/rides/{rideId}/poll'>, 'cursor' | 'gap'> = { cursor: '4', gap: { from: 1, to: 3 } };
