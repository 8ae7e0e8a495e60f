/**
 * The browser client of Channelstream: listens to the push server, and asks the application for all else.
 *
 * Applications use one class, `ChannelStreamConnection`; its names are those of the client that came with Channelstream
 * 0.7. Beneath it, each by itself: `Progress` (how far the application has been told), `Ladder` (which way of listening
 * comes next), `backOff` (how long to wait), `EventStreamParser`, and the three ways of listening, each one function.
 *
 * Runs in pages, in workers and in Node; needs `fetch`, and for websockets `WebSocket`. No dependencies.
 */

export const VERSION = "0.1.0";

/** How long to wait before the next attempt, at most, in milliseconds. */
const LONGEST_WAIT_MS = 60_000;

/** How long a way of listening that did not work, while a lesser one did, is not tried again, in milliseconds. */
const PASS_OVER_MS = 3_600_000;

// ---- how far the application has been told ----

/**
 * Keeps the cursor and decides what may be told when. Pure.
 *
 * What was missed is told whole or not at all: the frames of a replay wait for the marker that ends it, which also says
 * what could not be replayed. A stream that breaks before that leaves the cursor where it was, and the next one begins
 * there again. So nothing is told twice, nothing is left out, and no gap goes untold.
 */
export class Progress {
  /**
   * Where the next stream continues: how far the application has been told. null: nowhere yet. Set by whoever tells it,
   * to the `cursor` of what is told.
   */
  cursor = null;

  /** Frames of a replay whose marker has not come; null: what comes may be told at once. */
  #held = null;

  /** A new stream opens. Gives what it has to ask for as `since`; null: nothing. */
  begin() {
    this.#held = this.cursor === null ? null : [];
    return this.cursor;
  }

  /** Whether frames wait for a marker. */
  get isReplaying() {
    return this.#held !== null;
  }

  /** Takes frames as they came; gives the events that may be told now, the gaps before them, and how far that goes. */
  take(frames) {
    let { cursor } = this;
    let events = [];
    let gaps = [];
    for (const frame of frames) {
      if (frame.type === "replay") {
        events = this.#held ?? events;
        ({ gaps, cursor } = frame);
        this.#held = null;
        continue;
      }
      if (frame.type !== "cursor") (this.#held ?? events).push(frame);
      // A server that was given no `since` catches up channel by channel: such cursors are in no order.
      if (this.#held === null && frame.cursor && frame.catchup !== true) ({ cursor } = frame);
    }
    return { events, gaps, cursor };
  }
}

// ---- when, and how ----

/**
 * Milliseconds to wait after so many failures in a row: anything up to a ceiling that doubles each time, so that
 * listeners that were lost together do not come back together. Pure, but for the default of `random`.
 */
export function backOff(failures, firstCeiling, random = Math.random) {
  return random() * Math.min(LONGEST_WAIT_MS, firstCeiling * 2 ** failures);
}

/**
 * Which way of listening to try, the best that works here. Pure: moments come in.
 *
 * A way that is refused gives way to the next one at once. If that one works, those before it are passed over for an
 * hour; if none does, it was not their fault, and all of them are tried again.
 */
export class Ladder {
  #refused = new Set();
  #passedOverUntil = new Map();

  /** An attempt begins. */
  begin() {
    this.#refused.clear();
  }

  /** The first of `ways`, best first, that is worth trying; null: none is left. */
  choose(ways, now) {
    const isWorthTrying = (way) => !this.#refused.has(way) && !(this.#passedOverUntil.get(way) > now);
    const way = ways.find(isWorthTrying) ?? null;
    if (way === null) this.#passedOverUntil.clear();
    return way;
  }

  /** This way does not work. */
  refuse(way) {
    this.#refused.add(way);
  }

  /** One works: what was refused before it is not tried for a while. */
  settle(now) {
    for (const way of this.#refused) this.#passedOverUntil.set(way, now + PASS_OVER_MS);
    this.#refused.clear();
  }
}

/**
 * What the code that closed a websocket says of the connection id: "ended", ask for another one; "lost", it may be
 * opened again; null: nothing.
 */
export function verdictOfClose(code) {
  // 1000: somebody disconnected it. 4001: it is unknown. 4010: somebody else listens on it.
  if ([1000, 4001, 4010].includes(code)) return "ended";
  // 1012, 1013: the server stops, or is not ready. 4008: we were too slow.
  if ([1012, 1013, 4008].includes(code)) return "lost";
  return null;
}

/** The same of the status of an answer. */
export function verdictOfStatus(status) {
  if (status === 401 || status === 422) return "ended";
  if (status === 408 || status === 429 || status >= 500) return "lost";
  return null;
}

/** Ends what takes too long, or what is not wanted any more. */
class Watch {
  #controller = new AbortController();
  #parent;
  #timer;
  #follow = () => this.#controller.abort(this.#parent.reason);

  /** Fires when `parent`, a signal, does; and when more time passes than was allowed. */
  constructor(parent) {
    this.#parent = parent;
    if (parent?.aborted) this.#follow();
    parent?.addEventListener("abort", this.#follow);
  }

  get signal() {
    return this.#controller.signal;
  }

  /** From now on, something has to happen within so many milliseconds; 0: whenever it likes. */
  allow(milliseconds) {
    clearTimeout(this.#timer);
    const tooLong = () => this.#controller.abort(new Error(`nothing was heard for ${milliseconds} ms`));
    if (milliseconds > 0 && !this.signal.aborted) this.#timer = setTimeout(tooLong, milliseconds);
  }

  /** It is over; what is left of it is ended. */
  stop() {
    clearTimeout(this.#timer);
    this.#parent?.removeEventListener("abort", this.#follow);
    this.#controller.abort(new Error("it is over"));
  }
}

// ---- requests and answers ----

/** A request to the application before it is sent; what mutators get, to change it. */
class ChannelStreamRequest {
  /** `{name, value}` of each header to add. */
  headers = [];
  /** What is sent as JSON; null: no body. */
  body;
  url;
  /** Whether cookies go along: as for `fetch`. */
  credentials = "same-origin";
  /** Whether it is sent to its end when the page is left; browsers limit what such requests may carry. */
  keepAlive = false;

  constructor(url, body) {
    this.url = url;
    this.body = body;
  }

  /** Sends it; without a verb it is POST, or GET if there is no body. Never throws: see `ChannelStreamAnswer`. */
  async execute(verb, signal) {
    const { credentials, keepAlive: keepalive } = this;
    const options = { method: verb ?? (this.body ? "POST" : "GET"), credentials, keepalive, signal };
    options.headers = Object.fromEntries(this.headers.map(({ name, value }) => [name, value]));
    if (this.body) {
      options.headers["Content-Type"] = "application/json";
      options.body = JSON.stringify(this.body);
    }
    try {
      const response = await fetch(this.url, options);
      return new ChannelStreamAnswer(response, await response.text());
    } catch (error) {
      return new ChannelStreamAnswer(null, "", error);
    }
  }
}

/** What callbacks get of an answer, by the names that XMLHttpRequest has for it. */
class ChannelStreamAnswer {
  #headers;
  readyState = 4;

  constructor(response, responseText, error = null) {
    this.#headers = response?.headers;
    /** 0: there was no answer, and `error` says why. */
    this.status = response?.status ?? 0;
    this.statusText = response?.statusText ?? "";
    this.responseURL = response?.url ?? "";
    this.responseText = responseText;
    this.error = error;
  }

  get isGood() {
    return this.status >= 200 && this.status < 300 && this.error === null;
  }

  /** The body: what it says as JSON, or the text if it is none. */
  get data() {
    try {
      return JSON.parse(this.responseText);
    } catch {
      return this.responseText;
    }
  }

  getResponseHeader(name) {
    return this.#headers?.get(name) ?? null;
  }
}

function withQuery(url, parameters) {
  const pairs = Object.entries(parameters).filter(([, value]) => value !== null);
  const query = pairs.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&");
  return url + (url.includes("?") ? "&" : "?") + query;
}

// ---- the ways of listening ----
//
// Each is a function that listens on a `Stream` until that ends, and says how it did:
//
//   {verdict: "again"}   all is well, listen once more
//   {verdict: "lost"}    the connection id may be opened again after a moment
//   {verdict: "ended"}   the connection id has ended
//   {verdict: null}      nobody said; so does an error that is thrown
//
// with `close`, what the page is told of the end of a stream that was open, and `error`, what went wrong, and `data`.

/** What a way of listening works on. */
class Stream {
  #listener;
  #watch;
  #detail;

  /**
   * `listener` is whom it tells: `{progress, openTimeout, silenceTimeout, websocket(socket), opened(detail), heard(told)}`.
   * `isOpen`: it goes on with what is open already.
   */
  constructor(listener, url, signal, isOpen) {
    this.#listener = listener;
    this.#watch = new Watch(signal);
    this.url = url;
    this.isOpen = isOpen;
    this.isAlive();
  }

  /** Fires when the stream is not wanted any more, or silent for too long. */
  get signal() {
    return this.#watch.signal;
  }

  /** The server is there. With a cursor that is not all: the stream is open when the replay has come. */
  established(detail) {
    this.#detail = detail;
    if (!this.#listener.progress.isReplaying) this.open(detail);
  }

  /** What it listens by, if that is a websocket. */
  uses(socket) {
    this.#listener.websocket(socket);
  }

  /** Listening has begun. */
  open(detail) {
    this.isOpen = true;
    this.isAlive();
    this.#listener.opened(detail);
  }

  /** Something came, be it only a part of something. */
  isAlive() {
    this.#watch.allow(this.isOpen ? this.#listener.silenceTimeout : this.#listener.openTimeout);
  }

  /** Frames came; an empty array is a heartbeat. */
  hear(frames) {
    if (!Array.isArray(frames)) throw new Error("this is no array of frames");
    this.isAlive();
    const { progress } = this.#listener;
    const told = progress.take(frames);
    if (progress.isReplaying) return;
    if (!this.isOpen) this.open(this.#detail);
    if (!this.signal.aborted) this.#listener.heard(told);
  }

  end() {
    this.#watch.stop();
  }
}

async function listenByWebSocket(stream) {
  const socket = new WebSocket(stream.url);
  stream.uses(socket);
  try {
    return await new Promise((resolve, reject) => {
      let error;
      socket.onopen = (event) => stream.established(event);
      socket.onmessage = ({ data }) => {
        try {
          stream.hear(JSON.parse(data));
        } catch (error) {
          reject(error);
        }
      };
      socket.onclose = (event) => resolve({ verdict: verdictOfClose(event.code), close: event, error });
      socket.onerror = (event) => {
        error = event;
        // The close comes right after the error, if at all: that of Node 20 does not tell of a handshake that failed.
        setTimeout(() => resolve({ verdict: null, error }), 0);
      };
      stream.signal.addEventListener("abort", () => reject(stream.signal.reason));
    });
  } finally {
    socket.onopen = socket.onmessage = socket.onerror = socket.onclose = null;
    socket.close();
  }
}

async function listenBySse(stream) {
  const options = { headers: { Accept: "text/event-stream" }, cache: "no-store", signal: stream.signal };
  const response = await fetch(stream.url, options);
  if (!response.ok) return endOf(response, await response.text());
  const type = response.headers.get("content-type");
  if (!type?.startsWith("text/event-stream")) throw new Error(`this is no stream of events, but ${type}`);
  const parser = new EventStreamParser();
  const decoder = new TextDecoder();
  const reader = response.body.getReader();
  let isFirst = true;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    // A proxy that holds back what it should pass on shows by this never happening.
    if (isFirst) stream.established(new ChannelStreamAnswer(response, ""));
    isFirst = false;
    stream.isAlive();
    for (const data of parser.push(decoder.decode(value, { stream: true }))) stream.hear(data ? JSON.parse(data) : []);
  }
  return { verdict: null, close: { type: "close", code: 1005, reason: "the stream ended", wasClean: true } };
}

/** One poll; the first one asks beforehand whether the server knows the connection id, since a poll may take its time. */
async function listenByLongPoll(stream) {
  const options = { cache: "no-store", signal: stream.signal };
  if (!stream.isOpen) {
    const response = await fetch(stream.url, { ...options, method: "HEAD" });
    if (!response.ok) return endOf(response, "");
    stream.open(new ChannelStreamAnswer(response, ""));
  }
  const response = await fetch(stream.url, options);
  const text = await response.text();
  if (!response.ok) return endOf(response, text);
  stream.hear(JSON.parse(text));
  return { verdict: "again" };
}

function endOf(response, text) {
  const error = new ChannelStreamAnswer(response, text);
  return { verdict: verdictOfStatus(response.status), error, data: error.data };
}

/** Takes a stream of events apart, as it comes in pieces. Pure. */
export class EventStreamParser {
  #rest = "";
  #data = [];
  #isComment = false;

  /** Takes a piece of text; gives the data of each event that is whole now, and "" for a comment by itself. */
  push(text) {
    const found = [];
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (this.#data.length > 0 || this.#isComment) found.push(this.#data.join("\n"));
        this.#data = [];
        this.#isComment = false;
      } else if (line.startsWith(":")) {
        this.#isComment = true;
      } else if (line.startsWith("data:")) {
        this.#data.push(line.slice(line[5] === " " ? 6 : 5));
      }
    }
    return found;
  }
}

const WAYS = { websocket: listenByWebSocket, sse: listenBySse, longPoll: listenByLongPoll };

// ---- what applications use ----

/**
 * A listener of the push server, for an application's page.
 *
 * Set the URLs, replace the callbacks that matter, and call `connect()`. From then on it stays connected by itself: it
 * comes back with the connection id that it has and the cursor of what it was told last, and asks the application for
 * another id only where that one has ended.
 *
 * Times are in milliseconds. Methods that ask the application give nothing and throw nothing: their callbacks tell.
 */
export class ChannelStreamConnection {
  /** The version of this module. */
  static get version() {
    return VERSION;
  }

  /** Whether callbacks that the application did not replace write to the console. */
  debug = false;
  /** Channels to be subscribed to; after an answer, those that the connection is subscribed to. */
  channels = [];
  /** Who connects. */
  username = "Anonymous";
  /** The connection id that the application gave. */
  connectionId = null;
  /** The current WebSocket, if it listens by one. */
  websocket = null;

  /** Where the push server takes websockets: `wss://push.example.com/ws`. Empty: none are used. */
  websocketUrl = "";
  /** Where it streams events. Empty: where it takes polls, with `/sse` instead of `/listen`. */
  sseUrl = "";
  /** Where it takes polls: `https://push.example.com/listen`. Empty: none are made. */
  longPollUrl = "";
  /** Where it is told that a connection is over: `https://push.example.com/disconnect`. */
  disconnectUrl = "";
  /** What the application is asked, in `connect()`. */
  connectUrl = "";
  /** The same, in `subscribe()`. */
  subscribeUrl = "";
  /** The same, in `unsubscribe()`. */
  unsubscribeUrl = "";
  /** The same, in `updateUserState()`. */
  userStateUrl = "";
  /** The same, in `message()`. */
  messageUrl = "";
  /** The same, in `edit()`. */
  messageEditUrl = "";
  /** The same, in `delete()`. */
  messageDeleteUrl = "";

  /** Whether to come back when a connection is lost or cannot be made. */
  shouldReconnect = true;
  /** The ceiling of the first wait before coming back; it doubles with each failure, up to a minute. */
  increaseBounceIv = 2000;
  /** Whether to send heartbeats over a websocket. Servers of release 0.7 want them; this one does not need them. */
  heartbeats = true;
  /** How often. */
  heartbeatInterval = 10_000;
  /** Whether to do without websockets. */
  noWebsocket = false;
  /** Whether to do without event streams. */
  noSse = false;
  /** How long opening may take, until what was missed has come, before the next way of listening is tried. 0: for ever. */
  openTimeout = 10_000;
  /** How long nothing, not even a heartbeat, may be heard before the stream counts as lost. 0: for ever. */
  silenceTimeout = 20_000;
  /** How long the application may take to answer. 0: for ever. */
  requestTimeout = 30_000;

  /** Whether it listens now. */
  connected = false;
  /** How it does: "websocket", "sse", "longPoll"; null if it does not. */
  transport = null;

  /** Functions that change requests before they are sent, in order. */
  mutators = {
    connect: [],
    message: [],
    messageEdit: [],
    messageDelete: [],
    subscribe: [],
    unsubscribe: [],
    disconnect: [],
    userState: [],
  };

  #progress = new Progress();
  #ladder = new Ladder();
  #failures = 0;
  /** Whether the connection id may be opened again. */
  #isIdGood = false;
  /** Ends all that is under way: listening, connecting, waiting. */
  #activity = new AbortController();
  #heartbeat;

  /**
   * How far the application has been told: where a stream continues. Opaque. Set it to null in order to begin anew: the
   * next answer of `connect()` then says where.
   */
  get cursor() {
    return this.#progress.cursor;
  }

  set cursor(cursor) {
    this.#progress.cursor = cursor;
  }

  // ---- connecting ----

  /**
   * Asks the application for a connection, `POST connectUrl {username, channels}`, and listens on it. The answer has
   * `conn_id` and `channels`, and should have the `cursor` that the push server gave.
   */
  async connect() {
    const { signal } = this.#begin();
    const request = new ChannelStreamRequest(this.connectUrl, { username: this.username, channels: this.channels });
    const answer = await this.#send("connect", request, undefined, signal);
    if (signal.aborted) return;
    const { data } = answer;
    if (!answer.isGood || !data?.conn_id) {
      this.#tell("connectErrorCallback", answer, data);
      if (!signal.aborted) this.retryConnection();
      return;
    }
    this.connectionId = data.conn_id;
    this.#isIdGood = true;
    this.#setChannels(data.channels);
    this.#tell("connectCallback", answer, data);
    if (signal.aborted) return;
    // What may be replayed belongs to the user, not to the connection id: whoever was told something goes on from there.
    this.cursor ??= data.cursor ?? null;
    this.startListening(answer, data);
  }

  /** Listens on `connectionId`, in the best way that works. */
  startListening(request, data) {
    this.#tell("beforeListeningCallback", request, data);
    this.#isIdGood = true;
    this.#listen(this.#ways());
  }

  /** Listens on `connectionId` by websocket. */
  openWebsocket() {
    this.#listen(["websocket"]);
  }

  /** Listens on `connectionId` by long poll. */
  openLongPoll() {
    this.#listen(["longPoll"]);
  }

  /**
   * Comes back after a while, if `shouldReconnect`: with the same connection id, or by `connect()` where that has ended.
   * A page that hears that it is online again does not wait any longer.
   */
  retryConnection() {
    if (!this.shouldReconnect) return;
    const { signal } = this.#begin();
    const comeBack = () => {
      if (this.#isIdGood) this.#listen(this.#ways());
      else this.connect();
    };
    const timer = setTimeout(comeBack, backOff(this.#failures++, this.increaseBounceIv));
    globalThis.addEventListener?.("online", comeBack, { once: true, signal });
    signal.addEventListener("abort", () => clearTimeout(timer));
  }

  /** Stops listening, and trying to. The connection id ends by itself; `connect()` goes on from the cursor. */
  closeConnection() {
    this.#begin();
    this.#tell("connectionClosedCallback");
  }

  /** Tells the push server that the connection is over, and stops listening. `connect()` then begins anew. */
  disconnect() {
    const { connectionId } = this;
    if (connectionId !== null) {
      const url = withQuery(this.disconnectUrl, { conn_id: connectionId });
      const request = new ChannelStreamRequest(url, { conn_id: connectionId });
      request.keepAlive = true;
      this.#ask("disconnect", request);
    }
    this.#isIdGood = false;
    this.cursor = null;
    this.closeConnection();
  }

  // ---- asking the application ----

  /** Adds a function that gets each request of that type, a key of `mutators`, before it is sent, to change it. */
  addMutator(type, func) {
    this.mutators[type].push(func);
  }

  /** Subscribes to more channels: `POST subscribeUrl {channels, conn_id}`. */
  subscribe(channels) {
    const request = new ChannelStreamRequest(this.subscribeUrl, { channels, conn_id: this.connectionId });
    this.#ask("subscribe", request, "POST");
  }

  /** Leaves channels: `POST unsubscribeUrl {channels, conn_id}`. */
  unsubscribe(channels) {
    const request = new ChannelStreamRequest(this.unsubscribeUrl, { channels, conn_id: this.connectionId });
    this.#ask("unsubscribe", request, "POST");
  }

  /** Those of `channels` that it is not subscribed to. */
  calculateSubscribe(channels) {
    return channels.filter((channel) => !this.channels.includes(channel));
  }

  /** Those of `channels` that it is subscribed to. */
  calculateUnsubscribe(channels) {
    return (channels ?? []).filter((channel) => this.channels.includes(channel));
  }

  /** Changes the user's state: `POST userStateUrl {username, conn_id, update_state}`. */
  updateUserState(state) {
    const body = { username: this.username, conn_id: this.connectionId, update_state: state };
    this.#ask("userState", new ChannelStreamRequest(this.userStateUrl, body));
  }

  /** Says something: `POST messageUrl`. */
  message(message) {
    this.#ask("message", new ChannelStreamRequest(this.messageUrl, message), "POST");
  }

  /** Changes a message: `PATCH messageEditUrl`. */
  edit(message) {
    this.#ask("messageEdit", new ChannelStreamRequest(this.messageEditUrl, message), "PATCH");
  }

  /** Takes a message back: `DELETE messageDeleteUrl`. */
  delete(message) {
    this.#ask("messageDelete", new ChannelStreamRequest(this.messageDeleteUrl, message), "DELETE");
  }

  /** Sends heartbeats over the websocket, if `heartbeats`, until it closes. */
  createHeartBeats() {
    clearInterval(this.#heartbeat);
    if (!this.heartbeats || this.websocket === null) return;
    const socket = this.websocket;
    const OPEN = 1;
    this.#heartbeat = setInterval(() => {
      if (this.heartbeats && socket.readyState === OPEN) socket.send('{"type": "heartbeat"}');
    }, this.heartbeatInterval);
  }

  // ---- callbacks: replace those that matter ----

  /** The application has answered `connect()`. `cursor` is null if the page begins anew, and else goes on from there. */
  connectCallback(request, data) {
    this.#log("connectCallback", request, data);
  }

  /** The application refused `connect()`, or did not answer. It is tried again. */
  connectErrorCallback(request, data) {
    this.#log("connectErrorCallback", request, data);
  }

  /** It is about to listen on a connection id. */
  beforeListeningCallback(request, data) {
    this.#log("beforeListeningCallback", request, data);
  }

  /** It listens. */
  listenOpenedCallback(request, data) {
    this.#log("listenOpenedCallback", request, data);
  }

  /** Events came: an array; an empty one is a heartbeat. What was missed comes in one array. */
  listenMessageCallback(data) {
    this.#log("listenMessageCallback", data);
  }

  /**
   * Something cannot be replayed, `gaps` says where: `{channel | user, reason}` each. Called before what is left of it is
   * given to `listenMessageCallback`.
   */
  gapCallback(gaps) {
    this.#log("gapCallback", gaps);
  }

  /** Listening failed. Another way is tried, or it comes back after a while. */
  listenErrorCallback(request, data) {
    this.#log("listenErrorCallback", request, data);
  }

  /** The websocket or the event stream was closed. */
  listenCloseCallback(request, data) {
    this.#log("listenCloseCallback", request, data);
  }

  /** `closeConnection()` or `disconnect()` stopped listening. */
  connectionClosedCallback() {
    this.#log("connectionClosedCallback");
  }

  /** The list of channels was set. */
  channelsChangedCallback(channels) {
    this.#log("channelsChangedCallback", channels);
  }

  /** The push server has answered `disconnect()`. */
  disconnectCallback(request, data) {
    this.#log("disconnectCallback", request, data);
  }

  /** It did not. The connection id ends by itself. */
  disconnectErrorCallback(request, data) {
    this.#log("disconnectErrorCallback", request, data);
  }

  /** The application has answered `subscribe()`. */
  subscribeCallback(request, data) {
    this.#log("subscribeCallback", request, data);
  }

  /** It refused, or did not answer. */
  subscribeErrorCallback(request, data) {
    this.#log("subscribeErrorCallback", request, data);
  }

  /** The application has answered `unsubscribe()`. */
  unsubscribeCallback(request, data) {
    this.#log("unsubscribeCallback", request, data);
  }

  /** It refused, or did not answer. */
  unsubscribeErrorCallback(request, data) {
    this.#log("unsubscribeErrorCallback", request, data);
  }

  /** The application has answered `updateUserState()`. */
  setUserStateCallback(request, data) {
    this.#log("setUserStateCallback", request, data);
  }

  /** It refused, or did not answer. */
  setUserStateErrorCallback(request, data) {
    this.#log("setUserStateErrorCallback", request, data);
  }

  /** The application has answered `message()`. */
  messageCallback(request, data) {
    this.#log("messageCallback", request, data);
  }

  /** It refused, or did not answer. */
  messageErrorCallback(request, data) {
    this.#log("messageErrorCallback", request, data);
  }

  /** The application has answered `edit()`. */
  messageEditCallback(request, data) {
    this.#log("messageEditCallback", request, data);
  }

  /** It refused, or did not answer. */
  messageEditErrorCallback(request, data) {
    this.#log("messageEditErrorCallback", request, data);
  }

  /** The application has answered `delete()`. */
  messageDeleteCallback(request, data) {
    this.#log("messageDeleteCallback", request, data);
  }

  /** It refused, or did not answer. */
  messageDeleteErrorCallback(request, data) {
    this.#log("messageDeleteErrorCallback", request, data);
  }

  // ---- inside ----

  /** Ends what is under way; what begins now lasts until the signal fires. */
  #begin() {
    this.#activity.abort(new Error("the page wants something else"));
    this.#activity = new AbortController();
    this.#listensBy(null);
    return this.#activity;
  }

  /** The ways of listening that this page has, best first. */
  #ways() {
    this.noWebsocket ||= typeof WebSocket === "undefined";
    const ways = Object.keys(WAYS).filter((way) => this.#urlOf(way));
    return ways.filter((way) => !(way === "websocket" && this.noWebsocket) && !(way === "sse" && this.noSse));
  }

  #urlOf(way) {
    if (way === "websocket") return this.websocketUrl;
    if (way === "longPoll") return this.longPollUrl;
    return this.sseUrl || (/\/listen$/.test(this.longPollUrl) ? this.longPollUrl.replace(/listen$/, "sse") : "");
  }

  /** Listens in the first of `ways` that works, until the connection is lost or has ended. */
  async #listen(ways) {
    const { signal } = this.#begin();
    this.#ladder.begin();
    if (ways.length === 0) this.#tell("listenErrorCallback", new Error("there is no URL to listen at"));
    let verdict = "refused";
    while (verdict === "refused" || verdict === "again") {
      const way = this.#ladder.choose(ways, Date.now());
      if (way === null) break;
      const end = await this.#listenBy(way, signal);
      if (signal.aborted) return;
      ({ verdict } = end);
      if (verdict !== "again") this.#listensBy(null);
      if (verdict === "refused") this.#ladder.refuse(way);
      if (end.error) this.#tell("listenErrorCallback", end.error, end.data);
      if (end.close) this.#tell("listenCloseCallback", end.close);
      // The page may have decided otherwise.
      if (signal.aborted) return;
    }
    if (verdict === "ended") this.#isIdGood = false;
    this.retryConnection();
  }

  /** One stream from its opening to its end, whose `verdict` is "again", "refused", "lost" or "ended". */
  async #listenBy(way, signal) {
    const since = this.#progress.begin();
    const url = withQuery(this.#urlOf(way), { conn_id: this.connectionId, since });
    const listener = {
      progress: this.#progress,
      openTimeout: this.openTimeout,
      silenceTimeout: this.silenceTimeout,
      websocket: (socket) => {
        this.websocket = socket;
      },
      opened: (detail) => this.#opened(way, detail),
      heard: (told) => this.#heard(told, signal),
    };
    // A poll after a poll goes on with what is open.
    const stream = new Stream(listener, url, signal, this.transport === way);
    let end;
    try {
      end = await WAYS[way](stream);
    } catch (error) {
      end = { verdict: null, error };
      if (stream.isOpen) end.close = { type: "close", code: 1006, reason: error.message, wasClean: false };
    } finally {
      stream.end();
      clearInterval(this.#heartbeat);
    }
    end.verdict ??= stream.isOpen ? "lost" : "refused";
    return end;
  }

  #opened(way, detail) {
    this.#ladder.settle(Date.now());
    this.#listensBy(way);
    if (way === "websocket") this.createHeartBeats();
    this.#tell("listenOpenedCallback", detail);
  }

  #heard({ events, gaps, cursor }, signal) {
    this.#failures = 0;
    if (gaps.length > 0) this.#tell("gapCallback", gaps);
    // The page may have decided to begin anew, or to listen in another way: then this comes again.
    if (signal.aborted) return;
    this.cursor = cursor;
    this.#tell("listenMessageCallback", events);
  }

  #listensBy(way) {
    this.transport = way;
    this.connected = way !== null;
  }

  #setChannels(channels) {
    if (!Array.isArray(channels)) return;
    this.channels = channels;
    this.#tell("channelsChangedCallback", channels);
  }

  /** Sends a request of the page, and tells the page of the answer. */
  async #ask(type, request, verb) {
    const answer = await this.#send(type, request, verb);
    if (answer === null) return;
    const name = type === "userState" ? "setUserState" : type;
    const { data } = answer;
    if (!answer.isGood) {
      this.#tell(`${name}ErrorCallback`, answer, data);
      return;
    }
    if (type === "subscribe" || type === "unsubscribe") this.#setChannels(data?.channels);
    this.#tell(`${name}Callback`, answer, data);
  }

  /** Has the mutators change a request, and sends it. null: there is nothing to ask for. */
  async #send(type, request, verb, signal) {
    try {
      for (const mutator of this.mutators[type]) mutator(request);
    } catch (error) {
      return new ChannelStreamAnswer(null, "", error);
    }
    if (type === "subscribe" && !request.body?.channels?.length) return null;
    const watch = new Watch(signal);
    watch.allow(this.requestTimeout);
    try {
      return await request.execute(verb, watch.signal);
    } finally {
      watch.stop();
    }
  }

  /** Calls a callback; what goes wrong in it is the page's, and comes up there, and does not end a stream. */
  #tell(callback, ...details) {
    try {
      this[callback](...details);
    } catch (error) {
      queueMicrotask(() => {
        throw error;
      });
    }
  }

  #log(callback, ...details) {
    if (this.debug) console.log(callback, ...details);
  }
}
