//! Many channels that remember their newest messages: what memory does each take, and does it go when
//! nobody uses them?
//!
//! One server is filled step by step. Ours lets go of a channel that nobody is in and nobody asked for
//! during a minute: what is measured later says nothing, and is not shown.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::compare::{Comparison, Scenario};
use crate::contender::{Address, Contender, Poster, Setup};
use crate::figures::Figures;
use crate::listener::write_body;

/// Who post at the same time.
const POSTERS: usize = 16;
/// Channels that are filled with one POST, where that can be.
const TOGETHER: usize = 50;
/// Channels that are filled before memory is looked at for the first time.
const WARM_UP: usize = 500;
/// Until what is freed is given back, and what is put off is done.
const SETTLING: Duration = Duration::from_secs(1);
/// From the first channel until memory is looked at for the last time, at most.
const MINUTE: Duration = Duration::from_secs(60);

/// Many channels with messages in memory: memory of each
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Channels, step by step
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,100000")]
    pub channels: Vec<usize>,
    /// Messages that each remembers
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub messages: u32,
    /// Bytes of text in a message
    #[arg(long, default_value_t = 200)]
    pub size: usize,
    /// Seconds in which nobody uses the channels, before memory is looked at again; 0: it is not
    #[arg(long, default_value_t = 0.0)]
    pub idle: f64,
    #[command(flatten)]
    pub comparison: Comparison,
}

impl Scenario for Options {
    fn title(&self) -> String {
        let steps: Vec<String> = self.channels.iter().map(ToString::to_string).collect();
        let (messages, size) = (self.messages, self.size);
        format!("channels: {} with {messages} messages of {size} bytes of text each", steps.join(", "))
    }

    fn setup(&self) -> Setup {
        // What the disk takes is not the question here.
        let settings = vec![("SQLITE_SYNCHRONOUS", "normal".to_owned())];
        Setup { history: self.messages, settings, ..Setup::default() }
    }

    async fn measure(&self, contender: &Contender) -> anyhow::Result<Figures> {
        let mut figures = Figures::default();
        // What is needed once, such as the database's caches, is no channel's.
        let first: Vec<String> = (0..WARM_UP).map(|index| format!("first-{index}")).collect();
        contender.prepare(&first).await?;
        self.fill(contender.address(), first).await?;
        sleep(SETTLING).await;
        let before = contender.memory_mib();
        let grown = |now: Option<f64>| now.zip(before).map(|(now, before)| now - before);
        let (mut filled, begun) = (0, Instant::now());
        for step in &self.channels {
            let names: Vec<String> = (filled..*step).map(|index| format!("channel-{index}")).collect();
            filled = filled.max(*step);
            let started = Instant::now();
            contender.prepare(&names).await?;
            self.fill(contender.address(), names).await?;
            figures.add(format!("filling up to {step}, s"), 1, started.elapsed().as_secs_f64());
            sleep(SETTLING).await;
            let memory = contender.memory_mib().filter(|_| begun.elapsed() < MINUTE);
            figures.add(format!("memory with {step}, MiB"), 1, memory);
            figures.add(each(*step), 2, grown(memory).map(|mib| mib * 1024.0 / *step as f64));
        }
        if self.idle > 0.0 {
            sleep(Duration::from_secs_f64(self.idle.min(3_600.0))).await;
            figures.add("memory when they were idle, MiB", 1, contender.memory_mib());
            figures.add("memory at the start, MiB", 1, before);
        }
        Ok(figures)
    }
}

/// The figure with the memory of a channel when there are so many.
pub fn each(channels: usize) -> String {
    format!("memory each with {channels}, KiB")
}

impl Options {
    /// Posts to each channel what it remembers.
    async fn fill(&self, address: &Address, names: Vec<String>) -> anyhow::Result<()> {
        let (names, next) = (Arc::new(names), Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        for _ in 0..POSTERS {
            let (names, next) = (names.clone(), next.clone());
            let (messages, filler) = (u64::from(self.messages), "x".repeat(self.size));
            let mut poster = Poster::connect(address).await?;
            tasks.spawn(async move {
                loop {
                    let first = next.fetch_add(TOGETHER, Ordering::Relaxed);
                    if first >= names.len() {
                        return anyhow::Ok(());
                    }
                    for name in names.iter().skip(first).take(TOGETHER) {
                        for number in 0..messages {
                            poster.add(name, |body| write_body(number, 0, &filler, body))?;
                        }
                    }
                    poster.send().await?;
                }
            });
        }
        while let Some(filled) = tasks.join_next().await {
            filled.context("a posting task failed")??;
        }
        Ok(())
    }
}
