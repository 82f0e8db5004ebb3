/** When something was: RFC 3339, UTC, with milliseconds. */
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
  /** One's own in a response and in `state`; in an event it is open while any participant may write. */
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
  /** Its place in the ride's log. */
  seq: number;
  senderId: string;
  senderRole: RideRole;
  /** Null where it has been deleted. */
  content: string | null;
  metadata: Record<string, unknown> | null;
  clientMessageId: string | null;
  createdAt: Time;
  editedAt: Time | null;
  deletedAt: Time | null;
  /** Of a flagged message, for support and service; null for others, and in events. */
  labels: string[] | null;
  reactions: Reaction[];
  /** Whether another participant's mark has reached it. */
  isDelivered: boolean;
  isRead: boolean;
}

export interface Person {
  userId: string;
  role: RideRole;
}

export interface Participant extends Person {
  online: boolean;
  since: Time | null;
}

/** The seqs of the last messages that have reached somebody, and that they have read; 0 for none. */
export interface Mark {
  userId: string;
  deliveredSeq: number;
  readSeq: number;
}

export interface Receipt extends Mark {
  rideId: string;
}

/** Degrees (WGS 84), degrees clockwise from north, metres a second, metres. */
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

/** A ride as it is at `asOf`, a place in its log. */
export interface RideState {
  asOf: number;
  ride: Ride;
  participants: Participant[];
  receipts: Mark[];
  location: Location | null;
  typing: string[];
}

/** Everything of one's own; `drivers` to support and service. */
export interface AllState {
  rides: Record<string, RideState>;
  drivers?: Driver[];
}

/** Events that retention has taken, both ends included; `topic` says of which log, where there are many. */
export interface Gap {
  topic?: string;
  from: number;
  to: number;
}

export interface Sync<State> {
  /** Where the events that follow begin. */
  cursor: string;
  /** Whether the cursor that was given was honoured without a gap. */
  resumed: boolean;
  gap: Gap | null;
  state: State;
  /** Of everything: rides that are left out because there are more than 64. They come in when there is room. */
  omitted?: string[];
}

export interface RideChange {
  ride: Ride;
  by: string;
  reason?: string;
}

interface Marked {
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

/** What is in the log: it has an id, is replayed, and is handed over once and in order. */
export interface DurableEvents {
  'message:new': Message;
  'message:edited': Message;
  'message:deleted': { rideId: string; messageId: string; seq: number; by: string; at: Time };
  /** `emoji` is null where all reactions of the user are gone: the user was erased. */
  'message:reaction': { rideId: string; messageId: string; userId: string; emoji: string | null; removed: boolean; at: Time };
  'message:read': Marked;
  'message:delivered': Marked;
  'ride:accept': RideChange;
  'ride:cancel': RideChange;
  'ride:status': RideChange;
  'ride:participants': { ride: Ride; joined: Person[]; left: Person[] };
  /** On the stream of everything it comes twice: of the ride, and of one's own topic, with `fromSeq`. */
  'ride:reopened': RideChange & { until: Time; fromSeq?: number };
  'ride:assigned': { ride: Ride; fromSeq: number };
  'ride:closed': { rideId: string; lastSeq: number; reason: 'removed' | 'ride_over' };
  notice: { type: string | null; data: Record<string, unknown>; by: string; at: Time };
}

/** What is told as it happens. Polls do not have these: what they leave behind is in `sync`. */
export interface PassingEvents {
  'typing:indicator': { rideId: string; userId: string; typing: boolean };
  'presence:online': Presence;
  'presence:offline': Presence;
  'ride:location': Location;
  'driver:availability': Driver;
}

export type Events = DurableEvents & PassingEvents;
export type EventType = keyof Events;

/** One event. `id` is the cursor after it; only where it is in the log. */
export type EventOf<Type extends EventType> = {
  type: Type;
  id: Type extends 'ride:closed' ? string | undefined : Type extends keyof DurableEvents ? string : undefined;
  data: Events[Type];
};

/** Any event: a `switch` on its `type` tells its `data`. */
export type RidewireEvent = { [Type in EventType]: EventOf<Type> }[EventType];

export type SubscriptionState = 'connecting' | 'live' | 'polling' | 'offline' | 'closed';

/** The subscription's own events. */
export interface OwnEvents<State> {
  /** A stream began, told its position anew, or a poll was answered. Precedes the events of a stream, follows a poll's. */
  sync: Sync<State>;
  /** Something is missing, and will not come. */
  gap: Gap;
  status: { state: SubscriptionState };
  /** It cannot go on: not allowed, or not there. `closed` follows. */
  error: RidewireError;
  /** The last one. */
  closed: { reason: 'closed' | 'ride_over' | 'removed' | 'error' };
  '*': RidewireEvent;
}

type Listened<State> = OwnEvents<State> & { [Type in EventType]: EventOf<Type> };

/**
 * Follows a ride, or everything of one's own. Iterating takes its events, and throws its error. Its methods are bound: each can be
 * passed on by itself.
 */
export interface Subscription<State> extends AsyncIterable<RidewireEvent> {
  /** The position after the last event that was handed over. Who iterates may be behind it: see the events' ids. */
  readonly cursor: string | undefined;
  readonly state: SubscriptionState;
  /** Returns what takes the listener off again. */
  on<Type extends keyof Listened<State>>(this: void, type: Type, listener: (event: Listened<State>[Type]) => void): () => void;
  off<Type extends keyof Listened<State>>(this: void, type: Type, listener: (event: Listened<State>[Type]) => void): void;
  close(this: void): void;
}

/** A message of one's own that is not known to be committed. */
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
 * A ride's conversation as it is shown. Its values are replaced, never changed, and its methods are bound: both are what
 * `useSyncExternalStore(conversation.subscribe, () => conversation.messages)` needs.
 */
export interface Conversation {
  /** Ordered by `seq`; those that are `sending` or have `failed` are last. */
  readonly messages: ((Message & { status?: undefined }) | PendingMessage)[];
  readonly ride: Ride | null;
  readonly participants: Participant[];
  readonly receipts: Mark[];
  readonly location: Location | null;
  /** The ids of those who are typing. */
  readonly typing: string[];
  /** Whether there are older messages to load. */
  readonly hasMore: boolean;
  readonly state: SubscriptionState;
  /** What has ended it, if it was an error. */
  readonly error: RidewireError | null;
  /** Tells of changes, once for all of the same moment. Returns what takes the listener off again. */
  subscribe(this: void, listener: () => void): () => void;
  /** Shows a message at once and sends it. Returns its `clientMessageId`. */
  send(this: void, content: string, options?: { metadata?: Record<string, unknown> }): string;
  /** Sends a message again that has failed: the same one, should it have arrived after all. */
  retry(this: void, clientMessageId: string): void;
  /** Takes a message away that has failed. */
  discard(this: void, clientMessageId: string): void;
  loadMore(this: void): Promise<void>;
  close(this: void): void;
}

export interface History {
  /** Oldest first. */
  messages: Message[];
  hasMore: boolean;
  /** The place in the log that the page is true at. */
  cursor: string;
  receipts: Mark[];
  participants: Participant[];
}

export interface Rides {
  rides: (Ride & { lastMessage: Message | null; unreadCount: number })[];
  hasMore: boolean;
  /** What to give as `before` for the next page. */
  next: string | null;
}

export interface Unread {
  rideId: string;
  unreadCount: number;
}

export interface SendOptions {
  metadata?: Record<string, unknown>;
  /** The message's own name: sent again under the same name it is the same message. By default a new one. */
  clientMessageId?: string;
  signal?: AbortSignal;
  /** For how many milliseconds it is repeated; 30,000 by default. */
  timeout?: number;
}

/** Requests and subscriptions of one user. Its methods are bound: each can be passed on by itself. */
export interface Client {
  /** Follows one ride, from now on or after a cursor; 0 is the beginning. */
  ride(this: void, rideId: string, options?: { after?: string | number; types?: string[] }): Subscription<RideState>;
  /** Follows everything of one's own. */
  all(this: void, options?: { after?: string | number; types?: string[] }): Subscription<AllState>;
  conversation(this: void, rideId: string): Conversation;

  /** Repeats until it is known to be committed, and it is the same message however often. */
  send(this: void, rideId: string, content: string, options?: SendOptions): Promise<Message>;
  message(this: void, messageId: string): Promise<Message>;
  edit(this: void, messageId: string, changes: { content?: string; metadata?: Record<string, unknown> | null }): Promise<Message>;
  delete(this: void, messageId: string): Promise<void>;
  /** Read up to and including this one. */
  read(this: void, messageId: string): Promise<Receipt>;
  delivered(this: void, messageId: string): Promise<Receipt>;
  react(this: void, messageId: string, emoji: string): Promise<void>;
  unreact(this: void, messageId: string, emoji: string): Promise<void>;
  typing(this: void, rideId: string, typing: boolean): Promise<void>;
  presence(this: void, rideId: string): Promise<{ participants: Participant[] }>;
  /** The newest page, or one before or after a seq. */
  history(this: void, rideId: string, page?: { before?: number; after?: number; limit?: number }): Promise<History>;
  unread(this: void): Promise<{ total: number; rides: Unread[] }>;
  unread(this: void, rideId: string): Promise<Unread>;
  /** `userId` is for support and service, who list all rides. */
  rides(this: void, page?: { userId?: string; status?: RideStatus; before?: string; limit?: number }): Promise<Rides>;
  accept(this: void, rideId: string): Promise<Ride>;
  cancel(this: void, rideId: string, reason?: string): Promise<Ride>;
  status(this: void, rideId: string, status: RideStatus): Promise<Ride>;
  /** Opens a ride that has ended again; for support and service. */
  reopen(this: void, rideId: string, until: Time, reason?: string): Promise<Ride>;
  /** The key with which a browser subscribes to Web Push: its `applicationServerKey`. */
  pushKey(this: void): Promise<string>;
  /** Has a browser's subscription told of messages that are not delivered. Call it whenever the page opens. */
  subscribePush(this: void, subscription: PushSubscription | PushSubscriptionJSON): Promise<void>;
  unsubscribePush(this: void, endpoint: string): Promise<void>;
  /** Tells where the driver is. */
  location(this: void, rideId: string, position: Position): Promise<void>;
  /** Any request below `/api/v1`. */
  request<Answer = unknown>(
    this: void,
    method: string,
    path: string,
    options?: { query?: Record<string, unknown>; body?: unknown; signal?: AbortSignal },
  ): Promise<Answer>;
}

/** In milliseconds, but `heartbeat` and `wait` in seconds. */
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

/** What is used of an `EventSource`. */
export interface EventSourceLike {
  readonly readyState: number;
  onopen: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  addEventListener(type: string, listener: (event: any) => void): void;
  close(): void;
}

export interface ConnectOptions {
  /** Where the server is, such as `https://ride.example`. By default, where the page is from. */
  baseUrl?: string;
  /** Asked when there is no token, and when the server takes the last one no longer: it has to give another then. */
  token: () => string | Promise<string>;
  /** By default `auto`: a stream where one gets through, else polls. */
  transport?: 'auto' | 'stream' | 'poll';
  fetch?: typeof fetch;
  /** By default the platform's. `null`: streams are read through `fetch`, as where there is none. */
  EventSource?: (new (url: string) => EventSourceLike) | null;
  timing?: Partial<Timing>;
  random?: () => number;
}

/** Throws a `TypeError` that names an option which does not exist, as methods do of theirs. */
export function connect(options: ConnectOptions): Client;

/** What the server refused, or what kept a request from being answered. */
export class RidewireError extends Error {
  /** Of the answer; 0 where there was none. */
  readonly status: number;
  /** A stable name: the server's, `http_502` and the like from a proxy, or `network`, `timeout`, `no_token`. */
  readonly code: string;
  readonly detail: string | undefined;
  /** The fields that are wrong. */
  readonly errors: { pointer: string; detail: string }[];
  readonly requestId: string | undefined;
  /** When to try again, in milliseconds, where the server said so. */
  readonly retryAfter: number | undefined;
  /** Whether the same request may be answered later. */
  readonly isTransient: boolean;
}
