/**
 * What the user has said and the page was not shown yet. It is sent one by one, in order, and again until the application
 * says that it is kept. Each has a uuid of ours, by which the push server knows what it has: asking twice does no harm.
 */

const RETRY_MS = 2000;
const KEY = "outbox"; // in the storage of this tab, which outlives a reload

export class Outbox {
  /** `{uuid, room, text, state}`: "waiting", "sending", "kept" but not shown yet, or "refused" with a `reason`. */
  letters;
  /** Nothing is sent while this is so. */
  isPaused = false;

  /** The letter that is being sent; it may be shown, and gone from `letters`, before there is an answer. */
  #sent = null;
  #send;
  #changed;
  #retry;

  /**
   * `send(letter)` asks the application, and has `accepted`, `refused` or `failed` called; `changed()` is called when there
   * is something new.
   */
  constructor(send, changed) {
    this.#send = send;
    this.#changed = changed;
    const left = JSON.parse(sessionStorage.getItem(KEY) ?? "[]");
    this.letters = left.map((letter) => (letter.state === "sending" ? { ...letter, state: "waiting" } : letter));
  }

  add(room, text) {
    this.letters.push({ uuid: newUuid(), room, text, state: "waiting" });
    this.sendNext();
  }

  /** Sends what waits, if nothing is under way. */
  sendNext() {
    clearTimeout(this.#retry);
    const next = this.letters.find(({ state }) => state === "waiting");
    if (next && this.#sent === null && !this.isPaused) {
      next.state = "sending";
      this.#sent = next;
      this.#send(next);
    }
    this.#save();
  }

  /** What was sent is kept. */
  accepted() {
    this.#answered("kept");
    this.sendNext();
  }

  /** What was sent is refused, for ever. */
  refused(reason) {
    this.#answered("refused", reason);
    this.sendNext();
  }

  /** Nobody knows whether what was sent is kept. */
  failed() {
    this.#answered("waiting");
    this.#save();
    this.#retry = setTimeout(() => this.sendNext(), RETRY_MS);
  }

  /** These are shown now, or are not to be sent. */
  remove(isOver) {
    this.letters = this.letters.filter((letter) => !isOver(letter));
    this.sendNext();
  }

  #answered(state, reason) {
    Object.assign(this.#sent, { state, reason });
    this.#sent = null;
  }

  #save() {
    sessionStorage.setItem(KEY, JSON.stringify(this.letters));
    this.#changed();
  }
}

/** As crypto.randomUUID(), which pages have on https and localhost only. */
function newUuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const digits = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
