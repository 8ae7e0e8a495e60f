//! Reading what was missed from a SQLite file: a page of the log, and the newest messages of a
//! channel. See `router` for what comes from memory. The file lies in the system's cache.

mod support;

use std::path::Path;
use std::sync::Arc;

use channelstream::domain::event::Event;
use channelstream::domain::names::Username;
use channelstream::domain::position::Position;
use channelstream::domain::settings::ChannelSettings;
use channelstream::domain::tail::Place;
use channelstream::store::{self, Batch, ReplayQuery, Store, Synchronous};
use divan::Bencher;
use divan::counter::ItemsCount;
use hashbrown::HashSet;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use uuid::Uuid;

use support::{channel, moment, post};

fn main() {
    divan::main();
}

/// Channels, with so many messages each.
const CHANNELS: usize = 10;
const MESSAGES: usize = 1_000;

/// A page of 1,000 messages, from so many channels.
#[divan::bench(args = [1, 10])]
fn page_of_1000(bencher: Bencher, channels: usize) {
    page(bencher, channels, 1_000);
}

/// A page of 100 messages, as listeners read them.
#[divan::bench(args = [1, 10])]
fn page_of_100(bencher: Bencher, channels: usize) {
    page(bencher, channels, 100);
}

fn page(bencher: Bencher, channels: usize, limit: u32) {
    let (store, runtime, _directory) = filled();
    let user = Username::parse("user").expect("a name");
    let names: Vec<_> = (0..channels).map(channel).collect();
    bencher.counter(ItemsCount::new(limit)).bench_local(|| {
        let query = ReplayQuery {
            user: &user,
            channels: names.iter().map(|name| (name, Position(0))).collect(),
            inbox: Position(0),
            after: Position(0),
            through: Position((CHANNELS * MESSAGES) as u64),
            at: moment().utc,
            limit,
            max_bytes: u32::MAX,
        };
        let page = runtime.block_on(store.replay(&query)).expect("the store is there");
        assert_eq!(page.frames.len(), limit as usize);
    });
}

/// The newest 100 messages of a channel, as the tail in memory is extended.
#[divan::bench]
fn tail_of_100(bencher: Bencher) {
    let (store, runtime, _directory) = filled();
    let places = [(Place::Channel(channel(0)), Position((CHANNELS * MESSAGES) as u64 + 1))];
    bencher.counter(ItemsCount::new(100_usize)).bench_local(|| {
        let parts = runtime.block_on(store.tails(&places, 100, u32::MAX)).expect("the store is there");
        assert_eq!(parts[0].entries.len(), 100);
    });
}

/// A channel with its settings and history, as it comes into memory.
#[divan::bench]
fn channel_into_memory(bencher: Bencher) {
    let (store, runtime, _directory) = filled();
    let names = HashSet::from_iter([channel(0)]);
    bencher.bench_local(|| runtime.block_on(store.channels(&names)).expect("the store is there"));
}

fn filled() -> (Arc<dyn Store>, Runtime, TempDir) {
    let directory = TempDir::new().expect("a directory");
    let runtime = Runtime::new().expect("an event loop");
    let store = runtime.block_on(fill(directory.path()));
    (store, runtime, directory)
}

/// The channels take turns.
async fn fill(directory: &Path) -> Arc<dyn Store> {
    let url = format!("sqlite://{}", directory.join("replay.db").display());
    let (store, _) = store::open(&url, &Synchronous::Normal.into()).await.expect("a new store");
    let settings = ChannelSettings { store_history: true, replay_size: MESSAGES as u32, ..ChannelSettings::default() };
    let kept = (0..CHANNELS).map(|index| Event::ChannelKept {
        name: channel(index),
        uuid: Uuid::new_v4(),
        settings: settings.clone(),
    });
    let messages = (0..MESSAGES).flat_map(|_| (0..CHANNELS).map(|index| post(index, 1).messages.remove(0).message));
    let posted = messages.zip(1..).map(|(message, number)| Event::Posted {
        position: Some(Position(number)),
        message,
        inboxes: Vec::new(),
    });
    let head = Position((CHANNELS * MESSAGES) as u64);
    let events = kept.chain(posted).collect();
    let batch = Batch { id: Uuid::new_v4(), before: Position(0), head, at: moment().utc, events };
    store.commit(&batch).await.expect("the store is there");
    store
}
