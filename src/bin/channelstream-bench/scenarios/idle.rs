//! Many websockets over which little is said: what memory and what CPU time does each take?
//!
//! Memory is that of the server's processes; what the kernel needs for sockets comes on top and is the
//! same for all. It is looked at when all are connected, after one short message to each, and after a
//! burst: buffers that grew then should not stay.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::time::sleep;

use crate::audience;
use crate::compare::{Comparison, Scenario};
use crate::contender::{Contender, Poster, Setup};
use crate::figures::Figures;
use crate::listener::{Listener, write_body};
use crate::process::Process;
use crate::readers::{Board, Readers};

const CHANNEL: &str = "idle";
/// Bytes of text in the short message.
const SHORT: usize = 100;
/// The burst: so many messages with so many bytes of text, in one POST where that can be.
const BURST: u64 = 10;
const LONG: usize = 1_000;
/// Until what is freed is given back, and what is put off is done.
const SETTLING: Duration = Duration::from_secs(2);
/// How long a message may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Many websockets over which little is said: memory and CPU time of each
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Users, each with one websocket
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    listeners: u32,
    /// Seconds between heartbeats
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    heartbeat: u32,
    /// Seconds during which nothing is said
    #[arg(long, default_value_t = 30.0)]
    seconds: f64,
    #[command(flatten)]
    pub comparison: Comparison,
}

impl Scenario for Options {
    fn title(&self) -> String {
        format!(
            "idle: {} websockets, heartbeats each {} s, {} s of silence",
            self.listeners, self.heartbeat, self.seconds
        )
    }

    fn setup(&self) -> Setup {
        Setup { heartbeat: Some(self.heartbeat), ..Setup::default() }
    }

    async fn measure(&self, contender: &Contender) -> anyhow::Result<Figures> {
        let listeners = self.listeners as usize;
        contender.prepare(&[CHANNEL.to_owned()]).await?;
        let mut run = Run {
            contender,
            board: Arc::new(Board::new(1)),
            poster: Poster::connect(contender.address()).await?,
            listeners: u64::from(self.listeners),
            posted: 0,
            memory_before: contender.memory_mib(),
            figures: Figures::default(),
        };
        let started = Instant::now();
        let joined = audience::connect(contender.address(), listeners, |_| CHANNEL.to_owned()).await?;
        run.figures.add("connecting, s", 2, started.elapsed().as_secs_f64());
        let mut sockets = Vec::with_capacity(listeners);
        for each in joined {
            sockets.push((each.stream.into_std()?, Listener::new(each.index, 1, SHORT, each.rest)));
        }
        let readers = Readers::start(sockets, &run.board)?;
        let outcome = run.phases(Duration::from_secs_f64(self.seconds.clamp(0.0, 3_600.0))).await;
        readers.stop()?;
        outcome.map_err(|error| error.context(run.board.problems().join("\n")))?;
        Ok(run.figures)
    }
}

struct Run<'a> {
    contender: &'a Contender,
    board: Arc<Board>,
    poster: Poster,
    listeners: u64,
    posted: u64,
    memory_before: Option<f64>,
    figures: Figures,
}

impl Run<'_> {
    async fn phases(&mut self, silence: Duration) -> anyhow::Result<()> {
        self.memory("connected").await;
        self.say(1, SHORT).await?;
        self.memory("after 100 bytes each").await;
        self.be_silent(silence).await?;
        self.memory("after the silence").await;
        self.say(BURST, LONG).await?;
        self.memory("after a burst of 10 kB each").await;
        self.board.check()
    }

    /// Posts, and waits until everybody has it.
    async fn say(&mut self, count: u64, bytes: usize) -> anyhow::Result<()> {
        let (at, filler) = (self.board.now(), "x".repeat(bytes));
        for number in self.posted..self.posted + count {
            self.poster.add(CHANNEL, |body| write_body(number, at, &filler, body))?;
        }
        self.poster.send().await?;
        self.posted += count;
        self.board.reach(self.posted * self.listeners, PATIENCE).await
    }

    async fn be_silent(&mut self, silence: Duration) -> anyhow::Result<()> {
        let (cpu, own) = (self.contender.cpu_seconds(), Process::this().cpu_seconds()?);
        sleep(silence).await;
        let percent = |cpu: f64| 100.0 * cpu / silence.as_secs_f64();
        let cpu = self.contender.cpu_seconds().zip(cpu).map(|(after, before)| after - before);
        let own = Process::this().cpu_seconds()? - own;
        self.figures.add("server CPU while silent, % of a core", 2, cpu.map(percent));
        self.figures.add("generator CPU while silent, % of a core", 2, percent(own));
        Ok(())
    }

    async fn memory(&mut self, when: &str) {
        sleep(SETTLING).await;
        let grown = self.contender.memory_mib().zip(self.memory_before).map(|(now, before)| now - before);
        let each = grown.map(|mib| mib * 1024.0 / self.listeners as f64);
        self.figures.add(format!("memory each {when}, KiB"), 2, each);
    }
}
