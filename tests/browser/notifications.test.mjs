/** examples/notifications, with our client and, the page unchanged, with the one that came with Channelstream 0.7.1. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { launch, overflow, watch } from "./support/browser.js";
import { application, pushServer } from "./support/programs.js";
import { becomes, until } from "./support/until.js";

const { PYTHON, STOCK_CLIENT } = process.env;
const PROGRAM = fileURLToPath(new URL("../../examples/notifications/app.py", import.meta.url));

let browser, push, app;

before(async () => {
  browser = await launch();
  push = await pushServer();
  app = await application([PYTHON, PROGRAM], push);
});

after(async () => {
  await browser.close();
  await app.remove();
  await push.remove();
});

/** The page imports `/channelstream.js`: that now leads to the old client, whose files are served as they are. */
async function takeStockClient(context) {
  const javascript = (body) => ({ contentType: "text/javascript", body });
  await context.route("**/channelstream.js", (route) => route.fulfill(javascript('export * from "/stock/index.js";')));
  await context.route("**/stock/*", async (route) => {
    const name = new URL(route.request().url()).pathname.split("/").pop();
    await route.fulfill(javascript(await readFile(`${STOCK_CLIENT}/${name}`)));
  });
}

/** A page of that user, as soon as it listens. */
async function open(client, user, options = {}) {
  const context = await browser.newContext({ baseURL: app.url, ...options });
  if (client === "stock") await takeStockClient(context);
  const page = await context.newPage();
  const faults = watch(page);
  await page.goto(`/?user=${encodeURIComponent(user)}`);
  await listens(page);
  const version = await page.evaluate(async () => (await import("/channelstream.js")).ChannelStreamConnection.version);
  assert.equal(version, client === "stock" ? "0.1.1" : "0.1.0");
  return { page, close: () => context.close().then(() => assert.deepEqual(faults, [])) };
}

function listens(page) {
  return page.waitForSelector("#state.connected");
}

function shown(page) {
  return page.locator("#shown li").allTextContents();
}

async function notify(to, text) {
  const body = new URLSearchParams({ to, text });
  const answer = await fetch(`${app.url}/notify`, { method: "POST", body, redirect: "manual" });
  return answer.status;
}

for (const client of ["new", "stock"]) {
  const user = `ann of the ${client} client`;

  test(`${client} client: a notification is shown at once, once, and to its user only`, async () => {
    const ann = await open(client, user);
    const again = await open(client, user);
    const bob = await open(client, `bob of the ${client} client`);
    assert.equal(await notify(user, "by a request"), 303);
    await becomes(() => shown(ann.page), ["by a request"]);
    await becomes(() => shown(again.page), ["by a request"]);

    await ann.page.fill("[name=text]", "by the <b>form</b>");
    await ann.page.click("button");
    for (const one of [ann, again]) await becomes(() => shown(one.page), ["by the <b>form</b>", "by a request"]);
    assert.equal(await ann.page.locator("#shown b").count(), 0);
    assert.deepEqual(await shown(bob.page), []);
    for (const one of [ann, again, bob]) await one.close();
  });

  test(`${client} client: kills of the server are pauses, without a reload`, async () => {
    const name = `${user}, killing`;
    const ann = await open(client, name);
    await ann.page.evaluate(() => (document.isTheSame = true));
    const said = [];
    for (let round = 1; round <= 2; round++) {
      assert.equal(await notify(name, `${round}: before`), 303);
      said.unshift(`${round}: before`);
      await becomes(() => shown(ann.page), said);
      await push.kill();
      await until(() => ann.page.locator("#state:not(.connected)").count(), "losing the connection");
      assert.equal(await notify(name, `${round}: meanwhile`), 500);
      await push.start();
      // Said before the page is back.
      assert.equal(await notify(name, `${round}: back`), 303);
      await listens(ann.page);
      assert.equal(await notify(name, `${round}: after`), 303);
      said.unshift(`${round}: after`, `${round}: back`);
      await becomes(() => shown(ann.page), said);
    }
    assert.equal(await ann.page.evaluate(() => document.isTheSame), true);
    await ann.close();
  });

  test(`${client} client: what was said while no page was open is there`, async () => {
    const name = `${user}, away`;
    await (await open(client, name)).close();
    for (const text of ["one", "two"]) assert.equal(await notify(name, text), 303);
    const ann = await open(client, name);
    await becomes(() => shown(ann.page), ["two", "one"]);
    await ann.page.reload();
    await listens(ann.page);
    await becomes(() => shown(ann.page), ["two", "one"]);
    await ann.close();
  });
}

test("a phone in the dark, long names and long words", async () => {
  const phone = { viewport: { width: 375, height: 667 }, colorScheme: "dark", isMobile: true, hasTouch: true };
  const name = "W".repeat(100);
  const ann = await open("new", name, phone);
  await notify(name, "Donaudampfschifffahrtsgesellschaftskapitän".repeat(5));
  await until(async () => (await shown(ann.page)).length === 1, "a notification");
  assert.equal(await overflow(ann.page), 0);
  // Painted by the browser, as the page has no ground of its own.
  const [ink] = await ann.page.$$eval("h1", ([title]) => getComputedStyle(title).color.match(/\d+/g));
  assert.ok(ink > 200, `bright letters on a dark ground, not ${ink}`);
  await ann.close();
});
