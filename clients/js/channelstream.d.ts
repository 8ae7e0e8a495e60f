/** Types of the browser client; what things do is said in README.md and at each name below. */

export declare const VERSION: string;

/** A JSON object as the application defines it. */
export type Content = Record<string, unknown>;

/** A flat map. */
export type State = Record<string, string | number | boolean | null>;

// ---- what listeners get ----

/** Something was said. */
export interface MessageEvent {
  type: "message";
  uuid: string;
  /** null: a private message. */
  channel: string | null;
  user: string;
  /** UTC, as `2026-11-24T06:28:26.841765`. */
  timestamp: string;
  /** Absent if the post had none. */
  message?: Content;
  /** When it was edited last. */
  edited: string | null;
  /** Whether it was missed, and comes late. */
  catchup: boolean;
  /** There if it is stored. */
  cursor?: string;
}

/** A message was changed; what was not given stays as it is. */
export interface MessageEditEvent {
  type: "message:edit";
  uuid: string;
  channel: string | null;
  user?: string;
  timestamp?: string;
  message?: Content;
  edited: string;
  catchup?: boolean;
  cursor?: string;
}

/** A message was taken back. */
export interface MessageDeleteEvent {
  type: "message:delete";
  uuid: string;
  channel: string | null;
  catchup?: boolean;
  cursor?: string;
}

/** A user's first connection entered a channel, or the last one left it. */
export interface PresenceEvent {
  type: "presence";
  uuid: string;
  channel: string;
  user: string;
  /** All members, if the channel is configured so; else empty. */
  users: { user: string; state: State }[];
  timestamp: string;
  message: { action: "joined" | "parted" };
  /** The user's public state; null when parting. */
  state: State | null;
  catchup: boolean;
}

/** Public keys of a user's state changed. */
export interface UserStateChangeEvent {
  type: "user_state_change";
  uuid: string;
  channel: string;
  user: string;
  timestamp: string;
  message: { state: State; changed: { key: string; value: State[string] }[] };
  catchup: boolean;
}

export type ChannelStreamEvent =
  | MessageEvent
  | MessageEditEvent
  | MessageDeleteEvent
  | PresenceEvent
  | UserStateChangeEvent;

/** Where something cannot be replayed, and why. */
export type Gap = ({ channel: string; user?: undefined } | { user: string; channel?: undefined }) & {
  reason: "trimmed" | "floor" | "not_kept" | "unknown_cursor";
};

// ---- requests ----

/** What a mutator may change before a request is sent. */
export interface ChannelStreamRequest {
  url: string;
  /** Sent as JSON; null: no body. */
  body: any;
  /** Headers to add. */
  headers: { name: string; value: string }[];
  /** Whether cookies go along, by default "same-origin". */
  credentials: "omit" | "same-origin" | "include";
  /** Whether it is sent to its end when the page is left. Default false, and true for `disconnect`. */
  keepAlive: boolean;
}

/** What callbacks get of an answer, by the names that XMLHttpRequest has for it. */
export interface ChannelStreamAnswer {
  readonly readyState: 4;
  /** 0: there was no answer; `error` says why. */
  readonly status: number;
  readonly statusText: string;
  readonly responseURL: string;
  readonly responseText: string;
  readonly error: unknown;
  getResponseHeader(name: string): string | null;
}

/** How a stream ended: a CloseEvent for a websocket, and for others something that looks like it. */
export interface StreamEnd {
  readonly type: string;
  readonly code: number;
  readonly reason: string;
  readonly wasClean: boolean;
}

export type Transport = "websocket" | "sse" | "longPoll";
export type Mutator = (request: ChannelStreamRequest) => void;
export type MutatorType =
  | "connect"
  | "message"
  | "messageEdit"
  | "messageDelete"
  | "subscribe"
  | "unsubscribe"
  | "disconnect"
  | "userState";

/** What the application should answer to `connect()`: the answer of the push server, or this much of it. */
export interface ConnectAnswer {
  conn_id: string;
  channels?: string[];
  /** Without it, a page may miss what is said before the first stored message that it hears live. */
  cursor?: string;
}

/**
 * A listener of the push server, for an application's page.
 *
 * Set the URLs, replace the callbacks that matter, and call `connect()`. From then on it stays connected by itself. Times
 * are in milliseconds. Methods that ask the application throw nothing: their callbacks tell.
 */
export declare class ChannelStreamConnection {
  /** The version of this module. */
  static get version(): string;

  /** Whether callbacks that the application did not replace write to the console. Default false. */
  debug: boolean;
  /** Channels to be subscribed to; after an answer, those that the connection is subscribed to. */
  channels: string[];
  /** Who connects. Default "Anonymous". */
  username: string;
  /** The connection id that the application gave. */
  connectionId: string | null;
  /** The WebSocket that it used last. */
  websocket: WebSocket | null;
  /** `wss://push.example.com/ws`. Empty: no websockets. */
  websocketUrl: string;
  /** `https://push.example.com/sse`. Empty: that of polls, with `/sse` instead of `/listen`. */
  sseUrl: string;
  /** `https://push.example.com/listen`. Empty: no polls. */
  longPollUrl: string;
  /** `https://push.example.com/disconnect`. */
  disconnectUrl: string;
  /** Of the application, for `connect()`. */
  connectUrl: string;
  /** Of the application, for `subscribe()`. */
  subscribeUrl: string;
  /** Of the application, for `unsubscribe()`. */
  unsubscribeUrl: string;
  /** Of the application, for `updateUserState()`. */
  userStateUrl: string;
  /** Of the application, for `message()`. */
  messageUrl: string;
  /** Of the application, for `edit()`. */
  messageEditUrl: string;
  /** Of the application, for `delete()`. */
  messageDeleteUrl: string;
  /** Whether to come back when a connection is lost or cannot be made. Default true. */
  shouldReconnect: boolean;
  /** The ceiling of the first wait before coming back, 2000 ms; it doubles with each failure, up to a minute. */
  increaseBounceIv: number;
  /** Whether to send heartbeats over a websocket. Default true. */
  heartbeats: boolean;
  /** How often, 10000 ms. */
  heartbeatInterval: number;
  /** Whether to do without websockets. Default false; true where there are none. */
  noWebsocket: boolean;
  /** Whether to do without event streams. Default false. */
  noSse: boolean;
  /** How long opening may take before the next way of listening is tried, 10000 ms. 0: for ever. */
  openTimeout: number;
  /** How long nothing may be heard before a stream counts as lost, 20000 ms. 0: for ever. */
  silenceTimeout: number;
  /** How long the application may take to answer, 30000 ms. 0: for ever. */
  requestTimeout: number;
  /** Whether it listens now. */
  connected: boolean;
  /** How it does; null if it does not. */
  transport: Transport | null;
  /** Functions that change requests before they are sent, in order. */
  mutators: Record<MutatorType, Mutator[]>;
  /** How far the application has been told. Opaque; null: the next answer of `connect()` says where to begin. */
  cursor: string | null;

  /** Asks the application for a connection, and listens on it. */
  connect(): void;
  /** Listens on `connectionId`, in the best way that works. */
  startListening(request?: unknown, data?: unknown): void;
  /** Listens on `connectionId` by websocket. */
  openWebsocket(): void;
  /** Listens on `connectionId` by long poll. */
  openLongPoll(): void;
  /** Comes back after a while, if `shouldReconnect`. */
  retryConnection(): void;
  /** Stops listening, and trying to; `connect()` goes on from the cursor. */
  closeConnection(): void;
  /** Tells the push server that the connection is over, and stops listening; `connect()` begins anew. */
  disconnect(): void;
  /** Adds a function that gets each request of that type before it is sent. */
  addMutator(type: MutatorType, func: Mutator): void;
  /** Subscribes to more channels. Does nothing if there are none. */
  subscribe(channels: string[]): void;
  /** Leaves channels. */
  unsubscribe(channels: string[]): void;
  /** Those of `channels` that it is not subscribed to. */
  calculateSubscribe(channels: string[]): string[];
  /** Those of `channels` that it is subscribed to. */
  calculateUnsubscribe(channels?: string[] | null): string[];
  /** Changes the user's state. */
  updateUserState(state: State): void;
  /** Says something. */
  message(message: object): void;
  /** Changes a message. */
  edit(message: object): void;
  /** Takes a message back. */
  delete(message: object): void;
  /** Sends heartbeats over the websocket, if `heartbeats`, until it closes. */
  createHeartBeats(): void;

  /** The application has answered `connect()`. */
  connectCallback(request: ChannelStreamAnswer, data: any): void;
  /** The application refused `connect()`, or did not answer. It is tried again. */
  connectErrorCallback(request: ChannelStreamAnswer, data: any): void;
  /** It is about to listen on a connection id. */
  beforeListeningCallback(request?: unknown, data?: any): void;
  /** It listens. */
  listenOpenedCallback(request: Event | ChannelStreamAnswer): void;
  /** Events came; an empty array is a heartbeat. */
  listenMessageCallback(data: ChannelStreamEvent[]): void;
  /** Something cannot be replayed. Called before what is left is given to `listenMessageCallback`. */
  gapCallback(gaps: Gap[]): void;
  /** Listening failed. Another way is tried, or it comes back after a while. */
  listenErrorCallback(request: Event | ChannelStreamAnswer | Error, data?: any): void;
  /** The stream was closed. */
  listenCloseCallback(request: StreamEnd): void;
  /** `closeConnection()` or `disconnect()` stopped listening. */
  connectionClosedCallback(): void;
  /** The list of channels was set. */
  channelsChangedCallback(channels: string[]): void;
  /** The push server has answered `disconnect()`: whether it knew the connection. */
  disconnectCallback(request: ChannelStreamAnswer, data: any): void;
  /** It did not. The connection id ends by itself. */
  disconnectErrorCallback(request: ChannelStreamAnswer, data: any): void;
  /** The application has answered `subscribe()`. */
  subscribeCallback(request: ChannelStreamAnswer, data: any): void;
  /** It refused, or did not answer. */
  subscribeErrorCallback(request: ChannelStreamAnswer, data: any): void;
  /** The application has answered `unsubscribe()`. */
  unsubscribeCallback(request: ChannelStreamAnswer, data: any): void;
  /** It refused, or did not answer. */
  unsubscribeErrorCallback(request: ChannelStreamAnswer, data: any): void;
  /** The application has answered `updateUserState()`. */
  setUserStateCallback(request: ChannelStreamAnswer, data: any): void;
  /** It refused, or did not answer. */
  setUserStateErrorCallback(request: ChannelStreamAnswer, data: any): void;
  /** The application has answered `message()`. */
  messageCallback(request: ChannelStreamAnswer, data: any): void;
  /** It refused, or did not answer. */
  messageErrorCallback(request: ChannelStreamAnswer, data: any): void;
  /** The application has answered `edit()`. */
  messageEditCallback(request: ChannelStreamAnswer, data: any): void;
  /** It refused, or did not answer. */
  messageEditErrorCallback(request: ChannelStreamAnswer, data: any): void;
  /** The application has answered `delete()`. */
  messageDeleteCallback(request: ChannelStreamAnswer, data: any): void;
  /** It refused, or did not answer. */
  messageDeleteErrorCallback(request: ChannelStreamAnswer, data: any): void;
}
