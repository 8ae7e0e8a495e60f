/** Types of the signing back end. Fields and answers are those of the wire protocol. */

import type { Content, State } from "channelstream";

/** Makes the tokens by which a server knows its back ends. */
export declare class Signer {
  /** `secret` is the one of the server's configuration. */
  constructor(secret: string);
  /** The value of the header `x-channelstream-secret`, good for 60 seconds from `unixSeconds`, by default now. */
  sign(value?: string, unixSeconds?: number): Promise<string>;
}

/** The server refused, or could not answer well. */
export declare class BackendError extends Error {
  constructor(path: string, status: number, body: unknown, retryAfterSeconds: number | null);
  /** The HTTP status. */
  readonly status: number;
  /** With status 422 an object from fields to what is wrong with them. */
  readonly body: any;
  /** With status 503: repeat the request after so many seconds, messages with the same `uuid`. */
  readonly retryAfterSeconds: number | null;
}

/** Settings of a channel. In `configureChannels`, most of what is left out goes back to its default. */
export interface ChannelSettings {
  /** Whether members are told who comes and goes. Default false. */
  notify_presence?: boolean;
  /** Whether messages are stored. Default false. */
  store_history?: boolean;
  /** How many of them are in the history. Default 10. */
  history_size?: number;
  /** Whether presence lists all members. Default false. */
  broadcast_presence_with_user_lists?: boolean;
  /** Whether members are told of changes of state. Default false. */
  notify_state?: boolean;
  /** Whether what listeners missed is kept for them. Default true. */
  store_frames?: boolean;
  /** How many messages are kept for replay, where that is more than `history_size`. Default 100. */
  replay_size?: number;
  /** Seconds after which messages go; null, the default: never. */
  history_ttl?: number | null;
}

/** What an answer tells of channels. */
export interface InfoOptions {
  /** Default true. */
  include_history?: boolean;
  /** Default true. */
  include_users?: boolean;
  /** For `info()`: which; absent: all. */
  channels?: string[];
  exclude_channels?: string[];
  /** Whether states have public keys only. Default false. */
  return_public_state?: boolean;
}

/** A message as it is stored. */
export interface StoredMessage {
  uuid: string;
  channel: string | null;
  user: string;
  timestamp: string;
  message?: Content;
  edited: string | null;
  pm_users: string[];
  exclude_users: string[];
  no_history: boolean;
  cursor?: string;
}

export interface ChannelInfo {
  uuid: string;
  name: string;
  long_name: null;
  settings: Required<ChannelSettings>;
  history: StoredMessage[];
  last_active: string;
  total_connections: number;
  total_users: number;
  users: string[];
}

export interface ChannelsInfo {
  channels: Record<string, ChannelInfo>;
  users: { user: string; state: State }[];
}

/** Where a message is, or is to go. */
export interface Target {
  /** null or absent: a private message, to `pm_users`. */
  channel?: string | null;
  /** In a channel: only these members. Privately: these users. */
  pm_users?: string[];
  /** Never these. */
  exclude_users?: string[];
}

export interface Post extends Target {
  /** Who says it. */
  user: string;
  message?: Content;
  /** Makes repeating it harmless. Default: a random one. */
  uuid?: string;
  timestamp?: string;
  /** Send it, store nothing. Default false. */
  no_history?: boolean;
}

export interface Edit extends Target {
  uuid: string;
  user?: string;
  timestamp?: string;
  message?: Content;
  edited?: string;
}

export interface Deletion extends Target {
  uuid: string;
}

export interface ConnectRequest {
  username: string;
  conn_id?: string;
  channels?: string[];
  /** State for a user that is new. */
  fresh_user_state?: State;
  /** Merged into the state. */
  user_state?: State;
  /** Replaces the public keys, also when it is absent. */
  state_public_keys?: string[];
  /** For channels that this creates. */
  channel_configs?: Record<string, ChannelSettings>;
  /** How far back the user may replay these channels: a cursor, a timestamp, "earliest". Never from a browser. */
  since?: string;
  info?: InfoOptions;
}

export interface Connected {
  conn_id: string;
  username: string;
  /** All of it: nothing for a browser that must not see private keys. */
  state: State;
  public_state: State;
  channels: string[];
  channels_info: ChannelsInfo;
  cursor: string;
}

export interface SubscribeRequest {
  conn_id: string;
  channels: string[];
  channel_configs?: Record<string, ChannelSettings>;
  info?: InfoOptions;
}

export interface Page {
  channel?: string;
  user?: string;
  /** Oldest first. */
  messages: StoredMessage[];
  /** Where the log stood. */
  cursor: string;
  has_more: boolean;
}

/** Calls a server as an application's back end. Every method throws `BackendError` at any answer but 2xx. */
export declare class Backend {
  /** `timeout`: milliseconds that an answer may take, by default 10000; longer than the server's `commit_timeout`. */
  constructor(options: { url: string; secret: string; timeout?: number });
  /** Lets a user in. */
  connect(request: ConnectRequest): Promise<Connected>;
  /** Adds channels to a connection. */
  subscribe(
    request: SubscribeRequest,
  ): Promise<{ channels: string[]; channels_info: ChannelsInfo; subscribed_to: string[] }>;
  /** Takes channels from a connection. */
  unsubscribe(
    request: Omit<SubscribeRequest, "channel_configs">,
  ): Promise<{ channels: string[]; channels_info: ChannelsInfo; unsubscribed_from: string[] }>;
  /** Says something. `duplicate`: it was known already, and nothing was sent. */
  postMessages(...messages: Post[]): Promise<(StoredMessage & { duplicate?: true })[]>;
  /** Changes messages. */
  editMessages(...messages: Edit[]): Promise<(Edit & { cursor?: string })[]>;
  /** Takes messages back. */
  deleteMessages(...messages: Deletion[]): Promise<(Deletion & { cursor?: string })[]>;
  /** Changes the state of a user, and which of its keys are public. */
  setUserState(request: { user: string; user_state?: State; state_public_keys?: string[] | null }): Promise<{
    user_state: State;
    changed_state: { key: string; value: State[string] }[];
    public_keys: string[];
  }>;
  /** Creates channels and changes their settings; null: create, or leave as it is. */
  configureChannels(settings: Record<string, ChannelSettings | null>): Promise<ChannelsInfo>;
  /** Tells about channels and who is in them. */
  info(options?: InfoOptions): Promise<ChannelsInfo>;
  /** Reads stored messages; `limit` is 50 by default and 1000 at most, `before` and `after` are cursors. */
  history(
    request: ({ channel: string } | { user: string }) & { limit?: number; before?: string; after?: string },
  ): Promise<Page>;
  /** Ends a connection; says whether there was one. */
  disconnect(connectionId: string): Promise<boolean>;
  /** Forgets a user with all that is stored of it. */
  forgetUser(user: string): Promise<{ user: string }>;
  /** Forgets a channel with all that is stored of it. */
  forgetChannel(channel: string): Promise<{ channel: string }>;
}
