//! Many channels without listeners: what does it cost to take messages in?
//!
//! Publishers post to the channels in turn, each one POST after the other. Contenders that store history
//! answer when a message is committed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use tokio::task::JoinSet;

use crate::compare::{Comparison, Scenario};
use crate::contender::{Address, Contender, Poster};
use crate::figures::Figures;
use crate::histogram::Histogram;
use crate::listener::write_body;
use crate::meter::Meter;

/// Many channels without listeners: what a POST costs
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Channels, to which publishers post in turn
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub channels: u32,
    /// Who post at the same time, each one POST after the other
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub publishers: u32,
    /// Messages in one POST, each to another channel; sent as so many POSTs in one write to who takes one
    /// message a POST only
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub batch: u32,
    /// Bytes of text in a message
    #[arg(long, default_value_t = 200)]
    pub size: usize,
    /// Seconds that are measured
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// Seconds of the same before, to warm up
    #[arg(long, default_value_t = 0.5)]
    pub warm_up: f64,
    #[command(flatten)]
    pub comparison: Comparison,
}

impl Scenario for Options {
    fn title(&self) -> String {
        format!(
            "publish: {} channels without listeners, {} publishers, {} messages a POST, {} bytes of text",
            self.channels, self.publishers, self.batch, self.size
        )
    }

    async fn measure(&self, contender: &Contender) -> anyhow::Result<Figures> {
        let channels: Arc<[String]> = (0..self.channels).map(|index| format!("bench-{index}")).collect();
        contender.prepare(&channels).await?;
        let filler: Arc<str> = "x".repeat(self.size).into();
        let work = Work { channels, filler, batch: u64::from(self.batch), publishers: u64::from(self.publishers) };
        work.publish(contender.address(), self.warm_up).await?;

        let meter = Meter::start(contender)?;
        let posts = work.publish(contender.address(), self.seconds).await?;
        let seconds = meter.seconds();
        let messages = posts.count() as f64 * f64::from(self.batch);
        let mut figures = Figures::default();
        figures.add("POSTs/s", 0, posts.count() as f64 / seconds);
        figures.add("messages/s", 0, messages / seconds);
        figures.add("POST p50, ms", 3, posts.quantile_ms(0.5));
        figures.add("POST p99, ms", 3, posts.quantile_ms(0.99));
        meter.finish("", "message", messages, &mut figures)?;
        figures.add("memory at the end, MiB", 1, contender.memory_mib());
        Ok(figures)
    }
}

/// What publishers do.
#[derive(Clone)]
struct Work {
    channels: Arc<[String]>,
    filler: Arc<str>,
    batch: u64,
    publishers: u64,
}

impl Work {
    /// Publishes for so many seconds; gives how long POSTs took.
    async fn publish(&self, address: &Address, seconds: f64) -> anyhow::Result<Histogram> {
        let time = Duration::from_secs_f64(seconds.clamp(0.0, 3_600.0));
        let mut posters = Vec::new();
        for _ in 0..self.publishers {
            posters.push(Poster::connect(address).await?);
        }
        let (started, mut tasks) = (Instant::now(), JoinSet::new());
        for (index, poster) in posters.into_iter().enumerate() {
            tasks.spawn(self.clone().run(poster, index as u64, started, time));
        }
        let mut posts = Histogram::default();
        while let Some(published) = tasks.join_next().await {
            posts.add(&published.context("a publishing task failed")??);
        }
        Ok(posts)
    }

    /// One publisher.
    async fn run(self, mut poster: Poster, index: u64, started: Instant, time: Duration) -> anyhow::Result<Histogram> {
        let mut posts = Histogram::default();
        let mut number = index * self.batch;
        let mut now = Instant::now();
        while now - started < time {
            for each in number..number + self.batch {
                let channel = &self.channels[(each % self.channels.len() as u64) as usize];
                poster.add(channel, |body| write_body(each, 0, &self.filler, body))?;
            }
            poster.send().await?;
            number += self.publishers * self.batch;
            let before = std::mem::replace(&mut now, Instant::now());
            posts.record_duration(now - before);
        }
        Ok(posts)
    }
}
