//! A load generator: drives real servers over real sockets and says what that cost.
//!
//! `channelstream-bench <scenario>` runs one of `scenarios/`, on the `channelstream` that lies beside it or
//! on other `--contenders` in turns, each started for it with files of its own. Everything else here is
//! what scenarios share. Figures come from `/proc`, so Linux only. Build with `--release`, or it measures
//! the wrong thing.

#![forbid(unsafe_code)]

mod audience;
#[cfg(feature = "charts")]
mod chart;
mod compare;
mod contender;
mod figures;
mod files;
mod histogram;
mod http;
mod listener;
mod meter;
mod process;
mod program;
mod readers;
mod report;
mod scenarios;
mod serve_limit;
mod server;
mod suite;
mod temporary;
mod websocket;

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};

use scenarios::Scenario;

/// Drives a Channelstream server, or others, and prints what that cost.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Scenario(Scenario),
    Suite(suite::Options),
    ServeLimit(serve_limit::Options),
}

impl Command {
    async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Scenario(scenario) => scenario.run().await,
            Self::Suite(options) => suite::run(options).await,
            Self::ServeLimit(options) => serve_limit::run(options).await,
        }
    }
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
    files::allow_all();
    // One thread: listeners have threads of their own, and the server needs the rest.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("the system gives no event loop")?;
    runtime.block_on(async {
        tokio::select! {
            result = arguments.command.run() => result,
            // Ending by itself lets it stop its server and remove its files.
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        }
    })
}
