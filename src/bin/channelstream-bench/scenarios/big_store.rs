//! A store with a long past: what does it cost to start on it, and to let people in?
//!
//! Fills a SQLite store with channels, users and messages through the same trait as the server, then
//! starts the server on it, and on an empty one for comparison. The file is still in the system's
//! cache then, so what is measured is the server's work and not the disk's.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use channelstream::domain::event::Event;
use channelstream::domain::message::{Audience, Body, Message};
use channelstream::domain::names::{ChannelName, Username};
use channelstream::domain::position::Position;
use channelstream::domain::settings::ChannelSettings;
use channelstream::domain::state::{Profile, StateValue, UserState};
use channelstream::domain::timestamp::Timestamp;
use channelstream::store::{self, Batch, Store, StoreTotals, Synchronous};
use chrono::Utc;
use clap::Args;
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::histogram::Histogram;
use crate::http::Client;
use crate::report::{Table, mib, write_json};
use crate::server::Server;
use crate::temporary::TemporaryDirectory;

/// Events that are committed together while the store is filled.
const BATCH: u64 = 2_000;
/// Times that `/readyz` is asked to see what asking costs.
const PROBES: usize = 20;
/// The database's name in its directory.
const FILE: &str = "big.db";

/// A large store: time and memory to start on it and to let people in
#[derive(Debug, Clone, Args, Serialize)]
pub struct Options {
    /// Channels that store history
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub channels: u64,
    /// Messages, spread over the channels
    #[arg(long, default_value_t = 1_000_000)]
    pub entries: u64,
    /// Users
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub users: u64,
    /// Bytes of text in a message
    #[arg(long, default_value_t = 200)]
    pub size: usize,
    /// Users who are let in, each to a channel picked at random
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub connects: u64,
    /// Users and channels among which they are picked; without it all
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub active: Option<u64>,
    /// Picks other users and channels
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Fills the store in this directory and leaves it there, or uses the one it left there
    #[arg(long, value_name = "DIR")]
    #[serde(skip)]
    pub keep: Option<PathBuf>,
    /// Also writes the figures here
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub json: Option<PathBuf>,
}

/// Everything that is measured.
#[derive(Debug, Serialize)]
struct Figures<'a> {
    options: &'a Options,
    fill_seconds: Option<f64>,
    file_mib: f64,
    empty: Start,
    filled: Start,
}

/// One store, from the start of the server on.
#[derive(Debug, Serialize)]
pub struct Start {
    ready_seconds: f64,
    ready_rss_mib: f64,
    readyz_p50_ms: f64,
    first_connect_ms: f64,
    pub connect_p50_ms: f64,
    pub connect_p99_ms: f64,
    connected_rss_mib: f64,
    pub connected_cpu_seconds: f64,
    again_ready_seconds: f64,
    again_ready_rss_mib: f64,
}

/// Runs it.
///
/// # Errors
/// If the store cannot be filled or the server cannot be driven.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let temporary = TemporaryDirectory::new()?;
    let directory = options.keep.as_deref().unwrap_or(temporary.path());
    fs::create_dir_all(directory).with_context(|| format!("{} cannot be made", directory.display()))?;
    let file = std::path::absolute(directory.join(FILE))?;
    let fill_seconds = if file.exists() {
        reuse(&file, &options).await?;
        None
    } else {
        Some(fill(&file, &options).await?.as_secs_f64())
    };
    let file_mib = mib(fs::metadata(&file)?.len() >> 10);
    let empty = measure(&temporary.path().join("empty.db"), &options).await?;
    let filled = measure(&file, &options).await?;
    let figures = Figures { options: &options, fill_seconds, file_mib, empty, filled };
    print(&figures);
    write_json(options.json.as_deref(), &figures)
}

// Filling.

/// Fills a new store; says how long that took.
pub async fn fill(file: &Path, options: &Options) -> anyhow::Result<Duration> {
    let started = Instant::now();
    let mut filler = Filler::open(file).await?;
    let settings = ChannelSettings { store_history: true, ..ChannelSettings::default() };
    filler
        .commit(options.channels, |index, _| {
            Ok(Event::ChannelKept { name: channel(index)?, uuid: Uuid::new_v4(), settings: settings.clone() })
        })
        .await?;
    filler
        .commit(options.users, |index, _| {
            Ok(Event::UserKept { name: user(index)?, uuid: Uuid::new_v4(), profile: profile(index) })
        })
        .await?;
    let text = "x".repeat(options.size);
    filler
        .commit(options.entries, |index, position| {
            let message = Message {
                uuid: Uuid::new_v4(),
                channel: Some(channel(index % options.channels)?),
                sender: user(index % options.users)?,
                body: Some(body(index, &text)?),
                timestamp: Timestamp::utc(Utc::now().naive_utc()),
                edited: None,
                audience: Audience::default(),
                no_history: false,
            };
            Ok(Event::Posted { position: Some(position), message: message.into(), inboxes: Vec::new() })
        })
        .await?;
    filler.store.close().await?;
    Ok(started.elapsed())
}

/// Writes events as the server would, without deciding them.
struct Filler {
    store: Arc<dyn Store>,
    head: Position,
}

impl Filler {
    async fn open(file: &Path) -> anyhow::Result<Self> {
        // What breaks off is filled anew, so that nothing needs to be safe from a power cut.
        let (store, start) = store::open(&url(file), &Synchronous::Normal.into()).await?;
        Ok(Self { store, head: start.head })
    }

    /// Commits `count` events in batches; each is made from its number and the position it would have.
    async fn commit(
        &mut self,
        count: u64,
        event: impl Fn(u64, Position) -> anyhow::Result<Event>,
    ) -> anyhow::Result<()> {
        for first in (0..count).step_by(BATCH as usize) {
            let before = self.head;
            let mut events = Vec::with_capacity(BATCH as usize);
            for index in first..count.min(first + BATCH) {
                let event = event(index, self.head.next())?;
                self.head = event.position().unwrap_or(self.head);
                events.push(event);
            }
            let batch = Batch { id: Uuid::new_v4(), before, head: self.head, at: Utc::now().naive_utc(), events };
            self.store.commit(&batch).await?;
        }
        Ok(())
    }
}

/// Takes a store that was kept, if it is what is asked for; whoever is still in it is put out.
pub async fn reuse(file: &Path, options: &Options) -> anyhow::Result<()> {
    let mut filler = Filler::open(file).await?;
    let StoreTotals { channels, users } = filler.store.totals().await?;
    let entries = filler.head.0;
    if channels < options.channels || users < options.users || entries < options.entries {
        bail!(
            "{} has {channels} channels, {users} users and {entries} messages: remove it, or ask for as many",
            file.display()
        );
    }
    let connections = filler.store.connections().await?;
    filler
        .commit(connections.len() as u64, |index, _| Ok(Event::ConnectionEnded { id: connections[index as usize].id }))
        .await?;
    Ok(filler.store.close().await?)
}

fn url(file: &Path) -> String {
    format!("sqlite://{}", file.display())
}

fn channel_text(index: u64) -> String {
    format!("channel-{index}")
}

fn user_text(index: u64) -> String {
    format!("user-{index}")
}

fn channel(index: u64) -> anyhow::Result<ChannelName> {
    let text = channel_text(index);
    ChannelName::parse(&text).map_err(|_| anyhow!("{text} is no name of a channel"))
}

fn user(index: u64) -> anyhow::Result<Username> {
    let text = user_text(index);
    Username::parse(&text).map_err(|_| anyhow!("{text} is no name of a user"))
}

fn profile(index: u64) -> Profile {
    let mut state = UserState::default();
    state.set("name", StateValue::Text(format!("User {index}").into()));
    state.set("age", StateValue::Number((index % 100).to_string().into()));
    Profile::new(state, ["name".into()].into())
}

fn body(index: u64, text: &str) -> anyhow::Result<Body> {
    Ok(RawValue::from_string(format!(r#"{{"n":{index},"text":"{text}"}}"#))?.into())
}

// Measuring.

/// Starts a server on a store and lets people in.
pub async fn measure(file: &Path, options: &Options) -> anyhow::Result<Start> {
    let server = Server::start(file).await?;
    let process = server.process();
    let ready_rss_mib = mib(process.resident_kib()?);
    let mut client = Client::connect(server.target()).await?;
    let mut probes = Histogram::default();
    for _ in 0..PROBES {
        let asked = Instant::now();
        client.get("/readyz").await?;
        probes.record_duration(asked.elapsed());
    }
    let cpu = process.cpu_seconds()?;
    let mut random = Random(options.seed);
    let first_connect = connect(&mut client, &mut random, options).await?;
    let mut others = Histogram::default();
    for _ in 1..options.connects {
        others.record_duration(connect(&mut client, &mut random, options).await?);
    }
    let connected_rss_mib = mib(process.resident_kib()?);
    let connected_cpu_seconds = process.cpu_seconds()? - cpu;
    let ready_seconds = server.ready_after().as_secs_f64();
    complain(&server);

    // It is killed, so that all who are let in are to be found by the next.
    server.kill();
    let again = Server::start(file).await?;
    complain(&again);
    Ok(Start {
        ready_seconds,
        ready_rss_mib,
        readyz_p50_ms: probes.quantile_ms(0.5),
        first_connect_ms: first_connect.as_secs_f64() * 1e3,
        connect_p50_ms: others.quantile_ms(0.5),
        connect_p99_ms: others.quantile_ms(0.99),
        connected_rss_mib,
        connected_cpu_seconds,
        again_ready_seconds: again.ready_after().as_secs_f64(),
        again_ready_rss_mib: mib(again.process().resident_kib()?),
    })
}

fn complain(server: &Server) {
    for line in server.complaints() {
        println!("server: {line}");
    }
}

/// Lets a user in to a channel and takes its history; says how long that took.
async fn connect(client: &mut Client, random: &mut Random, options: &Options) -> anyhow::Result<Duration> {
    let mut pick = |all: u64| random.below(options.active.map_or(all, |active| active.min(all)));
    let (user, channel) = (pick(options.users), pick(options.channels));
    let body = json!({ "username": user_text(user), "channels": [channel_text(channel)] }).to_string();
    let asked = Instant::now();
    client.post("/connect", body.as_bytes()).await?;
    Ok(asked.elapsed())
}

/// Numbers that are the same for the same seed (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

fn print(figures: &Figures) {
    let options = figures.options;
    println!(
        "big-store: {} channels, {} users, {} messages of {} bytes of text; {:.0} MiB{}",
        options.channels,
        options.users,
        options.entries,
        options.size,
        figures.file_mib,
        figures.fill_seconds.map_or_else(String::new, |seconds| format!(", filled in {seconds:.1} s")),
    );
    let starts = [&figures.empty, &figures.filled];
    let mut table = Table::new(["empty", "filled"]);
    table.line("spawn to ready s", 3, starts.map(|start| start.ready_seconds));
    table.line("RSS at ready MiB", 1, starts.map(|start| start.ready_rss_mib));
    table.line("/readyz p50 ms", 3, starts.map(|start| start.readyz_p50_ms));
    table.line("first /connect ms", 3, starts.map(|start| start.first_connect_ms));
    table.line("other /connect p50 ms", 3, starts.map(|start| start.connect_p50_ms));
    table.line("other /connect p99 ms", 3, starts.map(|start| start.connect_p99_ms));
    table.line("RSS after all /connect MiB", 1, starts.map(|start| start.connected_rss_mib));
    table.line("CPU s of all /connect", 2, starts.map(|start| start.connected_cpu_seconds));
    table.line("spawn to ready with these connections s", 3, starts.map(|start| start.again_ready_seconds));
    table.line("RSS at ready with these connections MiB", 1, starts.map(|start| start.again_ready_rss_mib));
    print!("{table}");
}
