/** Begins: finds out who the user is, and connects what they do on the page with the chat. */

import { $, draw, drawState, scrollToEnd, setUp } from "./draw.js";

const STOPS_WRITING_MS = 3000;

const answer = await fetch("/session");
const session = await answer.json();
if (!answer.ok) {
  signIn();
} else {
  try {
    const { Chat } = await import("./chat.js");
    begin(Chat);
  } catch (error) {
    // The client module comes from the push server.
    console.error(error);
    $("#notice").textContent = "The push server cannot be reached. Trying again …";
    setTimeout(() => location.reload(), 2000);
  }
}

function signIn() {
  $("#sign-in").hidden = false;
  $("#sign-in input").focus();
  $("#sign-in form").onsubmit = async (event) => {
    event.preventDefault();
    const body = JSON.stringify({ name: $("#sign-in input").value });
    const answer = await fetch("/session", { method: "POST", headers: { "Content-Type": "application/json" }, body });
    if (answer.ok) location.reload();
    else notice((await answer.json()).error);
  };
}

let noticeTimer;

function notice(text) {
  $("#notice").textContent = text;
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(() => notice(""), 6000);
}

function begin(Chat) {
  const chat = new Chat(session, document.documentElement.dataset.pushServer, () => show(), notice);
  setUp(session);
  connectRooms(chat);
  connectComposer(chat);
  connectMessages(chat);
  connectMe(chat);
  enterAddressed(chat);
  chat.begin();
  $("#say textarea").focus();

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) chat.room.unread = 0;
    show();
  });
  addEventListener("pagehide", () => chat.end());
  addEventListener("pageshow", ({ persisted }) => persisted && chat.begin());

  function show() {
    draw(chat);
    if (location.hash.slice(1) !== chat.room.name) history.replaceState(null, "", `#${chat.room.name}`);
  }
}

// ---- rooms ----

/** The room in the address is the one that is looked at. */
function enterAddressed(chat) {
  chat.room.draft = $("#say textarea").value;
  chat.enter(location.hash.slice(1));
  $("#say textarea").value = chat.room.draft;
  grow($("#say textarea"));
  scrollToEnd();
}

function connectRooms(chat) {
  addEventListener("hashchange", () => enterAddressed(chat));
  $("#leave").onclick = () => chat.leave();
  $("#offline").onclick = () => (chat.state === "offline" ? chat.comeBack() : chat.goOffline());
}

// ---- saying something ----

function connectComposer(chat) {
  const area = $("#say textarea");
  let writingIn = "";
  let timer;

  /** Tells the others where the user is writing, and some seconds after the last key that they are not. */
  function setWriting(room) {
    clearTimeout(timer);
    if (room) timer = setTimeout(setWriting, STOPS_WRITING_MS, "");
    if (room !== writingIn && chat.state === "connected") chat.setState({ typing: room });
    writingIn = room;
  }

  function say() {
    const text = area.value.trim();
    if (text.length > session.max_text) {
      return notice(`A message has at most ${session.max_text} characters; this one has ${text.length}.`);
    }
    area.value = "";
    grow(area);
    setWriting("");
    if (text) chat.say(text);
    scrollToEnd();
  }

  $("#say").onsubmit = (event) => {
    event.preventDefault();
    say();
  };
  area.oninput = () => {
    grow(area);
    setWriting(area.value ? chat.room.name : "");
  };
  area.onkeydown = (event) => {
    if (event.key === "ArrowUp" && area.value === "") {
      const mine = [...chat.room.items.values()].filter(({ user }) => user === chat.me);
      chat.edit(mine.at(-1)?.key ?? null);
    } else if (isSend(event)) {
      say();
    } else {
      return;
    }
    event.preventDefault();
  };
}

/** Enter sends. With Shift it begins a line, and while a word is being composed it ends that. */
function isSend(event) {
  return event.key === "Enter" && !event.shiftKey && !event.isComposing;
}

function grow(area) {
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight + 2}px`;
}

// ---- what was said ----

function connectMessages(chat) {
  const uuidOf = (element) => element.closest("li").dataset.key;

  function stop() {
    chat.edit(null);
    $("#say textarea").focus();
  }

  $("#said").onclick = ({ target }) => {
    if (target.matches(".change")) chat.edit(uuidOf(target));
    if (target.matches(".cancel")) stop();
    if (target.matches(".discard")) chat.outbox.remove(({ uuid }) => uuid === uuidOf(target));
    if (target.matches(".delete") && confirm("Delete this for everybody, and for good?")) chat.delete(uuidOf(target));
  };
  $("#said").onsubmit = (event) => {
    event.preventDefault();
    chat.save($("textarea", event.target).value);
    $("#say textarea").focus();
  };
  $("#said").onkeydown = (event) => {
    if (!event.target.matches("textarea")) return;
    if (event.key === "Escape") stop();
    if (!isSend(event)) return;
    event.preventDefault();
    event.target.form.requestSubmit();
  };
}

// ---- what others see of the user ----

function connectMe(chat) {
  const form = $("#me form");
  form.onsubmit = (event) => {
    event.preventDefault();
    document.activeElement.blur();
  };
  form.onchange = ({ target }) => chat.setState({ [target.name]: target.value });
  form.onfocusout = () => drawState(chat);
  $("#sign-out").onclick = async () => {
    await fetch("/session", { method: "DELETE" });
    sessionStorage.clear();
    location.reload();
  };
}
