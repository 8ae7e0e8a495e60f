//! Logging: where lines go and which are written.

use std::io::IsTerminal;

use tracing::Level;
use tracing_subscriber::EnvFilter;

/// Writes lines of at least that level to standard error. The variable `RUST_LOG` says more
/// precisely what to write, if it is set.
pub fn start(level: Level) {
    let ours = format!("warn,channelstream={level}");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(ours));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}
