//! A load generator: drives a real server over real sockets and says what that cost.
//!
//! `channelstream-bench <scenario>` runs one of `scenarios/`; without `--url` it starts the
//! `channelstream` that lies beside it, on a database of its own. Everything else here is what
//! scenarios share. Figures come from `/proc`, so Linux only. Build with `--release`, or it measures
//! the wrong thing.

#![forbid(unsafe_code)]

mod histogram;
mod http;
mod listener;
mod process;
mod readers;
mod report;
mod scenarios;
mod server;
mod temporary;
mod websocket;

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Parser;

use scenarios::Scenario;

/// Drives a Channelstream server and prints what that cost.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    scenario: Scenario,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("channelstream-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    // One thread: listeners have threads of their own, and the server needs the rest.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("the system gives no event loop")?;
    runtime.block_on(async {
        tokio::select! {
            result = arguments.scenario.run() => result,
            // Ending by itself lets it stop its server and remove its files.
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        }
    })
}
