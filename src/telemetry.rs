//! Logging: where lines go, what they look like and which are written. Secrets never get here: whoever
//! logs a request logs its path, without the query, and no header but its id.

use std::io::IsTerminal;

use tracing::Level;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::config::LogFormat;

/// The variable that says more precisely what to write.
const VARIABLE: &str = "RUST_LOG";

/// The log of this process, whose level may change.
pub struct Log(reload::Handle<EnvFilter, Registry>);

impl Log {
    /// Writes lines of at least that level to standard error. The variable `RUST_LOG` says more
    /// precisely what to write, if it is set.
    pub fn start(level: Level, format: LogFormat) -> Self {
        let filter = EnvFilter::try_from_env(VARIABLE).unwrap_or_else(|_| of_level(level));
        let (filter, handle) = reload::Layer::new(filter);
        let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
        let lines = match format {
            LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
            LogFormat::Json => lines.json().flatten_event(true).boxed(),
        };
        tracing_subscriber::registry().with(filter).with(lines).init();
        Self(handle)
    }

    /// From now on lines of at least that level are written. False: the variable `RUST_LOG` says which.
    pub fn set_level(&self, level: Level) -> bool {
        std::env::var_os(VARIABLE).is_none() && self.0.reload(of_level(level)).is_ok()
    }
}

/// Ours at a level, and of libraries what went wrong.
fn of_level(level: Level) -> EnvFilter {
    EnvFilter::new(format!("warn,channelstream={level}"))
}
