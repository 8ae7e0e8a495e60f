/** Waits for conditions, never for a time. */

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";

const PATIENCE_MS = 20_000; // only what fails takes so long

/** What `look` gives as soon as that is something; `what` says what is waited for. */
export async function until(look, what) {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = await look();
    if (found) return found;
    assert(Date.now() < deadline, `in vain: ${typeof what === "function" ? await what() : what}`);
    await sleep(20);
  }
}

/** Waits until `look` gives what is `wanted`; if it never does, the difference is shown. */
export async function becomes(look, wanted) {
  const text = JSON.stringify(wanted);
  let found;
  await until(async () => JSON.stringify((found = await look())) === text, () => `${JSON.stringify(found)}, not ${text}`);
}
