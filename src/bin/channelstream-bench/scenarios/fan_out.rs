//! One channel, many listeners: what does it cost to show everybody what is said?
//!
//! Every listener checks that it gets every message of each publisher, once and in order. Two phases:
//! *one at a time*, one POST after the other, each waiting until all listeners have what was posted,
//! tells how long a message takes; *saturated*, many publishers, each with one POST on its way, tells how
//! much the server can deliver. There, no more messages than `--in-flight` are posted and not yet
//! delivered, on average over the listeners: else it would be measured how much a server can put aside.
//! And there, listeners let some messages gather before they read: time to read each by itself would be
//! taken from the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::audience;
use crate::compare::{Comparison, Scenario};
use crate::contender::{Address, Contender, Poster};
use crate::figures::Figures;
use crate::histogram::Histogram;
use crate::listener::{Listener, write_body};
use crate::meter::Meter;
use crate::readers::{Board, Readers, Socket};

/// How often more messages are let go while too many are in flight.
const PAUSE: Duration = Duration::from_millis(1);
/// Listeners that are told about when something is missing.
const TOLD: usize = 5;

/// One channel, many listeners: delivery latency and throughput
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Users, each with one websocket
    #[arg(long, default_value_t = 1_000, value_parser = at_least_one())]
    pub listeners: usize,
    /// Seconds of the saturated phase, and most of the other; 0: no saturated phase
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// Seconds of the same before, to warm up
    #[arg(long, default_value_t = 0.3)]
    pub warm_up: f64,
    /// POSTs of the phase with one message at a time; 0: no such phase
    #[arg(long, default_value_t = 300)]
    pub paced: u64,
    /// Messages in one POST
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub batch: u32,
    /// Who post at the same time in the saturated phase, each one POST after the other
    #[arg(long, default_value_t = 64, value_parser = at_least_one())]
    pub publishers: usize,
    /// Bytes of text in a message
    #[arg(long, default_value_t = 200)]
    pub size: usize,
    /// Messages that may be posted and not yet be with all listeners in the saturated phase
    #[arg(long, default_value_t = 256, value_parser = at_least_one())]
    pub in_flight: usize,
    /// Threads that read for the listeners
    #[arg(long, default_value_t = 1, value_parser = at_least_one())]
    pub readers: usize,
    /// Seconds without any delivery after which messages count as lost
    #[arg(long, default_value_t = 10.0)]
    pub patience: f64,
    /// Seconds that the listeners stay at the end, idle, before memory is looked at again
    #[arg(long, default_value_t = 0.1)]
    pub linger: f64,
    #[command(flatten)]
    pub comparison: Comparison,
}

fn at_least_one() -> impl clap::builder::TypedValueParser<Value = usize> {
    use clap::builder::TypedValueParser;
    clap::value_parser!(u32).range(1..).map(|value| value as usize)
}

impl Scenario for Options {
    fn title(&self) -> String {
        format!(
            "fan-out: {} listeners, {} publishers, {} messages a POST, {} bytes of text, at most {} messages in flight",
            self.listeners, self.publishers, self.batch, self.size, self.in_flight
        )
    }

    async fn measure(&self, contender: &Contender) -> anyhow::Result<Figures> {
        let channel = format!("bench-{}", Uuid::new_v4().simple());
        contender.prepare(std::slice::from_ref(&channel)).await?;
        let run = Run {
            options: self,
            contender,
            shared: Arc::new(Shared {
                channel,
                filler: "x".repeat(self.size),
                batch: u64::from(self.batch),
                board: Arc::new(Board::new(self.readers)),
                posted: (0..self.publishers).map(|_| AtomicU64::new(0)).collect(),
                begun: AtomicU64::new(0),
            }),
        };
        run.all().await
    }
}

/// One run.
struct Run<'a> {
    options: &'a Options,
    contender: &'a Contender,
    shared: Arc<Shared>,
}

/// What publishers share.
struct Shared {
    channel: String,
    filler: String,
    batch: u64,
    board: Arc<Board>,
    /// Messages of each publisher whose POST was answered.
    posted: Box<[AtomicU64]>,
    /// Messages that were let go.
    begun: AtomicU64,
}

impl Run<'_> {
    async fn all(&self) -> anyhow::Result<Figures> {
        let mut figures = Figures::default();
        let started_mib = self.contender.memory_mib();
        let started = Instant::now();
        let sockets = self.connect().await?;
        figures.add("connecting, s", 2, started.elapsed().as_secs_f64());
        let readers = Readers::start(sockets, &self.shared.board)?;
        let with_listeners_mib = self.contender.memory_mib();
        let outcome = self.phases(&mut figures).await;
        figures.add("memory when started, MiB", 1, started_mib);
        figures.add("memory with listeners, MiB", 1, with_listeners_mib);
        figures.add("memory at the end, MiB", 1, self.contender.memory_mib());
        let listeners = readers.stop()?;
        outcome.map(|()| figures).map_err(|error| {
            let mut lines = self.shared.board.problems();
            lines.extend(self.missing(&listeners));
            if lines.is_empty() { error } else { error.context(lines.join("\n")) }
        })
    }

    async fn connect(&self) -> anyhow::Result<Vec<Socket>> {
        let (publishers, size) = (self.options.publishers, self.options.size);
        let channel = self.shared.channel.clone();
        let joined =
            audience::connect(self.contender.address(), self.options.listeners, move |_| channel.clone()).await?;
        let socket = |each: audience::Joined| {
            let listener = Listener::new(each.index, publishers, size, each.rest);
            each.stream.into_std().map(|stream| (stream, listener)).context("a socket cannot be had")
        };
        joined.into_iter().map(socket).collect()
    }

    async fn phases(&self, figures: &mut Figures) -> anyhow::Result<()> {
        let (warm_up, seconds) = (duration(self.options.warm_up), duration(self.options.seconds));
        self.saturated(warm_up).await?;
        self.all_delivered().await?;
        if self.options.paced > 0 {
            self.phase("one at a time", figures, self.paced(seconds)).await?;
        }
        if !seconds.is_zero() {
            self.phase("saturated", figures, self.saturated(seconds)).await?;
        }
        // Whatever comes twice would come about now.
        tokio::time::sleep(duration(self.options.linger)).await;
        self.shared.board.check()
    }

    /// Measures a phase, which gives how long its POSTs took.
    async fn phase(
        &self,
        name: &str,
        figures: &mut Figures,
        phase: impl Future<Output = anyhow::Result<Histogram>>,
    ) -> anyhow::Result<()> {
        let board = &self.shared.board;
        let received = board.received();
        drop(board.take_latency());
        let meter = Meter::start(self.contender)?;
        let posts = phase.await?;
        self.all_delivered().await?;
        let seconds = meter.seconds();
        let deliveries = (board.received() - received) as f64;
        let latency = board.take_latency();
        let mut add = |figure: &str, decimals, value| figures.add(format!("{name}: {figure}"), decimals, Some(value));
        add("deliveries/s", 0, deliveries / seconds);
        add("delivery p50, ms", 3, latency.quantile_ms(0.5));
        add("delivery p99, ms", 3, latency.quantile_ms(0.99));
        add("delivery max, ms", 3, latency.max_ms());
        add("POST p50, ms", 3, posts.quantile_ms(0.5));
        add("POST p99, ms", 3, posts.quantile_ms(0.99));
        meter.finish(&format!("{name}: "), "delivery", deliveries, figures)
    }

    async fn all_delivered(&self) -> anyhow::Result<()> {
        let goal = self.shared.posted().iter().sum::<u64>() * self.options.listeners as u64;
        self.shared.board.reach(goal, duration(self.options.patience)).await
    }

    async fn paced(&self, most: Duration) -> anyhow::Result<Histogram> {
        self.shared.board.hurry(true);
        let mut publisher = Publisher::connect(0, self.contender.address(), &self.shared).await?;
        let (started, mut posts) = (Instant::now(), 0);
        while posts < self.options.paced && (posts == 0 || most.is_zero() || started.elapsed() < most) {
            publisher.post().await?;
            self.all_delivered().await?;
            posts += 1;
        }
        Ok(publisher.posts)
    }

    async fn saturated(&self, time: Duration) -> anyhow::Result<Histogram> {
        self.shared.board.hurry(false);
        let gate = Arc::new(Semaphore::new(0));
        let mut tasks = JoinSet::new();
        for index in 0..self.options.publishers {
            let mut publisher = Publisher::connect(index, self.contender.address(), &self.shared).await?;
            let gate = gate.clone();
            tasks.spawn(async move {
                // The gate is closed when time is over.
                while let Ok(permit) = gate.acquire().await {
                    permit.forget();
                    publisher.post().await?;
                }
                anyhow::Ok(publisher)
            });
        }
        let mut posts = Histogram::default();
        let publish = async {
            while let Some(published) = tasks.join_next().await {
                posts.add(&published.context("a publishing task failed")??.posts);
            }
            anyhow::Ok(())
        };
        tokio::try_join!(publish, self.let_go(&gate, time))?;
        Ok(posts)
    }

    /// Lets publishers post as long as there is time, and as long as not too much is in flight.
    async fn let_go(&self, gate: &Semaphore, time: Duration) -> anyhow::Result<()> {
        let (batch, listeners) = (self.shared.batch, self.options.listeners as u64);
        let started = Instant::now();
        let mut ticks = tokio::time::interval(PAUSE);
        while started.elapsed() < time && self.shared.board.check().is_ok() {
            let delivered = self.shared.board.received() / listeners;
            let begun = self.shared.begun.load(Ordering::Relaxed);
            let free = (delivered + self.options.in_flight as u64).saturating_sub(begun) / batch;
            // One POST at a time is allowed in any case.
            let free = if begun <= delivered { free.max(1) } else { free };
            self.shared.begun.fetch_add(free * batch, Ordering::Relaxed);
            gate.add_permits(free as usize);
            ticks.tick().await;
        }
        // What was let go and not begun.
        gate.close();
        self.shared.board.check()
    }

    /// Who lacks what.
    fn missing(&self, listeners: &[Listener]) -> Vec<String> {
        let posted = self.shared.posted();
        let behind: Vec<&Listener> = listeners
            .iter()
            .filter(|listener| listener.seen.iter().zip(&posted).any(|(seen, posted)| seen < posted))
            .collect();
        let mut lines: Vec<String> = behind
            .iter()
            .take(TOLD)
            .map(|listener| {
                let gaps = listener.seen.iter().zip(&posted).filter(|(seen, posted)| seen < posted);
                let gaps: Vec<String> = gaps.map(|(seen, posted)| format!("{seen}..{posted}")).collect();
                format!("listener {} lacks messages {}", listener.index, gaps.join(", "))
            })
            .collect();
        if behind.len() > TOLD {
            lines.push(format!("… and {} more listeners lack messages", behind.len() - TOLD));
        }
        lines
    }
}

fn duration(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(0.0, 3_600.0))
}

impl Shared {
    fn posted(&self) -> Vec<u64> {
        self.posted.iter().map(|posted| posted.load(Ordering::Relaxed)).collect()
    }
}

/// Posts messages, one POST after the other.
struct Publisher {
    index: usize,
    poster: Poster,
    shared: Arc<Shared>,
    posts: Histogram,
}

impl Publisher {
    async fn connect(index: usize, address: &Address, shared: &Arc<Shared>) -> anyhow::Result<Self> {
        let poster = Poster::connect(address).await?;
        Ok(Self { index, poster, shared: shared.clone(), posts: Histogram::default() })
    }

    async fn post(&mut self) -> anyhow::Result<()> {
        let Shared { channel, filler, batch, board, posted, .. } = &*self.shared;
        let (at, started) = (board.now(), Instant::now());
        let first = posted[self.index].load(Ordering::Relaxed);
        for sequence in first..first + batch {
            let number = sequence * posted.len() as u64 + self.index as u64;
            self.poster.add(channel, |body| write_body(number, at, filler, body))?;
        }
        self.poster.send().await?;
        self.posts.record_duration(started.elapsed());
        posted[self.index].fetch_add(*batch, Ordering::Relaxed);
        Ok(())
    }
}
