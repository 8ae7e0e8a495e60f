/** The parts that need no server: how far the application has been told, which way comes next, how long to wait. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import {
  EventStreamParser,
  Ladder,
  Progress,
  backOff,
  verdictOfClose,
  verdictOfStatus,
} from "../channelstream.js";

const message = (number, more = {}) => ({ type: "message", uuid: `u${number}`, cursor: `e-${number}`, ...more });
const missed = (number) => message(number, { catchup: true });
const marker = (number, gaps = []) => ({ type: "replay", cursor: `e-${number}`, count: 0, gaps });
const nothing = { events: [], gaps: [] };

/** What is told of frames, as soon as that is so. */
function tell(progress, frames) {
  const { cursor, ...told } = progress.take(frames);
  progress.cursor = cursor;
  return told;
}

/** A page that was told of everything up to `cursor`, and a stream that has just opened. */
function opened(cursor) {
  const progress = new Progress();
  progress.cursor = cursor;
  assert.equal(progress.begin(), cursor);
  return progress;
}

describe("progress", () => {
  test("live events are told at once, and each moves the cursor", () => {
    const progress = opened("e-1");
    tell(progress, [marker(1)]);
    assert.deepEqual(tell(progress, [message(2), message(5)]), { events: [message(2), message(5)], gaps: [] });
    assert.equal(progress.begin(), "e-5");
  });

  test("what was missed waits for its marker", () => {
    const progress = opened("e-1");
    assert.deepEqual(tell(progress, [missed(2)]), nothing);
    assert.deepEqual(tell(progress, [missed(3)]), nothing);
    assert(progress.isReplaying);
    assert.deepEqual(tell(progress, [marker(7)]), { events: [missed(2), missed(3)], gaps: [] });
    assert(!progress.isReplaying);
    assert.equal(progress.cursor, "e-7");
  });

  test("a replay that breaks off is asked for again, from where it began", () => {
    const progress = opened("e-1");
    tell(progress, [missed(2)]);
    assert.equal(progress.begin(), "e-1");
    const again = [missed(2), missed(3), marker(3)];
    assert.deepEqual(tell(progress, again), { events: [missed(2), missed(3)], gaps: [] });
  });

  test("what was not told in the end comes again", () => {
    const progress = opened("e-1");
    assert.equal(progress.take([missed(2), marker(7)]).cursor, "e-7");
    assert.equal(progress.begin(), "e-1");
  });

  test("a gap comes with what is left", () => {
    const gaps = [{ channel: "news", reason: "trimmed" }];
    assert.deepEqual(tell(opened("e-1"), [missed(9), marker(9, gaps)]), { events: [missed(9)], gaps });
  });

  test("what follows the marker in the same array is live", () => {
    const progress = opened("e-1");
    const told = tell(progress, [missed(2), marker(2), message(3)]);
    assert.deepEqual(told.events, [missed(2), message(3)]);
    assert.equal(progress.cursor, "e-3");
  });

  test("events without a cursor are told, and move nothing", () => {
    const progress = opened("e-1");
    const presence = { type: "presence", catchup: true };
    assert.deepEqual(tell(progress, [presence, marker(4)]).events, [presence]);
    assert.deepEqual(tell(progress, [presence]).events, [presence]);
    assert.equal(progress.cursor, "e-4");
  });

  test("frames that only carry a cursor are kept, and not told", () => {
    const progress = opened("e-1");
    tell(progress, [marker(1)]);
    assert.deepEqual(tell(progress, [{ type: "cursor", cursor: "e-8" }]), nothing);
    assert.equal(progress.cursor, "e-8");
  });

  test("an empty array tells nothing", () => {
    assert.deepEqual(tell(opened("e-1"), []), nothing);
    assert.deepEqual(tell(opened(null), []), nothing);
  });

  test("without a cursor nothing waits, and only live events give one", () => {
    const progress = opened(null);
    assert(!progress.isReplaying);
    // A server that was given none catches up channel by channel, so that these are in no order.
    assert.deepEqual(tell(progress, [missed(7), missed(3)]).events, [missed(7), missed(3)]);
    assert.equal(progress.cursor, null);
    tell(progress, [message(9)]);
    assert.equal(progress.begin(), "e-9");
  });

  test("however a stream is cut, each event is told once and in order", () => {
    // A log of numbered events; each stream replays what comes after its `since`, then is live, and breaks anywhere.
    const random = randomFrom(20260214);
    for (let round = 0; round < 500; round++) {
      const log = [];
      const told = [];
      const progress = new Progress();
      progress.cursor = "e-0";
      for (let streams = 0; streams < 8; streams++) {
        for (let news = random(6); news > 0; news--) log.push(log.length + 1);
        const since = Number(progress.begin().slice(2));
        const replay = [...log.filter((number) => number > since).map(missed), marker(log.length)];
        const frames = [...replay, ...Array.from({ length: random(5) }, () => message(log.push(log.length + 1)))];
        for (let rest = frames.slice(0, random(frames.length + 1)); rest.length > 0; ) {
          told.push(...tell(progress, rest.splice(0, 1 + random(4))).events);
        }
      }
      progress.begin();
      const since = Number(progress.cursor.slice(2));
      told.push(...tell(progress, [...log.filter((number) => number > since).map(missed), marker(log.length)]).events);
      assert.deepEqual(told.map(({ cursor }) => cursor), log.map((number) => `e-${number}`));
    }
  });
});

/** Whole numbers below a limit, the same ones each time. */
function randomFrom(seed) {
  let state = seed;
  return (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
}

describe("ladder", () => {
  const ways = ["websocket", "sse", "longPoll"];
  const hour = 3_600_000;

  /** A ladder whose attempt at `now` had these refused, and then one that worked. */
  function afterRefusals(refused, now = 0) {
    const ladder = new Ladder();
    ladder.begin();
    for (const way of refused) {
      assert.equal(ladder.choose(ways, now), way);
      ladder.refuse(way);
    }
    return ladder;
  }

  test("goes down from the best", () => {
    assert.equal(afterRefusals(["websocket", "sse"]).choose(ways, 0), "longPoll");
  });

  test("what works is chosen again", () => {
    const ladder = afterRefusals(["websocket"]);
    ladder.settle(0);
    assert.equal(ladder.choose(ways, 0), "sse");
    ladder.begin();
    assert.equal(ladder.choose(ways, 0), "sse");
  });

  test("what was passed over has another try after an hour", () => {
    const ladder = afterRefusals(["websocket"]);
    ladder.settle(1000);
    ladder.begin();
    assert.equal(ladder.choose(ways, 999 + hour), "sse");
    assert.equal(ladder.choose(ways, 1000 + hour), "websocket");
  });

  test("if nothing works, it is nobody's fault", () => {
    const ladder = afterRefusals(["websocket", "sse", "longPoll"]);
    assert.equal(ladder.choose(ways, 0), null);
    ladder.begin();
    assert.equal(ladder.choose(ways, 0), "websocket");
  });

  test("what was passed over is tried again when what worked does not work any more", () => {
    const ladder = afterRefusals(["websocket"]);
    ladder.settle(0);
    ladder.begin();
    ladder.refuse("sse");
    ladder.refuse("longPoll");
    assert.equal(ladder.choose(ways, 1), null);
    ladder.begin();
    assert.equal(ladder.choose(ways, 1), "websocket");
  });

  test("an attempt that ended otherwise blames nobody", () => {
    const ladder = afterRefusals(["websocket"]);
    ladder.begin();
    assert.equal(ladder.choose(ways, 0), "websocket");
  });
});

describe("back-off", () => {
  test("its ceiling doubles up to a minute", () => {
    const ceilings = Array.from({ length: 8 }, (_, failures) => backOff(failures, 2000, () => 1));
    assert.deepEqual(ceilings, [2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000]);
    assert.equal(backOff(10_000, 2000, () => 1), 60_000);
  });

  test("it is anything below that", () => {
    assert.equal(backOff(3, 2000, () => 0), 0);
    assert.equal(backOff(3, 2000, () => 0.25), 4000);
    const waits = Array.from({ length: 1000 }, () => backOff(0, 2000));
    assert(waits.every((wait) => wait >= 0 && wait < 2000));
    assert(Math.max(...waits) - Math.min(...waits) > 1000, "those who are lost together come back apart");
  });
});

describe("verdicts", () => {
  test("of close codes", () => {
    for (const code of [1000, 4001, 4010]) assert.equal(verdictOfClose(code), "ended", code);
    for (const code of [1012, 4008]) assert.equal(verdictOfClose(code), "lost", code);
    for (const code of [1001, 1005, 1006, 1011]) assert.equal(verdictOfClose(code), null, code);
  });

  test("of statuses", () => {
    for (const status of [401, 422]) assert.equal(verdictOfStatus(status), "ended", status);
    for (const status of [408, 429, 500, 502, 503]) assert.equal(verdictOfStatus(status), "lost", status);
    for (const status of [302, 400, 403, 404, 426]) assert.equal(verdictOfStatus(status), null, status);
  });
});

describe("event streams", () => {
  const text = 'retry: 1000\n\nid: e-1\ndata: [{"a":\ndata: "ä 😀"}]\n\n: \n\ndata:[]\n\nevent: x\r\ndata: 1\r\n\r\ndata: 2\r\r';
  const found = ['[{"a":\n"ä 😀"}]', "", "[]", "1", "2"];

  test("are taken apart", () => {
    assert.deepEqual(new EventStreamParser().push(text + "\n"), found);
  });

  test("however they are cut", () => {
    for (let first = 0; first <= text.length; first++) {
      for (let second = first; second <= text.length; second += 7) {
        const parser = new EventStreamParser();
        const pieces = [text.slice(0, first), text.slice(first, second), text.slice(second), "\n"];
        assert.deepEqual(pieces.flatMap((piece) => parser.push(piece)), found, JSON.stringify(pieces));
      }
    }
  });

  test("an event that is not whole is not told", () => {
    assert.deepEqual(new EventStreamParser().push("data: 1\n"), []);
    assert.deepEqual(new EventStreamParser().push("data: 1"), []);
  });
});
