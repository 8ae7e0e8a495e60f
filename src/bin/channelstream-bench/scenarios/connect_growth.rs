//! Does `/connect` take longer where more is stored? Lets people in to stores of several sizes: among
//! those users and channels that the smallest store has as well, and among all. The former are soon in
//! memory; the latter are mostly read from the store.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::big_store::{self, fill, measure, reuse};
use super::with_defaults;
use crate::report::{Table, write_json};
use crate::temporary::TemporaryDirectory;

/// Messages in each channel.
const MESSAGES: u64 = 10;

/// Stores of several sizes: what `/connect` takes
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Channels, and as many users, in the store: one size after the other, the smallest first
    #[arg(long, value_delimiter = ',', default_value = "100,100000")]
    stored: Vec<u64>,
    /// Also writes the figures here
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What was measured on one store.
#[derive(Debug, Serialize)]
struct Connects {
    stored: u64,
    /// Users and channels that were picked from.
    used: u64,
    p50_ms: f64,
    p99_ms: f64,
    cpu_ms: f64,
}

/// Runs it.
///
/// # Errors
/// If a store cannot be filled or the server cannot be driven.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let directory = TemporaryDirectory::new()?;
    let mut all = Vec::new();
    for stored in options.stored.iter().copied() {
        let file = directory.path().join(format!("{stored}.db"));
        let store = big_store::Options {
            channels: stored,
            users: stored,
            entries: MESSAGES * stored,
            ..with_defaults::<big_store::Options>()
        };
        fill(&file, &store).await?;
        let mut choices = vec![options.stored[0].min(stored), stored];
        choices.dedup();
        for used in choices {
            let start = measure(&file, &big_store::Options { active: Some(used), ..store.clone() }).await?;
            let cpu_ms = start.connected_cpu_seconds * 1e3 / store.connects as f64;
            all.push(Connects { stored, used, p50_ms: start.connect_p50_ms, p99_ms: start.connect_p99_ms, cpu_ms });
            // Those who were let in are put out.
            reuse(&file, &store).await?;
        }
    }
    println!("connect-growth: {} users let in, one after the other", with_defaults::<big_store::Options>().connects);
    let mut table = Table::new(all.iter().map(|one| format!("{} of {} used", one.used, one.stored)));
    table.line("/connect p50 ms", 3, all.iter().map(|one| one.p50_ms));
    table.line("/connect p99 ms", 3, all.iter().map(|one| one.p99_ms));
    table.line("server CPU of each ms", 3, all.iter().map(|one| one.cpu_ms));
    println!("{table}");
    write_json(options.json.as_deref(), &all)
}
