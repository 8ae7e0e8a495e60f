// The browser client that channelstream 0.7.1 ships, unmodified, on a page of a headless browser (jsdom: answers of
// other origins need their CORS headers) whose small application signs and forwards what the page asks for.
//
// Black box: BASE_URL and SECRET say which server. CHANNELSTREAM_TESTS_CACHE holds what ./run downloaded.
import assert from "node:assert/strict";
import { createHash, createHmac, randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

const { BASE_URL, SECRET, CHANNELSTREAM_TESTS_CACHE: CACHE } = process.env;
const { JSDOM } = createRequire(`${CACHE}/node/`)("jsdom");
const { ChannelStreamConnection, ChannelStreamSigner } = await import(
  `${CACHE}/stock/channelstream/static/channelstream/index.js`
);
const PATIENCE_MS = 10_000;
const SETTINGS = {
  notify_presence: true,
  broadcast_presence_with_user_lists: true,
  notify_state: true,
  store_history: true,
};

// ---- the application ----

function sign() {
  const key = createHash("sha1").update(`itsdangerous.Signersigner${SECRET}`).digest();
  const seconds = Buffer.alloc(4);
  seconds.writeUInt32BE(Date.now() / 1000);
  const text = `channelstream.${seconds.toString("base64url")}`;
  return `${text}.${createHmac("sha1", key).update(text).digest("base64url")}`;
}

function post(path, body, { method = "POST", signature = sign() } = {}) {
  const headers = { "Content-Type": "application/json", "x-channelstream-secret": signature };
  return fetch(BASE_URL + path, { method, headers, body: JSON.stringify(body) });
}

const configs = (channels) => Object.fromEntries(channels.map((channel) => [channel, SETTINGS]));

/** What channelstream is sent for a request of the page. */
const translate = {
  "/connect": ({ username, channels }) => ({
    username,
    channels,
    channel_configs: configs(channels),
    fresh_user_state: { mood: "new", password: "secret" },
    state_public_keys: ["mood"],
  }),
  "/subscribe": ({ conn_id, channels }) => ({ conn_id, channels, channel_configs: configs(channels) }),
  "/unsubscribe": (body) => body,
  "/message": (body) => [body],
  "/user_state": ({ username, update_state }) => ({ user: username, user_state: update_state }),
};

const application = createServer(async (request, response) => {
  let body = "";
  for await (const chunk of request) body += chunk;
  const answer = await post(request.url, translate[request.url](JSON.parse(body)), { method: request.method });
  response.writeHead(answer.status, { "Content-Type": "application/json" }).end(await answer.text());
}).listen(0, "127.0.0.1");
await once(application, "listening");

// ---- the browser ----

const { window } = new JSDOM("", { url: `http://127.0.0.1:${application.address().port}/` });
const { WebSocket, XMLHttpRequest } = window;
Object.assign(globalThis, { window, WebSocket, XMLHttpRequest, setInterval: window.setInterval.bind(window) });

const clients = [];
after(() => {
  for (const client of clients) {
    client.openLongPoll = () => {}; // an answered poll would ask again, even on a closed page
    client.closeConnection();
  }
  window.close();
  application.close();
  application.closeAllConnections();
});

/** A client which remembers what it told its page, by name of the callback. */
function client(username, channels, options = {}) {
  const client = Object.assign(new ChannelStreamConnection(), {
    username,
    channels,
    connectUrl: "/connect",
    subscribeUrl: "/subscribe",
    unsubscribeUrl: "/unsubscribe",
    userStateUrl: "/user_state",
    messageUrl: "/message",
    messageEditUrl: "/message",
    messageDeleteUrl: "/message",
    disconnectUrl: `${BASE_URL}/disconnect`,
    longPollUrl: `${BASE_URL}/listen`,
    websocketUrl: `${BASE_URL.replace(/^http/, "ws")}/ws`,
    shouldReconnect: false,
    ...options,
  });
  client.told = {};
  const names = Object.getOwnPropertyNames(ChannelStreamConnection.prototype);
  for (const name of names.filter((name) => name.endsWith("Callback"))) {
    client.told[name] = [];
    client[name] = (request, data) => client.told[name].push(data ?? request);
  }
  client.told.events = [];
  client.listenMessageCallback = (events) => {
    client.told.listenMessageCallback.push(events);
    client.told.events.push(...events);
  };
  clients.push(client);
  return client;
}

const toldBy = (client) => Object.fromEntries(Object.entries(client.told).filter(([, values]) => values.length));

/** The next value that the client gave to a callback. */
async function next(client, name) {
  const deadline = Date.now() + PATIENCE_MS;
  while (!client.told[name].length) {
    assert(Date.now() < deadline, `${client.username} was told no ${name}, but ${JSON.stringify(toldBy(client))}`);
    await sleep(10);
  }
  return client.told[name].shift();
}

/** The next event that the client heard, without what differs between live and caught up, and without added keys. */
async function nextEvent(client) {
  const { catchup, cursor, uuid, timestamp, ...event } = await next(client, "events");
  assert([undefined, true, false].includes(catchup));
  assert.match(uuid, /^[0-9a-f-]{36}$/);
  if (Array.isArray(event.users)) event.users.sort((a, b) => (a.user < b.user ? -1 : 1));
  return ["message:edit", "message:delete"].includes(event.type) ? { uuid, ...event } : event;
}

async function connect(client) {
  client.connect();
  await next(client, "beforeListeningCallback");
  await next(client, "listenOpenedCallback");
  return next(client, "connectCallback");
}

const unique = (name) => `${name}-${randomUUID().slice(0, 8)}`;

// ---- the tests ----

async function walk(options) {
  const [room, lobby] = [unique("room"), unique("lobby")];
  const ann = client(unique("ann"), [room], options);
  const bob = client(unique("bob"), [room], options);
  const bothHear = async (event) => {
    for (const each of [ann, bob]) assert.deepEqual(await nextEvent(each), event);
  };

  const connected = await connect(ann);
  assert.equal(ann.connectionId, connected.conn_id);
  assert.equal(connected.username, ann.username);
  assert.deepEqual(connected.state, { mood: "new", password: "secret" });
  assert.deepEqual(connected.public_state, { mood: "new" });
  assert.deepEqual(connected.channels_info.channels[room].users, [ann.username]);
  assert.deepEqual(await next(ann, "channelsChangedCallback"), [room]);

  await connect(bob);
  const presence = { type: "presence", channel: room, user: bob.username };
  const [annPublic, bobPublic] = [ann, bob].map(({ username }) => ({ user: username, state: { mood: "new" } }));
  assert.deepEqual(await nextEvent(ann), {
    ...presence, message: { action: "joined" }, state: { mood: "new" }, users: [annPublic, bobPublic],
  });

  ann.message({ channel: room, user: ann.username, message: { text: "helo" } });
  const [{ uuid }] = await next(ann, "messageCallback");
  const said = { type: "message", channel: room, user: ann.username, edited: null };
  await bothHear({ ...said, message: { text: "helo" } });

  ann.edit({ channel: room, uuid, message: { text: "hello" } });
  const [{ edited }] = await next(ann, "messageEditCallback");
  await bothHear({ uuid, type: "message:edit", channel: room, message: { text: "hello" }, edited });

  ann.delete({ channel: room, uuid });
  assert.equal((await next(ann, "messageDeleteCallback"))[0].uuid, uuid);
  await bothHear({ uuid, type: "message:delete", channel: room });

  bob.updateUserState({ mood: "ok", password: "other" });
  const changed = [{ key: "mood", value: "ok" }];
  assert.deepEqual((await next(bob, "setUserStateCallback")).user_state, { mood: "ok", password: "other" });
  await bothHear({
    type: "user_state_change", channel: room, user: bob.username, message: { state: { mood: "ok" }, changed },
  });

  ann.subscribe([lobby]);
  assert.deepEqual((await next(ann, "subscribeCallback")).subscribed_to, [lobby]);
  assert.deepEqual(await next(ann, "channelsChangedCallback"), [lobby, room]);
  bob.message({ channel: lobby, user: bob.username, message: { text: "lobby" } });
  await next(bob, "messageCallback");
  assert.deepEqual((await nextEvent(ann)).message, { text: "lobby" });

  ann.unsubscribe([lobby]);
  assert.deepEqual((await next(ann, "unsubscribeCallback")).unsubscribed_from, [lobby]);
  assert.deepEqual(await next(ann, "channelsChangedCallback"), [room]);
  for (const channel of [lobby, room]) {
    bob.message({ channel, user: ann.username, message: { text: "bye" } });
    await next(bob, "messageCallback");
  }
  await bothHear({ ...said, message: { text: "bye" } });

  await sleep(100); // a client that has just been answered by a poll would go on to the next one all the same
  bob.disconnect();
  await next(bob, "connectionClosedCallback");
  assert.equal(await next(bob, "disconnectCallback"), true);
  assert.deepEqual(await nextEvent(ann), {
    ...presence, message: { action: "parted" }, state: null, users: [annPublic],
  });
  for (const each of [ann, bob]) assert.deepEqual(each.told.events, []);
  assert.deepEqual(ann.told.listenErrorCallback, []);
  return ann;
}

test("walk by websocket", async () => {
  const ann = await walk();
  assert.equal(ann.websocket.readyState, WebSocket.OPEN);
  ann.disconnect();
  assert.equal(await next(ann, "disconnectCallback"), true);
});

test("walk by long poll", async () => {
  const ann = await walk({ noWebsocket: true });
  assert.equal(ann.websocket, null);
  ann.disconnect();
  assert.equal(await next(ann, "disconnectCallback"), true);
});

test("a browser without websockets falls back to long poll", async () => {
  globalThis.window = {};
  const ann = client(unique("ann"), [unique("room")]);
  await connect(ann);
  globalThis.window = window;
  assert.equal(ann.noWebsocket, true);
  ann.message({ channel: ann.channels[0], user: ann.username, message: { text: "hi" } });
  assert.deepEqual((await nextEvent(ann)).message, { text: "hi" });
});

test("a client whose connection the server ended connects anew", async () => {
  const ann = client(unique("ann"), [unique("room")], { shouldReconnect: true, increaseBounceIv: 50 });
  const first = await connect(ann);
  await post("/disconnect", { conn_id: first.conn_id });
  assert.equal((await next(ann, "listenCloseCallback")).code, 1000);
  const second = await next(ann, "connectCallback");
  assert.notEqual(second.conn_id, first.conn_id);
  await next(ann, "listenOpenedCallback");
  ann.message({ channel: ann.channels[0], user: ann.username, message: { text: "back" } });
  assert.deepEqual((await nextEvent(ann)).message, { text: "back" });
  ann.shouldReconnect = false;
});

test("refusals reach the error callbacks", async () => {
  const missing = ["Missing data for required field."];
  const ann = client(unique("ann"), [unique("room")]);
  await connect(ann);
  ann.message({ channel: ann.channels[0] });
  assert.deepEqual(await next(ann, "messageErrorCallback"), { 0: { user: missing } });
  ann.edit({ channel: ann.channels[0] });
  assert.deepEqual(await next(ann, "messageEditErrorCallback"), { 0: { uuid: missing } });
  ann.delete({ channel: ann.channels[0] });
  assert.deepEqual(await next(ann, "messageDeleteErrorCallback"), { 0: { uuid: missing } });

  const nobody = client("", [], { connectionId: randomUUID() });
  nobody.connect();
  assert.deepEqual(Object.keys(await next(nobody, "connectErrorCallback")), ["username"]);
  nobody.subscribe(["room"]);
  assert.deepEqual(await next(nobody, "subscribeErrorCallback"), { conn_id: ["Unknown connection"] });
  nobody.unsubscribe(["room"]);
  assert.deepEqual(await next(nobody, "unsubscribeErrorCallback"), { conn_id: ["Unknown connection"] });
  nobody.username = unique("nobody");
  nobody.updateUserState({ mood: "ok" });
  assert.deepEqual(await next(nobody, "setUserStateErrorCallback"), { user: ["Unknown user"] });
  nobody.openLongPoll();
  await next(nobody, "listenErrorCallback");
});

test("a page of another origin may post JSON to /disconnect", async () => {
  const origin = window.location.origin; // a browser asks first; jsdom does not
  const headers = {
    Origin: origin,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "content-type",
  };
  const answer = await fetch(`${BASE_URL}/disconnect?conn_id=${randomUUID()}`, { method: "OPTIONS", headers });
  assert.equal(answer.status, 200);
  assert(["*", origin].includes(answer.headers.get("access-control-allow-origin")));
  assert.match(answer.headers.get("access-control-allow-methods"), /\bPOST\b/);
  assert.match(answer.headers.get("access-control-allow-headers"), /\bcontent-type\b/i);
});

test("an idle page stays connected", async () => {
  const room = unique("room");
  const ann = client(unique("ann"), [room]);
  const bob = client(unique("bob"), [room], { noWebsocket: true });
  for (const each of [ann, bob]) await connect(each);
  await nextEvent(ann); // bob joined
  await sleep(17_000); // longer than a connection lives without a sign of life
  for (const each of [ann, bob]) {
    assert(each.told.listenMessageCallback.filter((events) => events.length === 0).length >= 2, "no heartbeats");
    assert.deepEqual([...each.told.events, ...each.told.listenErrorCallback, ...each.told.listenCloseCallback], []);
  }
  ann.message({ channel: room, user: ann.username, message: { text: "still there?" } });
  for (const each of [ann, bob]) assert.deepEqual((await nextEvent(each)).message, { text: "still there?" });
});

test("signatures of the client's own signer are accepted", async () => {
  // It leaves one "=" after the time, and makes a wrong signature when a character to be replaced occurs twice.
  const { now } = Date;
  let signature;
  for (let age = 0; !signature; age++) {
    Date.now = () => now() - age * 1000;
    const made = new ChannelStreamSigner(SECRET).signRequest();
    if (!/[+/]/.test(made)) signature = made;
  }
  Date.now = now;
  const answer = await post("/connect", { username: unique("ann") }, { signature });
  assert.equal(answer.status, 200, await answer.text());
});
