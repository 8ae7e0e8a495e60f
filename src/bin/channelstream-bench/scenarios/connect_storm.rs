//! Everybody comes at once: how long until each is let in, has a websocket, and was shown the newest
//! messages of the channel?
//!
//! Where there is a `/connect`, back ends ask for it over connections that stay, and its answer has
//! the messages; the user's websocket is opened as soon as it is there. Elsewhere the websocket brings
//! them. In the end one message is said that all must get.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::compare::{Comparison, Scenario};
use crate::contender::{Address, Contender, Poster, Setup};
use crate::figures::Figures;
use crate::histogram::Histogram;
use crate::http::Client;
use crate::listener::write_body;
use crate::process::Process;
use crate::websocket;

const CHANNEL: &str = "storm";
/// Handshakes that are under way at a time: more would not fit into the system's queues, and who finds
/// no room there tries again after a second.
const CONNECTING: usize = 1_000;
/// What each message has once.
const MARKER: &[u8] = b"\"n\":";
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Everybody comes at once: `/connect`, websocket and the newest messages
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Users, each with one websocket
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..))]
    users: u32,
    /// Messages that each is shown
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    messages: u32,
    /// Bytes of text in a message
    #[arg(long, default_value_t = 200)]
    size: usize,
    /// Connections of back ends
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    back_ends: u32,
    #[command(flatten)]
    pub comparison: Comparison,
}

impl Scenario for Options {
    fn title(&self) -> String {
        format!(
            "connect-storm: {} users at once, {} messages of {} bytes of text each, {} connections of back ends",
            self.users, self.messages, self.size, self.back_ends
        )
    }

    fn setup(&self) -> Setup {
        Setup { history: self.messages, ..Setup::default() }
    }

    async fn measure(&self, contender: &Contender) -> anyhow::Result<Figures> {
        contender.prepare(&[CHANNEL.to_owned()]).await?;
        let mut poster = Poster::connect(contender.address()).await?;
        let filler = "x".repeat(self.size);
        for number in 0..u64::from(self.messages) {
            poster.add(CHANNEL, |body| write_body(number, 0, &filler, body))?;
        }
        poster.send().await?;

        let mut figures = Figures::default();
        let memory = contender.memory_mib();
        let (cpu, own) = (contender.cpu_seconds(), Process::this().cpu_seconds()?);
        let started = Instant::now();
        let Storm { present, errors } = storm(contender.address(), self).await?;
        figures.add("until all have everything, s", 3, started.elapsed().as_secs_f64());
        let cpu = contender.cpu_seconds().zip(cpu).map(|(after, before)| after - before);
        let own = Process::this().cpu_seconds()? - own;
        let grown = contender.memory_mib().zip(memory).map(|(after, before)| after - before);

        let mut waited = Histogram::default();
        present.iter().for_each(|user| waited.record_duration(user.after));
        figures.add("a user has everything after, p50, ms", 0, waited.quantile_ms(0.5));
        figures.add("a user has everything after, p99, ms", 0, waited.quantile_ms(0.99));
        figures.add("errors", 0, errors.len() as f64);
        figures.add("server CPU, ms/user", 3, cpu.map(|cpu| cpu * 1e3 / f64::from(self.users)));
        figures.add("generator CPU, ms/user", 3, own * 1e3 / f64::from(self.users));
        figures.add("memory each, KiB", 1, grown.map(|mib| mib * 1024.0 / f64::from(self.users)));
        for error in errors.iter().take(3) {
            eprintln!("a user was not let in: {error:#}");
        }
        poster.add(CHANNEL, |body| write_body(u64::from(self.messages), 0, &filler, body))?;
        poster.send().await?;
        for user in present {
            user.expect_one_more().await?;
        }
        Ok(figures)
    }
}

/// What became of all.
struct Storm {
    present: Vec<User>,
    errors: Vec<anyhow::Error>,
}

/// What users share while they come.
struct Shared {
    address: Address,
    started: Instant,
    back_ends: Vec<Mutex<Client>>,
    doors: Semaphore,
    messages: usize,
}

async fn storm(address: &Address, options: &Options) -> anyhow::Result<Storm> {
    let mut back_ends = Vec::new();
    for _ in 0..options.back_ends {
        back_ends.push(Mutex::new(Client::connect(&address.target).await?));
    }
    let shared = Arc::new(Shared {
        address: address.clone(),
        started: Instant::now(),
        back_ends,
        doors: Semaphore::new(CONNECTING),
        messages: options.messages as usize,
    });
    let mut tasks = JoinSet::new();
    for index in 0..options.users as usize {
        let coming = User::come(index, shared.clone());
        tasks.spawn(async { timeout(PATIENCE, coming).await.context("a user waits in vain")? });
    }
    let mut storm = Storm { present: Vec::new(), errors: Vec::new() };
    while let Some(user) = tasks.join_next().await {
        match user.context("a user's task failed")? {
            Ok(user) => storm.present.push(user),
            Err(error) => storm.errors.push(error),
        }
    }
    Ok(storm)
}

/// A user who has everything.
struct User {
    stream: TcpStream,
    /// All that came over the websocket.
    received: Vec<u8>,
    /// Since the storm began.
    after: Duration,
}

impl User {
    async fn come(index: usize, shared: Arc<Shared>) -> anyhow::Result<Self> {
        let Shared { address, started, back_ends, doors, messages } = &*shared;
        let (path, answer) = {
            let mut client = back_ends[index % back_ends.len()].lock().await;
            address.admit(&mut client, CHANNEL, &format!("user-{index}"), true).await?
        };
        let (stream, received) = {
            let _door = doors.acquire().await?;
            websocket::open_path(&address.target, &path).await?
        };
        let mut user = Self { stream, received, after: Duration::ZERO };
        user.receive(messages.saturating_sub(count(&answer))).await?;
        user.after = started.elapsed();
        Ok(user)
    }

    /// Reads until so many messages came over the websocket.
    async fn receive(&mut self, messages: usize) -> anyhow::Result<()> {
        while count(&self.received) < messages {
            ensure!(self.stream.read_buf(&mut self.received).await? > 0, "a user was cut off");
        }
        Ok(())
    }

    async fn expect_one_more(mut self) -> anyhow::Result<()> {
        let messages = count(&self.received) + 1;
        timeout(PATIENCE, self.receive(messages)).await.context("a user is not shown what is said at the end")?
    }
}

/// How many messages there are.
fn count(received: &[u8]) -> usize {
    received.windows(MARKER.len()).filter(|window| *window == MARKER).count()
}
