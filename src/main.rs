//! The `channelstream` program: see `channelstream --help`.

use std::process::ExitCode;

use channelstream::cli::Cli;
use clap::Parser;

/// Faster than the system's with many threads, and it gives memory back after a burst.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("channelstream: {error:#}");
            ExitCode::FAILURE
        }
    }
}
