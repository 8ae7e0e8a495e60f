//! The tail of a place against a log that is as naive as can be: whatever happened, a tail that
//! covers a position answers for someone who has seen the log up to there what the log would.

use std::sync::Arc;

use channelstream::domain::event::Original;
use channelstream::domain::frame::Frame;
use channelstream::domain::history::{Logged, Retained};
use channelstream::domain::message::{Audience, Body, Message};
use channelstream::domain::names::{ChannelName, Username};
use channelstream::domain::position::Position;
use channelstream::domain::tail::{Entry, Place, Said, Tail, TailPart};
use channelstream::domain::tails::{TailLimits, Tails};
use channelstream::domain::timestamp::Timestamp;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::value::RawValue;
use uuid::Uuid;

#[derive(Debug, Clone)]
enum Step {
    /// Something is logged elsewhere.
    Elsewhere,
    /// With a body of so many bytes more.
    Post(usize),
    Edit(Index),
    Delete(Index),
    DeleteUnknown,
    Trim(u32, u32),
    /// What was committed so long ago is over.
    Over(i64),
    /// And what is over goes from the log.
    Expire,
    /// The log is read for the tail: so many entries, with so many bytes in their bodies.
    Extend(usize, usize),
    /// The tail has to make room for others.
    Forget,
    /// The place leaves memory and comes back.
    Reload,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![3 => 0..50usize, 1 => 0..2_000usize];
    let step = prop_oneof![
        2 => Just(Step::Elsewhere),
        8 => size.clone().prop_map(Step::Post),
        5 => any::<Index>().prop_map(Step::Edit),
        4 => any::<Index>().prop_map(Step::Delete),
        1 => Just(Step::DeleteUnknown),
        3 => (0..6u32, 0..4u32).prop_map(|(messages, deletions)| Step::Trim(messages, deletions)),
        1 => (0..12i64).prop_map(Step::Over),
        1 => Just(Step::Expire),
        3 => (1..8usize, size).prop_map(|(entries, bytes)| Step::Extend(entries, bytes)),
        1 => Just(Step::Extend(1_000, 1 << 20)),
        1 => Just(Step::Forget),
        1 => Just(Step::Reload),
    ];
    proptest::collection::vec(step, 1..60)
}

/// The log of one channel, and its tail.
struct World {
    log: Vec<Entry>,
    trimmed: u64,
    head: u64,
    /// What was committed up to this is past its time.
    over: i64,
    tails: Tails,
    tail: Tail,
}

fn channel() -> ChannelName {
    ChannelName::parse("news").expect("a name")
}

fn message(n: u64, size: usize) -> Arc<Message> {
    let body = format!(r#"{{"n":{n},"filler":"{}"}}"#, "x".repeat(size));
    Arc::new(Message {
        uuid: Uuid::from_u128(n.into()),
        channel: Some(channel()),
        sender: Username::parse("ann").expect("a name"),
        body: Some(Body::from(RawValue::from_string(body).expect("JSON"))),
        timestamp: Timestamp::parse("2010-01-01T01:01").expect("a time"),
        edited: None,
        audience: Audience::default(),
        no_history: false,
    })
}

impl World {
    fn new(limit: usize) -> Self {
        let mut tails = Tails::default();
        tails.set_limits(TailLimits { place: limit, ..TailLimits::default() });
        Self { log: Vec::new(), trimmed: 0, head: 0, over: -1, tails, tail: Tail::whole(Position(0)) }
    }

    fn change(&mut self, change: impl FnOnce(&mut Tail)) {
        self.tails.change(&mut self.tail, || Place::Channel(channel()), change);
    }

    /// Commit times rise with positions, but not with each.
    fn now(&self) -> i64 {
        (self.head / 2) as i64
    }

    fn next(&mut self) -> (Position, i64) {
        self.head += 1;
        (Position(self.head), self.now())
    }

    fn log(&mut self, entry: Entry) {
        self.log.push(entry);
    }

    fn messages(&self) -> Vec<Logged> {
        let edit_of = |position| {
            let is_about = |entry: &&Entry| matches!(entry.said, Said::Edit { about, .. } if about == position);
            self.log.iter().find(is_about).map(|entry| entry.position)
        };
        let logged = |entry: &Entry| match &entry.said {
            Said::Message(message) => Some(Logged {
                position: entry.position,
                edit: edit_of(entry.position),
                committed: entry.committed,
                message: message.clone(),
            }),
            _ => None,
        };
        self.log.iter().filter_map(logged).collect()
    }

    fn pick(&self, index: &Index) -> Option<Logged> {
        let messages = self.messages();
        (!messages.is_empty()).then(|| messages[index.index(messages.len())].clone())
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Elsewhere => self.head += 1,
            Step::Post(size) => {
                let (position, committed) = self.next();
                let message = message(self.head, *size);
                self.log(Entry { position, committed, said: Said::Message(message.clone()) });
                self.change(|tail| tail.post(position, committed, message));
            }
            Step::Edit(index) => {
                let Some(original) = self.pick(index).filter(|logged| logged.committed > self.over) else { return };
                let (position, committed) = self.next();
                let message =
                    Arc::new(Message { body: message(self.head, 9).body.clone(), ..(*original.message).clone() });
                self.log.retain(|entry| Some(entry.position) != original.edit);
                let edited = self.log.iter_mut().find(|entry| entry.position == original.position).expect("it is held");
                edited.said = Said::Message(message.clone());
                let said =
                    Said::Edit { about: original.position, posted: original.committed, message: message.clone() };
                self.log(Entry { position, committed, said });
                self.change(|tail| tail.edit(position, committed, &original, &message));
            }
            Step::Delete(index) => {
                let Some(logged) = self.pick(index) else { return };
                let original = Original { position: logged.position, edit: logged.edit };
                self.log.retain(|entry| entry.position != original.position && Some(entry.position) != original.edit);
                self.delete(logged.message.uuid, Some(original));
            }
            Step::DeleteUnknown => self.delete(Uuid::from_u128(u128::MAX), None),
            Step::Trim(messages, deletions) => {
                let keep = Retained { messages: *messages, deletions: *deletions };
                let newest_gone = |keep: u32, is_of_kind: fn(&Said) -> bool| {
                    let of_kind = self.log.iter().rev().filter(|entry| is_of_kind(&entry.said));
                    of_kind.map(|entry| entry.position.0).nth(keep as usize).unwrap_or(0)
                };
                let all = newest_gone(*messages, |said| matches!(said, Said::Message(_)));
                let deletions = newest_gone(*deletions, |said| matches!(said, Said::Deletion { .. }));
                self.drop(all, deletions);
                self.change(|tail| tail.trim(keep));
            }
            Step::Over(age) => self.over = self.over.max(self.now() - age),
            Step::Expire => {
                let over = self.over;
                let all = self.log.iter().filter(|entry| entry.committed <= over).map(|entry| entry.position.0).max();
                self.drop(all.unwrap_or(0), all.unwrap_or(0));
                self.change(|tail| tail.expire(over));
            }
            Step::Extend(entries, bytes) => {
                let Some(before) = self.tail.wants() else { return };
                let part = self.part(before, *entries, *bytes);
                self.change(|tail| tail.extend(before, part, |_| None));
            }
            Step::Forget => {
                let head = Position(self.head);
                self.change(|tail| tail.raise(head));
            }
            Step::Reload => {
                self.tails.remove(&Place::Channel(channel()), &self.tail);
                self.tail = if self.log.is_empty() { Tail::whole(Position(self.trimmed)) } else { Tail::default() };
                self.tail.begin(Position(self.head));
            }
        }
    }

    fn delete(&mut self, uuid: Uuid, original: Option<Original>) {
        let (position, committed) = self.next();
        let about = original.map(|original| original.position);
        let said = Said::Deletion { uuid, about, audience: Arc::default() };
        let entry = Entry { position, committed, said };
        self.log(entry.clone());
        self.change(|tail| tail.delete(original.as_ref(), entry));
    }

    /// What retention does to the log: all up to a position with its edits, and deletions.
    fn drop(&mut self, all: u64, deletions: u64) {
        let goes = |entry: &Entry| {
            let position = entry.position.0;
            position <= all
                || matches!(entry.said, Said::Edit { about, .. } if about.0 <= all)
                || matches!(entry.said, Said::Deletion { .. }) && position <= deletions
        };
        let gone = self.log.iter().filter(|entry| goes(entry)).map(|entry| entry.position.0).max();
        self.trimmed = self.trimmed.max(gone.unwrap_or(0));
        self.log.retain(|entry| !goes(entry));
    }

    /// What the store reads for a tail.
    fn part(&self, before: Position, limit: usize, bytes: usize) -> TailPart {
        let older: Vec<&Entry> = self.log.iter().filter(|entry| entry.position <= before).collect();
        let mut sum = 0;
        let mut fits = |entry: &&&Entry| {
            sum += body(entry).map_or(0, str::len);
            sum <= bytes
        };
        let count = older.iter().rev().take(limit).take_while(&mut fits).count();
        let entries = older[older.len() - count..].iter().map(|entry| (*entry).clone()).collect();
        TailPart { entries, has_older: count < older.len(), trimmed: Position(self.trimmed) }
    }

    /// The log as a reader is shown it: what is past its time counts as trimmed.
    fn shown(&self) -> (Vec<&Entry>, u64) {
        let is_over = |entry: &&Entry| {
            let posted = matches!(entry.said, Said::Edit { posted, .. } if posted <= self.over);
            entry.committed <= self.over || posted
        };
        let (over, shown): (Vec<&Entry>, Vec<&Entry>) = self.log.iter().partition(is_over);
        let trimmed = over.iter().map(|entry| entry.position.0).max().unwrap_or(0);
        (shown, trimmed.max(self.trimmed))
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        let over = self.over;
        self.change(|tail| tail.expire(over));
        let (log, trimmed) = self.shown();
        for seen in 0..=self.head {
            let position = Position(seen);
            if !self.tail.covers(position) {
                continue;
            }
            for after in [seen, (seen + self.head) / 2] {
                let net = log.iter().filter(|entry| entry.position.0 > after && is_news(entry, seen));
                let net: Vec<_> = net.map(|entry| text(entry)).collect();
                let told: Vec<_> = self.tail.after(position, Position(after)).map(text).collect();
                prop_assert_eq!(told, net, "from {} after {}", seen, after);
            }
            prop_assert_eq!(self.tail.trimmed().0 > seen, trimmed > seen, "a gap after {}", seen);
        }
        prop_assert!(self.tail.covers(Position(self.head)));
        for after in 0..=self.head {
            for through in after..=self.head {
                let inside = |position: u64| position > after && position <= through;
                let holds = inside(trimmed) || log.iter().any(|entry| inside(entry.position.0));
                let told = self.tail.holds(Position(after), Position(through));
                prop_assert!(told.is_none_or(|told| told == holds), "{:?} of {} to {}", told, after, through);
                prop_assert!(told.is_some() || !self.tail.covers(Position(after)));
            }
        }
        let shared: Vec<usize> = self.tail.after(Position(0), Position(0)).map(|_| 0).collect();
        prop_assert!(shared.len() <= log.len());
        prop_assert_eq!(self.tails.bytes(), self.tail.bytes());
        Ok(())
    }
}

/// Whether an entry is shown to someone who has seen everything up to a position.
fn is_news(entry: &Entry, seen: u64) -> bool {
    match &entry.said {
        Said::Message(_) => true,
        Said::Edit { about, .. } => about.0 <= seen,
        Said::Deletion { about, .. } => about.is_none_or(|about| about.0 <= seen),
    }
}

fn body(entry: &Entry) -> Option<&str> {
    match &entry.said {
        Said::Message(message) | Said::Edit { message, .. } => message.body.as_ref().map(|body| body.get()),
        Said::Deletion { .. } => None,
    }
}

fn text(entry: &Entry) -> String {
    let shown = match entry.frame(Some(&channel())) {
        Frame::Message { message, .. } => {
            format!("message {} {}", message.uuid, message.body.as_ref().expect("a body"))
        }
        Frame::Edit { edit, .. } => format!("edit {} {}", edit.uuid, edit.body.as_ref().expect("a body")),
        Frame::Deletion { deletion, .. } => format!("deletion {}", deletion.uuid),
        other => format!("{other:?}"),
    };
    format!("#{} {shown}", entry.position.0)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_tail_says_what_the_log_says(limit in prop_oneof![Just(256 << 10), 0..3_000usize], steps in steps()) {
        let mut world = World::new(limit);
        for step in &steps {
            world.step(step);
            world.check()?;
            prop_assert!(world.tail.bytes() <= limit);
        }
    }

    #[test]
    fn a_tail_that_was_extended_without_a_limit_has_everything(steps in steps()) {
        let mut world = World::new(1 << 20);
        for step in &steps {
            world.step(step);
            if world.tail.wants().is_some() {
                world.step(&Step::Extend(10_000, 1 << 20));
                prop_assert!(world.tail.covers(Position(0)));
            }
        }
        world.check()?;
    }
}

#[test]
fn the_least_recently_used_go_first() {
    let mut tails = Tails::default();
    tails.set_limits(TailLimits { all: 1_000, ..TailLimits::default() });
    let place = |n: usize| Place::Channel(ChannelName::parse(&format!("c{n}")).expect("a name"));
    let mut all: Vec<Tail> = (0..10).map(|_| Tail::whole(Position(0))).collect();
    let mut gone = Vec::new();
    for n in 0..10 {
        let post = |tail: &mut Tail| tail.post(Position(n as u64 + 1), 0, message(n as u64, 0));
        tails.change(&mut all[n], || place(n), post);
        // The first is read all the time.
        tails.change(&mut all[0], || place(0), |_| {});
        while tails.is_over()
            && let Some(candidate) = tails.candidate()
        {
            let index = (0..10).find(|n| place(*n) == candidate).expect("one of these");
            tails.pass(Some(&mut all[index]), |tail| tail.raise(Position(100)));
            if all[index].is_empty() {
                gone.push(index);
            }
        }
    }
    assert!(!gone.contains(&0) && !gone.contains(&9), "{gone:?}");
    assert_eq!(gone.len(), 7, "three have room: {gone:?}");
    assert_eq!(tails.bytes(), all.iter().map(Tail::bytes).sum::<usize>());
}
