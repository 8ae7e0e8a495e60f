//! The journal over a SQLite file: from a request that is handed in to its commit, without HTTP.
//! Commits do not wait for the disk (`synchronous = normal`), so that the disk is not what is measured.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use channelstream::domain::operation::Post;
use channelstream::domain::tails::TailLimits;
use channelstream::hub::{Hub, HubOptions};
use channelstream::store::{self, Synchronous};
use divan::Bencher;
use divan::counter::ItemsCount;
use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use support::{connect, post};

fn main() {
    divan::main();
}

/// Channels that are posted to; all store history.
const CHANNELS: usize = 10;

/// Requests of one message each, so many at the same time: they share commits.
#[divan::bench(args = [1, 8, 64, 512], min_time = 0.5)]
fn requests_at_once(bencher: Bencher, requests: usize) {
    hand_in(bencher, requests, 1);
}

/// One request with so many messages.
#[divan::bench(args = [1, 10, 100, 1_000], min_time = 0.5)]
fn messages_in_one_request(bencher: Bencher, messages: usize) {
    hand_in(bencher, 1, messages);
}

fn hand_in(bencher: Bencher, requests: usize, messages: usize) {
    let directory = TempDir::new().expect("a directory");
    let runtime = Runtime::new().expect("an event loop");
    let hub = runtime.block_on(hub(directory.path()));
    bencher
        .counter(ItemsCount::new(requests * messages))
        .with_inputs(|| (0..requests).map(|index| post(index % CHANNELS, messages)).collect::<Vec<Post>>())
        .bench_local_values(|posts| {
            let posted = posts.into_iter().map(|post| hub.post(post, support::TEXT * messages));
            for outcome in runtime.block_on(join_all(posted)) {
                outcome.expect("the store is there");
            }
        });
    runtime.block_on(hub.stop()).expect("the store can be closed");
}

/// A hub in which the channels exist.
async fn hub(directory: &Path) -> Arc<Hub> {
    let url = format!("sqlite://{}", directory.join("journal.db").display());
    let (store, start) = store::open(&url, &Synchronous::Normal.into()).await.expect("a new store");
    let options = HubOptions {
        grace: Duration::from_secs(60),
        resume_window: Duration::from_secs(60),
        commit_timeout: Duration::from_secs(60),
        max_queue_bytes: 1 << 20,
        tails: TailLimits::default(),
        max_listeners: None,
        attach_rate: None,
    };
    let hub = Hub::start(store, start, options).await.expect("a hub");
    hub.perform(connect(0, 0..CHANNELS, true), 1).await.expect("the channels are made");
    hub
}
