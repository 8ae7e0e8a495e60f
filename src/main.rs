//! The `channelstream` program: see `channelstream --help`.

use std::process::ExitCode;

use channelstream::cli::Cli;
use clap::Parser;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("channelstream: {error:#}");
            ExitCode::FAILURE
        }
    }
}
