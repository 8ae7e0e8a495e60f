//! One channel, many listeners: what does it cost to show everybody what one publisher says?
//!
//! Every listener checks that it gets every message, once and in order. Two phases: *paced*, one POST
//! after the other, each waiting until all listeners have what was posted, tells how long a message
//! takes; *saturated*, as fast as POSTs are answered, tells how many the server can deliver.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;
use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::histogram::Histogram;
use crate::http::{Client, Target};
use crate::listener::{Listener, write_body};
use crate::process::Process;
use crate::readers::{Board, Readers, Socket};
use crate::report::{Table, mib, write_json};
use crate::server::Server;
use crate::temporary::TemporaryDirectory;
use crate::websocket;

/// Requests that are under way at a time while listeners connect.
const CONNECTING: usize = 32;
/// How long a publisher sleeps while too much is in flight.
const PAUSE: Duration = Duration::from_millis(1);
/// Listeners that are told about when something is missing.
const TOLD: usize = 5;

/// One channel, many listeners: delivery latency and throughput
#[derive(Debug, Args, Serialize)]
pub struct Options {
    /// Users, each with one websocket
    #[arg(long, default_value_t = 1_000, value_parser = at_least_one())]
    listeners: usize,
    /// Messages of the saturated phase; 0: none
    #[arg(long, default_value_t = 20_000)]
    messages: u64,
    /// POSTs of the paced phase; 0: none
    #[arg(long, default_value_t = 500)]
    paced: u64,
    /// Messages in one POST
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    batch: u64,
    /// Who post at the same time in the saturated phase, each one POST after the other
    #[arg(long, default_value_t = 1, value_parser = at_least_one())]
    publishers: usize,
    /// Bytes of text in a message
    #[arg(long, default_value_t = 200)]
    size: usize,
    /// Whether the channel stores history, so that every message is committed before it is shown
    #[arg(long)]
    history: bool,
    /// Messages that may be posted and not yet be with all listeners in the saturated phase, over all
    /// publishers; 0: no limit
    #[arg(long, default_value_t = 0)]
    in_flight: u64,
    /// Threads that read for the listeners
    #[arg(long, default_value_t = 1, value_parser = at_least_one())]
    readers: usize,
    /// Seconds without any delivery after which messages count as lost
    #[arg(long, default_value_t = 10.0)]
    patience: f64,
    /// Seconds that the listeners stay at the end, idle, before memory is looked at again
    #[arg(long, default_value_t = 0.1)]
    linger: f64,
    /// A server that runs already; without it one is started
    #[arg(long, requires = "secret")]
    url: Option<String>,
    /// Its secret
    #[arg(long, requires = "url")]
    #[serde(skip)]
    secret: Option<String>,
    /// Its process id, if it runs here, to measure what it costs
    #[arg(long, requires = "url")]
    pid: Option<u32>,
    /// Also writes the figures here
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    json: Option<PathBuf>,
}

fn at_least_one() -> impl clap::builder::TypedValueParser<Value = usize> {
    use clap::builder::TypedValueParser;
    clap::value_parser!(u32).range(1..).map(|value| value as usize)
}

/// Everything that is measured.
#[derive(Debug, Serialize)]
struct Figures<'a> {
    options: &'a Options,
    /// Until all listeners had their sockets.
    connect_seconds: f64,
    phases: Vec<Phase>,
    memory: Memory,
}

/// How messages are posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Pace {
    /// One POST after the other, each waiting until all listeners have what was posted.
    Paced,
    /// As fast as POSTs are answered.
    Saturated,
}

/// What one phase took.
#[derive(Debug, Serialize)]
struct Phase {
    pace: Pace,
    messages: u64,
    deliveries: u64,
    seconds: f64,
    deliveries_per_second: f64,
    post_p50_ms: f64,
    post_p99_ms: f64,
    delivery_p50_ms: f64,
    delivery_p99_ms: f64,
    delivery_max_ms: f64,
    server_cpu_seconds: Option<f64>,
    server_cpu_us_per_delivery: Option<f64>,
    server_rss_mib: Option<f64>,
    generator_cpu_seconds: f64,
    generator_cpu_us_per_delivery: f64,
}

/// The server's memory, if we know its process.
#[derive(Debug, Serialize)]
struct Memory {
    started_mib: Option<f64>,
    with_listeners_mib: Option<f64>,
    peak_mib: Option<f64>,
    afterwards_mib: Option<f64>,
}

/// What phases share.
struct Run<'a> {
    options: &'a Options,
    target: Target,
    server: Option<Process>,
    channel: String,
    filler: String,
    board: Arc<Board>,
    /// Messages of each publisher whose POST was answered.
    posted: Arc<[AtomicU64]>,
}

/// Runs it.
///
/// # Errors
/// If the server cannot be driven, or a listener did not get what it should.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let started = match &options.url {
        Some(_) => None,
        None => Some(OwnServer::start().await?),
    };
    let (target, process) = match (&started, &options.url, &options.secret) {
        (Some(own), ..) => (own.server.target().clone(), Some(own.server.process())),
        (None, Some(url), Some(secret)) => (Target::parse(url, secret)?, options.pid.map(Process::of)),
        _ => bail!("--url and --secret belong together"),
    };
    let mut run = Run {
        options: &options,
        target,
        server: process,
        channel: format!("bench-{}", Uuid::new_v4().simple()),
        filler: "x".repeat(options.size),
        board: Arc::new(Board::new(options.readers)),
        posted: (0..options.publishers).map(|_| AtomicU64::new(0)).collect(),
    };
    let result = run.all().await;
    if let Some(own) = started {
        for line in own.server.complaints() {
            println!("server: {line}");
        }
    }
    result
}

/// A server of our own; it goes before its files do.
struct OwnServer {
    server: Server,
    _directory: TemporaryDirectory,
}

impl OwnServer {
    async fn start() -> anyhow::Result<Self> {
        let directory = TemporaryDirectory::new()?;
        let server = Server::start(&directory.path().join("bench.db")).await?;
        Ok(Self { server, _directory: directory })
    }
}

impl Run<'_> {
    async fn all(&mut self) -> anyhow::Result<()> {
        let started_mib = self.resident();
        let started = Instant::now();
        let sockets = self.connect().await?;
        let connect_seconds = started.elapsed().as_secs_f64();
        let readers = Readers::start(sockets, &self.board)?;
        let with_listeners_mib = self.resident();
        let mut phases = Vec::new();
        let outcome = self.phases(&mut phases).await;
        let peak_mib = self.server.as_ref().and_then(|server| server.peak_kib().ok()).map(mib);
        let afterwards_mib = self.resident();
        let listeners = readers.stop()?;

        let memory = Memory { started_mib, with_listeners_mib, peak_mib, afterwards_mib };
        let figures = Figures { options: self.options, connect_seconds, phases, memory };
        print(&figures);
        write_json(self.options.json.as_deref(), &figures)?;
        outcome.map_err(|error| {
            let mut lines = self.board.problems();
            lines.extend(self.missing(&listeners));
            if lines.is_empty() { error } else { error.context(lines.join("\n")) }
        })
    }

    async fn phases(&mut self, phases: &mut Vec<Phase>) -> anyhow::Result<()> {
        if self.options.paced > 0 {
            phases.push(self.phase(Pace::Paced).await?);
        }
        if self.options.messages > 0 {
            phases.push(self.phase(Pace::Saturated).await?);
        }
        // Whatever comes twice would come about now.
        tokio::time::sleep(Duration::from_secs_f64(self.options.linger.clamp(0.0, 3_600.0))).await;
        self.board.check()
    }

    // A server that died is known by what the listeners lack, so here it is only not known.

    fn resident(&self) -> Option<f64> {
        self.server.as_ref().and_then(|server| server.resident_kib().ok()).map(mib)
    }

    fn server_cpu(&self) -> Option<f64> {
        self.server.as_ref().and_then(|server| server.cpu_seconds().ok())
    }

    // Connecting.

    async fn connect(&self) -> anyhow::Result<Vec<Socket>> {
        let settings = json!({
            &self.channel: { "store_history": self.options.history, "history_size": 100 }
        });
        Client::connect(&self.target).await?.post("/channel_config", settings.to_string().as_bytes()).await?;
        let next = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for _ in 0..CONNECTING.min(self.options.listeners) {
            let (target, channel, next) = (self.target.clone(), self.channel.clone(), next.clone());
            let (listeners, publishers, size) = (self.options.listeners, self.options.publishers, self.options.size);
            tasks.spawn(async move {
                let mut client = Client::connect(&target).await?;
                let mut sockets = Vec::new();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= listeners {
                        return anyhow::Ok(sockets);
                    }
                    let connection = Uuid::new_v4();
                    let body = json!({
                        "username": format!("listener-{index}"), "conn_id": connection, "channels": [&channel],
                        // Without it each answer lists all who came before.
                        "info": { "include_users": false, "include_history": false },
                    });
                    client.post("/connect", body.to_string().as_bytes()).await?;
                    let (stream, rest) = websocket::open(&target, connection, None).await?;
                    sockets.push((stream.into_std()?, Listener::new(index, publishers, size, rest)));
                }
            });
        }
        let mut sockets = Vec::with_capacity(self.options.listeners);
        while let Some(connected) = tasks.join_next().await {
            sockets.extend(connected.context("a connecting task failed")??);
        }
        Ok(sockets)
    }

    // Publishing.

    async fn phase(&mut self, pace: Pace) -> anyhow::Result<Phase> {
        let received = self.board.received();
        drop(self.board.take_latency());
        let (server_cpu, generator_cpu) = (self.server_cpu(), Process::this().cpu_seconds()?);
        let started = Instant::now();
        let (messages, posts) = match pace {
            Pace::Paced => (self.options.paced * self.options.batch, self.paced().await?),
            Pace::Saturated => (self.options.messages, self.saturated().await?),
        };
        self.board.reach(self.goal(), self.patience()).await?;
        let seconds = started.elapsed().as_secs_f64();
        let deliveries = self.board.received() - received;
        let latency = self.board.take_latency();
        let server_cpu_seconds = self.server_cpu().zip(server_cpu).map(|(after, before)| after - before);
        let generator_cpu_seconds = Process::this().cpu_seconds()? - generator_cpu;
        let each_us = |seconds: f64| seconds * 1e6 / deliveries as f64;
        Ok(Phase {
            pace,
            messages,
            deliveries,
            seconds,
            deliveries_per_second: deliveries as f64 / seconds,
            post_p50_ms: posts.quantile_ms(0.5),
            post_p99_ms: posts.quantile_ms(0.99),
            delivery_p50_ms: latency.quantile_ms(0.5),
            delivery_p99_ms: latency.quantile_ms(0.99),
            delivery_max_ms: latency.max_ms(),
            server_cpu_seconds,
            server_cpu_us_per_delivery: server_cpu_seconds.map(each_us),
            server_rss_mib: self.resident(),
            generator_cpu_seconds,
            generator_cpu_us_per_delivery: each_us(generator_cpu_seconds),
        })
    }

    /// Deliveries that there are when everybody has everything.
    fn goal(&self) -> u64 {
        self.posted().iter().sum::<u64>() * self.options.listeners as u64
    }

    fn posted(&self) -> Vec<u64> {
        self.posted.iter().map(|posted| posted.load(Ordering::Relaxed)).collect()
    }

    fn patience(&self) -> Duration {
        Duration::from_secs_f64(self.options.patience.clamp(0.1, 3_600.0))
    }

    fn publisher(&self, index: usize, client: Client) -> Publisher {
        Publisher {
            index,
            client,
            channel: self.channel.clone(),
            filler: self.filler.clone(),
            board: self.board.clone(),
            posted: self.posted.clone(),
            body: Vec::new(),
            posts: Histogram::default(),
        }
    }

    async fn paced(&mut self) -> anyhow::Result<Histogram> {
        let mut publisher = self.publisher(0, Client::connect(&self.target).await?);
        for _ in 0..self.options.paced {
            publisher.post(self.options.batch).await?;
            self.board.reach(self.goal(), self.patience()).await?;
        }
        Ok(publisher.posts)
    }

    async fn saturated(&mut self) -> anyhow::Result<Histogram> {
        let publishers = self.options.publishers as u64;
        let (batch, in_flight, listeners) = (self.options.batch, self.options.in_flight, self.options.listeners as u64);
        let already = self.board.received();
        let mut tasks = JoinSet::new();
        for index in 0..self.options.publishers {
            let mut publisher = self.publisher(index, Client::connect(&self.target).await?);
            let share =
                self.options.messages / publishers + u64::from((index as u64) < self.options.messages % publishers);
            tasks.spawn(async move {
                let mut done = 0;
                while done < share {
                    publisher.board.check()?;
                    // The others are about as far as this one.
                    while in_flight > 0
                        && done * publishers > in_flight + (publisher.board.received() - already) / listeners
                    {
                        publisher.board.check()?;
                        tokio::time::sleep(PAUSE).await;
                    }
                    let count = batch.min(share - done);
                    publisher.post(count).await?;
                    done += count;
                }
                anyhow::Ok(publisher)
            });
        }
        let mut posts = Histogram::default();
        while let Some(published) = tasks.join_next().await {
            let publisher = published.context("a publishing task failed")??;
            posts.add(&publisher.posts);
        }
        Ok(posts)
    }

    /// Who lacks what.
    fn missing(&self, listeners: &[Listener]) -> Vec<String> {
        let posted = self.posted();
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

/// Posts messages, one POST after the other.
struct Publisher {
    index: usize,
    client: Client,
    channel: String,
    filler: String,
    board: Arc<Board>,
    posted: Arc<[AtomicU64]>,
    body: Vec<u8>,
    posts: Histogram,
}

impl Publisher {
    async fn post(&mut self, count: u64) -> anyhow::Result<()> {
        let at = self.board.now();
        let (first, publishers) = (self.posted[self.index].load(Ordering::Relaxed), self.posted.len() as u64);
        self.body.clear();
        for sequence in first..first + count {
            let head = if sequence == first { "[" } else { "," };
            let user = format!(r#"{head}{{"user":"publisher","channel":"{}","message":"#, self.channel);
            self.body.extend_from_slice(user.as_bytes());
            write_body(sequence * publishers + self.index as u64, at, &self.filler, &mut self.body);
            self.body.push(b'}');
        }
        self.body.push(b']');
        let started = Instant::now();
        self.client.post("/message", &self.body).await?;
        self.posts.record_duration(started.elapsed());
        self.posted[self.index].fetch_add(count, Ordering::Relaxed);
        Ok(())
    }
}

fn print(figures: &Figures) {
    let (options, phases, memory) = (figures.options, &figures.phases, &figures.memory);
    println!(
        "fan-out: {} listeners (connected in {:.1} s), {} publishers, {} messages a POST, {} bytes of text, history {}",
        options.listeners,
        figures.connect_seconds,
        options.publishers,
        options.batch,
        options.size,
        if options.history { "on" } else { "off" },
    );
    if phases.is_empty() {
        return;
    }
    let mut table = Table::new(phases.iter().map(|phase| match phase.pace {
        Pace::Paced => "paced",
        Pace::Saturated => "saturated",
    }));
    table.line("messages", 0, phases.iter().map(|phase| phase.messages as f64));
    table.line("deliveries", 0, phases.iter().map(|phase| phase.deliveries as f64));
    table.line("seconds", 2, phases.iter().map(|phase| phase.seconds));
    table.line("deliveries/s", 0, phases.iter().map(|phase| phase.deliveries_per_second));
    table.line("POST p50 ms", 3, phases.iter().map(|phase| phase.post_p50_ms));
    table.line("POST p99 ms", 3, phases.iter().map(|phase| phase.post_p99_ms));
    table.line("delivery p50 ms", 3, phases.iter().map(|phase| phase.delivery_p50_ms));
    table.line("delivery p99 ms", 3, phases.iter().map(|phase| phase.delivery_p99_ms));
    table.line("delivery max ms", 3, phases.iter().map(|phase| phase.delivery_max_ms));
    table.line("server CPU s", 2, phases.iter().map(|phase| phase.server_cpu_seconds));
    table.line("server CPU µs/delivery", 3, phases.iter().map(|phase| phase.server_cpu_us_per_delivery));
    table.line("server RSS MiB", 1, phases.iter().map(|phase| phase.server_rss_mib));
    table.line("generator CPU s", 2, phases.iter().map(|phase| phase.generator_cpu_seconds));
    table.line("generator CPU µs/delivery", 3, phases.iter().map(|phase| phase.generator_cpu_us_per_delivery));
    print!("{table}");
    let mut table = Table::new(["started", "with listeners", "peak", "afterwards"]);
    let resident = [memory.started_mib, memory.with_listeners_mib, memory.peak_mib, memory.afterwards_mib];
    table.line("server RSS MiB", 1, resident);
    print!("\n{table}");
}
