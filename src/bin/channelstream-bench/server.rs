//! Our server, as a child process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::http::Target;
use crate::process::Process;
use crate::program::{Program, free_port};

/// What it is told besides what the scenario says.
const SETTINGS: [(&str, &str); 5] = [
    ("HOST", "127.0.0.1"),
    ("SECRET", SECRET),
    ("ADMIN_SECRET", SECRET),
    ("LOG_LEVEL", "WARNING"),
    ("ALLOW_POSTING_FROM", "127.0.0.1"),
];
/// Known to everybody, on a server that only this machine reaches.
pub const SECRET: &str = "channelstream-bench";

/// A server that runs; killed when dropped.
#[derive(Debug)]
pub struct Server {
    program: Program,
    target: Target,
}

impl Server {
    /// Starts the server that lies beside this program on the SQLite database `database`, and waits
    /// until it says that it is ready. Its log goes to `server.log` beside the database.
    ///
    /// # Errors
    /// If it does not become ready; with what it said.
    pub async fn start(database: &Path) -> anyhow::Result<Self> {
        Self::start_with(database, &[]).await
    }

    /// The same with more settings: names of environment variables after `CHANNELSTREAM_`, and values.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn start_with(database: &Path, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let log = database.with_file_name("server.log");
        Self::start_on(&format!("sqlite://{}", database.display()), &log, settings).await
    }

    /// The same on a database anywhere, with its log in the file `log`.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn start_on(database_url: &str, log: &Path, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let port = free_port()?;
        let mut command = Command::new(program()?);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CHANNELSTREAM_") {
                command.env_remove(name);
            }
        }
        for (key, value) in SETTINGS.iter().chain(settings) {
            command.env(format!("CHANNELSTREAM_{key}"), value);
        }
        command.env("CHANNELSTREAM_PORT", port.to_string()).env("CHANNELSTREAM_DATABASE_URL", database_url);
        command.env_remove("RUST_LOG");
        let target = Target::local(port, Some(SECRET));
        let program = Program::start(command, log, &target, "/readyz").await?;
        Ok(Self { program, target })
    }

    /// Where it is.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// What it costs.
    pub fn process(&self) -> Process {
        self.program.process()
    }

    /// From being started until it said that it was ready.
    pub fn ready_after(&self) -> Duration {
        self.program.ready_after()
    }

    /// Tells it to stop in good order and waits until it has; gives all that it has logged.
    ///
    /// # Errors
    /// If it cannot be told.
    pub async fn stop(self) -> anyhow::Result<String> {
        self.program.stop().await
    }

    /// Ends it at once, as a crash would.
    pub fn kill(mut self) {
        self.program.kill();
    }

    /// The last lines of its log, which has only warnings and errors.
    pub fn complaints(&self) -> Vec<String> {
        self.program.complaints()
    }

    /// The program that runs.
    pub fn into_program(self) -> Program {
        self.program
    }
}

fn program() -> anyhow::Result<PathBuf> {
    let ours = std::env::current_exe().context("this program does not know where it lies")?;
    let program = ours.with_file_name("channelstream");
    if !program.exists() {
        bail!("{} is missing: build it with this program, `cargo build --release --bins`", program.display());
    }
    Ok(program)
}
