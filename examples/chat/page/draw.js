/** Puts on the screen what there is. What users wrote only ever becomes text. */

export const $ = (selector, inside = document) => inside.querySelector(selector);

const CONNECTION = {
  connecting: "Connecting …",
  connected: "Connected",
  lost: "Connection lost, coming back …",
  offline: "You are offline",
};

/** What is said of messages of the outbox. */
const MARKS = {
  waiting: "not sent yet: it will be when that is possible",
  sending: "sending …",
  kept: "sent",
  refused: "refused:",
};

/** The colours of all who were ever here, for what they said. */
const colours = new Map();

/** Whether the user reads the newest of what was said. */
let isAtEnd = true;

/** What stays as it is: `session` is what the application says at first. */
export function setUp(session) {
  $("#chat").hidden = false;
  setText($("#me summary"), session.user);
  for (const colour of session.colours) {
    const radio = Object.assign(document.createElement("input"), { type: "radio", name: "colour", value: colour });
    radio.dataset.colour = colour;
    radio.ariaLabel = colour;
    $("#colours").append(radio);
  }
  // Who reads the end goes on reading it, whatever comes and however high the list becomes.
  const said = $("#said");
  said.onscroll = () => (isAtEnd = said.scrollHeight - said.scrollTop - said.clientHeight < 40);
  new ResizeObserver(scrollOn).observe(said);
  // On a narrow screen there is no room for what is beside the conversation, until it is asked for.
  const isWide = matchMedia("(min-width: 56rem)");
  isWide.onchange = () => {
    for (const details of document.querySelectorAll("aside details")) details.open = isWide.matches;
  };
  isWide.onchange();
}

/** Draws everything that there is of a `Chat`. */
export function draw(chat) {
  const rooms = [...chat.rooms.values()];
  const unread = rooms.reduce((sum, { unread }) => sum + unread, 0);
  document.title = unread > 0 ? `(${unread}) Chat` : "Chat";
  setText($("#connection"), CONNECTION[chat.state]);
  $("#connection").dataset.is = chat.state;
  setText($("#offline"), chat.state === "offline" ? "Come back" : "Go offline");
  fill($("#rooms"), rooms, ({ name }) => name, newRoom, (item, room) => drawRoom(item, room, room === chat.room));
  for (const { people } of rooms) for (const [name, state] of people) colours.set(name, state?.colour);
  $("#leave").hidden = !chat.room.isEntered || rooms.filter(({ isEntered }) => isEntered).length < 2;
  setText($("#room h2"), chat.room.name);
  setText($("#room .about"), chat.room.isEntered ? chat.room.about : "Entering …");
  drawSaid(chat);
  drawPeople(chat);
  drawState(chat);
}

// ---- rooms ----

function newRoom() {
  const item = document.createElement("li");
  item.append(document.createElement("a"));
  const link = item.firstChild;
  link.append(document.createElement("span"), document.createElement("b"));
  return item;
}

function drawRoom(item, room, isCurrent) {
  const link = $("a", item);
  link.href = `#${room.name}`;
  link.title = room.about;
  link.setAttribute("aria-current", isCurrent ? "page" : "false");
  link.classList.toggle("entered", room.isEntered);
  setText($("span", item), room.name);
  setText($("b", item), room.unread > 0 ? String(room.unread) : "");
}

// ---- what was said ----

function drawSaid({ me, room, outbox, editing }) {
  const letters = outbox.letters.filter((letter) => letter.room === room.name);
  const waiting = letters.map(({ uuid, ...letter }) => ({ key: uuid, user: me, ...letter }));
  fill($("#said"), [...room.items.values(), ...waiting], ({ key }) => key, newItem, (item, one, before) => {
    if (one.note) return setText(item, one.note);
    drawMessage(item, one, { isMine: one.user === me, isEditing: one.key === editing });
    item.classList.toggle("continued", before?.user === one.user && !(one.at - before.at > 300_000));
  });
  scrollOn();
}

function scrollOn() {
  if (isAtEnd) $("#said").scrollTop = $("#said").scrollHeight;
}

/** Shows the newest of what was said, and keeps to it. */
export function scrollToEnd() {
  isAtEnd = true;
  scrollOn();
}

function newItem({ note }) {
  if (!note) return clone("#message-template");
  const item = document.createElement("li");
  item.className = "note";
  return item;
}

function drawMessage(item, { user, text, at, isEdited, isMissed, state, reason }, { isMine, isEditing }) {
  setPerson(item, user);
  setText($("time", item), at?.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }) ?? "");
  $("time", item).title = at?.toLocaleString() ?? "";
  const marks = [MARKS[state], reason, isEdited && "edited", isMissed && "missed"];
  setText($(".mark", item), marks.filter(Boolean).join(" · "));
  setText($(".text", item), text);
  item.classList.toggle("missed", isMissed === true);
  item.dataset.state = state ?? "said";
  $(".change", item).hidden = $(".delete", item).hidden = !isMine || isEditing || state !== undefined;
  $(".discard", item).hidden = state !== "waiting" && state !== "refused";

  const area = $("textarea", item);
  const opens = isEditing && $("form", item).hidden;
  $("form", item).hidden = !isEditing;
  $(".text", item).hidden = isEditing;
  if (!opens) return;
  area.value = text;
  area.focus();
}

// ---- people ----

function drawPeople({ me, room }) {
  const people = [...room.people].sort(([one], [other]) => one.localeCompare(other));
  setText($("#here summary"), `Here: ${people.length}`);
  fill($("#people"), people, ([name]) => name, () => clone("#person-template"), (item, [name, state]) => {
    setPerson(item, name);
    setText($(".status", item), state?.status ?? "");
  });
  const writing = people.filter(([name, state]) => name !== me && state?.typing === room.name).map(([name]) => name);
  const are = writing.length > 1 ? "are" : "is";
  setText($("#typing"), writing.length > 0 ? `${writing.join(", ")} ${are} writing …` : "");
}

/** Shows the user's own state where they change it, unless they are just doing so. */
export function drawState({ me, room }) {
  const state = room.people.get(me);
  if (!state || $("#me form").contains(document.activeElement)) return;
  $("#me input").value = state.status;
  for (const radio of document.querySelectorAll("#colours input")) radio.checked = radio.value === state.colour;
}

function setPerson(item, name) {
  item.dataset.colour = colours.get(name) ?? "";
  setText($(".avatar", item), [...name][0].toUpperCase());
  setText($(".name", item), name);
}

// ---- what all lists need ----

function clone(template) {
  return $(template).content.firstElementChild.cloneNode(true);
}

/** Nothing is announced or deselected where nothing changes. */
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Makes a list show `items`. What is there already stays where it is, and keeps the focus. */
function fill(list, items, keyOf, make, update) {
  const keys = new Set(items.map(keyOf));
  for (const child of [...list.children]) if (!keys.has(child.dataset.key)) child.remove();
  const shown = new Map([...list.children].map((child) => [child.dataset.key, child]));
  items.forEach((item, index) => {
    const key = keyOf(item);
    const child = shown.get(key) ?? make(item);
    child.dataset.key = key;
    update(child, item, items[index - 1]);
    if (list.children[index] !== child) list.insertBefore(child, list.children[index] ?? null);
  });
}
