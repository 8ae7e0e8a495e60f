//! What the server counts about itself while it works, each figure in one place. Counting is an atomic
//! addition, under a label that was made before. What is found out by looking, such as how many listen
//! now, is not here.

use std::ops::Deref;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Labels, each with its value.
pub type Labels<const N: usize> = [(&'static str, &'static str); N];

/// Seconds that a request to the store may take, in steps for people who look for slow disks and
/// for locks; the default of `commit_timeout` is among them.
const STORE_SECONDS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 2.0, 10.0];
/// Requests in one batch of the journal, which are at most 1,024.
const BATCH_REQUESTS: [f64; 6] = [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0];

/// One metric for each of the few values of a label.
#[derive(Debug)]
pub struct ByLabel<M> {
    label: &'static str,
    family: Family<Labels<1>, M, fn() -> M>,
}

impl<M: Clone> ByLabel<M> {
    /// All of them are there from the beginning, so that a rate has something to begin with.
    fn new(make: fn() -> M, label: &'static str, values: &[&'static str]) -> Self {
        let by_label = Self { label, family: Family::new_with_constructor(make) };
        for value in values {
            drop(by_label.of(value));
        }
        by_label
    }

    /// The one of a value.
    pub fn of(&self, value: &'static str) -> impl Deref<Target = M> {
        self.family.get_or_create(&[(self.label, value)])
    }
}

/// See the module.
#[derive(Debug)]
pub struct Metrics {
    /// Who listens, by transport.
    pub listeners: ByLabel<Gauge>,
    /// Why somebody listens no more.
    pub listeners_closed: ByLabel<Counter>,
    /// Messages that were posted.
    pub messages_accepted: Counter,
    /// Messages whose uuid the log held already.
    pub messages_duplicate: Counter,
    /// Requests to post that had no effect.
    pub posts_refused: ByLabel<Counter>,
    /// Listeners that were told what they missed, by where it was read.
    pub replays: ByLabel<Counter>,
    /// Events that they were told.
    pub replayed_events: Counter,
    /// How often the store was asked for what listeners have missed.
    pub replay_reads: Counter,
    /// Channels and inboxes that could not be replayed whole.
    pub gaps: ByLabel<Counter>,
    /// Requests in one batch.
    pub batch_requests: Histogram,
    /// What became of batches when they were committed.
    pub commits: ByLabel<Counter>,
    /// What became of unclear commits.
    pub settles: ByLabel<Counter>,
    /// How long the store took.
    pub store_seconds: ByLabel<Histogram>,
    /// What it failed to do.
    pub store_errors: ByLabel<Counter>,
}

/// What the store is asked for, as labels.
pub const STORE_OPERATIONS: [&str; 9] =
    ["commit", "settle", "check", "load", "replay", "tails", "history", "sweep", "count"];

impl Default for Metrics {
    fn default() -> Self {
        Self {
            listeners: ByLabel::new(Gauge::default, "transport", &["websocket", "sse", "long_poll"]),
            listeners_closed: ByLabel::new(
                Counter::default,
                "reason",
                &["client", "lost", "ended", "unknown", "replaced", "slow", "going_away"],
            ),
            messages_accepted: Counter::default(),
            messages_duplicate: Counter::default(),
            posts_refused: ByLabel::new(
                Counter::default,
                "reason",
                &["invalid", "refused", "rejected", "unavailable", "busy"],
            ),
            replays: ByLabel::new(Counter::default, "source", &["memory", "store"]),
            replayed_events: Counter::default(),
            replay_reads: Counter::default(),
            gaps: ByLabel::new(Counter::default, "reason", &["unknown_cursor", "not_kept", "floor", "trimmed"]),
            batch_requests: Histogram::new(BATCH_REQUESTS),
            commits: ByLabel::new(Counter::default, "outcome", &["kept", "refused", "unclear"]),
            settles: ByLabel::new(Counter::default, "outcome", &["kept", "not_kept"]),
            store_seconds: ByLabel::new(|| Histogram::new(STORE_SECONDS), "operation", &STORE_OPERATIONS),
            store_errors: ByLabel::new(Counter::default, "operation", &STORE_OPERATIONS),
        }
    }
}

impl Metrics {
    /// Gives all of them their names.
    pub fn register(&self, to: &mut Registry) {
        to.register("channelstream_listeners", "Open listeners", self.listeners.family.clone());
        let help = "Listeners that ended; slow: cut off with 4008";
        to.register("channelstream_listeners_closed", help, self.listeners_closed.family.clone());
        let help = "Messages that were posted, without duplicates";
        to.register("channelstream_messages_accepted", help, self.messages_accepted.clone());
        let help = "Messages whose uuid the log held already";
        to.register("channelstream_messages_duplicate", help, self.messages_duplicate.clone());
        let help = "Signed requests to post messages that had no effect";
        to.register("channelstream_posts_refused", help, self.posts_refused.family.clone());
        let help = "Listeners with a cursor that were told all they missed, by where it was read";
        to.register("channelstream_replays", help, self.replays.family.clone());
        let help = "Logged events that they were told";
        to.register("channelstream_replayed_events", help, self.replayed_events.clone());
        let help = "Requests to the store for what listeners missed";
        to.register("channelstream_replay_store_reads", help, self.replay_reads.clone());
        let help = "Channels and inboxes that were reported as gaps in replays";
        to.register("channelstream_gaps", help, self.gaps.family.clone());
        let help = "Requests that were committed together";
        to.register("channelstream_journal_batch_requests", help, self.batch_requests.clone());
        let help = "Batches that were handed to the store";
        to.register("channelstream_journal_commits", help, self.commits.family.clone());
        let help = "Unclear commits of which it was found out what became of them";
        to.register("channelstream_journal_settles", help, self.settles.family.clone());
        let help = "Time that the store took for a request";
        to.register("channelstream_store_seconds", help, self.store_seconds.family.clone());
        let help = "Requests that the store did not fulfil";
        to.register("channelstream_store_errors", help, self.store_errors.family.clone());
    }
}
