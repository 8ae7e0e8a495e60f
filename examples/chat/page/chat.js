/** The chat: listens to the push server, and asks the application for what the user wants. Nothing is drawn here. */

import { ChannelStreamConnection } from "channelstream";

import { Outbox } from "./outbox.js";
import { Room } from "./room.js";

export class Chat {
  me;
  /** All rooms by name, whether the user is in them or not. */
  rooms;
  /** The room that is looked at. */
  room;
  /** How it is with the connection: "connecting", "connected", "lost", "offline". */
  state = "connecting";
  /** The message that the user is changing, by its uuid. */
  editing = null;
  outbox;

  #connection = new ChannelStreamConnection();
  /** Whether something may have been missed. */
  #wasAway = false;
  #changed;
  #notice;

  /**
   * `session` is what the application says at first, `push` the URL of the push server. `changed()` is called when there
   * is something new to be seen, `notice(text)` when something went wrong.
   */
  constructor(session, push, changed, notice) {
    this.me = session.user;
    this.rooms = new Map(session.rooms.map(({ name, about }) => [name, new Room(name, about, this.me)]));
    [this.room] = this.rooms.values();
    this.outbox = new Outbox(({ uuid, room, text }) => this.#connection.message({ uuid, room, text }), changed);
    this.#changed = changed;
    this.#notice = notice;
    Object.assign(this.#connection, {
      username: this.me,
      channels: JSON.parse(sessionStorage.getItem("rooms") ?? "[]"),
      connectUrl: "/connect",
      subscribeUrl: "/subscribe",
      unsubscribeUrl: "/unsubscribe",
      userStateUrl: "/state",
      messageUrl: "/message",
      messageEditUrl: "/message",
      messageDeleteUrl: "/message",
      websocketUrl: `${push.replace(/^http/, "ws")}/ws`,
      longPollUrl: `${push}/listen`, // where websockets do not work; and /sse beside it
      disconnectUrl: `${push}/disconnect`,
      requestTimeout: 15_000, // longer than the application waits for the push server
      ...this.#listening(),
      ...this.#answers(),
    });
  }

  // ---- what the push server tells ----

  #listening() {
    return {
      // A new connection id. The histories are for a page that begins: one that was told something goes on from there.
      connectCallback: (request, { rooms }) => {
        this.#take(rooms, this.#connection.cursor === null);
        this.enter(this.room.name); // where the user has gone meanwhile
      },

      listenOpenedCallback: () => {
        this.state = "connected";
        if (this.#wasAway) this.#refresh();
        this.outbox.sendNext();
        this.#changed();
      },

      // The first array after coming back has what was missed, whole.
      listenMessageCallback: (events) => {
        for (const room of this.rooms.values()) {
          const isLookedAt = room === this.room && !document.hidden;
          room.hear(events.filter(({ channel }) => channel === room.name), { wasAway: this.#wasAway, isLookedAt });
        }
        this.#wasAway = false;
        const uuids = new Set(events.map(({ uuid }) => uuid));
        this.outbox.remove(({ uuid }) => uuids.has(uuid));
      },

      // Some of what was missed cannot be replayed: begin anew, and say so.
      gapCallback: (gaps) => {
        for (const { channel } of gaps) this.rooms.get(channel)?.expectGap();
        this.#connection.cursor = null;
        this.#connection.connect();
      },

      listenCloseCallback: () => this.#lost(),
      listenErrorCallback: () => this.#lost(),
      connectErrorCallback: ({ status }) => {
        if (status === 401) location.reload(); // we are not signed in any more
        this.#lost();
      },
    };
  }

  #lost() {
    if (this.state === "offline" || this.#connection.connected) return;
    // One that never listened has missed nothing.
    this.#wasAway ||= this.state === "connected";
    this.state = "lost";
    this.#changed();
  }

  /** Presence is not in the log, and replay need not bring all of it; nor could others be told that we stopped writing. */
  #refresh() {
    for (const name of this.#connection.channels) this.rooms.get(name).askWhoIsHere();
    this.#connection.subscribe(this.#connection.channels);
    this.#connection.updateUserState({ typing: "" });
  }

  // ---- what the application answers ----

  #answers() {
    const tellWhy = (request, data) => this.#notice(data?.error ?? "That did not work. Try again.");
    return {
      channelsChangedCallback: (channels) => sessionStorage.setItem("rooms", JSON.stringify(channels)),
      subscribeCallback: (request, { rooms }) => this.#take(rooms, false),
      subscribeErrorCallback: (request, data) => {
        for (const room of this.rooms.values()) room.doWithout();
        if (!this.room.isEntered) this.enter(this.#connection.channels[0]);
        tellWhy(request, data);
      },
      unsubscribeCallback: (request, { channels }) => {
        for (const room of this.rooms.values()) if (!channels.includes(room.name)) room.forget();
        this.enter(channels[0]);
      },
      unsubscribeErrorCallback: tellWhy,
      setUserStateErrorCallback: tellWhy,
      messageCallback: () => this.outbox.accepted(),
      messageErrorCallback: ({ status }, data) => {
        if (status >= 400 && status < 500) this.outbox.refused(data?.error ?? `status ${status}`);
        else this.outbox.failed();
      },
      messageEditCallback: () => this.edit(null),
      messageEditErrorCallback: tellWhy,
      messageDeleteErrorCallback: tellWhy,
    };
  }

  /** What the application says of rooms: of all that we are in. */
  #take(rooms, beginsAnew) {
    for (const [name, { history, people }] of Object.entries(rooms)) {
      const room = this.rooms.get(name);
      if (beginsAnew || !room.isEntered) {
        room.setHistory(history);
        // What was kept is in there, or was trimmed already.
        this.outbox.remove((letter) => letter.room === name && (letter.state === "kept" || room.items.has(letter.uuid)));
      }
      room.setPeople(people);
    }
    this.#changed();
  }

  // ---- what the user wants ----

  begin() {
    const { channels } = this.#connection;
    if (!channels.includes(this.room.name)) this.#connection.channels = [...channels, this.room.name];
    this.#connection.connect();
  }

  /** Looks at a room, and goes in if need be. */
  enter(name) {
    if (name !== this.room.name) this.editing = null;
    this.room = this.rooms.get(name) ?? this.room;
    if (!document.hidden) this.room.unread = 0;
    if (this.#connection.connectionId !== null && !this.room.isEntered && !this.room.isEntering) {
      this.room.forget();
      this.room.isEntering = true;
      this.#connection.subscribe([this.room.name]);
    }
    this.#changed();
  }

  leave() {
    this.#connection.unsubscribe([this.room.name]);
  }

  /** Stops to listen. The connection id ends after a while, and the others see us part then. */
  goOffline() {
    this.state = "offline";
    this.#wasAway = true;
    this.outbox.isPaused = true;
    this.#connection.closeConnection();
    this.#changed();
  }

  /** Goes on from the cursor, with another connection id. */
  comeBack() {
    this.state = "connecting";
    this.outbox.isPaused = false;
    this.#connection.connect();
    this.#changed();
  }

  say(text) {
    this.outbox.add(this.room.name, text);
  }

  edit(uuid) {
    this.editing = uuid;
    this.#changed();
  }

  save(text) {
    this.#connection.edit({ uuid: this.editing, room: this.room.name, text });
  }

  delete(uuid) {
    this.#connection.delete({ uuid, room: this.room.name });
  }

  /** Changes what others see of the user: colour, status, and in which room something is being written. */
  setState(state) {
    this.#connection.updateUserState(state);
  }

  /** The page is left: so that the others see it at once. */
  end() {
    this.#connection.disconnect();
  }
}
