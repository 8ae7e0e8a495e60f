/**
 * Listening to a real server over a network that fails: each message once and in order, whatever happens on the way.
 */

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { after, before, describe, test } from "node:test";

import { Application } from "./support/application.js";
import { Network } from "./support/network.js";
import { Page, TRANSPORTS } from "./support/page.js";
import { Server } from "./support/server.js";
import { until } from "./support/until.js";

assert(typeof WebSocket !== "undefined", "this Node has no WebSocket: give it --experimental-websocket");

let server;
before(async () => {
  server = await Server.start();
});
after(() => server.remove());

const unique = (name) => `${name}-${randomUUID().slice(0, 8)}`;

/** A room, a network and an application for one test, which ends them. */
async function scene(test, { server: itsServer = server } = {}) {
  const network = await Network.to(itsServer.port);
  const application = await Application.on(itsServer.backend);
  const [room, elsewhere] = [unique("room"), unique("elsewhere")];
  await itsServer.backend.configureChannels({ [elsewhere]: { store_history: true } });
  const pages = [];
  test.after(async () => {
    for (const { client } of pages) client.closeConnection();
    await network.remove();
    await application.remove();
  });
  return {
    network,
    application,
    room,
    backend: itsServer.backend,
    page(options, user = unique("ann")) {
      const page = new Page(application, network, user, [room], options);
      pages.push(page);
      return page;
    },
    /** Until the room holds fewer messages than that: the server drops some beside what it does later. */
    holdsLess: (count) =>
      until(async () => {
        await itsServer.backend.postMessages({ user: "bob", channel: elsewhere });
        return (await itsServer.backend.history({ channel: room, limit: 1000 })).messages.length < count;
      }, "dropping"),
    say: (...texts) =>
      itsServer.backend.postMessages(
        ...texts.map((text) => ({ user: "bob", channel: room, message: { text: String(text) } })),
      ),
  };
}

/** Says numbers one after the other until told to stop; then gives them, as texts. */
function talk(say) {
  const said = [];
  let isOver = false;
  const talking = (async () => {
    while (!isOver) {
      const text = `message ${said.length}`;
      await say(text);
      said.push(text);
    }
  })();
  return async () => {
    isOver = true;
    await talking;
    return said;
  };
}

/** Numbered texts. */
const texts = (name, count) => Array.from({ length: count }, (_, number) => `${name} ${number}`);

for (const [transport, options] of Object.entries(TRANSPORTS)) {
  describe(`by ${transport}`, () => {
    test("what is said around cuts is told once and in order", async (t) => {
      const { network, page, say } = await scene(t);
      const { events, told, client } = await page(options).connect();
      assert.equal(client.transport, transport);
      const stop = talk(say);
      for (let cuts = 0; cuts < 5; cuts++) {
        const heard = events.length;
        await until(() => events.length >= heard + 10, "hearing something");
        const asked = network.asked.length;
        network.cut();
        await until(() => network.asked.length > asked, "coming back");
      }
      const said = await stop();
      await until(() => events.length >= said.length, `hearing all, but ${events.length} of ${said.length}`);
      assert.deepEqual(events.map(({ message }) => message.text), said);
      assert(!told.some(({ name }) => name === "gapCallback"));
      assert.equal(told.filter(({ name }) => name === "connectCallback").length, 1, "the id is good all the time");
    });

    test("what is said while the network is down is told once, with edits and deletions", async (t) => {
      const { network, page, say, backend, room } = await scene(t);
      const ann = await page(options).connect();
      const [kept, dropped] = await say("keep", "drop");
      await ann.texts(2);
      network.isDown = true;
      network.cut();
      await ann.hears("listenErrorCallback");
      assert.equal(ann.client.connected, false);
      await say("one");
      await backend.editMessages({ uuid: kept.uuid, channel: room, message: { text: "kept" } });
      await backend.deleteMessages({ uuid: dropped.uuid, channel: room });
      network.isDown = false;
      await ann.texts(5);
      await say("live");
      await ann.texts(6);
      assert.deepEqual(
        ann.events.map(({ type, uuid, message }) => [type, message?.text ?? uuid]),
        [
          ["message", "keep"],
          ["message", "drop"],
          ["message", "one"],
          ["message:edit", "kept"],
          ["message:delete", dropped.uuid],
          ["message", "live"],
        ],
      );
      assert.equal(ann.client.transport, transport);
    });

    test("a stream that goes silent counts as lost", async (t) => {
      const { network, page, say } = await scene(t);
      // An idle poll takes five seconds; heartbeats come every second.
      const ann = await page({ ...options, silenceTimeout: transport === "longPoll" ? 6000 : 1500 }).connect();
      await say("before");
      await ann.texts(1);
      network.stall();
      await say("meanwhile");
      const [error] = await ann.hears("listenErrorCallback");
      assert.match(error.message, /nothing was heard/);
      assert.equal((await ann.hears("listenCloseCallback"))[0].code, 1006);
      await say("after");
      assert.deepEqual(await ann.texts(3), ["before", "meanwhile", "after"]);
      assert.equal(ann.client.transport, transport);
    });

    test("a second reader of the same connection id takes nothing away", async (t) => {
      const { network, page, say } = await scene(t);
      const ann = await page(options).connect();
      await say("before");
      await ann.texts(1);
      const other = await network.listenToo();
      await say("meanwhile");
      await ann.texts(2);
      await say("after");
      assert.deepEqual(await ann.texts(3), ["before", "meanwhile", "after"]);
      // A page that hears of it takes another id, so that two pages do not take one from each other for ever.
      assert.equal(ann.count("connectCallback"), transport === "websocket" ? 2 : 1);
      other.destroy();
    });

    test("over kill -9 and a start everything is told once and in order", async (t) => {
      const own = await Server.start();
      t.after(() => own.remove());
      const { page, say, backend, room } = await scene(t, { server: own });
      const ann = await page(options).connect();
      const said = [];
      for (let kills = 0; kills < 3; kills++) {
        // Posts of which nobody knows whether they were kept are repeated, with the same uuid.
        const posts = texts(`life ${kills}`, 20).map((text) => ({
          uuid: randomUUID(),
          user: "bob",
          channel: room,
          message: { text },
        }));
        const posting = (async () => {
          for (const post of posts) await until(() => backend.postMessages(post).catch(() => null), "posting");
        })();
        const heard = ann.events.length;
        await until(() => ann.events.length >= heard + 5, "hearing something");
        await own.stop("SIGKILL");
        await own.start();
        await posting;
        said.push(...posts.map(({ message }) => message.text));
      }
      await say("the end");
      assert.deepEqual(await ann.texts(61), [...said, "the end"]);
      assert.equal(ann.count("gapCallback"), 0);
      assert.equal(ann.count("connectCallback"), 1, "connection ids outlive the server");
    });

    test("a connection id that has ended is replaced, and nothing is missed", async (t) => {
      const { page, say, backend, application } = await scene(t);
      const ann = await page(options).connect();
      await say("before");
      await ann.texts(1);
      const { connectionId } = ann.client;
      application.failures = 2;
      assert.equal(await backend.disconnect(connectionId), true);
      await ann.hears("connectErrorCallback", 2);
      await say("meanwhile");
      await ann.hears("connectCallback", 2);
      assert.notEqual(ann.client.connectionId, connectionId);
      await ann.hears("listenOpenedCallback", 2);
      await say("after");
      assert.deepEqual(await ann.texts(3), ["before", "meanwhile", "after"]);
      assert.equal(ann.client.transport, transport);
    });

    test("a gap is told once, before what is left", async (t) => {
      const { network, page, application, backend, room, say, holdsLess } = await scene(t);
      application.channelSettings = { store_history: true, history_size: 2, replay_size: 2 };
      const kept = unique("kept");
      const ann = page(options);
      ann.client.channels = [room, kept];
      await ann.connect();
      network.isDown = true;
      network.cut();
      await ann.hears("listenErrorCallback");
      await say(...texts("trimmed", 100));
      await holdsLess(100);
      await backend.postMessages({ user: "bob", channel: kept, message: { text: "kept" } });
      network.isDown = false;
      const [gaps] = await ann.hears("gapCallback");
      assert.deepEqual(gaps, [{ channel: room, reason: "trimmed" }]);
      await say("live");
      await until(() => ann.events.at(-1)?.message.text === "live", "hearing what is live");
      const missed = ann.events.map(({ message }) => message.text);
      assert.deepEqual(missed.slice(-4), ["trimmed 98", "trimmed 99", "kept", "live"]);
      assert.equal(ann.count("gapCallback"), 1);
      const names = ann.told.filter(({ name, details }) => name === "gapCallback" || details[0]?.length > 0);
      assert.equal(names.map(({ name }) => name).find((name) => /gap|Message/.test(name)), "gapCallback");
    });

    test("heartbeats come as empty arrays", async (t) => {
      const { page } = await scene(t);
      const ann = await page(options).connect();
      const opening = transport === "longPoll" ? 0 : 1; // the marker of an empty replay
      assert.deepEqual(await ann.hears("listenMessageCallback", opening + 1), [[]]);
    });

    test("a page that closes is quiet from then on, and goes on when it connects", async (t) => {
      const { network, page, say } = await scene(t);
      const ann = await page(options).connect();
      await say("before");
      await ann.texts(1);
      ann.client.closeConnection();
      assert.equal(ann.client.connected, false);
      assert.equal(ann.client.transport, null);
      const { length } = ann.told;
      assert.equal(ann.told.at(-1).name, "connectionClosedCallback");
      await say("meanwhile");
      const bob = await page(options).connect();
      const asked = network.asked.length;
      await say("witnessed");
      await bob.texts(1); // by then, ann would have heard
      assert.equal(ann.told.length, length);
      assert.equal(network.asked.slice(asked).filter((line) => line.includes(ann.client.connectionId)).length, 0);
      ann.client.connect();
      assert.deepEqual(await ann.texts(3), ["before", "meanwhile", "witnessed"]);
    });

    test("disconnecting ends the connection id, and connecting then begins anew", async (t) => {
      const { page, say, backend, room } = await scene(t);
      const ann = await page(options).connect();
      await say("before");
      await ann.texts(1);
      const { connectionId } = ann.client;
      ann.client.disconnect();
      assert.equal(ann.client.cursor, null);
      assert.equal(ann.client.connected, false);
      assert.deepEqual((await ann.hears("disconnectCallback"))[1], true);
      const isGone = () => backend.subscribe({ conn_id: connectionId, channels: [room] }).then(() => false, ({ body }) => body);
      assert.deepEqual(await until(isGone, "the end of the id"), { conn_id: ["Unknown connection"] });
      await say("not for ann");
      ann.client.connect();
      await ann.hears("listenOpenedCallback", 2);
      await say("after");
      assert.deepEqual(await ann.texts(2), ["before", "after"]);
    });
  });
}

describe("a long replay", () => {
  test("that breaks off is not told in part, nor is its gap lost or told twice", async (t) => {
    const { network, page, application, say, holdsLess } = await scene(t);
    application.channelSettings = { store_history: true, history_size: 500, replay_size: 500 };
    const ann = await page().connect();
    ann.client.closeConnection();
    const said = texts("x".repeat(1000), 700);
    for (let first = 0; first < said.length; first += 100) await say(...said.slice(first, first + 100));
    await holdsLess(700);
    network.cutsAfter = 100_000;
    ann.client.connect();
    await ann.hears("gapCallback");
    await until(() => ann.events.length > 0, "hearing what is left");
    assert.equal(network.cuts, 2);
    assert.equal(ann.count("gapCallback"), 1);
    assert.equal(ann.count("listenOpenedCallback"), 2);
    const heard = ann.events.map(({ message }) => message.text);
    assert(heard.length >= 500 && heard.length < 700, heard.length);
    assert.deepEqual(heard, said.slice(-heard.length));
    // The polls, which come in pieces, are what gets through such a network.
    assert.equal(ann.client.transport, "longPoll");
  });

  test("a page may answer a gap by beginning anew", async (t) => {
    const { network, page, application, say, holdsLess } = await scene(t);
    application.channelSettings = { store_history: true, history_size: 2, replay_size: 2 };
    const ann = await page().connect();
    ann.client.gapCallback = () => {
      ann.client.cursor = null;
      ann.client.connect();
    };
    network.isDown = true;
    network.cut();
    await ann.hears("listenErrorCallback");
    await say(...texts("missed", 100));
    await holdsLess(100);
    network.isDown = false;
    const [, { channels_info }] = await ann.hears("connectCallback", 2);
    const [{ history }] = Object.values(channels_info.channels);
    assert.deepEqual(history.map(({ message }) => message.text), ["missed 98", "missed 99"]);
    await ann.hears("listenOpenedCallback", 3);
    await say("live");
    assert.deepEqual(await ann.texts(1), ["live"], "what is in the answer is not told again");
  });
});

test("a page that decides otherwise before it is told is told later", async (t) => {
  const { page, say } = await scene(t);
  const ann = await page().connect();
  ann.client.closeConnection();
  await say("meanwhile");
  const { listenOpenedCallback } = ann.client;
  ann.client.listenOpenedCallback = (event) => {
    ann.client.listenOpenedCallback = listenOpenedCallback;
    ann.client.openLongPoll();
  };
  ann.client.connect();
  assert.deepEqual(await ann.texts(1), ["meanwhile"]);
  assert.equal(ann.client.transport, "longPoll");
});

describe("ways of listening", () => {
  const kinds = (network) => network.asked.map((line) => line.match(/^\w+ \/\w+/)[0]);

  test("the best is a websocket", async (t) => {
    const { network, page } = await scene(t);
    const ann = await page().connect();
    assert.equal(ann.client.transport, "websocket");
    assert.equal(ann.client.websocket.readyState, WebSocket.OPEN);
    assert.deepEqual(kinds(network), ["GET /ws"]);
  });

  test("where upgrades are refused, it is a stream of events, at once and when it comes back", async (t) => {
    const { network, page, say } = await scene(t);
    network.refusesUpgrades = true;
    const ann = await page({ increaseBounceIv: 0 }).connect();
    assert.equal(ann.client.transport, "sse");
    network.cut();
    await ann.hears("listenOpenedCallback", 2);
    assert.deepEqual(kinds(network), ["GET /ws", "GET /sse", "GET /sse"]);
    await say("hi");
    assert.deepEqual(await ann.texts(1), ["hi"]);
  });

  test("where streams are held back as well, it polls", async (t) => {
    const { network, page, say } = await scene(t);
    network.refusesUpgrades = network.holdsStreams = true;
    const ann = await page({ openTimeout: 300 }).connect();
    assert.equal(ann.client.transport, "longPoll");
    assert.deepEqual(kinds(network).slice(0, 3), ["GET /ws", "GET /sse", "HEAD /listen"]);
    assert.equal(ann.count("listenErrorCallback"), 2);
    for (const text of ["one", "two", "three"]) {
      await say(text);
      await until(() => ann.events.at(-1)?.message.text === text, text);
    }
    assert.equal(ann.events.length, 3);
    assert.equal(ann.count("listenOpenedCallback"), 1);
  });

  test("the URL of streams is made from that of polls", async (t) => {
    const { page } = await scene(t);
    const ann = await page({ sseUrl: "", noWebsocket: true }).connect();
    assert.equal(ann.client.transport, "sse");
  });

  test("what was lost because nobody was there is not passed over later", async (t) => {
    const { network, page, say } = await scene(t);
    const ann = await page({ increaseBounceIv: 1 }).connect();
    ann.client.listenErrorCallback = () => {
      network.isDown = network.turnedAway < 6; // all three ways, twice
    };
    network.isDown = true;
    network.cut();
    await ann.hears("listenOpenedCallback", 2);
    await say("hi");
    assert.deepEqual(await ann.texts(1), ["hi"]);
    network.cut();
    await ann.hears("listenOpenedCallback", 3);
    assert.equal(kinds(network).at(-1), "GET /ws");
  });

  test("without a URL there is nothing to listen at", async (t) => {
    const { page } = await scene(t);
    const ann = page({ websocketUrl: "", sseUrl: "", longPollUrl: "", shouldReconnect: false });
    ann.client.connect();
    assert.match((await ann.hears("listenErrorCallback"))[0].message, /no URL/);
  });

  test("one of them may be asked for", async (t) => {
    const { page } = await scene(t);
    const ann = await page().connect();
    ann.client.openLongPoll();
    await ann.hears("listenOpenedCallback", 2);
    assert.equal(ann.client.transport, "longPoll");
    ann.client.openWebsocket();
    await ann.hears("listenOpenedCallback", 3);
    assert.equal(ann.client.transport, "websocket");
  });
});

describe("coming back", () => {
  test("the waits double while it fails, and start anew once something is heard", async (t) => {
    const { application, network, page, say } = await scene(t);
    // Waits are told apart by their length: 17 ms, doubled.
    const WAIT = 17;
    const waits = [];
    const { setTimeout } = globalThis;
    t.mock.method(Math, "random", () => 0.5);
    t.mock.method(globalThis, "setTimeout", (action, milliseconds, ...rest) => {
      if (Number.isInteger(Math.log2(milliseconds / WAIT))) waits.push(milliseconds);
      return setTimeout(action, milliseconds, ...rest);
    });
    application.failures = 4;
    const ann = await page({ increaseBounceIv: 2 * WAIT, noSse: true, longPollUrl: "" }).connect();
    assert.equal(ann.count("connectErrorCallback"), 4);
    assert.deepEqual(waits, [WAIT, 2 * WAIT, 4 * WAIT, 8 * WAIT]);
    await say("hi");
    await ann.texts(1);
    network.cut();
    await ann.hears("listenOpenedCallback", 2);
    assert.deepEqual(waits.slice(4), [WAIT]);
  });

  test("only if the page wants it", async (t) => {
    const { network, page } = await scene(t);
    const ann = await page({ noSse: true, longPollUrl: "" }).connect();
    const { listenCloseCallback } = ann.client;
    ann.client.listenCloseCallback = (event) => {
      listenCloseCallback(event);
      ann.client.shouldReconnect = false;
    };
    network.cut();
    await ann.hears("listenCloseCallback");
    ann.client.retryConnection();
    const bob = await page().connect(); // by then, ann would have come back
    assert.equal(bob.client.connected, true);
    assert.equal(ann.client.connected, false);
    assert.equal(ann.count("listenOpenedCallback"), 1);
  });

  test("not after the page was closed meanwhile", async (t) => {
    const { application, page } = await scene(t);
    application.failures = 1;
    const ann = page({ increaseBounceIv: 1 });
    ann.client.connectErrorCallback = () => ann.client.closeConnection();
    ann.client.connect();
    await ann.hears("connectionClosedCallback");
    await page().connect(); // by then, ann would have come back
    assert.equal(application.asked.filter(({ body }) => body.username === ann.client.username).length, 1);
  });

  test("at once when the browser is online again", async (t) => {
    const browser = new EventTarget();
    globalThis.addEventListener = browser.addEventListener.bind(browser);
    t.after(() => delete globalThis.addEventListener);
    const { network, page } = await scene(t);
    t.mock.method(Math, "random", () => 0.99);
    const ann = await page({ increaseBounceIv: 60_000 }).connect();
    network.cut();
    await ann.hears("listenCloseCallback");
    browser.dispatchEvent(new Event("online"));
    await ann.hears("listenOpenedCallback", 2);
  });

  test("a page that never got a cursor takes one from what it hears", async (t) => {
    const { application, network, page, say } = await scene(t);
    application.passesCursor = false;
    const ann = await page().connect();
    assert.equal(ann.client.cursor, null);
    await say("one");
    await ann.texts(1);
    assert.equal(typeof ann.client.cursor, "string");
    network.cut();
    await say("two");
    await ann.hears("listenOpenedCallback", 2);
    await say("three");
    assert.deepEqual(await ann.texts(3), ["one", "two", "three"]);
    assert(network.asked[0].includes("conn_id=") && !network.asked[0].includes("since="));
    assert.match(network.asked[1], /since=\w/);
  });

  test("for whatever an error in a callback of the page", async (t) => {
    const { page, say } = await scene(t);
    const ann = await page().connect();
    const caught = [];
    const { queueMicrotask } = globalThis;
    t.mock.method(globalThis, "queueMicrotask", (action) =>
      queueMicrotask(() => {
        try {
          action();
        } catch (error) {
          caught.push(error.message);
        }
      }),
    );
    const { listenMessageCallback } = ann.client;
    ann.client.listenMessageCallback = (events) => {
      listenMessageCallback(events);
      if (events.length > 0) throw new Error(`the page cannot take ${events[0].message.text}`);
    };
    await say("one");
    await ann.texts(1);
    await say("two");
    assert.deepEqual(await ann.texts(2), ["one", "two"]);
    assert.deepEqual(caught, ["the page cannot take one", "the page cannot take two"]);
    assert.equal(ann.count("listenCloseCallback"), 0);
  });
});

describe("heartbeats of the page", () => {
  test("are sent over a websocket", async (t) => {
    const { network, page } = await scene(t);
    await page({ heartbeatInterval: 10 }).connect();
    await until(() => network.sent >= 3, "three heartbeats");
  });

  test("are not sent where they are not wanted", async (t) => {
    const { network, page } = await scene(t);
    const ann = await page({ heartbeatInterval: 10, heartbeats: false }).connect();
    await ann.hears("listenMessageCallback"); // a second later
    assert.equal(network.sent, 0);
  });
});

test("a server that stops in good order is a pause", async (t) => {
  const own = await Server.start();
  t.after(() => own.remove());
  const { page, say } = await scene(t, { server: own });
  const ann = await page().connect();
  await say("before");
  await ann.texts(1);
  await own.stop("SIGTERM");
  assert.equal((await ann.hears("listenCloseCallback"))[0].code, 1012);
  await own.start();
  await say("after");
  assert.deepEqual(await ann.texts(2), ["before", "after"]);
  assert.equal(ann.count("connectCallback"), 1);
});

test("everything ends, so that a program may", async (t) => {
  const { page } = await scene(t);
  const ann = await page().connect();
  const closed = once(ann.client.websocket, "close");
  ann.client.disconnect();
  await ann.hears("disconnectCallback");
  await closed;
});
