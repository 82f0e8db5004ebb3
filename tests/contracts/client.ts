/** Uses the JavaScript client like a TypeScript application, and checks its types against those of openapi.yaml. */
import type { components } from './openapi';
import { connect } from './ridewire';
import type * as ridewire from './ridewire';

type Schemas = components['schemas'];

/** Each type of the API is assignable to the client's own type. */
export interface Same {
  message: Is<ridewire.Message, Schemas['Message']>;
  ride: Is<ridewire.Ride, Schemas['Ride']>;
  participant: Is<ridewire.Participant, Schemas['Participant']>;
  mark: Is<ridewire.Watermarks, Schemas['Mark']>;
  receipt: Is<ridewire.Receipt, Schemas['Receipt']>;
  location: Is<ridewire.Location, Schemas['Location']>;
  driver: Is<ridewire.Driver, Schemas['Driver']>;
  history: Is<ridewire.History, Schemas['History']>;
  rides: Is<ridewire.Rides, Schemas['Inbox']>;
  state: Is<ridewire.RideState, Schemas['State']>;
  gap: Is<ridewire.Gap, Schemas['Gap']>;
}
type Is<Own, OfTheApi extends Own> = OfTheApi;

/** React's declaration. */
declare function useSyncExternalStore<Snapshot>(
  subscribe: (this: void, listener: () => void) => () => void,
  snapshot: (this: void) => Snapshot,
): Snapshot;

const client = connect({ baseUrl: 'https://ride.example', token: () => 'token', timing: { wait: 10 } });
const conversation = client.conversation('ride_123');
export const messages = useSyncExternalStore(conversation.subscribe, () => conversation.messages);

// Methods are bound and can be passed as functions.
const passedOn: ((this: void, rideId: string) => Promise<ridewire.Ride>)[] = [client.accept, client.cancel];
export const { send, history, unread, rides, request } = client;
export const { on, off, close } = client.ride('ride_123', { after: 0, types: ['message:*'] });
export const sent: Promise<ridewire.Message> = send('ride_123', 'Hello', { metadata: { a: 1 } });
export const counts: Promise<number> = unread().then(({ total }) => total);
export const count: Promise<number> = unread('ride_123').then(({ unreadCount }) => unreadCount);
export const accepted = passedOn.map((act) => act('ride_123'));

client.all().on('ride:reopened', ({ data }) => console.log(data.until, data.ride.chatPolicy?.opensAt, data.reason));

// @ts-expect-error unknown option
connect({ token: () => 'token', baseURL: 'https://ride.example' });
// @ts-expect-error unknown option
client.ride('ride_123', { since: 0 });
// @ts-expect-error unknown option
void client.send('ride_123', 'Hello', { clientMessageID: 'm-1' });
