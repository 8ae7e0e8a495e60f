/** Chromium without a window. */

import { existsSync } from "node:fs";

import { chromium } from "playwright-core";

const PLACES = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const FLAGS = (
  "--no-sandbox --disable-gpu --disable-dev-shm-usage --disable-quic --no-first-run --no-proxy-server " +
  "--disable-background-networking --disable-component-update --disable-sync"
).split(" ");

export function launch() {
  const executablePath = PLACES.find((place) => place && existsSync(place));
  if (!executablePath) throw new Error("there is no Chromium: install it, or say by the variable CHROMIUM where it is");
  return chromium.launch({ executablePath, args: FLAGS });
}

/** What went wrong in a page: errors nobody caught, and dialogs that nobody should have opened. */
export function watch(page) {
  const faults = [];
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("dialog", (dialog) => dialog.type() === "alert" && faults.push(`alert: ${dialog.message()}`));
  return faults;
}

/** By how many pixels the page is wider than the screen. */
export function overflow(page) {
  return page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
}
