// The admin panel: asks for admin/admin.json every two seconds and shows it. It changes nothing on the server.
import { el, setText, signInAgain } from './dom.js';

const INTERVAL_MS = 2000;
const TIMEOUT_MS = 15000;
const MAX_ROWS = 200; // of a list; the filter finds the others
const MAX_ENTRIES = 50; // of a history
const MAX_TEXT = 2000; // characters of a message or a state value
const SIGNED_OUT = Symbol('signed out');

const TOTALS = [
  ['total_connections', 'connections'],
  ['unique_user_count', 'users connected'],
  ['remembered_user_count', 'users known'],
  ['total_channels', 'channels'],
  ['total_unique_messages', 'messages posted'],
  ['total_messages', 'deliveries'],
];
const ORDERS = {
  name: (a, b) => byName(a.name, b.name),
  busy: (a, b) => b.total_connections - a.total_connections || byName(a.name, b.name),
  recent: (a, b) => byName(b.last_active, a.last_active) || byName(a.name, b.name),
};

const byId = (id) => document.getElementById(id);
const byName = new Intl.Collator('en', { numeric: true }).compare;
const holds = (part, texts) => texts.some((text) => text.toLowerCase().includes(part));
const number = (n) => n.toLocaleString('en');
const count = (n, one, many = `${one}s`) => `${number(n)} ${n === 1 ? one : many}`;
const cut = (text) => (text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}… (${count(text.length - MAX_TEXT, 'more character')})` : text);
const none = () => el('p', 'quiet', 'None');
const time = (timestamp) => timestamp.replace('T', ' ').replace(/\.\d+/, '');

/** One list of expandable rows, kept in place between updates: what is open, focused or selected stays so. */
class Rows {
  constructor(id, { key, matches, summary, parts }) {
    Object.assign(this, { key, matches, summary, parts });
    this.list = byId(id);
    this.more = byId(`${id}-more`);
    this.filter = byId(`${id}-filter`);
    this.filter.addEventListener('input', () => this.render());
    this.items = [];
    this.rows = new Map();
  }

  show(items) {
    this.items = items;
    this.render();
  }

  render() {
    const part = this.filter.value.toLowerCase();
    const found = part ? this.items.filter((item) => this.matches(item, part)) : this.items;
    const shown = found.slice(0, MAX_ROWS);
    const keys = new Set(shown.map(this.key));
    for (const [key, row] of this.rows) {
      if (keys.has(key)) continue;
      row.node.remove();
      if (!row.box.open) this.rows.delete(key); // an open one is still open when it comes back
    }
    const focused = document.activeElement;
    shown.forEach((item, place) => {
      const row = this.rows.get(this.key(item)) ?? this.addRow(this.key(item));
      row.item = item;
      this.fill(row);
      if (this.list.children[place] !== row.node) this.list.insertBefore(row.node, this.list.children[place] ?? null);
    });
    if (focused !== document.activeElement && this.list.contains(focused)) focused.focus({ preventScroll: true });
    const hidden = found.length - shown.length;
    setText(this.more, hidden ? `${number(hidden)} more: use the filter to find them` : found.length ? '' : part ? 'None fits the filter' : 'None');
  }

  addRow(key) {
    const row = { name: el('span', 'name text', key), facts: el('span', 'facts'), body: el('div', 'body'), drawn: [] };
    row.box = el('details', '', el('summary', '', row.name, row.facts), row.body);
    row.node = el('li', '', row.box);
    row.box.addEventListener('toggle', () => this.fill(row));
    this.rows.set(key, row);
    return row;
  }

  fill(row) {
    setText(row.facts, this.summary(row.item));
    if (!row.box.open) {
      row.body.replaceChildren();
      row.drawn = [];
      return;
    }
    this.parts(row.item).forEach(([draw, content], place) => {
      const text = JSON.stringify(content);
      if (row.drawn[place] === text) return;
      row.drawn[place] = text;
      const part = el('div', '', ...draw(content));
      if (row.body.children[place]) row.body.children[place].replaceWith(part);
      else row.body.append(part);
    });
  }
}

const channels = new Rows('channels', {
  key: (channel) => channel.name,
  matches: (channel, part) => holds(part, [channel.name]) || holds(part, channel.users),
  summary: (channel) => `${count(channel.total_connections, 'connection')} · ${count(channel.total_users, 'user')}`,
  parts: (channel) => [
    [facts, `Last active ${time(channel.last_active)} UTC · id ${channel.uuid}`],
    [settings, channel.settings],
    [members, channel.users],
    [history, channel.history],
  ],
});

const users = new Rows('users', {
  key: (user) => user.user,
  matches: (user, part) => holds(part, [user.user]) || holds(part, user.connections),
  summary: (user) => count(user.connections.length, 'connection'),
  parts: (user) => [
    [facts, `id ${user.uuid}`],
    [state, user.state],
    [connections, user.connections],
  ],
});

const facts = (text) => [el('p', 'quiet', text)];
const settings = (all) => [el('h3', '', 'Settings'), pairs(all)];
const state = (all) => [el('h3', '', 'Public state'), pairs(all)];
const members = (list) => [el('h3', '', `Members (${number(list.length)})`), names(list)];
const connections = (list) => [el('h3', '', `Connections (${number(list.length)})`), names(list)];

function history(entries) {
  const newest = entries.slice(-MAX_ENTRIES).reverse();
  const older = entries.length - newest.length;
  return [
    el('h3', '', `History (${number(entries.length)})`),
    newest.length ? el('ol', 'history', ...newest.map(entry)) : none(),
    el('p', 'quiet', older ? `${number(older)} older` : ''),
  ];
}

function entry(message) {
  const marks = [
    message.edited && `edited ${time(message.edited)}`,
    message.pm_users?.length && `only to ${message.pm_users.join(', ')}`,
    message.exclude_users?.length && `not to ${message.exclude_users.join(', ')}`,
  ].filter(Boolean);
  return el('li', '',
    el('div', 'quiet', time(message.timestamp), ' ', el('b', 'text', message.user)),
    el('div', 'quiet text', cut(marks.join(' · '))),
    el('pre', 'text', 'message' in message ? cut(JSON.stringify(message.message, null, 2)) : 'no content'));
}

function pairs(map) {
  const entries = Object.entries(map);
  if (!entries.length) return none();
  return el('dl', 'pairs', ...limited(entries, ([key, value]) =>
    el('div', '', el('dt', 'text', key || '""'), el('dd', 'text', cut(JSON.stringify(value))))));
}

function names(list) {
  if (!list.length) return none();
  const box = el('ul', 'names', ...limited(list, (name) => el('li', 'text', name)));
  box.tabIndex = 0; // it scrolls
  return box;
}

function limited(list, draw) {
  const drawn = list.slice(0, MAX_ROWS).map(draw);
  const hidden = list.length - drawn.length;
  return hidden ? [...drawn, el(drawn[0].tagName, 'quiet', `${number(hidden)} more`)] : drawn;
}

const totals = TOTALS.map(([, label]) => {
  const value = el('dd', '', '–');
  byId('totals').append(el('div', 'card', el('dt', '', label), value));
  return value;
});

function show(figures) {
  TOTALS.forEach(([key], place) => setText(totals[place], number(figures[key])));
  setText(byId('server'), `Version ${figures.version} · up ${figures.uptime} · updated ${new Date().toLocaleTimeString('en-GB')}`);
  channels.show(Object.values(figures.channels).sort(ORDERS[byId('channels-order').value]));
  users.show(figures.users.sort((a, b) => byName(a.user, b.user)));
}

async function fetchFigures() {
  const options = { redirect: 'manual', cache: 'no-store', signal: AbortSignal.timeout(TIMEOUT_MS) };
  const answer = await fetch('admin/admin.json', options).catch(() => { throw new Error('The server cannot be reached.'); });
  if (answer.type === 'opaqueredirect') throw SIGNED_OUT;
  if (!answer.ok) throw new Error(`The server answered ${answer.status}.`);
  return answer.json();
}

async function update() {
  const status = byId('status');
  try {
    show(await fetchFigures());
    setText(status, '');
  } catch (error) {
    document.body.classList.add('stale');
    if (error === SIGNED_OUT) return signInAgain(status);
    setText(status, `${error.message} The figures are old; trying again.`);
    return later();
  }
  document.body.classList.remove('stale');
  later();
}

/** Waits before asking again, and while nobody looks at the page. */
function later() {
  setTimeout(() => {
    if (!document.hidden) return update();
    document.addEventListener('visibilitychange', update, { once: true });
  }, INTERVAL_MS);
}

byId('channels-order').addEventListener('change', () => channels.show(channels.items.sort(ORDERS[byId('channels-order').value])));
update();
