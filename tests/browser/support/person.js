/** Somebody who uses the chat, in a browser context of their own: what they do, and what they see. */

import { watch } from "./browser.js";

export class Person {
  /** How often a document was loaded. */
  loads = 0;

  static async come(browser, url, name, options = {}) {
    const person = new Person();
    person.name = name;
    person.context = await browser.newContext({ baseURL: url, viewport: { width: 1280, height: 800 }, ...options });
    person.page = await person.context.newPage();
    person.page.on("domcontentloaded", () => (person.loads += 1));
    person.faults = watch(person.page);
    await person.context.request.post("/session", { data: { name } });
    await person.page.goto("/");
    await person.isConnected();
    return person;
  }

  /** Closes the tab, as persons do. */
  async leave() {
    if (!this.page.isClosed()) await this.page.close({ runBeforeUnload: true });
    if (!this.page.isClosed()) await this.page.waitForEvent("close");
    await this.context.close();
  }

  // ---- what they do ----

  async enter(room) {
    await this.page.click(`#rooms a[href="#${room}"]`);
    await this.page.waitForFunction((room) => {
      const shown = document.querySelector("#room h2").textContent === room;
      return shown && document.querySelector("#room .about").textContent !== "Entering …";
    }, room);
  }

  /** Writes a message and sends it. */
  async write(text) {
    await this.page.fill("#say textarea", text);
    await this.page.press("#say textarea", "Enter");
  }

  /** Says something, and waits until it is said. */
  async say(text) {
    await this.write(text);
    await this.message(text).last().waitFor();
  }

  async edit(text, changed) {
    const message = this.message(text);
    await message.hover();
    await message.locator(".change").click();
    await this.page.fill(".edit:visible textarea", changed);
    await this.page.press(".edit:visible textarea", "Enter");
    await this.message(changed).waitFor();
  }

  async delete(text) {
    this.page.once("dialog", (dialog) => dialog.accept());
    const message = this.message(text);
    await message.hover();
    await message.locator(".delete").click();
    await message.waitFor({ state: "detached" });
  }

  async setStatus(status) {
    if (!(await this.page.isVisible("#me input"))) await this.page.click("#me summary");
    await this.page.fill("#me input", status);
    await this.page.press("#me input", "Enter");
  }

  async goOffline() {
    await this.page.click("#offline");
    await this.page.waitForSelector("#connection[data-is=offline]");
  }

  async comeBack() {
    await this.page.click("#offline");
    await this.isConnected();
  }

  // ---- what they see ----

  isConnected() {
    return this.page.waitForSelector("#connection[data-is=connected]");
  }

  /** A message that was said, by its whole text. */
  message(text) {
    const whole = this.page.locator(".text", { hasText: new RegExp(`^${text.replace(/[^\w\s]/g, "\\$&")}$`) });
    return this.page.locator(".message[data-state=said]").filter({ has: whole });
  }

  /** "name: text" of each message that was said, in order. */
  said() {
    return this.page.$$eval(".message[data-state=said]", (messages) =>
      messages.map((one) => `${one.querySelector(".name").textContent}: ${one.querySelector(".text").textContent}`),
    );
  }

  /** The texts of what could not be sent yet, or is just being sent. */
  waiting() {
    return this.page.$$eval(".message:not([data-state=said]) .text", (texts) => texts.map((one) => one.textContent));
  }

  notes() {
    return this.page.locator(".note").allTextContents();
  }

  here() {
    return this.page.locator("#people .name").allTextContents();
  }

  status(name) {
    return this.page.$$eval(
      "#people li",
      (items, name) => {
        const item = items.find((one) => one.querySelector(".name").textContent === name);
        return item?.querySelector(".status").textContent;
      },
      name,
    );
  }

  unread(room) {
    return this.page.textContent(`#rooms a[href="#${room}"] b`);
  }
}
