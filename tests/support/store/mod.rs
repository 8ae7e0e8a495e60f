//! The ground for `store_contract`: a database under test with the model of what it must hold, and
//! a small vocabulary for batches of events.

mod engine;
mod everything;
#[path = "../postgres.rs"]
mod postgres;
pub mod random;
mod text;
mod world;

use std::sync::Arc;

use channelstream::domain::channel::Retained;
use channelstream::domain::event::Event;
use channelstream::domain::message::{Audience, Body, Deletion, Edit, Message};
use channelstream::domain::names::{ChannelName, ConnectionId, Username};
use channelstream::domain::position::Position;
use channelstream::domain::settings::ChannelSettings;
use channelstream::domain::state::Profile;
use channelstream::domain::timestamp::Timestamp;
use channelstream::json::state_from_text;
use channelstream::store::{Batch, Start, Store};
use chrono::NaiveDateTime;
use hashbrown::HashSet;
use serde_json::value::RawValue;
use uuid::Uuid;

pub use engine::{Engine, Postgres, Sqlite};
use everything::sorted;
pub use text::tail as tail_text;
use world::World;
pub use world::clock;

// ---- The database under test ----

/// One store, the model of what it must hold, and the events of the batch that is being built.
pub struct Db {
    engine: Box<dyn Engine>,
    store: Option<Arc<dyn Store>>,
    /// What the last opening said.
    pub start: Start,
    /// What is committed.
    pub world: World,
    /// The same, once the events below are committed.
    pub staged: World,
    events: Vec<Event>,
}

/// A batch that is not committed, and what it leads to.
pub struct Draft {
    pub batch: Batch,
    after: World,
}

impl Db {
    /// A new store.
    pub async fn fresh(engine: impl Engine + 'static) -> Self {
        let (store, start) = engine.open().await.expect("a new store opens");
        let (world, staged) = (World::default(), World::default());
        Self { engine: Box::new(engine), store: Some(store), start, world, staged, events: Vec::new() }
    }

    pub fn store(&self) -> &dyn Store {
        &**self.store.as_ref().expect("the store is open")
    }

    pub fn engine(&self) -> &dyn Engine {
        &*self.engine
    }

    /// Ends the batch and commits it.
    pub async fn commit(&mut self) {
        let draft = self.draft();
        self.store().commit(&draft.batch).await.expect("a good batch is kept");
        self.adopt(draft);
    }

    /// Ends the batch without committing it.
    pub fn draft(&mut self) -> Draft {
        let mut after = std::mem::replace(&mut self.staged, self.world.clone());
        let batch = Batch {
            id: Uuid::new_v4(),
            before: self.world.head,
            head: after.head,
            at: after.now(),
            events: std::mem::take(&mut self.events),
        };
        after.end_batch();
        Draft { batch, after }
    }

    /// A draft proved to be committed.
    pub fn adopt(&mut self, draft: Draft) {
        self.staged = draft.after.clone();
        self.world = draft.after;
    }

    /// Stops in good order and starts again.
    pub async fn reopen(&mut self) {
        self.store().close().await.expect("a store closes");
        self.crash().await;
    }

    /// Stops in good order, and starts on what another place holds by then.
    #[allow(dead_code)] // of the crates that share this, `copy_model` moves
    pub async fn move_to(&mut self, engine: impl Engine + 'static, copied: impl AsyncFnOnce(&str, &str)) {
        self.store().close().await.expect("a store closes");
        self.store = None;
        copied(&self.engine.url().await, &engine.url().await).await;
        self.engine = Box::new(engine);
        self.crash().await;
    }

    /// Starts again without a good end.
    pub async fn crash(&mut self) {
        self.store = None;
        let (store, start) = self.engine.open().await.expect("the store opens again");
        assert_eq!((start.head, start.latest), (self.world.head, self.world.latest()), "the log goes on");
        (self.store, self.start) = (Some(store), start);
    }

    /// Compares all that can be read with the model, now and after both kinds of restart.
    pub async fn comes_back(&mut self) {
        let epoch = self.start.epoch.clone();
        self.check_all("at once").await;
        self.reopen().await;
        self.check_all("after a good end").await;
        self.crash().await;
        self.check_all("after a crash").await;
        assert_eq!(self.start.epoch, epoch, "the numbering goes on");
    }

    /// Compares all that can be read with the model.
    pub async fn check_all(&self, when: &str) {
        if let Err(difference) = self.compare_all().await {
            panic!("{when}, the store {difference}");
        }
    }

    pub async fn compare_all(&self) -> Result<(), String> {
        let expected = everything::expected(&self.world);
        let read = everything::read(&self.world, self.store(), self.engine()).await;
        if expected == read { Ok(()) } else { Err(everything::difference(&expected, &read)) }
    }
}

// ---- Batches: each method adds an event ----

impl Db {
    fn add(&mut self, decide: impl FnOnce(&mut World) -> Event) -> &mut Self {
        let event = decide(&mut self.staged);
        self.events.push(event);
        self
    }

    pub fn channel(&mut self, name: &str, settings: ChannelSettings) -> &mut Self {
        self.add(|world| world.keep_channel(&channel(name), settings))
    }

    /// A user with a state, as JSON, of which some keys are public.
    pub fn user(&mut self, name: &str, state: &str, public_keys: &[&str]) -> &mut Self {
        let state = state_from_text(state).expect("a state");
        let profile = Profile::new(state, public_keys.iter().map(|key| (*key).into()).collect());
        self.add(|world| world.keep_user(&user(name), profile))
    }

    /// Users without a state.
    pub fn users(&mut self, names: &[&str]) -> &mut Self {
        names.iter().fold(self, |db, name| db.user(name, "{}", &[]))
    }

    pub fn connect(&mut self, id: u128, name: &str) -> &mut Self {
        self.add(|world| world.open_connection(connection(id), &user(name)))
    }

    pub fn end(&mut self, id: u128) -> &mut Self {
        self.add(|world| world.end_connection(connection(id)))
    }

    pub fn subscribe(&mut self, id: u128, name: &str) -> &mut Self {
        self.add(|world| world.subscribe(connection(id), &channel(name)))
    }

    pub fn unsubscribe(&mut self, id: u128, name: &str) -> &mut Self {
        self.add(|world| world.unsubscribe(connection(id), &channel(name)))
    }

    pub fn set_floor(&mut self, name: &str, place: &str, position: u64) -> &mut Self {
        self.add(|world| world.set_floor(&user(name), &channel(place), Position(position)))
    }

    pub fn end_floor(&mut self, name: &str, place: &str) -> &mut Self {
        self.add(|world| world.end_floor(&user(name), &channel(place)))
    }

    pub fn post(&mut self, message: Message) -> &mut Self {
        self.add(|world| world.post(message))
    }

    /// Several plain messages in a channel.
    pub fn posts(&mut self, place: &str, numbers: impl IntoIterator<Item = u128>) -> &mut Self {
        numbers.into_iter().fold(self, |db, number| db.post(message(place, number, "{}")))
    }

    pub fn edit(&mut self, edit: Edit) -> &mut Self {
        self.add(|world| world.edit(edit))
    }

    pub fn delete(&mut self, place: &str, number: u128) -> &mut Self {
        self.delete_for(place, number, everyone())
    }

    /// A deletion whose request names an audience.
    pub fn delete_for(&mut self, place: &str, number: u128, audience: Audience) -> &mut Self {
        let deletion = Deletion { uuid: uuid(number), channel: channel_of(place), audience, no_history: false };
        self.add(|world| world.delete(deletion))
    }

    pub fn trim_channel(&mut self, name: &str, messages: u32, deletions: u32) -> &mut Self {
        self.add(|world| world.trim_channel(&channel(name), Retained { messages, deletions }))
    }

    pub fn trim_inbox(&mut self, name: &str, messages: u32, deletions: u32) -> &mut Self {
        self.add(|world| world.trim_inbox(&user(name), Retained { messages, deletions }))
    }

    pub fn forget(&mut self, name: &str) -> &mut Self {
        self.add(|world| world.forget_user(&user(name)))
    }

    pub fn forget_channel(&mut self, name: &str) -> &mut Self {
        self.add(|world| world.forget_channel(&channel(name)))
    }

    /// Turns the order of the batch around, as if its requests had come the other way round.
    pub fn turned_around(&mut self) -> &mut Self {
        self.events.reverse();
        self
    }

    /// Moves the trimming to the front: wherever it stands, it comes after all else of its batch.
    pub fn trims_first(&mut self) -> &mut Self {
        let is_trim = |event: &Event| matches!(event, Event::ChannelTrimmed { .. } | Event::InboxTrimmed { .. });
        self.events.sort_by_key(|event| !is_trim(event));
        self
    }

    /// Any event, which leaves nothing behind.
    pub fn ephemeral(&mut self, event: Event) -> &mut Self {
        self.add(|_| event)
    }
}

// ---- Reading: what is there, as text ----

impl Db {
    /// How much the log holds for a channel, then its history.
    pub async fn read_history(&self, name: &str) -> String {
        let channels = self.store().channels(&HashSet::from([channel(name)])).await.expect("channels");
        lines(text::history(&channels[&channel(name)]))
    }

    pub async fn read_users(&self, names: &[&str]) -> String {
        let users = self.store().users(&names.iter().map(|name| user(name)).collect()).await.expect("users");
        lines(sorted(users.iter().map(|(name, user)| text::user(name, user))))
    }

    /// What the log holds of these messages, wherever they are.
    pub async fn read_held(&self, numbers: impl IntoIterator<Item = u128>) -> String {
        let held = self.store().held(&numbers.into_iter().map(uuid).collect()).await.expect("held");
        lines(sorted(held.iter().map(|((uuid, channel), held)| text::held(*uuid, channel.as_ref(), held))))
    }

    pub async fn read_connections(&self) -> String {
        let connections = self.store().connections().await.expect("connections");
        lines(sorted(connections.iter().map(text::connection)))
    }

    /// Users that were idle since the batch of that number, longest idle first.
    pub async fn idle_users(&self, batch: i64, limit: u32) -> Vec<String> {
        let idle = self.store().idle_users(clock(batch), limit).await.expect("idle users");
        idle.iter().map(ToString::to_string).collect()
    }

    /// When something last happened in a channel, as `@` and the number of the batch.
    pub async fn channel_activity(&self, name: &str) -> String {
        let channels = self.store().channels(&HashSet::from([channel(name)])).await.expect("channels");
        text::moment(channels[&channel(name)].last_active)
    }

    /// The newest entry that was committed by a time.
    pub async fn position_at(&self, time: NaiveDateTime) -> u64 {
        self.store().positions_at(&HashSet::from([time])).await.expect("positions")[&time].0
    }

    pub async fn user_activity(&self, name: &str) -> String {
        let users = self.store().users(&HashSet::from([user(name)])).await.expect("users");
        text::moment(users[&user(name)].last_active)
    }
}

fn lines(lines: Vec<String>) -> String {
    lines.into_iter().map(|line| line + "\n").collect()
}

// ---- Values ----

/// The place of private messages, where a channel's name is expected.
pub const PRIVATE: &str = "";

pub fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name).expect("a channel name")
}

fn channel_of(place: &str) -> Option<ChannelName> {
    (place != PRIVATE).then(|| channel(place))
}

pub fn user(name: &str) -> Username {
    Username::parse(name).expect("a user name")
}

pub fn uuid(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

pub fn connection(id: u128) -> ConnectionId {
    ConnectionId(Uuid::from_u128(id))
}

pub fn body(json: &str) -> Option<Body> {
    Some(RawValue::from_string(json.to_owned()).expect("a body is JSON").into())
}

pub fn time(text: &str) -> Timestamp {
    Timestamp::parse(text).expect("a time")
}

pub fn everyone() -> Audience {
    Audience::default()
}

pub fn only(names: &[&str]) -> Audience {
    Audience { only: names.iter().map(|name| user(name)).collect(), except: [].into() }
}

/// Settings of a channel that stores messages and shows so many.
pub fn history_size(history_size: u32) -> ChannelSettings {
    ChannelSettings { store_history: true, history_size, ..ChannelSettings::default() }
}

pub fn message(place: &str, number: u128, json: &str) -> Message {
    Message {
        uuid: uuid(number),
        channel: channel_of(place),
        sender: user("ann"),
        body: body(json),
        timestamp: time("2010-01-01T01:01"),
        edited: None,
        audience: everyone(),
        no_history: false,
    }
}

pub fn private(number: u128, names: &[&str], json: &str) -> Message {
    Message { audience: only(names), ..message(PRIVATE, number, json) }
}

/// An edit that replaces the body.
pub fn edit(place: &str, number: u128, json: &str) -> Edit {
    Edit {
        uuid: uuid(number),
        channel: channel_of(place),
        sender: None,
        body: body(json),
        timestamp: None,
        edited: time("2020-02-02T02:02"),
        audience: everyone(),
        no_history: false,
    }
}
