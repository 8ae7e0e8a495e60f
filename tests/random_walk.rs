//! Random walks: thousands of random steps, told to the domain and to a model of it that is as
//! simple as can be. After each batch both must say the same: who is where, what everyone was shown
//! and answered, what is remembered and what would be caught up.
//!
//! A walk that fails is shortened and printed, with its seed, in the language of
//! `support/script.rs`. `WALKS=100000` walks further; `SEED=17 WALKS=1` walks one walk again.

#[path = "support/script.rs"]
mod script;

use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::time::Duration;

use channelstream::domain::channel::{Members, Retained};
use channelstream::domain::draft::Refusal;
use channelstream::domain::event::Event;
use channelstream::domain::frame::Tick;
use channelstream::domain::names::{ChannelName, ConnectionId, Username};
use channelstream::domain::settings::{ChannelSettings, SettingsPatch};
use channelstream::domain::state::StateValue;
use channelstream::domain::timestamp::Moment;
use channelstream::domain::user::INBOX_SIZE;
use channelstream::domain::view::InfoOptions;

use script::server::{GRACE, RESUME_WINDOW, Server};
use script::step::{Request, Said, State, Step, parse, request};
use script::text::{
    SOMEBODY, channel, connection, connection_name, frame_text, join, labelled, logged_text, person_text, sentence,
    state_text, user, view_text,
};

const USERS: [&str; 4] = ["ann", "bob", "eve", "Eve"];
const CHANNELS: [&str; 3] = ["news", "sport", "talk"];
const CONNECTIONS: [&str; 6] = ["a1", "a2", "b1", "b2", "e1", "e2"];
const MESSAGES: [&str; 6] = ["m1", "m2", "m3", "m4", "m5", "m6"];
const KEYS: [&str; 3] = ["mood", "age", "x"];
/// Frames that a channel keeps.
const RECENT: usize = 100;

/// A batch with what happens while it is written, or a step that is no operation.
type Group = Vec<String>;

#[test]
fn the_domain_does_what_a_simple_model_does() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let (first, count) = (number("SEED").unwrap_or(1), number("WALKS").unwrap_or(150));
    let hook = take_hook();
    set_hook(Box::new(|_| {}));
    let failed = (first..first + count).find_map(|seed| {
        let steps = Random(seed).steps();
        complaint(&steps)?;
        let steps = shortened(steps);
        let complaint = complaint(&steps).expect("a shortened walk fails as well");
        Some(format!("seed {seed}: {complaint}\n\nafter\n    {}\n", steps.concat().join("\n    ")))
    });
    set_hook(hook);
    if let Some(failed) = failed {
        panic!("{failed}");
    }
}

/// What is wrong on this walk, if anything.
fn complaint(steps: &[Group]) -> Option<String> {
    let panic = catch_unwind(AssertUnwindSafe(|| Walk::new().walk(steps))).err()?;
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).or(Some("a panic".to_owned()))
}

/// Leaves out all that the walk fails without.
fn shortened(mut steps: Vec<Group>) -> Vec<Group> {
    let mut size = steps.len() / 2;
    while size > 0 {
        let mut start = 0;
        while start < steps.len() {
            let end = (start + size).min(steps.len());
            let rest = [&steps[..start], &steps[end..]].concat();
            if complaint(&rest).is_some() { steps = rest } else { start = end }
        }
        size /= 2;
    }
    for group in 0..steps.len() {
        for line in (0..steps[group].len()).rev() {
            // What a request lists, and then, but for the first, the request itself.
            for part in (1..steps[group][line].split("; ").count()).rev() {
                let mut parts: Vec<&str> = steps[group][line].split("; ").collect();
                parts.remove(part);
                let mut rest = steps.clone();
                rest[group][line] = parts.join("; ");
                if complaint(&rest).is_some() {
                    steps = rest;
                }
            }
            let mut rest = steps.clone();
            rest[group].remove(line);
            if line > 0 && complaint(&rest).is_some() {
                steps = rest;
            }
        }
    }
    steps
}

// ---- Chance ----

/// Numbers from a seed: splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len() as u64) as usize]
    }

    /// One or more of them, with repetitions.
    fn some(&mut self, of: &[&str]) -> String {
        let count = 1 + self.below(3);
        join((0..count).map(|_| self.one(of)))
    }

    /// Something in so many cases of a hundred.
    fn maybe(&mut self, percent: u64, text: impl FnOnce(&mut Self) -> String) -> String {
        if self.percent(percent) { text(self) } else { String::new() }
    }

    fn steps(&mut self) -> Vec<Group> {
        let length = 10 + self.below(110);
        (0..length).map(|_| self.group()).collect()
    }

    fn group(&mut self) -> Group {
        match self.below(20) {
            0..2 => vec![format!("{} seconds later", 1 + self.below(4))],
            2 => vec![format!("{} seconds later", self.one(&["15", "30", "61", "100"]))],
            3..7 => vec![self.listener()],
            7 if self.percent(10) => vec!["restart".to_owned()],
            // Alone: what else names a message that goes with its user may be said before or after.
            7 if self.percent(30) => vec![format!("forget {} idle {}", join(USERS), self.one(&["1", "20", "100"]))],
            _ => {
                let more = if self.percent(50) { 0 } else { self.below(6) };
                let mut group = vec![self.request()];
                group.extend((0..more).map(|_| format!("& {}", self.request())));
                while self.percent(15) {
                    group.push(format!("~ {}", self.listener()));
                }
                group
            }
        }
    }

    fn listener(&mut self) -> String {
        let verbs = ["listens", "listens", "listens", "flickers", "stalls", "drops", "closes", "is dismissed"];
        format!("{} {}", self.one(&CONNECTIONS), self.one(&verbs))
    }

    fn request(&mut self) -> String {
        match self.below(40) {
            0..6 => {
                let (user, id) = (self.one(&USERS), self.one(&CONNECTIONS));
                let to = self.maybe(80, |random| format!(" to {}", random.some(&CHANNELS)));
                let with = self.maybe(30, |random| format!(" with {}", random.state()));
                let fresh = self.maybe(30, |random| format!(" fresh {}", random.state()));
                let public = self.maybe(30, |random| format!(" public {}", random.some(&KEYS)));
                format!("{user} connects {id}{to}{with}{fresh}{public} configured {}", self.settings())
            }
            6..9 => {
                let (id, to) = (self.one(&CONNECTIONS), self.some(&CHANNELS));
                format!("{id} subscribes to {to} configured {}", self.settings())
            }
            9..11 => format!("{} unsubscribes from {}", self.one(&CONNECTIONS), self.some(&CHANNELS)),
            11..14 => {
                let (user, state) = (self.one(&USERS), self.maybe(80, Self::state));
                let keys = self.maybe(30, |random| random.maybe(80, |random| random.some(&KEYS)) + " nothing");
                format!("{user} sets {state} {}", labelled("public", Some(keys)))
            }
            14..16 => format!("configure {} {}", self.one(&CHANNELS), self.settings()),
            16 => format!("create {}", self.one(&CHANNELS)),
            17..28 => {
                let messages = self.several(|random| {
                    let name = random.maybe(60, |random| format!(" as {}", random.one(&MESSAGES)));
                    let unlogged = random.maybe(15, |_| " unlogged".to_owned());
                    format!("to {}{name}{}{unlogged}", random.place(), random.content())
                });
                format!("post {messages}")
            }
            28 => {
                let (place, count) = (self.place(), 10 + self.below(40));
                format!("post {}", vec![format!("to {place} 'x'"); count as usize].join("; "))
            }
            29..33 => {
                let mut edits = Vec::new();
                for name in self.names() {
                    let place = self.place();
                    let times = if self.percent(30) && !place.starts_with('@') { 2 } else { 1 };
                    edits.extend((0..times).map(|_| format!("{name} in {place}{}", self.content())));
                }
                format!("edit {}", edits.join("; "))
            }
            33..36 => {
                let names = self.names();
                let deletions = names.into_iter().map(|name| format!("{name} in {}", self.place()));
                format!("delete {}", deletions.collect::<Vec<_>>().join("; "))
            }
            36..39 => "sweep".to_owned(),
            _ => "expire floors".to_owned(),
        }
    }

    fn several(&mut self, one: impl Fn(&mut Self) -> String) -> String {
        let count = if self.percent(60) { 1 } else { 1 + self.below(4) };
        (0..count).map(|_| one(self)).collect::<Vec<_>>().join("; ")
    }

    /// A few messages.
    fn names(&mut self) -> BTreeSet<&'static str> {
        (0..1 + self.below(3)).map(|_| self.one(&MESSAGES)).collect()
    }

    /// A channel or users, with the audience there.
    fn place(&mut self) -> String {
        if self.percent(30) {
            let users = self.some(&["@ann", "@bob", "@eve", "@Eve"]);
            return users + &self.maybe(15, |random| format!(" except {}", random.some(&USERS)));
        }
        let channels = ["news", "news", "sport", "talk", "nowhere"];
        let only = self.maybe(25, |random| format!(" only {}", random.some(&USERS)));
        let except = self.maybe(15, |random| format!(" except {}", random.some(&USERS)));
        format!("{}{only}{except}", self.one(&channels))
    }

    fn content(&mut self) -> String {
        let text = self.maybe(80, |random| format!(" '{}'", random.below(1000)));
        let by = self.maybe(15, |random| format!(" by {}", random.one(&USERS)));
        let dated = self.maybe(5, |random| format!(" dated {}", 1990 + random.below(30)));
        format!("{text}{by}{dated}")
    }

    fn state(&mut self) -> String {
        let values = ["1", "1.0", "2", "true", "null", "'x'"];
        let keys: BTreeSet<&str> = (0..1 + self.below(3)).map(|_| self.one(&KEYS)).collect();
        keys.into_iter().map(|key| format!("{key}={}", self.one(&values))).collect::<Vec<_>>().join(" ")
    }

    fn settings(&mut self) -> String {
        let mut settings = Vec::new();
        for (percent, setting) in [(60, "presence"), (30, "lists"), (60, "state"), (10, "frames=off"), (60, "history")]
        {
            settings.extend(self.percent(percent).then(|| setting.to_owned()));
        }
        for (percent, setting) in [(60, "size"), (50, "replay")] {
            let number = self.below(5);
            settings.extend(self.percent(percent).then(|| format!("{setting}={number}")));
        }
        settings.extend(self.percent(15).then(|| self.one(&["ttl=none", "ttl=30", "ttl=100"]).to_owned()));
        settings.join(" ")
    }
}

// ---- The walk ----

struct Walk {
    server: Server,
    model: Model,
}

impl Walk {
    fn new() -> Self {
        Self { server: Server::new(), model: Model::default() }
    }

    fn walk(mut self, steps: &[Group]) {
        steps.iter().for_each(|group| self.group(group));
        self.leave();
    }

    fn group(&mut self, group: &Group) {
        if group.len() == 1 && !matches!(parse(&group[0]), Step::Ask(_)) {
            self.take(&parse(&group[0]));
            return self.compare(&format!("after {}", group[0]));
        }
        let (meanwhile, lines): (Vec<&String>, Vec<&String>) = group.iter().partition(|line| line.starts_with('~'));
        let mut meanwhile: Vec<Step> = meanwhile.into_iter().map(|line| parse(line)).collect();
        let mut waiting: VecDeque<Request> = lines.iter().map(|line| request(line)).collect();
        let mut lines = lines.into_iter();
        while !waiting.is_empty() {
            self.batch(&mut waiting, &mut lines, std::mem::take(&mut meanwhile));
        }
    }

    /// One batch, told to both. The model does one request after the other, as if there were no
    /// batches; only who is over is decided before what happens meanwhile.
    fn batch<'a>(
        &mut self,
        waiting: &mut VecDeque<Request>,
        lines: &mut impl Iterator<Item = &'a String>,
        meanwhile: Vec<Step>,
    ) {
        let requests: Vec<Request> = waiting.iter().cloned().collect();
        let over = self.model.over();
        let model = &mut self.model;
        let outcome = self.server.batch(waiting, |server| {
            for step in &meanwhile {
                server.take(step);
                model.take(step);
            }
        });
        let mut done = Vec::new();
        for (answer, request) in outcome.answers.iter().zip(&requests) {
            let line = lines.next().expect("a line a request");
            done.push(line.as_str());
            assert_eq!(*answer, self.model.request(request, &over), "answer to {line}");
        }
        // Whatever depends on trimming waits for it, but for duplicates of what a trimmed inbox held.
        for event in &outcome.events {
            match event {
                Event::ChannelTrimmed { channel, keep } => self.model.trim_channel(channel, *keep),
                Event::InboxTrimmed { user, keep } => self.model.trim_inbox(user, *keep),
                _ => {}
            }
        }
        self.compare(&format!("after {}", done.join("\n      ")));
    }

    fn take(&mut self, step: &Step) {
        self.server.take(step);
        self.model.take(step);
    }

    /// Everybody leaves, and then nothing stays in memory.
    fn leave(mut self) {
        for id in CONNECTIONS {
            self.group(&vec![format!("{id} drops")]);
        }
        for wait in [15, 121, 121] {
            self.group(&vec![format!("{wait} seconds later")]);
            self.group(&vec!["sweep".to_owned()]);
        }
        let router = &self.server.router;
        assert_eq!(router.connection_count(), 0, "connections that nobody listens to end");
        assert_eq!(router.resident(), (0, 0), "what nobody needs leaves memory");
        assert!(!router.is_anything_due(self.server.moment()), "nothing is left to do");
    }

    fn compare(&mut self, when: &str) {
        self.model.forget_frames(&self.server);
        assert_eq!(self.server.router.head().0, self.model.head, "head {when}");
        let totals = self.server.router.totals();
        assert_eq!((totals.posted, totals.delivered), (self.model.posted, self.model.delivered), "totals {when}");
        self.compare_shown(when);
        self.compare_connections(when);
        USERS.iter().for_each(|name| self.compare_user(&user(name), when));
        CHANNELS.iter().for_each(|name| self.compare_channel(&channel(name), when));
        self.compare_views(when);
    }

    fn compare_shown(&mut self, when: &str) {
        let shown = std::mem::take(&mut self.server.shown);
        let expected = std::mem::take(&mut self.model.shown);
        for name in CONNECTIONS {
            let id = connection(name);
            let shown: Vec<&String> = shown.iter().filter(|(ids, _)| ids.contains(&id)).map(|(_, text)| text).collect();
            let expected: Vec<&String> = expected.iter().filter(|(to, _)| *to == id).map(|(_, text)| text).collect();
            assert_eq!(shown, expected, "shown to {name} {when}");
        }
    }

    fn compare_connections(&self, when: &str) {
        let router = &self.server.router;
        assert_eq!(router.connection_count(), self.model.connections.len(), "connections {when}");
        for known in &self.model.connections {
            let connection = router.connection(known.id).unwrap_or_else(|| panic!("no {:?} {when}", known.id));
            assert_eq!(connection.user, known.user, "{when}");
            assert_eq!(connection.channels, known.channels.iter().cloned().collect(), "channels of {known:?} {when}");
            assert_eq!(connection.listener.is_some(), known.listens, "whether {known:?} listens {when}");
            let expires = connection.expires.map(|expires| expires.as_secs());
            assert_eq!(expires, known.expires.map(|at| at - self.model.started), "when {known:?} is over {when}");
        }
        let never = Moment { elapsed: Duration::MAX, ..self.server.moment() };
        let over: BTreeSet<ConnectionId> = router.expired(never, usize::MAX).into_iter().collect();
        let expected = self.model.connections.iter().filter(|known| known.expires.is_some()).map(|known| known.id);
        assert_eq!(over, expected.collect(), "who is over some time {when}");
        assert_eq!(router.expired(self.server.moment(), usize::MAX), self.model.over(), "who is over now {when}");
    }

    fn compare_user(&self, name: &Username, when: &str) {
        let router = &self.server.router;
        let known = self.model.users.iter().find(|known| known.name == *name);
        let ids: BTreeSet<ConnectionId> = self.model.connections_of(name).map(|known| known.id).collect();
        let Some(user) = router.user(name) else {
            assert!(ids.is_empty(), "a connected user, {name}, is out of memory {when}");
            assert!(!router.knows_user(name) || known.is_none(), "{name} is taken for unknown {when}");
            return;
        };
        let known = known.unwrap_or_else(|| panic!("there is no {name} {when}"));
        assert_eq!(state_text(user.profile.state().iter()), state_text(pairs(&known.state)), "state of {name} {when}");
        assert!(user.profile.public_keys().iter().map(|key| &**key).eq(&known.public), "public keys of {name} {when}");
        assert_eq!(user.connections.len(), ids.len(), "connections of {name} {when}");
        assert_eq!(user.connections.iter().copied().collect::<BTreeSet<_>>(), ids, "connections of {name} {when}");
        assert_eq!(router.connected_users().any(|(user, _)| user == name), !ids.is_empty(), "{name} {when}");
        assert_eq!(user.created.0, known.created, "when {name} was created {when}");
        for channel in CHANNELS.map(channel) {
            let floor = router.floor(name, &channel, self.server.moment().utc);
            let expected = known.floors.iter().find(|floor| floor.channel == channel);
            let expected = expected.filter(|floor| floor.is_good(self.model.now));
            let same = floor.map(|floor| (floor.position.0, floor.left.is_some()));
            assert_eq!(
                same,
                expected.map(|floor| (floor.position, floor.left.is_some())),
                "{name}'s floor in {channel} {when}"
            );
        }
        let recent: Vec<String> = user.recent.after(Tick(0)).map(frame_text).collect();
        assert_eq!(recent, texts(&known.recent), "recent frames of {name} {when}");
        let logged = self.model.retained(|entry| entry.holders.contains(name));
        assert!(user.retained.messages >= logged.messages, "messages that the log holds for {name} {when}");
        assert!(!logged.exceeds(INBOX_SIZE) || router.has_overfull(), "{name}'s inbox is trimmed {when}");
    }

    fn compare_channel(&self, name: &ChannelName, when: &str) {
        let router = &self.server.router;
        let known = self.model.channels.iter().find(|known| known.name == *name);
        let members: Vec<&Connection> = self.model.members(name).collect();
        let logged: Vec<&Entry> = self.model.messages_in(name).collect();
        let retained = self.model.retained(|entry| entry.channel.as_ref() == Some(name));
        assert_eq!(self.server.store.retained(name), retained, "what the log holds of {name} {when}");
        let Some(channel) = router.channel(name) else {
            assert!(members.is_empty(), "a channel with members, {name}, is out of memory {when}");
            assert!(!router.knows_channel(name) || known.is_none(), "{name} is taken for unknown {when}");
            return;
        };
        let known = known.unwrap_or_else(|| panic!("there is no {name} {when}"));
        assert_eq!(channel.settings, known.settings, "settings of {name} {when}");
        compare_members(&channel.members, &members, &format!("members of {name} {when}"));
        let history: Vec<String> = channel.history.iter().map(logged_text).collect();
        let size = known.settings.history_size as usize;
        let newest = &logged[logged.len().saturating_sub(size)..];
        assert_eq!(history, newest.iter().map(|entry| entry.text()).collect::<Vec<_>>(), "history of {name} {when}");
        assert_eq!(channel.retained.messages, retained.messages, "messages of {name} that the log holds {when}");
        assert!(channel.retained.deletions >= retained.deletions, "deletions in {name} that the log holds {when}");
        let recent: Vec<String> = channel.recent.after(Tick(0)).map(frame_text).collect();
        assert_eq!(recent, texts(&known.recent), "recent frames of {name} {when}");
        assert!(!retained.exceeds(known.settings.kept()) || router.has_overfull(), "{name} is trimmed {when}");
    }

    fn compare_views(&self, when: &str) {
        let names = CHANNELS.map(channel);
        let in_memory: Vec<&ChannelName> =
            names.iter().filter(|name| self.server.router.channel(name).is_some()).collect();
        for viewer in [None, Some(user("ann"))] {
            let options = InfoOptions::default();
            let view = self.server.router.view(in_memory.clone(), &options, viewer.as_ref(), self.server.moment());
            let expected = self.model.view(in_memory.iter().copied(), viewer.as_ref());
            assert_eq!(view_text(&view), expected, "for {viewer:?} {when}");
        }
    }
}

/// Present exactly while connected, and listening once each.
fn compare_members(members: &Members, expected: &[&Connection], what: &str) {
    let users: BTreeSet<&Username> = expected.iter().map(|known| &known.user).collect();
    assert_eq!(members.users().collect::<BTreeSet<_>>(), users, "{what}");
    assert_eq!(members.user_count(), users.len(), "{what}");
    assert_eq!(members.is_empty(), users.is_empty(), "{what}");
    assert_eq!(members.connection_count(), expected.len(), "{what}");
    for user in users {
        let ids: BTreeSet<ConnectionId> = members.connections_of(user).iter().copied().collect();
        let expected = expected.iter().filter(|known| known.user == *user).map(|known| known.id);
        assert_eq!(ids, expected.collect(), "{what}: {user}");
        assert_eq!(members.connections_of(user).len(), ids.len(), "{what}: {user}");
    }
    let listeners: BTreeSet<_> = members.listeners().collect();
    assert_eq!(listeners.len(), members.listeners().len(), "{what}: who listens twice");
    assert_eq!(listeners.len(), expected.iter().filter(|known| known.listens).count(), "{what}: who listens");
}

fn pairs(state: &State) -> impl Iterator<Item = (&str, &StateValue)> {
    state.iter().map(|(key, value)| (key.as_str(), value))
}

fn texts(recent: &Recent) -> Vec<String> {
    recent.after(0).map(Frame::text).collect()
}

// ---- The model ----

/// All there is, in lists that are searched from end to end.
#[derive(Debug, Default)]
struct Model {
    /// Seconds since the world began, and when the server was started.
    now: u64,
    started: u64,
    users: Vec<User>,
    channels: Vec<Channel>,
    connections: Vec<Connection>,
    /// Messages and deletions; edits only leave their positions.
    log: Vec<Entry>,
    head: u64,
    /// How many frames there were.
    frames: u64,
    posted: u64,
    delivered: u64,
    shown: Vec<(ConnectionId, String)>,
}

#[derive(Debug)]
struct User {
    name: Username,
    state: State,
    public: Vec<String>,
    active: u64,
    created: u64,
    floors: Vec<Floor>,
    recent: Recent,
}

/// How far back a user may replay a channel.
#[derive(Debug)]
struct Floor {
    channel: ChannelName,
    position: u64,
    /// When the last connection of the user ended there.
    left: Option<u64>,
}

#[derive(Debug)]
struct Channel {
    name: ChannelName,
    settings: ChannelSettings,
    recent: Recent,
}

#[derive(Debug)]
struct Connection {
    id: ConnectionId,
    user: Username,
    /// In name order.
    channels: Vec<ChannelName>,
    listens: bool,
    /// Its socket was written no more than so many frames.
    stalled: Option<u64>,
    /// It was sent the first so many frames.
    seen: u64,
    expires: Option<u64>,
    dismissed: bool,
}

#[derive(Debug)]
struct Entry {
    position: u64,
    channel: Option<ChannelName>,
    name: Option<String>,
    /// Whose inboxes hold it.
    holders: Vec<Username>,
    /// None: its deletion.
    message: Option<Message>,
    edit: Option<u64>,
    committed: u64,
}

#[derive(Debug, Clone)]
struct Message {
    name: Option<String>,
    text: Option<String>,
    by: Username,
    dated: Option<i32>,
    edited: bool,
    audience: Audience,
}

#[derive(Debug, Clone, Default)]
struct Audience {
    only: Vec<Username>,
    except: Vec<Username>,
}

#[derive(Debug, Clone)]
enum Frame {
    Message {
        place: String,
        message: Message,
        position: Option<u64>,
    },
    /// `about`: the message that it is an edit of.
    Other {
        text: String,
        audience: Audience,
        about: Option<String>,
    },
}

/// Recent frames, each with its number.
#[derive(Debug, Default)]
struct Recent {
    frames: Vec<(u64, Frame)>,
    /// Those that had to go during the present batch: its requests see what was there before it.
    gone: Vec<(u64, Frame)>,
}

impl Recent {
    fn push(&mut self, number: u64, frame: &Frame, limit: usize) {
        self.frames.push((number, frame.clone()));
        self.cut(limit);
    }

    fn cut(&mut self, limit: usize) {
        self.gone.extend(self.frames.drain(..self.frames.len().saturating_sub(limit)));
    }

    fn message(&self, name: &Option<String>) -> Option<Message> {
        let mut frames = self.gone.iter().chain(&self.frames).rev();
        frames.find_map(|(_, frame)| frame.message().filter(|message| message.name == *name)).cloned()
    }

    fn change(&mut self, changed: &Message) {
        for (_, frame) in self.gone.iter_mut().chain(&mut self.frames) {
            if let Frame::Message { message, .. } = frame
                && message.name == changed.name
            {
                *message = changed.clone();
            }
        }
    }

    fn remove(&mut self, name: &Option<String>) {
        self.gone.retain(|(_, frame)| !frame.is_about(name));
        self.frames.retain(|(_, frame)| !frame.is_about(name));
    }

    fn after(&self, seen: u64) -> impl Iterator<Item = &Frame> {
        self.frames.iter().filter(move |(number, _)| *number > seen).map(|(_, frame)| frame)
    }
}

impl Audience {
    fn of(said: &Said) -> Self {
        Self { only: said.only.clone(), except: said.except.clone() }
    }

    fn admits(&self, user: &Username) -> bool {
        (self.only.is_empty() || self.only.contains(user)) && !self.except.contains(user)
    }
}

impl Message {
    fn text(&self, position: Option<u64>) -> String {
        let edited = if self.edited { " edited" } else { "" };
        said_text(&self.name, &self.text, Some(&self.by), self.dated) + edited + &position_text(position)
    }

    fn change(&mut self, said: &Said) {
        self.text = said.text.clone().or(self.text.take());
        self.by = said.by.clone().unwrap_or(self.by.clone());
        self.dated = said.dated.or(self.dated);
        self.edited = true;
    }
}

impl Floor {
    fn is_good(&self, now: u64) -> bool {
        self.left.is_none_or(|left| now < left + RESUME_WINDOW.as_secs())
    }
}

impl Entry {
    fn text(&self) -> String {
        let message = self.message.as_ref().expect("a message").text(Some(self.position));
        let edit = self.edit.map(|edit| format!("~{edit}")).unwrap_or_default();
        message.trim_start().to_owned() + &edit
    }

    fn is_for(&self, user: &Username) -> bool {
        self.message.as_ref().is_some_and(|message| message.audience.admits(user))
    }
}

impl Frame {
    fn text(&self) -> String {
        match self {
            Self::Message { place, message, position } => format!("{place}: message{}", message.text(*position)),
            Self::Other { text, .. } => text.clone(),
        }
    }

    fn admits(&self, user: &Username) -> bool {
        match self {
            Self::Message { message, .. } => message.audience.admits(user),
            Self::Other { audience, .. } => audience.admits(user),
        }
    }

    fn message(&self) -> Option<&Message> {
        match self {
            Self::Message { message, .. } => Some(message),
            Self::Other { .. } => None,
        }
    }

    fn is_about(&self, name: &Option<String>) -> bool {
        match self {
            Self::Message { message, .. } => message.name == *name,
            Self::Other { about, .. } => about.is_some() && about == name,
        }
    }
}

fn said_text(name: &Option<String>, text: &Option<String>, by: Option<&Username>, dated: Option<i32>) -> String {
    let name = name.as_ref().map(|name| format!(" {name}"));
    let text = text.as_ref().map(|text| format!(" '{text}'"));
    let by = by.filter(|by| by.as_str() != SOMEBODY).map(|by| format!(" by {by}"));
    let dated = dated.map(|year| format!(" dated {year}"));
    [name, text, by, dated].into_iter().flatten().collect()
}

fn position_text(position: Option<u64>) -> String {
    position.map(|position| format!(" #{position}")).unwrap_or_default()
}

fn place_text(channel: &Option<ChannelName>) -> String {
    channel.as_ref().map_or("private".to_owned(), ToString::to_string)
}

/// Sets keys to values; gives those that really changed.
fn merge(state: &mut State, given: &State) -> State {
    let mut changed = State::new();
    for (key, value) in given {
        match state.iter_mut().find(|(known, _)| known == key) {
            Some((_, old)) if old == value => continue,
            Some((_, old)) => *old = value.clone(),
            None if *value == StateValue::Null => continue,
            None => state.push((key.clone(), value.clone())),
        }
        changed.push((key.clone(), value.clone()));
    }
    changed
}

// What may be asked of it.
impl Model {
    fn user(&mut self, name: &Username) -> Option<&mut User> {
        self.users.iter_mut().find(|known| known.name == *name)
    }

    fn channel(&mut self, name: &ChannelName) -> Option<&mut Channel> {
        self.channels.iter_mut().find(|known| known.name == *name)
    }

    fn connection(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|known| known.id == id)
    }

    fn settings(&mut self, name: &ChannelName) -> Option<ChannelSettings> {
        self.channel(name).map(|known| known.settings.clone())
    }

    fn connections_of(&self, user: &Username) -> impl Iterator<Item = &Connection> {
        self.connections.iter().filter(move |known| known.user == *user)
    }

    fn members(&self, channel: &ChannelName) -> impl Iterator<Item = &Connection> {
        self.connections.iter().filter(move |known| known.channels.contains(channel))
    }

    fn is_present(&self, user: &Username, channel: &ChannelName) -> bool {
        self.members(channel).any(|known| known.user == *user)
    }

    /// Connections that are over by now, in the order in which they are.
    fn over(&self) -> Vec<ConnectionId> {
        let over = self.connections.iter().filter_map(|known| Some((known.expires?, known.id)));
        let mut over: Vec<_> = over.filter(|(expires, _)| *expires <= self.now).collect();
        over.sort();
        over.into_iter().map(|(_, id)| id).collect()
    }

    fn messages_in(&self, channel: &ChannelName) -> impl Iterator<Item = &Entry> {
        self.log.iter().filter(move |entry| entry.channel.as_ref() == Some(channel) && entry.message.is_some())
    }

    fn retained(&self, mine: impl Fn(&Entry) -> bool) -> Retained {
        let (messages, deletions): (Vec<&Entry>, Vec<&Entry>) =
            self.log.iter().filter(|entry| mine(entry)).partition(|entry| entry.message.is_some());
        Retained { messages: messages.len() as u32, deletions: deletions.len() as u32 }
    }

    /// A message, or its deletion.
    fn held(&mut self, said: &Said) -> Option<&mut Entry> {
        said.name.as_ref()?;
        self.log.iter_mut().find(|entry| entry.name == said.name && entry.channel == said.channel)
    }

    /// A message that is among the recent frames.
    fn recent_message(&mut self, said: &Said) -> Option<Message> {
        match &said.channel {
            Some(name) => self.channel(name)?.recent.message(&said.name),
            None => said.only.iter().find_map(|name| self.user(name)?.recent.message(&said.name)),
        }
    }

    /// The known users that something private is for.
    fn recipients(&mut self, audience: &Audience) -> Vec<Username> {
        let mut recipients: Vec<Username> = Vec::new();
        for name in &audience.only {
            if audience.admits(name) && !recipients.contains(name) && self.user(name).is_some() {
                recipients.push(name.clone());
            }
        }
        recipients
    }

    fn view<'a>(&self, names: impl Iterator<Item = &'a ChannelName>, viewer: Option<&Username>) -> String {
        let (mut parts, mut people) = (Vec::new(), BTreeSet::new());
        for known in names.filter_map(|name| self.channels.iter().find(|known| known.name == *name)) {
            let users: BTreeSet<&Username> = self.members(&known.name).map(|member| &member.user).collect();
            let logged: Vec<&Entry> = self.messages_in(&known.name).collect();
            let newest = logged.iter().rev().take(known.settings.history_size as usize).rev();
            let in_time = |entry: &Entry| {
                known.settings.history_ttl.is_none_or(|ttl| entry.committed + u64::from(ttl) > self.now)
            };
            let visible = newest.filter(|entry| in_time(entry) && viewer.is_none_or(|viewer| entry.is_for(viewer)));
            let history = labelled(":", visible.map(|entry| entry.text()));
            let (members, of) = (self.members(&known.name).count(), labelled(" of", &users));
            parts.push(format!("{} {members}c {}u{of}{history}", known.name, users.len()));
            people.extend(users);
        }
        let state = |name: &Username| {
            let known = self.users.iter().find(|known| known.name == *name).expect("a member is known");
            person_text(name, &state_text(pairs(&known.state)))
        };
        parts.push(labelled("users", people.into_iter().map(state)));
        sentence(parts)
    }

    fn profile(&mut self, name: &Username) -> String {
        let known = self.user(name).expect("a known user");
        sentence([format!("{{{}}}", state_text(pairs(&known.state))), labelled("public", &known.public)])
    }

    fn public_state(&mut self, name: &Username) -> String {
        let known = self.user(name).expect("a known user");
        state_text(pairs(&known.state).filter(|(key, _)| known.public.iter().any(|public| public == key)))
    }
}

// What is asked of it.
impl Model {
    fn request(&mut self, request: &Request, over: &[ConnectionId]) -> Result<String, Refusal> {
        match request {
            Request::Connect { user, id, channels, state, fresh, public, settings } => {
                if self.connection(*id).is_some_and(|known| known.user != *user) {
                    return Err(Refusal::ForeignConnection);
                }
                self.connect(user, *id, state, fresh, public);
                for name in channels {
                    self.subscribe(*id, name, settings);
                }
                let mut channels = channels.clone();
                channels.sort();
                let mut different = channels.clone();
                different.dedup();
                let view = self.view(different.iter(), Some(user));
                let who = format!("{} is {user} {}", connection_name(*id), self.profile(user));
                Ok(sentence([who, labelled("in", channels), view, format!("head {}", self.head)]))
            }
            Request::Subscribe { id, channels, settings } => {
                let before = self.connection(*id).ok_or(Refusal::UnknownConnection)?.channels.clone();
                for name in channels {
                    self.subscribe(*id, name, settings);
                }
                let added: BTreeSet<_> = channels.iter().filter(|name| !before.contains(name)).collect();
                Ok(sentence([labelled("added", added), self.membership(*id)]))
            }
            Request::Unsubscribe { id, channels } => {
                let known = self.connection(*id).ok_or(Refusal::UnknownConnection)?;
                let removed: BTreeSet<_> = channels.iter().filter(|name| known.channels.contains(name)).collect();
                let user = known.user.clone();
                known.channels.retain(|name| !removed.contains(name));
                removed.iter().for_each(|name| self.left(&user, name, true));
                Ok(sentence([labelled("removed", removed), self.membership(*id)]))
            }
            Request::ChangeState { user, state, public } => self.change_state(user, state, public),
            Request::Configure { channel, settings } => {
                self.configure(channel, settings);
                let connections = self.members(channel).count();
                let users: BTreeSet<&Username> = self.members(channel).map(|member| &member.user).collect();
                Ok(format!("{channel} {connections}c {}u", users.len()))
            }
            Request::Post(messages) => Ok(join(messages.iter().filter_map(|said| self.post(said)))),
            Request::Edit(edits) => Ok(join(edits.iter().map(|said| self.edit(said)))),
            Request::Delete(deletions) => Ok(join(deletions.iter().map(|said| self.delete(said)))),
            Request::Sweep => {
                over.iter().for_each(|id| self.end(*id));
                Ok(String::new())
            }
            Request::ExpireFloors => Ok(String::new()),
            Request::Forget { users, idle } => {
                let forgotten = users.iter().filter(|name| self.forget(name, *idle)).count();
                Ok(forgotten.to_string())
            }
        }
    }

    fn connect(&mut self, user: &Username, id: ConnectionId, state: &State, fresh: &State, public: &[String]) {
        if self.user(user).is_none() {
            let mut known = User {
                name: user.clone(),
                state: State::new(),
                public: Vec::new(),
                active: 0,
                created: self.head,
                floors: Vec::new(),
                recent: Recent::default(),
            };
            merge(&mut known.state, fresh);
            self.users.push(known);
        }
        let now = self.now;
        let known = self.user(user).expect("just added");
        merge(&mut known.state, state);
        known.public = public.to_vec();
        known.active = now;
        match self.connection(id) {
            Some(known) => {
                known.dismissed = false;
                known.expires = (!known.listens).then_some(now + GRACE.as_secs());
            }
            None => self.connections.push(Connection {
                id,
                user: user.clone(),
                channels: Vec::new(),
                listens: false,
                stalled: None,
                seen: self.frames,
                expires: Some(now + GRACE.as_secs()),
                dismissed: false,
            }),
        }
    }

    fn subscribe(&mut self, id: ConnectionId, name: &ChannelName, settings: &SettingsPatch) {
        let known = self.connection(id).expect("a known connection");
        if known.channels.contains(name) {
            return;
        }
        let user = known.user.clone();
        if self.channel(name).is_none() {
            self.configure(name, &Some(settings.clone()));
        }
        let is_new = !self.is_present(&user, name);
        self.hold_floor(&user, name);
        let known = self.connection(id).expect("a known connection");
        known.channels.push(name.clone());
        known.channels.sort();
        if is_new {
            self.show_presence(name, &user, true);
        }
    }

    /// The head is the floor of a user that has none.
    fn hold_floor(&mut self, user: &Username, channel: &ChannelName) {
        let (head, now) = (self.head, self.now);
        let floors = &mut self.user(user).expect("a connected user is known").floors;
        floors.retain(|floor| floor.is_good(now));
        match floors.iter_mut().find(|floor| floor.channel == *channel) {
            Some(floor) => floor.left = None,
            None => floors.push(Floor { channel: channel.clone(), position: head, left: None }),
        }
    }

    /// A connection of a user is no more in a channel; `asked`: because the application said so.
    fn left(&mut self, user: &Username, name: &ChannelName, asked: bool) {
        if self.is_present(user, name) {
            return;
        }
        let now = self.now;
        let floors = &mut self.user(user).expect("a connected user is known").floors;
        if asked {
            floors.retain(|floor| floor.channel != *name);
        }
        floors.iter_mut().filter(|floor| floor.channel == *name).for_each(|floor| floor.left = Some(now));
        self.show_presence(name, user, false);
    }

    fn end(&mut self, id: ConnectionId) {
        let index = self.connections.iter().position(|known| known.id == id).expect("a known connection");
        let gone = self.connections.remove(index);
        gone.channels.iter().for_each(|name| self.left(&gone.user, name, false));
        let now = self.now;
        self.user(&gone.user).expect("a connected user is known").active = now;
        if gone.listens {
            self.shown.push((id, if gone.dismissed { "dismissed" } else { "over" }.to_owned()));
        }
    }

    fn membership(&mut self, id: ConnectionId) -> String {
        let known = self.connection(id).expect("a known connection");
        let (channels, user) = (known.channels.clone(), known.user.clone());
        sentence([labelled("in", &channels), self.view(channels.iter(), Some(&user))])
    }

    fn configure(&mut self, name: &ChannelName, settings: &Option<SettingsPatch>) {
        if self.channel(name).is_none() {
            let settings = ChannelSettings::default();
            self.channels.push(Channel { name: name.clone(), settings, recent: Recent::default() });
        }
        let known = self.channel(name).expect("just added");
        if let Some(patch) = settings {
            known.settings = patch.applied_to(&known.settings);
        }
        if !known.settings.store_frames {
            known.recent = Recent::default();
        }
    }

    fn change_state(
        &mut self,
        name: &Username,
        state: &State,
        public: &Option<Vec<String>>,
    ) -> Result<String, Refusal> {
        let now = self.now;
        let known = self.user(name).ok_or(Refusal::UnknownUser)?;
        let changed = merge(&mut known.state, state);
        let public = public.clone().unwrap_or(known.public.clone());
        if !changed.is_empty() || known.public != public {
            known.active = now;
        }
        known.public = public.clone();
        let told = state_text(pairs(&changed).filter(|(key, _)| public.iter().any(|public| public == key)));
        let channels: BTreeSet<ChannelName> =
            self.connections_of(name).flat_map(|known| known.channels.iter().cloned()).collect();
        for channel in channels.iter().filter(|_| !told.is_empty()) {
            if self.settings(channel).is_some_and(|settings| settings.notify_state) {
                let text = format!("{channel}: state of {name} {told} {{{}}}", self.public_state(name));
                self.show(channel, Frame::Other { text, audience: Audience::default(), about: None });
            }
        }
        let changed = Some(state_text(pairs(&changed))).filter(|text| !text.is_empty());
        Ok(sentence([labelled("changed", changed), self.profile(name)]))
    }

    /// The answer; none if it has no target.
    fn post(&mut self, said: &Said) -> Option<String> {
        let message = Message {
            name: said.name.clone(),
            text: said.text.clone(),
            by: said.by.clone().unwrap_or_else(|| user(SOMEBODY)),
            dated: said.dated,
            edited: false,
            audience: Audience::of(said),
        };
        let mut holders = Vec::new();
        let mut is_logged = match &said.channel {
            Some(name) => {
                self.settings(name).is_some_and(|settings| settings.store_history && settings.history_size > 0)
            }
            None if said.only.is_empty() => return None,
            None => {
                holders = self.recipients(&message.audience);
                !holders.is_empty()
            }
        };
        is_logged &= !said.unlogged;
        if let Some(entry) = self.held(said) {
            let stored = entry.message.as_ref().unwrap_or(&message);
            return Some(stored.text(Some(entry.position)).trim_start().to_owned() + " duplicate");
        }
        let position = is_logged.then(|| self.next_position());
        if let Some(position) = position {
            self.log.push(Entry {
                position,
                channel: said.channel.clone(),
                name: said.name.clone(),
                holders: holders.clone(),
                message: Some(message.clone()),
                edit: None,
                committed: self.now,
            });
        }
        self.posted += 1;
        let answer = message.text(position).trim_start().to_owned();
        let frame = Frame::Message { place: place_text(&said.channel), message, position };
        self.delivered += match &said.channel {
            Some(name) => self.show(name, frame),
            None => self.show_privately(&holders, frame),
        };
        Some(answer)
    }

    fn edit(&mut self, said: &Said) -> String {
        if said.channel.is_none() && said.only.is_empty() {
            return said.name.clone().unwrap_or_default();
        }
        let next = self.head + 1;
        let (message, position) =
            match self.held(said).and_then(|entry| Some((entry.message.as_mut()?, &mut entry.edit))) {
                Some((message, edit)) => {
                    message.change(said);
                    *edit = Some(next);
                    (Some(message.clone()), Some(self.next_position()))
                }
                None => {
                    let mut recent = self.recent_message(said);
                    recent.iter_mut().for_each(|message| message.change(said));
                    (recent, None)
                }
            };
        let audience = message.as_ref().map_or(Audience::of(said), |message| message.audience.clone());
        let what = said_text(&said.name, &said.text, said.by.as_ref(), said.dated);
        let text = format!("{}: edit{what}{}", place_text(&said.channel), position_text(position));
        let frame = Frame::Other { text, audience: audience.clone(), about: said.name.clone() };
        let change = |recent: &mut Recent| message.iter().for_each(|message| recent.change(message));
        self.announce(said, &audience, frame, change);
        said.name.clone().unwrap_or_default() + &position_text(position)
    }

    fn delete(&mut self, said: &Said) -> String {
        if said.channel.is_none() && said.only.is_empty() {
            return said.name.clone().unwrap_or_default();
        }
        let settings = said.channel.as_ref().and_then(|name| self.settings(name));
        let stores = settings.is_some_and(|settings| settings.store_history && settings.history_size > 0);
        let index = self.log.iter().position(|entry| entry.name == said.name && entry.channel == said.channel);
        let entry = index.map(|index| self.log.remove(index));
        let position = (stores || entry.is_some()).then(|| self.next_position());
        let message = match &entry {
            Some(entry) => entry.message.clone(),
            None => self.recent_message(said),
        };
        let audience = message.map_or(Audience::of(said), |message| message.audience);
        if let Some(position) = position {
            self.log.push(Entry {
                position,
                channel: said.channel.clone(),
                name: said.name.clone(),
                holders: entry.map(|entry| entry.holders).unwrap_or_default(),
                message: None,
                edit: None,
                committed: self.now,
            });
        }
        let name = said.name.clone().unwrap_or_default();
        let text = format!("{}: delete {name}{}", place_text(&said.channel), position_text(position));
        let frame = Frame::Other { text, audience: audience.clone(), about: None };
        self.announce(said, &audience, frame, |recent| recent.remove(&said.name));
        name + &position_text(position)
    }

    /// Changes the recent frames and shows what changed them.
    fn announce(&mut self, said: &Said, audience: &Audience, frame: Frame, change: impl Fn(&mut Recent)) {
        match &said.channel {
            Some(name) => {
                if let Some(known) = self.channel(name) {
                    change(&mut known.recent);
                    self.show(name, frame);
                }
            }
            None => {
                let users = self.recipients(audience);
                for name in &users {
                    change(&mut self.user(name).expect("a known user").recent);
                }
                self.show_privately(&users, frame);
            }
        }
    }

    fn trim_channel(&mut self, name: &ChannelName, keep: Retained) {
        let kept = self.settings(name).expect("a known channel").kept();
        let past = self.past(keep, kept, |entry| entry.channel.as_ref() == Some(name));
        self.log.retain(|entry| !past.contains(&entry.position));
    }

    fn trim_inbox(&mut self, name: &Username, keep: Retained) {
        let past = self.past(keep, INBOX_SIZE, |entry| entry.holders.contains(name));
        self.leave_inbox(name, |entry| past.contains(&entry.position));
    }

    /// Positions of all that is older than the newest messages to keep, and of deletions that are
    /// older than those to keep.
    fn past(&self, keep: Retained, kept: u32, mine: impl Fn(&Entry) -> bool) -> Vec<u64> {
        let retained = self.retained(&mine);
        assert!(keep.messages >= kept.min(retained.messages), "of {retained:?} only {keep:?} stay");
        let mine: Vec<&Entry> = self.log.iter().filter(|entry| mine(entry)).collect();
        let newest_gone = |keep: u32, is_message: bool| {
            let such = mine.iter().rev().filter(|entry| entry.message.is_some() == is_message);
            such.map(|entry| entry.position).nth(keep as usize).unwrap_or_default()
        };
        let (all, deletions) = (newest_gone(keep.messages, true), newest_gone(keep.deletions, false));
        let limit = |entry: &Entry| if entry.message.is_some() { all } else { all.max(deletions) };
        mine.iter().filter(|entry| entry.position <= limit(entry)).map(|entry| entry.position).collect()
    }

    fn leave_inbox(&mut self, name: &Username, leaves: impl Fn(&Entry) -> bool) {
        for entry in &mut self.log {
            if leaves(entry) {
                entry.holders.retain(|holder| holder != name);
            }
        }
        self.log.retain(|entry| entry.channel.is_some() || !entry.holders.is_empty());
    }

    fn forget(&mut self, name: &Username, idle: u64) -> bool {
        let is_connected = self.connections_of(name).next().is_some();
        let now = self.now;
        if is_connected || self.user(name).is_none_or(|known| known.active + idle > now) {
            return false;
        }
        self.users.retain(|known| known.name != *name);
        self.leave_inbox(name, |_| true);
        true
    }

    fn next_position(&mut self) -> u64 {
        self.head += 1;
        self.head
    }
}

// What is shown.
impl Model {
    fn show_presence(&mut self, channel: &ChannelName, name: &Username, joined: bool) {
        let settings = self.settings(channel).expect("a known channel");
        if !settings.notify_presence {
            return;
        }
        let mut among = Vec::new();
        if settings.broadcast_presence_with_user_lists {
            let members: BTreeSet<Username> = self.members(channel).map(|member| member.user.clone()).collect();
            among.extend(members.iter().map(|member| person_text(member, &self.public_state(member))));
        }
        let state = if joined { self.public_state(name) } else { String::new() };
        let (what, who) = (if joined { "joined" } else { "parted" }, person_text(name, &state));
        among.sort();
        let text = format!("{channel}: {what} {who}{}", labelled(" among", among));
        let audience = Audience { only: Vec::new(), except: vec![name.clone()] };
        self.show(channel, Frame::Other { text, audience, about: None });
    }

    /// Gives the number of connections that it went to.
    fn show(&mut self, channel: &ChannelName, frame: Frame) -> u64 {
        self.frames += 1;
        let number = self.frames;
        let Some(known) = self.channel(channel) else { return 0 };
        if known.settings.store_frames {
            known.recent.push(number, &frame, RECENT);
        }
        self.deliver(&frame, |member| member.channels.contains(channel) && frame.admits(&member.user))
    }

    fn show_privately(&mut self, users: &[Username], frame: Frame) -> u64 {
        self.frames += 1;
        let number = self.frames;
        for name in users {
            let known = self.user(name).expect("a known user");
            known.recent.push(number, &frame, INBOX_SIZE as usize);
        }
        self.deliver(&frame, |member| users.contains(&member.user))
    }

    fn deliver(&mut self, frame: &Frame, to: impl Fn(&Connection) -> bool) -> u64 {
        let to: Vec<&Connection> = self.connections.iter().filter(|known| to(known)).collect();
        let listens = to.iter().filter(|known| known.listens && known.stalled.is_none());
        self.shown.extend(listens.map(|known| (known.id, frame.text())));
        to.len() as u64
    }
}

// Who listens.
impl Model {
    fn take(&mut self, step: &Step) {
        match *step {
            Step::Listen(id) => self.listen(id),
            Step::Flicker(id) => {
                self.depart(id, GRACE.as_secs());
                let expires = self.now + GRACE.as_secs();
                if let Some(known) = self.connection(id).filter(|known| !known.dismissed) {
                    known.expires = Some(expires);
                }
            }
            Step::Stall(id) => {
                let frames = self.frames;
                if let Some(known) = self.connection(id).filter(|known| known.listens) {
                    known.stalled.get_or_insert(frames);
                }
            }
            Step::Drop(id) => self.depart(id, GRACE.as_secs()),
            Step::Close(id) => self.depart(id, 0),
            Step::Dismiss(id) => {
                let now = self.now;
                if let Some(known) = self.connection(id) {
                    known.dismissed = true;
                    known.expires = Some(known.expires.map_or(now, |expires| expires.min(now)));
                }
            }
            Step::Later(seconds) => self.now += seconds,
            Step::Restart => {
                self.started = self.now;
                (self.posted, self.delivered) = (0, 0);
                self.users.iter_mut().for_each(|known| known.recent = Recent::default());
                self.channels.iter_mut().for_each(|known| known.recent = Recent::default());
                for known in &mut self.connections {
                    (known.listens, known.stalled, known.dismissed) = (false, None, false);
                    (known.seen, known.expires) = (self.frames, Some(self.now + GRACE.as_secs()));
                }
            }
            Step::Ask(_) | Step::Pass(_) | Step::Show(_) => panic!("elsewhere"),
        }
    }

    fn listen(&mut self, id: ConnectionId) {
        self.depart(id, GRACE.as_secs());
        let Some(known) = self.connection(id) else {
            return self.shown.push((id, "unknown".to_owned()));
        };
        (known.listens, known.stalled) = (true, None);
        known.expires = known.expires.filter(|_| known.dismissed);
        let (seen, user, channels) = (known.seen, known.user.clone(), known.channels.clone());
        let mut missed = Vec::new();
        for name in &channels {
            let recent = &self.channel(name).expect("a known channel").recent;
            missed.extend(recent.after(seen).filter(|frame| frame.admits(&user)).map(Frame::text));
        }
        let recent = &self.user(&user).expect("a known user").recent;
        missed.extend(recent.after(seen).map(Frame::text));
        self.shown.extend(missed.into_iter().map(|text| (id, format!("catchup {text}"))));
    }

    /// Its socket is gone; it is over in so many seconds.
    fn depart(&mut self, id: ConnectionId, grace: u64) {
        let (now, frames) = (self.now, self.frames);
        if let Some(known) = self.connection(id).filter(|known| known.listens) {
            known.listens = false;
            known.seen = known.stalled.take().unwrap_or(frames);
            known.expires = Some(known.expires.map_or(now + grace, |expires| expires.min(now + grace)));
        }
    }

    /// Recent frames are in memory only, and go with what they belong to.
    fn forget_frames(&mut self, server: &Server) {
        for known in &mut self.users {
            known.recent.cut(server.router.user(&known.name).map_or(0, |_| INBOX_SIZE as usize));
            known.recent.gone.clear();
        }
        for known in &mut self.channels {
            known.recent.cut(server.router.channel(&known.name).map_or(0, |_| RECENT));
            known.recent.gone.clear();
        }
    }
}
