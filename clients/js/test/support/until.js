/** Waits for conditions, never for a time. */

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";

const PATIENCE_MS = 30_000;

/** What `look` gives as soon as that is something; `what` says what is waited for, or is asked for it. */
export async function until(look, what) {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = await look();
    if (found) return found;
    assert(Date.now() < deadline, `in vain: ${typeof what === "function" ? what() : what}`);
    await sleep(5);
  }
}
