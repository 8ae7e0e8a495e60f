/** What a page asks its application for, and what it is told: every name of the client of release 0.7. */

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, test } from "node:test";

import { ChannelStreamConnection } from "../channelstream.js";
import { Application } from "./support/application.js";
import { Network } from "./support/network.js";
import { Page, TRANSPORTS } from "./support/page.js";
import { Server } from "./support/server.js";
import { until } from "./support/until.js";

let server;
let network;
let application;
const pages = [];

before(async () => {
  server = await Server.start();
  network = await Network.to(server.port);
  application = await Application.on(server.backend);
  application.channelSettings = {
    notify_presence: true,
    broadcast_presence_with_user_lists: true,
    notify_state: true,
    store_history: true,
  };
});

after(async () => {
  for (const { client } of pages) client.closeConnection();
  await network.remove();
  await application.remove();
  await server.remove();
});

const unique = (name) => `${name}-${randomUUID().slice(0, 8)}`;

function page(user, channels, options) {
  const page = new Page(application, network, user, channels, options);
  pages.push(page);
  return page;
}

/** The next event of a page, without what no test can know. */
async function nextEvent(page) {
  await until(() => page.events.length > 0, () => `an event, but ${page.story()}`);
  const { uuid, timestamp, catchup, cursor, ...event } = page.events.shift();
  assert.match(uuid, /^[0-9a-f-]{36}$/);
  event.users?.sort((one, other) => (one.user < other.user ? -1 : 1));
  return event;
}

for (const [transport, options] of Object.entries(TRANSPORTS)) {
  test(`a conversation by ${transport}`, async () => {
    const [room, lobby] = [unique("room"), unique("lobby")];
    const ann = page(unique("ann"), [room], options);
    const bob = page(unique("bob"), [room], options);
    const bothHear = async (event) => {
      for (const each of [ann, bob]) assert.deepEqual(await nextEvent(each), event);
    };

    await ann.connect();
    const [answer, connected] = await ann.hears("connectCallback");
    assert.equal(answer.status, 200);
    assert.equal(answer.readyState, 4);
    assert.equal(answer.getResponseHeader("x-answered-by"), "the application");
    assert.equal(answer.getResponseHeader("x-unheard-of"), null);
    assert.deepEqual(JSON.parse(answer.responseText), connected);
    assert.equal(ann.client.connectionId, connected.conn_id);
    assert.deepEqual(
      ann.told.map(({ name }) => name).filter((name) => name !== "listenMessageCallback"),
      ["channelsChangedCallback", "connectCallback", "beforeListeningCallback", "listenOpenedCallback"],
    );
    assert.deepEqual(await ann.hears("beforeListeningCallback"), [answer, connected]);

    await bob.connect();
    const presence = { type: "presence", channel: room, user: bob.client.username };
    const [annPublic, bobPublic] = [ann, bob].map(({ client }) => ({ user: client.username, state: { mood: "new" } }));
    const joined = { message: { action: "joined" }, state: { mood: "new" }, users: [annPublic, bobPublic] };
    assert.deepEqual(await nextEvent(ann), { ...presence, ...joined });

    ann.client.message({ channel: room, user: ann.client.username, message: { text: "helo" } });
    const [{ uuid }] = (await ann.hears("messageCallback"))[1];
    const said = { type: "message", channel: room, user: ann.client.username, edited: null };
    await bothHear({ ...said, message: { text: "helo" } });

    ann.client.edit({ channel: room, uuid, message: { text: "hello" } });
    const [{ edited }] = (await ann.hears("messageEditCallback"))[1];
    await bothHear({ type: "message:edit", channel: room, message: { text: "hello" }, edited });

    ann.client.delete({ channel: room, uuid });
    assert.equal((await ann.hears("messageDeleteCallback"))[1][0].uuid, uuid);
    await bothHear({ type: "message:delete", channel: room });

    bob.client.updateUserState({ mood: "ok", plan: "other" });
    assert.deepEqual((await bob.hears("setUserStateCallback"))[1].user_state, { mood: "ok", plan: "other" });
    const message = { state: { mood: "ok" }, changed: [{ key: "mood", value: "ok" }] };
    await bothHear({ type: "user_state_change", channel: room, user: bob.client.username, message });

    ann.client.subscribe([lobby]);
    assert.deepEqual((await ann.hears("subscribeCallback"))[1].subscribed_to, [lobby]);
    assert.deepEqual(await ann.hears("channelsChangedCallback", 2), [[lobby, room]]);
    assert.deepEqual(ann.client.channels, [lobby, room]);
    bob.client.message({ channel: lobby, user: bob.client.username, message: { text: "lobby" } });
    assert.deepEqual((await nextEvent(ann)).message, { text: "lobby" });

    ann.client.unsubscribe([lobby]);
    assert.deepEqual((await ann.hears("unsubscribeCallback"))[1].unsubscribed_from, [lobby]);
    assert.deepEqual(ann.client.channels, [room]);
    for (const [times, channel] of [lobby, room].entries()) {
      bob.client.message({ channel, user: ann.client.username, message: { text: "bye" } });
      await bob.hears("messageCallback", times + 2);
    }
    await bothHear({ ...said, message: { text: "bye" } });

    bob.client.disconnect();
    assert.deepEqual((await bob.hears("disconnectCallback"))[1], true);
    assert.deepEqual(await nextEvent(ann), {
      ...presence, message: { action: "parted" }, state: null, users: [annPublic],
    });
    for (const each of [ann, bob]) assert.deepEqual(each.events, []);
    assert.equal(ann.count("listenErrorCallback") + ann.count("listenCloseCallback"), 0);
    ann.client.closeConnection();
  });
}

test("refusals are told by the callbacks for errors", async () => {
  const room = unique("room");
  const ann = await page(unique("ann"), [room]).connect();
  const missing = ["Missing data for required field."];
  ann.client.message({ channel: room });
  assert.deepEqual((await ann.hears("messageErrorCallback"))[1], { 0: { user: missing } });
  ann.client.edit({ channel: room });
  assert.deepEqual((await ann.hears("messageEditErrorCallback"))[1], { 0: { uuid: missing } });
  ann.client.delete({ channel: room });
  assert.deepEqual((await ann.hears("messageDeleteErrorCallback"))[1], { 0: { uuid: missing } });

  const nobody = page(unique("nobody"), [], { connectionId: randomUUID(), shouldReconnect: false });
  nobody.client.subscribe([room]);
  const [answer, data] = await nobody.hears("subscribeErrorCallback");
  assert.equal(answer.status, 422);
  assert.deepEqual(data, { conn_id: ["Unknown connection"] });
  nobody.client.unsubscribe([room]);
  assert.deepEqual((await nobody.hears("unsubscribeErrorCallback"))[1], { conn_id: ["Unknown connection"] });
  nobody.client.updateUserState({ mood: "ok" });
  assert.deepEqual((await nobody.hears("setUserStateErrorCallback"))[1], { user: ["Unknown user"] });
  nobody.client.disconnectUrl = `${server.url}/nowhere`;
  nobody.client.disconnect();
  assert.equal((await nobody.hears("disconnectErrorCallback"))[0].status, 404);
  nobody.client.username = "";
  nobody.client.connect();
  assert.deepEqual(Object.keys((await nobody.hears("connectErrorCallback"))[1]), ["username"]);
});

test("a refusal with status 400 is one, too", async () => {
  const ann = page(unique("ann"), []);
  Object.assign(application, { failures: 1, failureStatus: 400 });
  ann.client.message({});
  const [{ status }, data] = await ann.hears("messageErrorCallback");
  assert.deepEqual([status, data], [400, "not now"]);
  assert.equal(ann.count("messageCallback"), 0);
});

test("an application that is not there, or takes too long, has status 0", async () => {
  const ann = page(unique("ann"), [], { requestTimeout: 50, shouldReconnect: false });
  ann.client.messageUrl = "http://127.0.0.1:9/"; // nobody listens there
  ann.client.message({});
  const [{ status, responseText, error }, data] = await ann.hears("messageErrorCallback");
  assert.deepEqual([status, responseText, data], [0, "", ""]);
  assert(error instanceof Error);
  // A poll of which nothing comes is what a server takes its time for.
  const { conn_id } = await server.backend.connect({ username: unique("slow"), channels: [unique("room")] });
  ann.client.connectUrl = `${server.url}/listen?conn_id=${conn_id}`;
  ann.client.addMutator("connect", (request) => {
    request.body = null;
  });
  ann.client.connect();
  assert.match((await ann.hears("connectErrorCallback"))[0].error.message, /nothing was heard for 50 ms/);
});

test("mutators change every type of request", async () => {
  const room = unique("room");
  const ann = page(unique("ann"), [room]);
  for (const type of Object.keys(ann.client.mutators)) {
    ann.client.addMutator(type, (request) => {
      request.headers.push({ name: "X-CSRF-Token", value: `for ${type}` });
      request.body.mutated = type;
    });
    ann.client.mutators[type].push((request) => {
      request.body.mutated += ", twice";
    });
  }
  ann.client.disconnectUrl = `${application.url}/elsewhere`;
  await ann.connect();
  ann.client.message({});
  ann.client.edit({});
  ann.client.delete({});
  ann.client.subscribe([room]);
  ann.client.unsubscribe([room]);
  ann.client.updateUserState({});
  ann.client.disconnect();
  const mutated = () => application.asked.filter(({ body }) => body.mutated);
  await until(() => mutated().length === 8, () => `8 requests, but ${JSON.stringify(mutated())}`);
  const seen = mutated().map(({ method, path, headers, body }) => {
    assert.equal(headers["content-type"], "application/json");
    assert.equal(body.mutated, `${headers["x-csrf-token"].slice("for ".length)}, twice`);
    return `${headers["x-csrf-token"]}: ${method} ${path.split("?")[0]}`;
  });
  assert.deepEqual(seen.sort(), [
    "for connect: POST /connect",
    "for disconnect: POST /elsewhere",
    "for message: POST /message",
    "for messageDelete: DELETE /message",
    "for messageEdit: PATCH /message",
    "for subscribe: POST /subscribe",
    "for unsubscribe: POST /unsubscribe",
    "for userState: POST /user_state",
  ]);
});

test("a mutator that fails is told as an error, and nothing is sent", async () => {
  const ann = page(unique("ann"), []);
  ann.client.addMutator("message", () => {
    throw new Error("no token");
  });
  const asked = application.asked.length;
  ann.client.message({});
  assert.equal((await ann.hears("messageErrorCallback"))[0].error.message, "no token");
  assert.equal(application.asked.length, asked);
});

test("nothing is asked for no channels", async () => {
  const ann = page(unique("ann"), [unique("room")]);
  const asked = application.asked.length;
  ann.client.subscribe([]);
  await ann.connect();
  assert.deepEqual(application.asked.slice(asked).map(({ path }) => path), ["/connect"]);
});

test("channels to add and to leave", () => {
  const client = new ChannelStreamConnection();
  client.channels = ["a", "b"];
  assert.deepEqual(client.calculateSubscribe(["a", "c"]), ["c"]);
  assert.deepEqual(client.calculateUnsubscribe(["a", "c"]), ["a"]);
  assert.deepEqual(client.calculateUnsubscribe(), []);
});

test("callbacks that nobody replaced write to the console, with debug", (t) => {
  const written = [];
  t.mock.method(console, "log", (...details) => written.push(details));
  const client = new ChannelStreamConnection();
  const names = Object.getOwnPropertyNames(ChannelStreamConnection.prototype).filter((name) => name.endsWith("Callback"));
  for (const name of names) client[name]("nobody looks");
  assert.deepEqual(written, []);
  client.debug = true;
  for (const name of names) client[name]("request");
  assert.deepEqual(written.map(([name]) => name), names);
});

test("every public name of the client of release 0.7 is there", () => {
  const client = new ChannelStreamConnection();
  const defaults = {
    debug: false, channels: [], username: "Anonymous", connectionId: null, websocket: null, websocketUrl: "",
    connectUrl: "", disconnectUrl: "", subscribeUrl: "", unsubscribeUrl: "", userStateUrl: "", messageUrl: "",
    messageEditUrl: "", messageDeleteUrl: "", longPollUrl: "", shouldReconnect: true, heartbeats: true,
    increaseBounceIv: 2000, noWebsocket: false, connected: false,
    mutators: {
      connect: [], message: [], messageEdit: [], messageDelete: [], subscribe: [], unsubscribe: [], disconnect: [],
      userState: [],
    },
  };
  for (const [name, value] of Object.entries(defaults)) assert.deepEqual(client[name], value, name);
  const methods =
    "connect addMutator updateUserState subscribe calculateSubscribe calculateUnsubscribe unsubscribe disconnect message " +
    "delete edit startListening beforeListeningCallback openWebsocket openLongPoll retryConnection closeConnection " +
    "connectionClosedCallback channelsChangedCallback listenOpenedCallback createHeartBeats connectErrorCallback " +
    "listenMessageCallback listenCloseCallback listenErrorCallback connectCallback disconnectCallback messageCallback " +
    "messageErrorCallback messageEditCallback messageEditErrorCallback messageDeleteCallback messageDeleteErrorCallback " +
    "subscribeCallback subscribeErrorCallback unsubscribeCallback unsubscribeErrorCallback setUserStateCallback " +
    "setUserStateErrorCallback";
  for (const name of methods.split(" ")) assert.equal(typeof client[name], "function", name);
  assert.match(ChannelStreamConnection.version, /^\d+\.\d+\.\d+$/);
});

test("the version is that of the package", async () => {
  const { default: description } = await import("../package.json", { with: { type: "json" } });
  assert.equal(ChannelStreamConnection.version, description.version);
});
