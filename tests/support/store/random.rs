//! Random batches for `store_contract`, valid ones: steps that the router would refuse, or leave
//! for the next batch, are passed over.

use std::collections::HashMap;

use channelstream::domain::draft::Held;
use channelstream::domain::names::ChannelName;
use channelstream::domain::position::Position;
use channelstream::domain::settings::ChannelSettings;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use uuid::Uuid;

use super::world::Entry;
use super::{Db, Engine, PRIVATE, channel, connection, edit, message, only, private, user, uuid};

const CHANNELS: [&str; 4] = ["news", "News", "it's \"so\\\"; --", "zażółć 😀"];
const USERS: [&str; 4] = ["ann", "ann ", "o'b\\ob\"", "ж\u{7f}\u{1}"];
const STATES: [&str; 4] = ["{}", r#"{"a":1.0}"#, r#"{"b":"x","a":10000000000000000000001}"#, r#"{"":null}"#];
const BODIES: [&str; 4] = ["{}", r#"{ "a" : [1.0, 1e2] }"#, r#"{"text":"\u017c 😀 \u0000"}"#, "null"];
/// Messages have few uuids, so that one comes up in several places.
const UUIDS: u128 = 12;

#[derive(Debug, Clone)]
enum Trim {
    Channel(usize, u32, u32),
    Inbox(usize, u32, u32),
}

#[derive(Debug, Clone)]
enum Step {
    Configure(usize, ChannelSettings),
    ChangeState(usize, usize),
    Connect(u128, usize, Vec<usize>),
    Subscribe(u128, usize),
    /// A connection, a channel that it is in or comes into, and the floor of its user there.
    SetFloor(u128, usize, u64),
    Unsubscribe(u128, usize),
    End(u128),
    Post(usize, u128, usize),
    Private(Vec<usize>, u128, usize),
    /// One of the messages that the log holds, its new body, how many times.
    Edit(Index, usize, usize),
    /// One of the messages that the log holds, how many times, and a user that the request names.
    Delete(Index, usize, usize),
    /// The place and the number of a message that may be there or not.
    DeleteAny(Option<usize>, u128),
    Forget(usize),
    ForgetChannel(usize),
}

#[derive(Debug, Clone)]
struct Plan {
    trims: Vec<Trim>,
    steps: Vec<Step>,
}

fn settings() -> impl Strategy<Value = ChannelSettings> {
    (any::<[bool; 5]>(), 0..5u32, 0..5u32, proptest::option::of(any::<u32>())).prop_map(
        |(flags, history_size, replay_size, history_ttl)| ChannelSettings {
            notify_presence: flags[0],
            store_history: flags[1],
            broadcast_presence_with_user_lists: flags[2],
            notify_state: flags[3],
            store_frames: flags[4],
            history_size,
            replay_size,
            history_ttl,
        },
    )
}

fn plans() -> impl Strategy<Value = Vec<Plan>> {
    let name = 0..4usize;
    let some = || proptest::collection::vec(0..4usize, 1..4);
    let id = 1..5u128;
    let number = 1..=UUIDS;
    let place = proptest::option::of(0..4usize);
    let trim = prop_oneof![
        (name.clone(), 0..4u32, 0..3u32)
            .prop_map(|(channel, messages, deletions)| Trim::Channel(channel, messages, deletions)),
        (name.clone(), 0..3u32, 0..3u32).prop_map(|(user, messages, deletions)| Trim::Inbox(user, messages, deletions)),
    ];
    let step = prop_oneof![
        2 => (name.clone(), settings()).prop_map(|(channel, settings)| Step::Configure(channel, settings)),
        1 => (name.clone(), name.clone()).prop_map(|(user, state)| Step::ChangeState(user, state)),
        3 => (id.clone(), name.clone(), some()).prop_map(|(id, user, channels)| Step::Connect(id, user, channels)),
        1 => (id.clone(), name.clone()).prop_map(|(id, channel)| Step::Subscribe(id, channel)),
        1 => (id.clone(), name.clone(), 0..9u64).prop_map(|(id, channel, at)| Step::SetFloor(id, channel, at)),
        2 => (id.clone(), name.clone()).prop_map(|(id, channel)| Step::Unsubscribe(id, channel)),
        2 => id.prop_map(Step::End),
        6 => (name.clone(), number.clone(), name.clone())
            .prop_map(|(channel, number, body)| Step::Post(channel, number, body)),
        4 => (some(), number.clone(), name.clone()).prop_map(|(users, number, body)| Step::Private(users, number, body)),
        6 => (any::<Index>(), name.clone(), 1..3usize).prop_map(|(pick, body, times)| Step::Edit(pick, body, times)),
        3 => (any::<Index>(), 1..3usize, name.clone())
            .prop_map(|(pick, times, named)| Step::Delete(pick, times, named)),
        1 => (place, number).prop_map(|(place, number)| Step::DeleteAny(place, number)),
        1 => name.clone().prop_map(Step::Forget),
        1 => name.prop_map(Step::ForgetChannel),
    ];
    let steps = proptest::collection::vec(step, 1..8);
    let trims = proptest::collection::vec(trim, 0..2);
    proptest::collection::vec((trims, steps).prop_map(|(trims, steps)| Plan { trims, steps }), 1..12)
}

/// Commits random batches and compares the store with the model after each, and after a restart.
pub fn run<E: Engine + 'static>(cases: u32, engine: fn() -> E) {
    run_then(cases, engine, async |db| {
        db.reopen().await;
        db.compare_all().await.map_err(|difference| format!("after a restart, the store {difference}"))
    });
}

/// Commits random batches and compares the store with the model after each; then does something
/// with it. The seed is printed where a case fails: give it back as `STORE_SEED`. `PROPTEST_CASES`
/// asks for more cases.
pub fn run_then<E: Engine + 'static>(cases: u32, engine: fn() -> E, then: impl AsyncFn(&mut Db) -> Result<(), String>) {
    let fresh_seed = || Uuid::new_v4().as_u64_pair().0;
    let seed = std::env::var("STORE_SEED").map_or_else(|_| fresh_seed(), |seed| seed.parse().expect("a number"));
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut config = Config { failure_persistence: None, max_shrink_iters: 500, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    let mut runner = TestRunner::new_with_rng(config, rng);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let outcome = runner.run(&plans(), |plans| {
        runtime.block_on(async {
            let mut db = Db::fresh(engine()).await;
            for (number, plan) in plans.iter().enumerate() {
                commit(&mut db, plan).await;
                let failed =
                    |difference| TestCaseError::fail(format!("after batch {}, the store {difference}", number + 1));
                db.compare_all().await.map_err(failed)?;
            }
            then(&mut db).await.map_err(TestCaseError::fail)
        })
    });
    if let Err(failure) = outcome {
        panic!("STORE_SEED={seed}: {failure}");
    }
}

/// Who touched what in this batch, as the draft counts it: a step that needs something alone, or
/// that comes after one that did, waits for the next batch.
#[derive(Default)]
struct Touched(HashMap<String, (usize, bool)>);

impl Touched {
    fn all(&mut self, step: usize, keys: &[(String, bool)]) -> bool {
        let is_free = |(key, alone): &(String, bool)| {
            self.0.get(key).is_none_or(|(owner, held_alone)| *owner == step || !alone && !held_alone)
        };
        let free = keys.iter().all(is_free);
        if free {
            for (key, alone) in keys {
                let (owner, held_alone) = self.0.entry(key.clone()).or_insert((step, *alone));
                (*owner, *held_alone) = (step, *held_alone || *alone);
            }
        }
        free
    }
}

fn of_channel(index: usize) -> String {
    format!("channel {}", CHANNELS[index])
}

fn of_user(index: usize) -> String {
    format!("user {}", USERS[index])
}

fn of_connection(id: u128) -> String {
    format!("connection {id}")
}

fn of_message(number: u128) -> String {
    format!("message {number}")
}

async fn commit(db: &mut Db, plan: &Plan) {
    for trim in &plan.trims {
        match trim {
            Trim::Channel(index, messages, deletions) if db.staged.channel(&channel(CHANNELS[*index])).is_some() => {
                db.trim_channel(CHANNELS[*index], *messages, *deletions)
            }
            Trim::Inbox(index, messages, deletions) if db.staged.users.contains_key(&user(USERS[*index])) => {
                db.trim_inbox(USERS[*index], *messages, *deletions)
            }
            Trim::Channel(..) | Trim::Inbox(..) => continue,
        };
    }
    let mut touched = Touched::default();
    for (number, step) in plan.steps.iter().enumerate() {
        add(db, number, step, &mut touched);
    }
    db.commit().await;
}

fn add(db: &mut Db, number: usize, step: &Step, touched: &mut Touched) {
    let exists = |db: &Db, index: usize| db.staged.channel(&channel(CHANNELS[index])).is_some();
    let known = |db: &Db, index: usize| db.staged.users.contains_key(&user(USERS[index]));
    match step {
        Step::Configure(index, settings) => {
            if touched.all(number, &[(of_channel(*index), true)]) {
                db.channel(CHANNELS[*index], settings.clone());
            }
        }
        Step::ChangeState(index, state) => {
            if known(db, *index) && touched.all(number, &[(of_user(*index), true)]) {
                db.user(USERS[*index], STATES[*state], &["a"]);
            }
        }
        Step::Connect(id, index, channels) => {
            let mut keys = vec![(of_connection(*id), true), (of_user(*index), true)];
            keys.extend(channels.iter().map(|index| (of_channel(*index), !exists(db, *index))));
            let owner = db.staged.connections.get(&connection(*id)).map(|(owner, _)| owner.clone());
            if owner.is_some_and(|owner| owner != user(USERS[*index])) || !touched.all(number, &keys) {
                return;
            }
            db.user(USERS[*index], STATES[*index], &["b"]).connect(*id, USERS[*index]);
            for index in channels {
                join(db, *id, *index);
            }
        }
        Step::Subscribe(id, index) => {
            let Some(owner) = owner(db, *id) else { return };
            let keys = [(of_connection(*id), true), (owner, false), (of_channel(*index), !exists(db, *index))];
            if touched.all(number, &keys) {
                join(db, *id, *index);
            }
        }
        Step::SetFloor(id, index, position) => {
            let Some(owner) = owner(db, *id) else { return };
            let keys = [(of_connection(*id), true), (owner, true), (of_channel(*index), !exists(db, *index))];
            if touched.all(number, &keys) {
                let name = db.staged.connections[&connection(*id)].0.clone();
                join(db, *id, *index);
                db.set_floor(name.as_str(), CHANNELS[*index], *position);
            }
        }
        Step::Unsubscribe(id, index) => {
            let Some(owner) = owner(db, *id) else { return };
            let keys = [(of_connection(*id), true), (owner, true), (of_channel(*index), false)];
            if is_member(db, *id, *index) && touched.all(number, &keys) {
                db.unsubscribe(*id, CHANNELS[*index]);
            }
        }
        Step::End(id) => {
            let Some(owner) = owner(db, *id) else { return };
            if touched.all(number, &[(of_connection(*id), true), (owner, true)]) {
                db.end(*id);
            }
        }
        Step::Post(index, message_number, body) => {
            let place = channel(CHANNELS[*index]);
            let keys = [(of_channel(*index), false), (of_message(*message_number), true)];
            if exists(db, *index)
                && db.staged.held(uuid(*message_number), Some(&place)).is_none()
                && touched.all(number, &keys)
            {
                db.post(message(CHANNELS[*index], *message_number, BODIES[*body]));
            }
        }
        Step::Private(users, message_number, body) => {
            let mut keys: Vec<_> = users.iter().map(|index| (of_user(*index), false)).collect();
            keys.push((of_message(*message_number), true));
            if users.iter().any(|index| known(db, *index))
                && db.staged.held(uuid(*message_number), None).is_none()
                && touched.all(number, &keys)
            {
                let names: Vec<&str> = users.iter().map(|index| USERS[*index]).collect();
                db.post(private(*message_number, &names, BODIES[*body]));
            }
        }
        Step::Edit(pick, body, times) => {
            let Some((place, message_number)) = picked(db, pick) else { return };
            if touched.all(number, &target(db, &place, message_number)) {
                for _ in 0..*times {
                    db.edit(edit(&place, message_number, BODIES[*body]));
                }
            }
        }
        Step::Delete(pick, times, named) => {
            let Some((place, message_number)) = picked(db, pick) else { return };
            if touched.all(number, &target(db, &place, message_number)) {
                for _ in 0..*times {
                    db.delete_for(&place, message_number, only(&[USERS[*named]]));
                }
            }
        }
        Step::DeleteAny(index, message_number) => {
            let place = index.map_or(PRIVATE, |index| CHANNELS[index]);
            if index.is_none_or(|index| exists(db, index)) && touched.all(number, &target(db, place, *message_number)) {
                db.delete(place, *message_number);
            }
        }
        Step::Forget(index) => {
            let name = user(USERS[*index]);
            let mine = db.staged.connections.iter().filter(|(_, (owner, _))| *owner == name);
            let ids: Vec<u128> = mine.map(|(id, _)| id.0.as_u128()).collect();
            let mut keys = vec![(of_user(*index), true)];
            keys.extend(ids.iter().map(|id| (of_connection(*id), true)));
            if known(db, *index) && touched.all(number, &keys) {
                ids.into_iter().for_each(|id| _ = db.end(id));
                db.forget(USERS[*index]);
            }
        }
        Step::ForgetChannel(index) => {
            if exists(db, *index) && touched.all(number, &[(of_channel(*index), true)]) {
                db.forget_channel(CHANNELS[*index]);
            }
        }
    }
}

/// The place and the number of a message that the log holds, and that no inbox lost in this batch:
/// whether what is then done to it reaches that inbox is left open.
fn picked(db: &Db, pick: &Index) -> Option<(String, u128)> {
    let lost_by_none = |(position, entry): &(&Position, &Entry)| {
        db.world.log.get(*position).is_none_or(|before| before.inboxes == entry.inboxes)
    };
    let entries = db.staged.log.iter().filter(lost_by_none);
    let messages: Vec<_> = entries.filter_map(|(_, entry)| entry.message()).collect();
    let message = &messages.get(pick.index(messages.len().max(1)))?.message;
    let place = message.channel.as_ref().map_or(PRIVATE, ChannelName::as_str);
    Some((place.to_owned(), message.uuid.as_u128()))
}

/// What an edit or a deletion touches; for a private one any user that it may be about.
fn target(db: &Db, place: &str, number: u128) -> Vec<(String, bool)> {
    let mut keys = vec![(of_message(number), true)];
    match db.staged.held(uuid(number), None) {
        _ if place != PRIVATE => keys.push((format!("channel {place}"), false)),
        Some(Held::Message(logged)) => {
            keys.extend(logged.message.audience.only.iter().map(|name| (format!("user {name}"), false)));
        }
        _ => keys.extend((0..USERS.len()).map(|index| (of_user(index), false))),
    }
    keys
}

/// Whose a connection is, as what is touched.
fn owner(db: &Db, id: u128) -> Option<String> {
    db.staged.connections.get(&connection(id)).map(|(owner, _)| format!("user {owner}"))
}

fn is_member(db: &Db, id: u128, index: usize) -> bool {
    let connection = db.staged.connections.get(&connection(id));
    connection.is_some_and(|(_, channels)| channels.contains(&channel(CHANNELS[index])))
}

fn join(db: &mut Db, id: u128, index: usize) {
    if is_member(db, id, index) {
        return;
    }
    if db.staged.channel(&channel(CHANNELS[index])).is_none() {
        db.channel(CHANNELS[index], ChannelSettings::default());
    }
    db.subscribe(id, CHANNELS[index]);
}
