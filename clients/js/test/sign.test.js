/** Signing, and the back end's requests, against a real server. */

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import { after, before, describe, test } from "node:test";

import { Backend, BackendError, Signer } from "../sign.js";
import { Server } from "./support/server.js";
import { until } from "./support/until.js";

describe("a signer", () => {
  // Secret, value, time, token: made by the Python library.
  const PUBLISHED = [
    ["secret", "channelstream", 1_700_000_000, "channelstream.ZVPxAA.UB9ITnnv9UITu0ka92WJCn1VFsQ"],
    ["secret", "/connect", 1_700_000_000, "/connect.ZVPxAA.LGgz2XYmQrtshS37benqptPevTY"],
    ["secret", "", 1_700_000_000, ".ZVPxAA.WYsUeUJN4PkBBW_LVSlQ0rYdDtU"],
    ["secret", "channelstream", 0, "channelstream..zsZARI-P3SDL-NFIwVlNZ0CK1Ro"],
    ["zażółć 😀", "channelstream", 1_582_329_600, "channelstream.XlBvAA.LJIfr-lPo4H_AVMzrZY6x02N8bc"],
    ["s3cr3t.with.dots", "a.b", 4_294_967_296, "a.b.AQAAAAA.6wEjT9gKlhsGldoWBqXXyI-TcTg"],
  ];

  test("makes the tokens that the Python library makes", async () => {
    for (const [secret, value, time, token] of PUBLISHED) {
      assert.equal(await new Signer(secret).sign(value, time), token);
    }
  });

  test("signs as of now, if nothing else is said", async (t) => {
    t.mock.method(Date, "now", () => 1_700_000_000_999);
    assert.equal(await new Signer("secret").sign(), PUBLISHED[0][3]);
  });
});

describe("a back end", () => {
  let server;
  let backend;
  before(async () => {
    server = await Server.start();
    ({ backend } = server);
  });
  after(() => server.remove());

  test("asks for everything that there is", async () => {
    const configured = await backend.configureChannels({ news: { store_history: true, history_size: 5 }, lobby: null });
    assert.deepEqual(Object.keys(configured.channels), ["news", "lobby"]);
    assert.equal(configured.channels.news.settings.history_size, 5);

    const connected = await backend.connect({ username: "ann", channels: ["news"], state_public_keys: ["mood"] });
    assert.deepEqual(connected.channels, ["news"]);
    const { conn_id } = connected;
    assert.deepEqual((await backend.subscribe({ conn_id, channels: ["lobby"] })).subscribed_to, ["lobby"]);
    assert.deepEqual((await backend.unsubscribe({ conn_id, channels: ["lobby"] })).unsubscribed_from, ["lobby"]);

    const uuid = randomUUID();
    const message = { uuid, user: "bob", channel: "news", message: { text: "one" } };
    const [one, two] = await backend.postMessages(message, { ...message, uuid: randomUUID() });
    assert.equal(one.uuid, uuid);
    assert.equal((await backend.postMessages(message))[0].duplicate, true);
    const [edited] = await backend.editMessages({ uuid, channel: "news", message: { text: "One" } });
    assert.deepEqual(edited.message, { text: "One" });
    const [deleted] = await backend.deleteMessages({ uuid: two.uuid, channel: "news" });
    assert.equal(deleted.uuid, two.uuid);
    await backend.postMessages({ user: "bob", pm_users: ["ann"], message: { text: "psst" } });

    const { messages, has_more } = await backend.history({ channel: "news", limit: 10 });
    assert.deepEqual(messages.map(({ message }) => message.text), ["One"]);
    assert.equal(has_more, false);
    assert.equal((await backend.history({ user: "ann", after: connected.cursor })).messages[0].message.text, "psst");

    const changed = await backend.setUserState({ user: "ann", user_state: { mood: "ok" } });
    assert.deepEqual(changed.changed_state, [{ key: "mood", value: "ok" }]);
    const info = await backend.info({ channels: ["news"], include_history: false });
    assert.deepEqual(info.channels.news.users, ["ann"]);
    assert.deepEqual(info.users, [{ user: "ann", state: { mood: "ok" } }]);
    assert.deepEqual(Object.keys((await backend.info()).channels), ["news", "lobby"]);

    assert.equal(await backend.disconnect(conn_id), true);
    await until(async () => (await backend.disconnect(conn_id)) === false, "the end of the connection");
    assert.deepEqual(await backend.forgetUser("ann"), { user: "ann" });
    assert.deepEqual(await backend.forgetChannel("news"), { channel: "news" });
    await assert.rejects(backend.history({ channel: "news" }), { name: "BackendError", status: 404 });
  });

  test("is told what is wrong", async () => {
    const refused = await backend.connect({}).catch((error) => error);
    assert(refused instanceof BackendError);
    assert.equal(refused.status, 422);
    assert.deepEqual(refused.body, { username: ["Missing data for required field."] });
    assert.equal(refused.retryAfterSeconds, null);
    assert.match(refused.message, /^\/connect was answered with 422: \{"username"/);
  });

  test("is refused with another secret", async () => {
    const stranger = new Backend({ url: server.url, secret: "guessed" });
    await assert.rejects(stranger.info(), { status: 401, body: { request: "Bad Signature" } });
  });

  test("hears how long to wait, and does not wait for ever", async (t) => {
    const stub = createServer((request, response) => {
      if (request.url === "/info") response.writeHead(503, { "Retry-After": "1" }).end("not now");
    }).listen(0, "127.0.0.1");
    await once(stub, "listening");
    t.after(() => {
      stub.close();
      stub.closeAllConnections();
    });
    const backend = new Backend({ url: `http://127.0.0.1:${stub.address().port}`, secret: "secret", timeout: 50 });
    await assert.rejects(backend.info(), { status: 503, body: "not now", retryAfterSeconds: 1 });
    await assert.rejects(backend.connect({ username: "ann" }), { name: "TimeoutError" });
  });
});
