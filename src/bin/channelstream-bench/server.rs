//! The server that is driven, as a child process.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::time::sleep;

use crate::http::{Client, Target};
use crate::process::Process;

/// How long a server may take to become ready.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often it is asked.
const PAUSE: Duration = Duration::from_millis(1);
/// Lines of its log that are shown when something is wrong.
const SHOWN: usize = 10;
/// What it is told besides what the scenario says.
const SETTINGS: [(&str, &str); 5] = [
    ("HOST", "127.0.0.1"),
    ("SECRET", SECRET),
    ("ADMIN_SECRET", SECRET),
    ("LOG_LEVEL", "WARNING"),
    ("ALLOW_POSTING_FROM", "127.0.0.1"),
];
/// Known to everybody, on a server that only this machine reaches.
const SECRET: &str = "channelstream-bench";

/// A server that runs; killed when dropped.
pub struct Server {
    child: Child,
    log: PathBuf,
    target: Target,
    ready_after: Duration,
}

impl Server {
    /// Starts the server that lies beside this program on the database `database`, and waits until it
    /// says that it is ready. Its log goes to `server.log` beside the database.
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
        let program = program()?;
        let port = free_port()?;
        let log = database.with_file_name("server.log");
        let file = File::create(&log).with_context(|| format!("{} cannot be written", log.display()))?;
        let mut command = Command::new(&program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CHANNELSTREAM_") {
                command.env_remove(name);
            }
        }
        for (key, value) in SETTINGS.iter().chain(settings) {
            command.env(format!("CHANNELSTREAM_{key}"), value);
        }
        let database = format!("sqlite://{}", database.display());
        command.env("CHANNELSTREAM_PORT", port.to_string()).env("CHANNELSTREAM_DATABASE_URL", database);
        command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let target = Target::parse(&format!("http://127.0.0.1:{port}"), SECRET)?;
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("{} cannot be run", program.display()))?;
        let mut server = Self { child, log, target, ready_after: Duration::ZERO };
        server.wait(started).await?;
        server.ready_after = started.elapsed();
        Ok(server)
    }

    async fn wait(&mut self, started: Instant) -> anyhow::Result<()> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended with {status}:\n{}", self.complaints().join("\n"));
            }
            if let Ok(mut client) = Client::connect(&self.target).await
                && client.get("/readyz").await.is_ok_and(|(status, _)| status == 200)
            {
                return Ok(());
            }
            if started.elapsed() > PATIENCE {
                bail!("the server is not ready after {PATIENCE:?}:\n{}", self.complaints().join("\n"));
            }
            sleep(PAUSE).await;
        }
    }

    /// Where it is.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// What it costs.
    pub fn process(&self) -> Process {
        Process::of(self.child.id())
    }

    /// From being started until it said that it was ready.
    pub fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// Tells it to stop in good order and waits until it has; gives all that it has logged.
    ///
    /// # Errors
    /// If it cannot be told.
    pub async fn stop(mut self) -> anyhow::Result<String> {
        let told = Command::new("kill").arg(self.child.id().to_string()).status().context("`kill` cannot be run")?;
        let started = Instant::now();
        while told.success() && self.child.try_wait()?.is_none() {
            if started.elapsed() > PATIENCE {
                bail!("the server does not stop");
            }
            sleep(PAUSE).await;
        }
        Ok(fs::read_to_string(&self.log)?)
    }

    /// The last lines of its log, which has only warnings and errors.
    pub fn complaints(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let surplus = lines.len().saturating_sub(SHOWN);
        let cut = (surplus > 0).then(|| format!("… after {surplus} other lines"));
        cut.into_iter().chain(lines[surplus..].iter().map(|line| (*line).to_owned())).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
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

/// A port that nobody listens on. Somebody may take it before the server does; then it says so.
fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("there is no free port")?;
    Ok(listener.local_addr()?.port())
}
