/** What a page knows of one room: what was said, and who is there. Pure: events go in, nothing is drawn or asked here. */

export class Room {
  /** Messages by uuid, and notes, in the order in which they are shown. Each is replaced when it changes, never changed. */
  items = new Map();
  /** The public states of those who are here, by name. */
  people = new Map();
  unread = 0;
  /** What the user was about to say here. */
  draft = "";
  /** Whether the application is being asked to let us in. */
  isEntering = false;

  #me;
  /** Whether something that was said here cannot be replayed. */
  #hasGap = false;
  #knowsWhatWasSaid = false;
  #knowsWhoIsHere = false;
  /** Events that came while the application was still being asked for what they change. */
  #waiting = [];

  constructor(name, about, me) {
    this.name = name;
    this.about = about;
    this.#me = me;
  }

  get isEntered() {
    return this.#knowsWhatWasSaid;
  }

  /** Begins with the room's history. If something is shown already, what is new in there was missed. */
  setHistory(history) {
    const known = this.items;
    const wasShown = this.#knowsWhatWasSaid;
    this.isEntering = false;
    this.items = new Map();
    this.#knowsWhatWasSaid = true;
    for (const event of history) {
      const isMissed = wasShown && !known.has(event.uuid) && event.user !== this.#me;
      if (isMissed) this.#sayGap();
      this.#show(event, isMissed);
    }
    this.#sayGap();
    this.#goOn();
  }

  setPeople(people) {
    this.people = new Map(Object.entries(people));
    this.#knowsWhoIsHere = true;
    this.#goOn();
  }

  /** Who is here is being asked anew: presence is not in the log, so replay does not bring all of it. */
  askWhoIsHere() {
    this.#knowsWhoIsHere = false;
  }

  /** The application gave no answer: what is known has to do. */
  doWithout() {
    this.isEntering = false;
    this.#knowsWhoIsHere = this.isEntered;
    if (this.isEntered) this.#goOn();
  }

  /** The history that comes next has a hole before what is new in there. */
  expectGap() {
    this.#hasGap = true;
  }

  /** Knows nothing of the room: it was left, or is about to be entered. */
  forget() {
    this.items.clear();
    this.people.clear();
    this.unread = 0;
    this.#waiting = [];
    this.#hasGap = this.#knowsWhatWasSaid = this.#knowsWhoIsHere = false;
  }

  /** Takes events in their order. `wasAway`: those that are caught up with were missed. */
  hear(events, { wasAway, isLookedAt }) {
    if (!isLookedAt) this.unread += events.filter(({ type, user }) => type === "message" && user !== this.#me).length;
    const missed = wasAway ? events.filter((event) => this.#isNews(event)) : [];
    if (missed.length > 0) this.#note(`While you were away: ${summary(missed)}.`);
    for (const event of events) this.#take(event, missed.includes(event));
  }

  #isNews({ type, uuid, user, catchup }) {
    if (!catchup) return false;
    return type === "message" ? user !== this.#me && !this.items.has(uuid) : this.items.has(uuid);
  }

  #take(event, isMissed) {
    const isAboutPeople = event.type === "presence" || event.type === "user_state_change";
    if (!(isAboutPeople ? this.#knowsWhoIsHere : this.#knowsWhatWasSaid)) {
      this.#waiting.push({ event, isMissed });
      return;
    }
    const item = this.items.get(event.uuid);
    switch (event.type) {
      case "message":
        this.#show(event, isMissed);
        break;
      case "message:edit":
        if (item) this.items.set(event.uuid, { ...item, text: event.message.text, isEdited: true, isMissed });
        break;
      case "message:delete":
        this.items.delete(event.uuid);
        break;
      case "presence":
        if (event.message.action === "joined") this.people.set(event.user, event.state);
        else this.people.delete(event.user);
        break;
      case "user_state_change":
        if (this.people.has(event.user)) this.people.set(event.user, event.message.state);
    }
  }

  #goOn() {
    for (const { event, isMissed } of this.#waiting.splice(0)) this.#take(event, isMissed);
  }

  #show({ uuid, user, message, timestamp, edited }, isMissed) {
    const at = new Date(`${timestamp}Z`);
    this.items.set(uuid, { key: uuid, user, text: message.text, at, isEdited: edited !== null, isMissed });
  }

  #sayGap() {
    if (this.#hasGap) this.#note("Not all that was said while you were away is still there.");
    this.#hasGap = false;
  }

  #note(text) {
    const key = `note ${crypto.getRandomValues(new Uint32Array(2)).join()}`;
    this.items.set(key, { key, note: text });
  }
}

/** "2 messages, 1 change" */
function summary(events) {
  const nouns = { message: "message", "message:edit": "change", "message:delete": "deletion" };
  const parts = Object.entries(nouns).map(([kind, noun]) => {
    const count = events.filter(({ type }) => type === kind).length;
    return count > 0 && `${count} ${noun}${count > 1 ? "s" : ""}`;
  });
  return parts.filter(Boolean).join(", ");
}
