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

use channelstream::domain::channel::Members;
use channelstream::domain::event::Event;
use channelstream::domain::frame::Tick;
use channelstream::domain::names::{ChannelName, ConnectionId, Username};
use channelstream::domain::router::PARTS;
use channelstream::domain::timestamp::Moment;
use channelstream::domain::user::INBOX_SIZE;
use channelstream::domain::view::InfoOptions;

use script::model::{Connection, Entry, Frame, Model, Recent, pairs};
use script::server::{Server, look_at};
use script::step::{Request, Step, parse, request};
use script::text::{channel, connection, frame_text, join, labelled, logged_text, state_text, user, view_text};

const USERS: [&str; 4] = ["ann", "bob", "eve", "Eve"];
const CHANNELS: [&str; 3] = ["news", "sport", "talk"];
const CONNECTIONS: [&str; 6] = ["a1", "a2", "b1", "b2", "e1", "e2"];
const MESSAGES: [&str; 6] = ["m1", "m2", "m3", "m4", "m5", "m6"];
const KEYS: [&str; 3] = ["mood", "age", "x"];

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
            7 if self.percent(40) => vec![format!("delete user {}", self.one(&USERS))],
            // Alone: it is the store that says up to where.
            7 if self.percent(30) => {
                let (user, id, to) = (self.one(&USERS), self.one(&CONNECTIONS), self.some(&CHANNELS));
                vec![format!("{user} connects {id} to {to} since {}s", self.below(400))]
            }
            // Alone: it is the store that says of which channels.
            7 if self.percent(40) => vec!["expire messages".to_owned()],
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
                let since = self.maybe(25, |random| {
                    let position = format!("#{}", random.below(60));
                    format!(" since {}", random.one(&["earliest", "elsewhere", &position, &position]))
                });
                format!("{user} connects {id}{to}{since}{with}{fresh}{public} configured {}", self.settings())
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
            36 if self.percent(60) => format!("delete channel {}", self.one(&CHANNELS)),
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
        assert_eq!(
            (0..PARTS).flat_map(|part| router.connected_users(part)).any(|(user, _)| user == name),
            !ids.is_empty(),
            "{name} {when}"
        );
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
            let names = in_memory.iter().map(|name| (*name).clone()).collect();
            let view = look_at(&self.server.router, names, &options, viewer.clone(), self.server.moment());
            let expected = self.model.view(in_memory.iter().copied(), viewer.as_ref());
            assert_eq!(view_text(&view, &self.server.router), expected, "for {viewer:?} {when}");
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

fn texts(recent: &Recent) -> Vec<String> {
    recent.after(0).map(Frame::text).collect()
}
