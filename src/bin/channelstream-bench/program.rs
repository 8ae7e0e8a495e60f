//! A server's program, as a child process.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::time::sleep;

use crate::http::{Client, Target};
use crate::process::Process;

/// How long a server may take to become ready, or to stop.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often it is asked.
const PAUSE: Duration = Duration::from_millis(1);
/// Lines of its log that are shown when something is wrong.
const SHOWN: usize = 10;

/// A program that serves; ended when dropped.
#[derive(Debug)]
pub struct Program {
    child: Child,
    log: PathBuf,
    ready_after: Duration,
}

impl Program {
    /// Starts it and waits until a GET of `ready` at `target` is answered with 200. What it writes goes
    /// to the file `log`.
    ///
    /// # Errors
    /// If it does not become ready; with what it said.
    pub async fn start(mut command: Command, log: &Path, target: &Target, ready: &str) -> anyhow::Result<Self> {
        let file = File::create(log).with_context(|| format!("{} cannot be written", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("{:?} cannot be run", command.get_program()))?;
        let mut program = Self { child, log: log.to_owned(), ready_after: Duration::ZERO };
        program.wait(started, target, ready).await?;
        program.ready_after = started.elapsed();
        Ok(program)
    }

    async fn wait(&mut self, started: Instant, target: &Target, ready: &str) -> anyhow::Result<()> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended with {status}:\n{}", self.complaints().join("\n"));
            }
            if let Ok(mut client) = Client::connect(target).await
                && client.get(ready).await.is_ok_and(|(status, _)| status == 200)
            {
                return Ok(());
            }
            if started.elapsed() > PATIENCE {
                bail!("the server is not ready after {PATIENCE:?}:\n{}", self.complaints().join("\n"));
            }
            sleep(PAUSE).await;
        }
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

    /// Ends it and what it has started at once, as a crash would.
    pub fn kill(&mut self) {
        let all = self.process().with_children().unwrap_or_default();
        // Any of them may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for started in all.iter().skip(1) {
            started.kill();
        }
    }

    /// The last lines of its log.
    pub fn complaints(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let surplus = lines.len().saturating_sub(SHOWN);
        let cut = (surplus > 0).then(|| format!("… after {surplus} other lines"));
        cut.into_iter().chain(lines[surplus..].iter().map(|line| (*line).to_owned())).collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.kill();
        }
    }
}

/// A port that nobody listens on. Somebody may take it before the server does; then it says so.
///
/// # Errors
/// If there is none.
pub fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("there is no free port")?;
    Ok(listener.local_addr()?.port())
}
