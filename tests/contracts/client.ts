/** Uses the JavaScript client as an application in TypeScript does, and holds its types to those of openapi.yaml. */
import type { components } from './openapi';
import { connect } from './ridewire';
import type * as ridewire from './ridewire';

type Schemas = components['schemas'];

/** What the API returns can be used where the client has a type of its own. */
export interface Same {
  message: Is<ridewire.Message, Schemas['Message']>;
  ride: Is<ridewire.Ride, Schemas['Ride']>;
  participant: Is<ridewire.Participant, Schemas['Participant']>;
  mark: Is<ridewire.Mark, Schemas['Mark']>;
  receipt: Is<ridewire.Receipt, Schemas['Receipt']>;
  location: Is<ridewire.Location, Schemas['Location']>;
  driver: Is<ridewire.Driver, Schemas['Driver']>;
  history: Is<ridewire.History, Schemas['History']>;
  rides: Is<ridewire.Rides, Schemas['Inbox']>;
  state: Is<ridewire.RideState, Schemas['State']>;
  gap: Is<ridewire.Gap, Schemas['Gap']>;
}
type Is<Own, OfTheApi extends Own> = OfTheApi;

/** As React declares it. */
declare function useSyncExternalStore<Snapshot>(
  subscribe: (this: void, listener: () => void) => () => void,
  snapshot: (this: void) => Snapshot,
): Snapshot;

const client = connect({ baseUrl: 'https://ride.example', token: () => 'token', timing: { wait: 10 } });
const conversation = client.conversation('ride_123');
export const messages = useSyncExternalStore(conversation.subscribe, () => conversation.messages);

// Methods can be passed on.
const passedOn: ((this: void, rideId: string) => Promise<ridewire.Ride>)[] = [client.accept, client.cancel];
export const { send, history, unread, rides, request } = client;
export const { on, off, close } = client.ride('ride_123', { after: 0, types: ['message:*'] });
export const sent: Promise<ridewire.Message> = send('ride_123', 'Hello', { metadata: { a: 1 } });
export const counts: Promise<number> = unread().then(({ total }) => total);
export const count: Promise<number> = unread('ride_123').then(({ unreadCount }) => unreadCount);
export const accepted = passedOn.map((act) => act('ride_123'));

client.all().on('ride:reopened', ({ data }) => console.log(data.until, data.ride.chatPolicy?.opensAt, data.reason));

// @ts-expect-error an option that there is not
connect({ token: () => 'token', baseURL: 'https://ride.example' });
// @ts-expect-error an option that there is not
client.ride('ride_123', { since: 0 });
// @ts-expect-error an option that there is not
void client.send('ride_123', 'Hello', { clientMessageID: 'm-1' });
