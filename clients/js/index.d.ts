/** A time: RFC 3339, UTC, with milliseconds. */
export type Time = string;
export type RideStatus = 'requested' | 'accepted' | 'arrived' | 'in_progress' | 'completed' | 'cancelled';
export type RideRole = 'rider' | 'driver' | 'support' | 'system';

/** When a ride's chat opens, and how many seconds after the ride's end it closes. */
export interface ChatPolicy {
  opensAt: 'requested' | 'accepted' | 'arrived';
  graceSeconds: { rider: number; driver: number };
}

export interface Ride {
  rideId: string;
  status: RideStatus;
  riderId: string;
  driverId: string | null;
  /** The caller's in a response and in `state`. In an event it is `open` while any participant may write. */
  chat: 'none' | 'open' | 'readOnly';
  /** Null for the default. */
  chatPolicy: ChatPolicy | null;
  createdAt: Time;
  updatedAt: Time;
}

export interface Reaction {
  emoji: string;
  userIds: string[];
}

export interface Message {
  id: string;
  rideId: string;
  /** The message's seq in the ride's log. */
  seq: number;
  senderId: string;
  senderRole: RideRole;
  /** Null if the message was deleted. */
  content: string | null;
  metadata: Record<string, unknown> | null;
  clientMessageId: string | null;
  createdAt: Time;
  editedAt: Time | null;
  deletedAt: Time | null;
  /** The labels of a flagged message, for support and service. Null for others, and in events. */
  labels: string[] | null;
  reactions: Reaction[];
  /** Whether another participant's watermark has reached the message. */
  isDelivered: boolean;
  isRead: boolean;
}

export interface RideMember {
  userId: string;
  role: RideRole;
}

export interface Participant extends RideMember {
  online: boolean;
  since: Time | null;
}

/** A user's watermarks: the seqs of the last delivered and the last read message; 0 for none. */
export interface Watermarks {
  userId: string;
  deliveredSeq: number;
  readSeq: number;
}

export interface Receipt extends Watermarks {
  rideId: string;
}

/** In degrees (WGS 84), degrees clockwise from north, metres per second, and metres. */
export interface Position {
  lat: number;
  lng: number;
  heading?: number | null;
  speed?: number | null;
  accuracy?: number | null;
  at?: Time | null;
}

export interface Location extends Required<Position> {
  rideId: string;
  driverId: string;
  at: Time;
}

export interface Driver {
  driverId: string;
  available: boolean;
  lat: number | null;
  lng: number | null;
  at: Time;
}

/** A ride as it is at `asOf`, a position in its log. */
export interface RideState {
  asOf: number;
  ride: Ride;
  participants: Participant[];
  receipts: Watermarks[];
  location: Location | null;
  typing: string[];
}

/** All the user's rides. `drivers` is for support and service. */
export interface AllState {
  rides: Record<string, RideState>;
  drivers?: Driver[];
}

/** Events that retention has deleted, both ends included. On a merged stream, `topic` names the log. */
export interface Gap {
  topic?: string;
  from: number;
  to: number;
}

export interface Sync<State> {
  /** The cursor after which events follow. */
  cursor: string;
  /** Whether the given cursor was continued without a gap. */
  resumed: boolean;
  gap: Gap | null;
  state: State;
  /** On a merged stream: rides that are left out, because there are more than 64. They are included when there is room. */
  omitted?: string[];
}

export interface RideChange {
  ride: Ride;
  by: string;
  reason?: string;
}

interface WatermarkEvent {
  rideId: string;
  userId: string;
  seq: number;
  messageId: string;
  at: Time;
}

interface Presence {
  rideId: string;
  userId: string;
  at: Time;
}

/** Events that are in the log: they have an id, are replayed, and are delivered once and in order. */
export interface DurableEvents {
  'message:new': Message;
  'message:edited': Message;
  'message:deleted': { rideId: string; messageId: string; seq: number; by: string; at: Time };
  /** `emoji` is null if the user was erased; then all of the user's reactions are removed. */
  'message:reaction': { rideId: string; messageId: string; userId: string; emoji: string | null; removed: boolean; at: Time };
  'message:read': WatermarkEvent;
  'message:delivered': WatermarkEvent;
  'ride:accept': RideChange;
  'ride:cancel': RideChange;
  'ride:status': RideChange;
  'ride:participants': { ride: Ride; joined: RideMember[]; left: RideMember[] };
  /** A merged stream delivers it twice: from the ride's log, and from the user topic with `fromSeq`. */
  'ride:reopened': RideChange & { until: Time; fromSeq?: number };
  'ride:assigned': { ride: Ride; fromSeq: number };
  'ride:closed': { rideId: string; lastSeq: number; reason: 'removed' | 'ride_over' };
  notice: { type: string | null; data: Record<string, unknown>; by: string; at: Time };
}

/** Latest-only and ephemeral events. Polls do not return them; their `sync` has the resulting state. */
export interface EphemeralEvents {
  'typing:indicator': { rideId: string; userId: string; typing: boolean };
  'presence:online': Presence;
  'presence:offline': Presence;
  'ride:location': Location;
  'driver:availability': Driver;
}

export type Events = DurableEvents & EphemeralEvents;
export type EventType = keyof Events;

/** An event. `id` is the cursor after it, if it is in the log. */
export type EventOf<Type extends EventType> = {
  type: Type;
  id: Type extends 'ride:closed' ? string | undefined : Type extends keyof DurableEvents ? string : undefined;
  data: Events[Type];
};

/** Any event. A `switch` on `type` determines the type of `data`. */
export type RidewireEvent = { [Type in EventType]: EventOf<Type> }[EventType];

export type SubscriptionState = 'connecting' | 'live' | 'polling' | 'offline' | 'closed';

/** The subscription's own events. */
export interface SubscriptionEvents<State> {
  /** A stream has started or moved its cursor, or a poll has returned. Precedes a stream's events and follows a poll's. */
  sync: Sync<State>;
  /** Events are missing and will not arrive. */
  gap: Gap;
  status: { state: SubscriptionState };
  /** The subscription has failed permanently: no permission, or no such ride. `closed` follows. */
  error: RidewireError;
  /** The last event. */
  closed: { reason: 'closed' | 'ride_over' | 'removed' | 'error' };
  '*': RidewireEvent;
}

type AllEvents<State> = SubscriptionEvents<State> & { [Type in EventType]: EventOf<Type> };

/**
 * A subscription to a ride, or to all the user's events. Iteration returns its events and throws its error. Its methods are bound,
 * so each can be passed on its own.
 */
export interface Subscription<State> extends AsyncIterable<RidewireEvent> {
  /** The cursor after the last delivered event. An iteration may be behind it: see the events' ids. */
  readonly cursor: string | undefined;
  readonly state: SubscriptionState;
  /** Returns a function that removes the listener. */
  on<Type extends keyof AllEvents<State>>(this: void, type: Type, listener: (event: AllEvents<State>[Type]) => void): () => void;
  off<Type extends keyof AllEvents<State>>(this: void, type: Type, listener: (event: AllEvents<State>[Type]) => void): void;
  close(this: void): void;
}

/** A message of the user's own that is not committed yet. */
export interface PendingMessage {
  clientMessageId: string;
  rideId: string;
  content: string;
  metadata: Record<string, unknown> | null;
  createdAt: Time;
  status: 'sending' | 'failed';
  error: unknown;
  seq?: undefined;
}

/**
 * The view model of a ride's conversation. Its values are replaced, never changed, and its methods are bound. So it works with
 * `useSyncExternalStore(conversation.subscribe, () => conversation.messages)`.
 */
export interface Conversation {
  /** Ordered by `seq`. Messages that are `sending` or `failed` are last. */
  readonly messages: ((Message & { status?: undefined }) | PendingMessage)[];
  readonly ride: Ride | null;
  readonly participants: Participant[];
  readonly receipts: Watermarks[];
  readonly location: Location | null;
  /** The ids of the users who are typing. */
  readonly typing: string[];
  /** Whether there are older messages to load. */
  readonly hasMore: boolean;
  readonly state: SubscriptionState;
  /** The error that has ended the conversation, if any. */
  readonly error: RidewireError | null;
  /** Calls `listener` after changes, once for all changes of the same microtask. Returns a function that removes it. */
  subscribe(this: void, listener: () => void): () => void;
  /** Shows a message immediately and sends it. Returns its `clientMessageId`. */
  send(this: void, content: string, options?: { metadata?: Record<string, unknown> }): string;
  /** Sends a failed message again with the same `clientMessageId`, so it is created only once. */
  retry(this: void, clientMessageId: string): void;
  /** Removes a failed message. */
  discard(this: void, clientMessageId: string): void;
  loadMore(this: void): Promise<void>;
  close(this: void): void;
}

export interface History {
  /** Oldest first. */
  messages: Message[];
  hasMore: boolean;
  /** The log position at which the page is accurate. */
  cursor: string;
  receipts: Watermarks[];
  participants: Participant[];
}

export interface Rides {
  rides: (Ride & { lastMessage: Message | null; unreadCount: number })[];
  hasMore: boolean;
  /** The `before` of the next page. */
  next: string | null;
}

export interface Unread {
  rideId: string;
  unreadCount: number;
}

export interface SendOptions {
  metadata?: Record<string, unknown>;
  /** The message's idempotency key: the same key creates the same message. By default a new one. */
  clientMessageId?: string;
  signal?: AbortSignal;
  /** How many milliseconds the request is repeated; 30,000 by default. */
  timeout?: number;
}

/** Requests and subscriptions of one user. Its methods are bound, so each can be passed on its own. */
export interface Client {
  /** Subscribes to a ride's events, from now on or after a cursor; 0 is the beginning of the log. */
  ride(this: void, rideId: string, options?: { after?: string | number; types?: string[] }): Subscription<RideState>;
  /** Subscribes to all the user's events. */
  all(this: void, options?: { after?: string | number; types?: string[] }): Subscription<AllState>;
  conversation(this: void, rideId: string): Conversation;

  /** Sends a message. Repeats the request until the message is committed; repeats create no second message. */
  send(this: void, rideId: string, content: string, options?: SendOptions): Promise<Message>;
  message(this: void, messageId: string): Promise<Message>;
  edit(this: void, messageId: string, changes: { content?: string; metadata?: Record<string, unknown> | null }): Promise<Message>;
  delete(this: void, messageId: string): Promise<void>;
  /** Marks all messages as read, up to and including this one. */
  read(this: void, messageId: string): Promise<Receipt>;
  delivered(this: void, messageId: string): Promise<Receipt>;
  react(this: void, messageId: string, emoji: string): Promise<void>;
  unreact(this: void, messageId: string, emoji: string): Promise<void>;
  typing(this: void, rideId: string, typing: boolean): Promise<void>;
  presence(this: void, rideId: string): Promise<{ participants: Participant[] }>;
  /** Returns the newest page, or the page before or after a seq. */
  history(this: void, rideId: string, page?: { before?: number; after?: number; limit?: number }): Promise<History>;
  unread(this: void): Promise<{ total: number; rides: Unread[] }>;
  unread(this: void, rideId: string): Promise<Unread>;
  /** Lists the user's rides. Support and service get all rides, or those of `userId`. */
  rides(this: void, page?: { userId?: string; status?: RideStatus; before?: string; limit?: number }): Promise<Rides>;
  accept(this: void, rideId: string): Promise<Ride>;
  cancel(this: void, rideId: string, reason?: string): Promise<Ride>;
  status(this: void, rideId: string, status: RideStatus): Promise<Ride>;
  /** Reopens an ended ride. For support and service. */
  reopen(this: void, rideId: string, until: Time, reason?: string): Promise<Ride>;
  /** Returns the `applicationServerKey` with which a browser subscribes to Web Push. */
  pushKey(this: void): Promise<string>;
  /** Registers a browser's subscription for notifications of undelivered messages. Call it whenever the page opens. */
  subscribePush(this: void, subscription: PushSubscription | PushSubscriptionJSON): Promise<void>;
  unsubscribePush(this: void, endpoint: string): Promise<void>;
  /** Updates the driver's location. */
  location(this: void, rideId: string, position: Position): Promise<void>;
  /** Sends any request below `/api/v1`. */
  request<Response = unknown>(
    this: void,
    method: string,
    path: string,
    options?: { query?: Record<string, unknown>; body?: unknown; signal?: AbortSignal },
  ): Promise<Response>;
}

/** In milliseconds, except `heartbeat` and `wait`, which are in seconds. */
export interface Timing {
  request: number;
  sync: number;
  heartbeat: number;
  silence: number;
  wait: number;
  trial: number;
  longestTrial: number;
  look: number;
  hiddenLook: number;
  renewal: number;
  backoff: number;
  longestBackoff: number;
  send: number;
}

/** The part of `EventSource` that the client uses. */
export interface EventSourceLike {
  readonly readyState: number;
  onopen: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  addEventListener(type: string, listener: (event: any) => void): void;
  close(): void;
}

export interface ConnectOptions {
  /** The server's URL, such as `https://ride.example`. By default, the page's origin. */
  baseUrl?: string;
  /** Called when there is no token, and when the server rejects the last one; it must then return another. */
  token: () => string | Promise<string>;
  /** By default `auto`: a stream if one gets through, otherwise polls. */
  transport?: 'auto' | 'stream' | 'poll';
  fetch?: typeof fetch;
  /** By default the platform's. `null`: streams are read with `fetch`, as on platforms without it. */
  EventSource?: (new (url: string) => EventSourceLike) | null;
  timing?: Partial<Timing>;
  random?: () => number;
}

/** Creates a client. Throws a `TypeError` that names any unknown option; so do the client's methods. */
export function connect(options: ConnectOptions): Client;

/** A problem that the server returned, or a failed request. */
export class RidewireError extends Error {
  /** The response's status, or 0 if there was no response. */
  readonly status: number;
  /** A stable code: the server's, `http_502` and the like from a proxy, or `network`, `timeout`, `no_token`. */
  readonly code: string;
  readonly detail: string | undefined;
  /** The invalid fields. */
  readonly errors: { pointer: string; detail: string }[];
  readonly requestId: string | undefined;
  /** The delay in milliseconds after which to try again, if the server sent one. */
  readonly retryAfter: number | undefined;
  /** Whether the same request may succeed later. */
  readonly isTransient: boolean;
}
