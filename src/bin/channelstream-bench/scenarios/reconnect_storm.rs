//! All listeners of a channel come back at once: how long until each has what it missed, and what do
//! others notice?
//!
//! The listeners take a cursor from their own streams and lose their sockets; messages are posted; the
//! server may be killed and started again; then all come back. Each is checked to get exactly what it
//! missed, in order, then the marker, and after that what is said live. Meanwhile listeners of another
//! channel are sent a message now and then: their latency before and during the storm is compared.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::histogram::Histogram;
use crate::http::{Client, Target};
use crate::listener::{Listener, write_body};
use crate::process::Process;
use crate::readers::{Board, Readers};
use crate::report::{Table, mib, write_json};
use crate::server::Server;
use crate::temporary::TemporaryDirectory;
use crate::websocket::{self, CLOSE, frame_head};

/// Handshakes that are under way at a time: more would not fit into the system's queues, and who
/// finds no room there tries again after a second.
const CONNECTING: usize = 1_000;
/// Requests that are under way at a time while connections are made.
const REQUESTS: usize = 32;
/// What the server is told: connections outlast the pause, and the log says how often the store was read.
const SETTINGS: [(&str, &str); 2] = [("GC_CONNS_AFTER", "600"), ("LOG_LEVEL", "INFO")];
/// What the marker has and nothing else.
const MARKER: &[u8] = b"\"replay\"";
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Listeners that all come back at once: replay, and what others notice of it
#[derive(Debug, Args, Serialize)]
pub struct Options {
    /// Users that come back, each with one websocket
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..))]
    listeners: u64,
    /// Messages that they miss
    #[arg(long, default_value_t = 100)]
    messages: u64,
    /// Bytes of text in a message
    #[arg(long, default_value_t = 200)]
    size: usize,
    /// Kill the server before they come back, and start it again
    #[arg(long)]
    restart: bool,
    /// Listeners of another channel, which stay
    #[arg(long, default_value_t = 50)]
    live: usize,
    /// Milliseconds between two messages to these
    #[arg(long, default_value_t = 10)]
    pace: u64,
    /// Seconds of these before the storm
    #[arg(long, default_value_t = 3.0)]
    calm: f64,
    /// Memory for log tails, as in the configuration
    #[arg(long, default_value = "256 MiB")]
    tail_memory: String,
    /// Also writes the figures here
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    json: Option<PathBuf>,
}

/// Everything that is measured.
#[derive(Debug, Serialize)]
struct Figures<'a> {
    options: &'a Options,
    /// From the kill until the server was ready again.
    restart_seconds: Option<f64>,
    /// From the first handshake until all had their markers.
    storm_seconds: f64,
    /// From a listener's handshake to its marker.
    marker_p50_ms: f64,
    marker_p99_ms: f64,
    replayed: u64,
    server_cpu_seconds: f64,
    server_cpu_us_per_message: f64,
    generator_cpu_seconds: f64,
    server_rss_mib: f64,
    /// How often the store was asked for what was missed.
    store_reads: u64,
    calm: Latency,
    storm: Latency,
}

/// How long live messages took.
#[derive(Debug, Serialize)]
struct Latency {
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

impl Latency {
    fn of(latency: &Histogram) -> Self {
        Self { p50_ms: latency.quantile_ms(0.5), p99_ms: latency.quantile_ms(0.99), max_ms: latency.max_ms() }
    }
}

/// Runs it.
///
/// # Errors
/// If the server cannot be driven, or a listener did not get what it should.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let directory = TemporaryDirectory::new()?;
    let database = directory.path().join("bench.db");
    let settings = [&SETTINGS[..], &[("TAIL_MEMORY", options.tail_memory.as_str())]].concat();
    let mut server = Server::start_with(&database, &settings).await?;
    let kept = (options.messages + 100).min(100_000);
    let channels = json!({
        "storm": { "store_history": true, "replay_size": kept }, "calm": { "store_history": true }
    });
    Client::connect(server.target()).await?.post("/channel_config", channels.to_string().as_bytes()).await?;

    let connections = connect(server.target(), "storm", options.listeners as usize).await?;
    let away = leave(server.target(), connections).await?;
    let mut publisher = Publisher::new(server.target(), "storm", options.size).await?;
    for sent in (0..options.messages).step_by(10) {
        publisher.post(10.min(options.messages - sent), 0).await?;
    }
    let restart_seconds = match options.restart {
        true => {
            let killed = Instant::now();
            server.kill();
            server = Server::start_with(&database, &settings).await?;
            Some(killed.elapsed().as_secs_f64())
        }
        false => None,
    };

    let live = Live::start(server.target(), &options).await?;
    tokio::time::sleep(Duration::from_secs_f64(options.calm.clamp(0.0, 600.0))).await;
    let calm = Latency::of(&live.board.take_latency());
    let (process, own) = (server.process(), Process::this());
    let (cpu, own_cpu) = (process.cpu_seconds()?, own.cpu_seconds()?);
    let storm = come_back(server.target(), away, &options).await?;
    let (cpu, own_cpu) = (process.cpu_seconds()? - cpu, own.cpu_seconds()? - own_cpu);
    let during = Latency::of(&live.board.take_latency());
    let server_rss_mib = mib(process.resident_kib()?);

    let mut publisher =
        Publisher { next: options.messages, ..Publisher::new(server.target(), "storm", options.size).await? };
    publisher.post(1, 0).await?;
    let mut latency = Histogram::default();
    for returned in storm.returned {
        latency.record_duration(returned.took);
        returned.check(options.messages).await?;
    }
    live.stop().await?;
    let log = server.stop().await?;
    let reads = log.rsplit_once("replay_reads=").and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
    let replayed = options.messages * options.listeners;
    let figures = Figures {
        options: &options,
        restart_seconds,
        storm_seconds: storm.took.as_secs_f64(),
        marker_p50_ms: latency.quantile_ms(0.5),
        marker_p99_ms: latency.quantile_ms(0.99),
        replayed,
        server_cpu_seconds: cpu,
        server_cpu_us_per_message: cpu * 1e6 / replayed.max(1) as f64,
        generator_cpu_seconds: own_cpu,
        server_rss_mib,
        store_reads: reads.context("the server does not say how often the store was asked")?,
        calm,
        storm: during,
    };
    print(&figures);
    write_json(options.json.as_deref(), &figures)
}

/// Makes connections for users of one channel, each with a cursor to begin at.
async fn connect(target: &Target, channel: &'static str, count: usize) -> anyhow::Result<Vec<(Uuid, String)>> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..REQUESTS.min(count) {
        let (target, next) = (target.clone(), next.clone());
        tasks.spawn(async move {
            let mut client = Client::connect(&target).await?;
            let mut connections = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return anyhow::Ok(connections);
                }
                let id = Uuid::new_v4();
                let body = json!({
                    "username": format!("{channel}-{index}"), "conn_id": id, "channels": [channel],
                    "info": { "include_users": false, "include_history": false },
                });
                let answer: Value =
                    serde_json::from_slice(client.post("/connect", body.to_string().as_bytes()).await?)?;
                let cursor = answer["cursor"].as_str().context("an answer to /connect without a cursor")?;
                connections.push((id, cursor.to_owned()));
            }
        });
    }
    let mut connections = Vec::with_capacity(count);
    while let Some(made) = tasks.join_next().await {
        connections.extend(made.context("a connecting task failed")??);
    }
    Ok(connections)
}

/// All listen up to their first marker, whose cursor they keep, and lose their sockets.
async fn leave(target: &Target, connections: Vec<(Uuid, String)>) -> anyhow::Result<Vec<(Uuid, String)>> {
    let mut away = Vec::with_capacity(connections.len());
    for returned in all(target, connections).await? {
        let frames = frames(&returned.received)?;
        let cursor = frames.last().and_then(|marker| marker["cursor"].as_str()).context("no cursor")?;
        away.push((returned.id, cursor.to_owned()));
    }
    Ok(away)
}

struct Storm {
    took: Duration,
    returned: Vec<Returned>,
}

/// All come back; on a thread of its own, so that nobody else is held up by the reading.
async fn come_back(target: &Target, away: Vec<(Uuid, String)>, options: &Options) -> anyhow::Result<Storm> {
    let count = options.listeners as usize;
    let target = target.clone();
    let thread = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let started = Instant::now();
        let returned = runtime.block_on(all(&target, away))?;
        let took = started.elapsed();
        anyhow::Ok(Storm { took, returned })
    });
    let storm = thread.await.context("the storm failed")??;
    ensure!(storm.returned.len() == count, "{} of {count} came back", storm.returned.len());
    Ok(storm)
}

/// Opens websockets, as many at once as the system takes, and reads each up to its marker.
async fn all(target: &Target, connections: Vec<(Uuid, String)>) -> anyhow::Result<Vec<Returned>> {
    let doors = Arc::new(Semaphore::new(CONNECTING));
    let mut tasks = JoinSet::new();
    for (id, cursor) in connections {
        let (target, doors) = (target.clone(), doors.clone());
        tasks.spawn(async move {
            let returning = async {
                let door = doors.acquire().await?;
                let started = Instant::now();
                let (mut stream, mut received) = websocket::open(&target, id, Some(&cursor)).await?;
                drop(door);
                let mut looked = 0;
                while !received[looked..].windows(MARKER.len()).any(|window| window == MARKER) {
                    looked = received.len().saturating_sub(MARKER.len());
                    if stream.read_buf(&mut received).await? == 0 {
                        bail!("a listener was cut off");
                    }
                }
                let took = started.elapsed();
                Ok(Returned { id, took, stream: stream.into_std()?, received })
            };
            tokio::time::timeout(PATIENCE, returning).await.context("a listener waits in vain for its marker")?
        });
    }
    let mut returned = Vec::with_capacity(tasks.len());
    while let Some(one) = tasks.join_next().await {
        returned.push(one.context("a listener failed")??);
    }
    Ok(returned)
}

/// A listener that has come back.
struct Returned {
    id: Uuid,
    /// From its handshake to its marker.
    took: Duration,
    stream: std::net::TcpStream,
    received: Vec<u8>,
}

impl Returned {
    /// It got all that it missed, the marker, and then one message live, each once and in order.
    async fn check(mut self, missed: u64) -> anyhow::Result<()> {
        let mut stream = TcpStream::from_std(self.stream)?;
        let live = async {
            loop {
                let frames = frames(&self.received)?;
                if frames.len() as u64 > missed + 1 {
                    return anyhow::Ok(frames);
                }
                if stream.read_buf(&mut self.received).await? == 0 {
                    bail!("a listener was cut off after its replay");
                }
            }
        };
        let frames =
            tokio::time::timeout(PATIENCE, live).await.context("a listener waits in vain for what is live")??;
        let numbers = frames.iter().map(|frame| frame["message"]["n"].as_u64());
        let mut expected: Vec<Option<u64>> = (0..missed).map(Some).collect();
        expected.extend([None, Some(missed)]);
        ensure!(numbers.eq(expected), "a listener got something else than it missed: {frames:?}");
        let marker = &frames[missed as usize];
        ensure!(marker["count"] == missed && marker["gaps"] == json!([]), "a marker says {marker}");
        let caught_up = frames.iter().filter(|frame| frame["catchup"] == true).count() as u64;
        ensure!(caught_up == missed, "{caught_up} of {missed} are called missed");
        Ok(())
    }
}

/// The frames in what was received, as far as that is whole, without heartbeats and cursors.
fn frames(mut received: &[u8]) -> anyhow::Result<Vec<Value>> {
    let mut frames = Vec::new();
    while let Some(head) = frame_head(received)?
        && let Some(payload) = received.get(head.bytes..head.bytes + head.payload)
    {
        ensure!(head.opcode != CLOSE, websocket::close_reason(payload));
        if head.opcode == websocket::TEXT {
            frames.extend(serde_json::from_slice::<Vec<Value>>(payload)?);
        }
        received = &received[head.bytes + head.payload..];
    }
    frames.retain(|frame| frame["type"] != "cursor");
    Ok(frames)
}

/// Posts numbered messages to one channel.
struct Publisher {
    client: Client,
    channel: &'static str,
    filler: String,
    next: u64,
}

impl Publisher {
    async fn new(target: &Target, channel: &'static str, size: usize) -> anyhow::Result<Self> {
        Ok(Self { client: Client::connect(target).await?, channel, filler: "x".repeat(size), next: 0 })
    }

    /// `at`: when, by the board's clock.
    async fn post(&mut self, count: u64, at: u64) -> anyhow::Result<()> {
        let mut body = Vec::from(*b"[");
        for number in self.next..self.next + count {
            if number > self.next {
                body.push(b',');
            }
            body.extend_from_slice(format!(r#"{{"user":"x","channel":"{}","message":"#, self.channel).as_bytes());
            write_body(number, at, &self.filler, &mut body);
            body.push(b'}');
        }
        body.push(b']');
        self.client.post("/message", &body).await?;
        self.next += count;
        Ok(())
    }
}

/// Those who stay, and who speaks to them.
struct Live {
    board: Arc<Board>,
    readers: Readers,
    stop: Arc<AtomicBool>,
    speaking: tokio::task::JoinHandle<anyhow::Result<u64>>,
    count: usize,
}

impl Live {
    async fn start(target: &Target, options: &Options) -> anyhow::Result<Self> {
        let mut sockets = Vec::new();
        for (index, (id, _)) in connect(target, "calm", options.live).await?.into_iter().enumerate() {
            let (stream, rest) = websocket::open(target, id, None).await?;
            sockets.push((stream.into_std()?, Listener::new(index, 1, options.size, rest)));
        }
        let board = Arc::new(Board::new(1));
        let readers = Readers::start(sockets, &board)?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut publisher = Publisher::new(target, "calm", options.size).await?;
        let (mut pace, told, clock) =
            (tokio::time::interval(Duration::from_millis(options.pace.max(1))), stop.clone(), board.clone());
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let speaking = tokio::spawn(async move {
            while !told.load(Ordering::Relaxed) {
                pace.tick().await;
                publisher.post(1, clock.now()).await?;
            }
            Ok(publisher.next)
        });
        Ok(Self { board, readers, stop, speaking, count: options.live })
    }

    /// All of them have got everything.
    async fn stop(self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let said = self.speaking.await.context("the speaker failed")??;
        let outcome = self.board.reach(said * self.count as u64, PATIENCE).await;
        self.readers.stop()?;
        outcome.with_context(|| self.board.problems().join("\n"))
    }
}

fn print(figures: &Figures) {
    let options = figures.options;
    println!(
        "reconnect-storm: {} listeners missed {} messages of {} bytes of text; {}; tails {}",
        options.listeners,
        options.messages,
        options.size,
        figures.restart_seconds.map_or_else(
            || "no restart".to_owned(),
            |seconds| format!("the server was killed and ready again after {seconds:.2} s")
        ),
        options.tail_memory,
    );
    let mut table = Table::new(["storm"]);
    table.line("all served after s", 2, [figures.storm_seconds]);
    table.line("replayed messages", 0, [figures.replayed as f64]);
    table.line("handshake to marker p50 ms", 1, [figures.marker_p50_ms]);
    table.line("handshake to marker p99 ms", 1, [figures.marker_p99_ms]);
    table.line("server CPU s", 2, [figures.server_cpu_seconds]);
    table.line("server CPU µs/message", 2, [figures.server_cpu_us_per_message]);
    table.line("server RSS MiB", 1, [figures.server_rss_mib]);
    table.line("generator CPU s", 2, [figures.generator_cpu_seconds]);
    table.line("store reads", 0, [figures.store_reads as f64]);
    print!("{table}");
    println!("\n{} live listeners of another channel, a message each {} ms:", options.live, options.pace);
    let phases = [&figures.calm, &figures.storm];
    let mut table = Table::new(["before", "during"]);
    table.line("delivery p50 ms", 3, phases.map(|phase| phase.p50_ms));
    table.line("delivery p99 ms", 3, phases.map(|phase| phase.p99_ms));
    table.line("delivery max ms", 3, phases.map(|phase| phase.max_ms));
    print!("{table}");
}
