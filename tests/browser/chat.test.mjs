/** examples/chat, as persons would use it, beside a server with default settings that is killed now and then. */

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, afterEach, before, test } from "node:test";

import { launch, overflow } from "./support/browser.js";
import { Person } from "./support/person.js";
import { application, pushServer } from "./support/programs.js";
import { becomes, until } from "./support/until.js";

const HOSTILE = `<img src=x onerror="alert(1)"> "'&amp;</script>`;

let browser, push, chat;
let people = [];

before(async () => {
  browser = await launch();
  push = await pushServer();
  chat = await application([process.env.CHAT_BINARY], push);
});

afterEach(async () => {
  const faults = people.flatMap((person) => person.faults);
  for (const person of people) await person.leave();
  people = [];
  assert.deepEqual(faults, []);
});

after(async () => {
  await browser.close();
  await chat.remove();
  await push.remove();
});

async function person(name, options) {
  const person = await Person.come(browser, chat.url, name, options);
  people.push(person);
  return person;
}

test("nobody comes in without a name", async (t) => {
  const context = await browser.newContext({ baseURL: chat.url });
  t.after(() => context.close());
  const page = await context.newPage();
  await page.goto("/");
  assert.equal((await page.request.post("/connect", { data: { channels: ["lobby"] } })).status(), 401);
  await page.fill("#sign-in input", "   ");
  await page.click("#sign-in button");
  await becomes(() => page.textContent("#notice"), "A name has 1 to 40 characters.");
  await page.fill("#sign-in input", " Zoe ");
  await page.press("#sign-in input", "Enter");
  await page.waitForSelector("#connection[data-is=connected]");
  await becomes(() => page.locator("#people .name").allTextContents(), ["Zoe"]);
  await page.click("#sign-out");
  await page.waitForSelector("#sign-in:visible");
});

test("two persons talk in two rooms, and see each other come and go", async () => {
  const ann = await person("Ann");
  await becomes(() => ann.here(), ["Ann"]);
  const bob = await person("Bob");
  await becomes(() => ann.here(), ["Ann", "Bob"]);
  await becomes(() => bob.here(), ["Ann", "Bob"]);

  await ann.say("Hello, Bob");
  await becomes(() => bob.said(), ["Ann: Hello, Bob"]);
  await bob.say("Hello, Ann");
  await becomes(() => ann.said(), ["Ann: Hello, Bob", "Bob: Hello, Ann"]);

  await ann.enter("kitchen");
  await becomes(() => ann.here(), ["Ann"]);
  await ann.say("Nobody else here?");
  await bob.say("Where did you go?");
  await becomes(() => ann.unread("lobby"), "1");
  assert.deepEqual(await bob.said(), ["Ann: Hello, Bob", "Bob: Hello, Ann", "Bob: Where did you go?"]);

  await bob.enter("kitchen");
  await becomes(() => bob.said(), ["Ann: Nobody else here?"]);
  await becomes(() => ann.here(), ["Ann", "Bob"]);
  await bob.page.click("#leave");
  await becomes(() => ann.here(), ["Ann"]);
  await ann.enter("lobby");
  assert.equal(await ann.unread("lobby"), "");
  assert.equal((await ann.said()).at(-1), "Bob: Where did you go?");

  await bob.leave();
  await becomes(() => ann.here(), ["Ann"]);
});

test("whoever comes later or loads the page anew sees what was said", async () => {
  const ann = await person("Ann");
  await ann.enter("kitchen");
  const before = await ann.said();
  await ann.say("What is for lunch?");
  const all = [...before, "Ann: What is for lunch?"];

  const bob = await person("Bob");
  await bob.enter("kitchen");
  await becomes(() => bob.said(), all);
  await ann.page.reload();
  await ann.isConnected();
  await becomes(() => ann.said(), all);
  await becomes(() => ann.page.textContent("#room h2"), "kitchen");
  assert.equal(await ann.page.locator(".missed, .note").count(), 0);
  await bob.say("Soup");
  await becomes(() => ann.said(), [...all, "Bob: Soup"]);
});

test("only the author changes and deletes a message", async () => {
  const [ann, bob] = [await person("Ann"), await person("Bob")];
  for (const one of [ann, bob]) await one.enter("kitchen");
  await ann.say("Tee, anybody?");
  await ann.say("Never mind");
  await becomes(async () => (await bob.said()).slice(-2), ["Ann: Tee, anybody?", "Ann: Never mind"]);

  // By the keyboard alone: arrow up, for the last one; Escape gives it up.
  await ann.page.press("#say textarea", "ArrowUp");
  await ann.page.press(".edit:visible textarea", "Escape");
  await ann.edit("Tee, anybody?", "Tea, anybody?");
  await becomes(async () => (await bob.said()).slice(-2), ["Ann: Tea, anybody?", "Ann: Never mind"]);
  await until(() => bob.message("Tea, anybody?").locator(".mark", { hasText: "edited" }).count(), "the mark of an edit");

  await ann.delete("Never mind");
  await becomes(async () => (await bob.said()).at(-1), "Ann: Tea, anybody?");

  assert.equal(await bob.message("Tea, anybody?").locator(".actions button:visible").count(), 0);
  const uuid = await bob.message("Tea, anybody?").getAttribute("data-key");
  for (const method of ["PATCH", "DELETE"]) {
    const data = { uuid, room: "kitchen", text: "Coffee!" };
    assert.equal((await bob.page.request.fetch("/message", { method, data })).status(), 403, method);
  }
  const later = await person("Cleo");
  await later.enter("kitchen");
  await becomes(async () => (await later.said()).at(-1), "Ann: Tea, anybody?");
});

test("a room is entered whole, also while the page is still connecting", async () => {
  const ann = await person("Ann");
  await ann.enter("kitchen");
  const name = `talk ${randomUUID()}`;
  await ann.say(name);
  const bob = await person("Bob");
  // The application answers nothing until the user has gone elsewhere.
  let release;
  const held = new Promise((resolve) => (release = resolve));
  await bob.page.route("**/connect", async (route) => {
    await held;
    await route.continue();
  });
  await bob.page.reload();
  await bob.page.click('#rooms a[href="#kitchen"]');
  release();
  await becomes(async () => (await bob.said()).at(-1), `Ann: ${name}`);
  await becomes(() => bob.here(), ["Ann", "Bob"]);
  await becomes(() => ann.here(), ["Ann", "Bob"]);
});

test("others see status, colour and who is writing", async () => {
  const [ann, bob] = [await person("Ann"), await person("Bob")];
  await ann.setStatus("at lunch");
  await becomes(() => bob.status("Ann"), "at lunch");
  await ann.page.check("#colours [value=green]");
  await until(() => bob.page.locator("#people li[data-colour=green]", { hasText: "Ann" }).count(), "Ann's colour");

  await ann.page.locator("#say textarea").pressSequentially("We");
  await becomes(() => bob.page.textContent("#typing"), "Ann is writing …");
  await ann.page.press("#say textarea", "Enter");
  await becomes(() => bob.page.textContent("#typing"), "");

  // It is the user's, not the page's.
  await ann.page.reload();
  await ann.isConnected();
  assert.equal(await ann.page.inputValue("#me input"), "at lunch");
  const later = await person("Cleo");
  await becomes(() => later.status("Ann"), "at lunch");
});

test("what was missed comes, and is marked", async () => {
  const [ann, bob] = [await person("Ann"), await person("Bob")];
  for (const text of ["One", "Two", "Three"]) await bob.say(text);
  await becomes(async () => (await ann.said()).slice(-3), ["Bob: One", "Bob: Two", "Bob: Three"]);

  await ann.goOffline();
  await bob.edit("One", "One, at last");
  await bob.delete("Two");
  for (const text of ["Four", "Five"]) await bob.say(text);
  await bob.setStatus("alone");
  await ann.write("Said in a tunnel");
  await becomes(() => ann.waiting(), ["Said in a tunnel"]);
  assert.equal((await ann.said()).at(-1), "Bob: Three");

  await ann.comeBack();
  const now = ["Bob: One, at last", "Bob: Three", "Bob: Four", "Bob: Five", "Ann: Said in a tunnel"];
  await becomes(async () => (await ann.said()).slice(-5), now);
  await becomes(async () => (await bob.said()).slice(-5), now);
  assert.deepEqual(await ann.page.locator(".missed .text").allTextContents(), ["One, at last", "Four", "Five"]);
  assert.deepEqual(await ann.notes(), ["While you were away: 2 messages, 1 change, 1 deletion."]);
  assert.equal(await bob.page.locator(".missed").count(), 0);
  await becomes(() => ann.status("Bob"), "alone");
  await becomes(() => ann.waiting(), []);
});

test("what cannot be replayed is said", async () => {
  const [ann, bob] = [await person("Ann"), await person("Bob")];
  for (const one of [ann, bob]) await one.enter("goldfish");
  await bob.say("0");
  await becomes(() => ann.said(), ["Bob: 0"]);
  await ann.goOffline();
  for (let count = 1; count <= 40; count++) {
    const data = { uuid: randomUUID(), room: "goldfish", text: String(count) };
    assert.equal((await bob.page.request.post("/message", { data })).status(), 200);
  }
  await ann.comeBack();
  await becomes(() => ann.said(), ["36", "37", "38", "39", "40"].map((text) => `Bob: ${text}`));
  assert.deepEqual(await ann.notes(), ["Not all that was said while you were away is still there."]);
  assert.equal(await ann.page.locator(".missed").count(), 5);
});

test("what users write never becomes HTML", async () => {
  const name = `<b>Eve</b> "'&`;
  const [ann, eve] = [await person("Ann"), await person(name)];
  await eve.say(HOSTILE);
  await eve.setStatus(HOSTILE);
  await becomes(async () => (await ann.said()).at(-1), `${name}: ${HOSTILE}`);
  await becomes(() => ann.status(name), HOSTILE);
  await ann.page.fill("#say textarea", "");
  await eve.page.locator("#say textarea").pressSequentially("x");
  await becomes(() => ann.page.textContent("#typing"), `${name} is writing …`);
  await eve.page.reload();
  await eve.isConnected();
  for (const { page } of [ann, eve]) assert.equal(await page.locator("img, #chat b b").count(), 0);
  const proto = await person("__proto__");
  await proto.say("I am not a prototype");
  await becomes(async () => (await ann.here()).includes("__proto__"), true);
});

test("a server that is killed again and again is a pause", async () => {
  const [ann, bob] = [await person("Ann"), await person("Bob")];
  for (const one of [ann, bob]) await one.enter("lobby");
  const before = await ann.said();
  const wanted = [...before];
  for (let round = 1; round <= 3; round++) {
    await ann.say(`${round}: before`);
    await push.kill();
    for (const one of [ann, bob]) await one.page.waitForSelector("#connection[data-is=lost]");
    // Nobody takes what is said now: it is shown as not sent, and kept.
    await ann.write(`${round}: into the void`);
    await ann.write(`${round}: and again`);
    await becomes(() => ann.waiting(), [`${round}: into the void`, `${round}: and again`]);
    await ann.page.waitForSelector(".message[data-state=waiting] >> text=not sent yet");
    await push.start();
    for (const one of [ann, bob]) await one.isConnected();
    await becomes(() => ann.waiting(), []);
    await bob.say(`${round}: after`);
    wanted.push(`Ann: ${round}: before`, `Ann: ${round}: into the void`, `Ann: ${round}: and again`);
    wanted.push(`Bob: ${round}: after`);
    await becomes(() => ann.said(), wanted);
    await becomes(() => bob.said(), wanted);
    await becomes(() => ann.here(), ["Ann", "Bob"]);
  }
  assert.deepEqual([ann.loads, bob.loads], [1, 1]); // nobody loaded the page anew
});

test("kills in the middle of a stream of messages neither lose, double nor turn round one", async () => {
  const [ann, bob] = [await person("Ann"), await person("Bob")];
  for (const one of [ann, bob]) await one.enter("kitchen");
  const before = await bob.said();
  const texts = Array.from({ length: 30 }, (_, index) => `number ${index}`);
  const saying = (async () => {
    for (const text of texts) await ann.write(text);
  })();
  for (const shown of [5, 15]) {
    await until(async () => (await bob.said()).length >= before.length + shown, `${shown} messages`);
    await push.kill();
    await push.start();
  }
  await saying;
  const wanted = [...before, ...texts.map((text) => `Ann: ${text}`)];
  await becomes(() => bob.said(), wanted);
  await becomes(() => ann.said(), wanted);
  await becomes(() => ann.waiting(), []);
});

test("what was kept and sent again, since the answer got lost, is said once", async () => {
  const [ann, bob] = [await person("Ann"), await person("Bob")];
  let isDeaf = false;
  await ann.page.routeWebSocket(/\/ws\?/, (page) => {
    const server = page.connectToServer();
    server.onMessage((frames) => isDeaf || page.send(frames));
  });
  await ann.page.reload();
  await ann.isConnected();
  const before = await bob.said();

  let sent = 0;
  await ann.page.route("**/message", async (route) => {
    const answer = await route.fetch();
    assert.equal(answer.status(), 200);
    sent += 1;
    await (sent === 1 ? route.abort() : route.fulfill({ response: answer }));
  });
  isDeaf = true; // else she would hear herself, and not send it again
  await ann.write("Do you hear me?");
  await until(() => sent === 2, "sending it again");
  await push.kill();
  isDeaf = false;
  await push.start();
  for (const one of [ann, bob]) await one.isConnected();
  await ann.page.unroute("**/message");
  await ann.say("Now I do");
  const wanted = [...before, "Ann: Do you hear me?", "Ann: Now I do"];
  for (const one of [ann, bob]) await becomes(() => one.said(), wanted);
});

test("a phone in the dark", async () => {
  const phone = { viewport: { width: 375, height: 667 }, colorScheme: "dark", isMobile: true, hasTouch: true };
  const name = "W".repeat(40);
  const one = await person(name, phone);
  await one.setStatus("V".repeat(60));
  await one.say("M".repeat(500));
  await becomes(() => one.here(), [name]);
  await one.goOffline();
  await one.write("W".repeat(100));
  await becomes(() => one.waiting(), ["W".repeat(100)]);
  assert.equal(await overflow(one.page), 0);
  const isDark = () => one.page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  assert.equal(await isDark(), "rgb(21, 23, 28)");
  const send = await one.page.locator("#say button").boundingBox();
  assert.ok(send.x + send.width <= 375 && send.y + send.height <= 667, "what there is to do is on the screen");
});
