//! Who is driven: our server in its forms, its rivals, and bare programs that show what the machine can
//! do. A scenario asks for one with [`Contender::start`], has its listeners subscribe and its publishers
//! post through [`Address`], and reads what that cost; it never needs to know who it is.

mod address;
mod channelstream;
mod limit;
mod nchan;

use std::fmt;
use std::path::Path;

use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Map, json};

use crate::http::{Client, Target};
use crate::process::Process;
use crate::program::Program;
use crate::report::mib;
use crate::temporary::TemporaryDirectory;

pub use address::{Address, Dialect, Poster};

/// Every contender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// This server; channels store no history
    Ours,
    /// This server; channels store history in SQLite, synced before a message is shown
    History,
    /// This server; channels store history in Postgres, on a server that POSTGRES_URL names
    Postgres,
    /// The Python server of the same name, release 0.7.1; ORIGINAL is the path to its program
    Original,
    /// nginx with the nchan module, two workers
    Nchan,
    /// nginx with the nchan module, one worker
    Nchan1,
    /// A bare program: one write of a ready frame per listener and message
    Limit,
    /// A bare program: one write of all that waits per visit of a listener
    LimitQ,
}

impl Kind {
    fn dialect(self) -> Dialect {
        match self {
            Self::Ours | Self::History | Self::Postgres | Self::Original => Dialect::Channelstream,
            Self::Nchan | Self::Nchan1 => Dialect::Nchan,
            Self::Limit | Self::LimitQ => Dialect::Bare,
        }
    }

    /// Why it cannot be measured here, if so.
    pub fn missing(self) -> Option<String> {
        match self {
            Self::Ours | Self::History | Self::Limit | Self::LimitQ => None,
            Self::Postgres => channelstream::postgres_url().err().map(|error| error.to_string()),
            Self::Original => channelstream::original().err().map(|error| error.to_string()),
            Self::Nchan | Self::Nchan1 => nchan::missing(),
        }
    }

    /// Whether messages are committed to a store before anybody sees them.
    pub fn is_durable(self) -> bool {
        matches!(self, Self::History | Self::Postgres)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().expect("no kind is hidden").get_name())
    }
}

/// What a scenario wants of a contender.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// Messages that each channel remembers; 0: none, unless they are stored anyway.
    pub history: u32,
    /// Seconds between heartbeats to a listener; none: as the contender likes.
    pub heartbeat: Option<u32>,
    /// More settings for our server: names of environment variables after `CHANNELSTREAM_`, and values.
    pub settings: Vec<(&'static str, String)>,
}

/// One that runs; ended when dropped, its program before its files.
#[derive(Debug)]
pub struct Contender {
    address: Address,
    history: u32,
    program: Option<Program>,
    process: Option<Process>,
    _directory: Option<TemporaryDirectory>,
}

impl Contender {
    /// Starts one and waits until it is ready.
    ///
    /// # Errors
    /// If it does not become ready, or is not there.
    pub async fn start(kind: Kind, setup: &Setup) -> anyhow::Result<Self> {
        let directory = TemporaryDirectory::new()?;
        let (target, program) = start(kind, setup, directory.path()).await?;
        Ok(Self {
            address: Address::new(target, kind.dialect()),
            history: if kind.is_durable() { setup.history.max(DURABLE_HISTORY) } else { setup.history },
            process: Some(program.process()),
            program: Some(program),
            _directory: Some(directory),
        })
    }

    /// A Channelstream server that runs already; its costs are measured if its process is known.
    ///
    /// # Errors
    /// If the URL is none.
    pub fn running(url: &str, secret: &str, pid: Option<u32>, setup: &Setup) -> anyhow::Result<Self> {
        let address = Address::new(Target::parse(url, secret)?, Dialect::Channelstream);
        Ok(Self { address, history: setup.history, program: None, process: pid.map(Process::of), _directory: None })
    }

    /// Where it is and how to talk to it.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Says how much the channels are to remember, where that is said by request.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn prepare(&self, channels: &[String]) -> anyhow::Result<()> {
        if self.address.dialect != Dialect::Channelstream {
            return Ok(());
        }
        let settings = json!({ "store_history": self.history > 0, "history_size": self.history.max(1) });
        let mut client = Client::connect(&self.address.target).await?;
        for some in channels.chunks(CONFIGURED) {
            let all: Map<_, _> = some.iter().map(|channel| (channel.clone(), settings.clone())).collect();
            client.post("/channel_config", serde_json::to_string(&all)?.as_bytes()).await?;
        }
        Ok(())
    }

    // A server that died is known by what it did not do, so here it is only not known.

    /// Seconds of CPU time of all its processes so far; to 10 ms.
    pub fn cpu_seconds(&self) -> Option<f64> {
        self.sum(|process| process.cpu_seconds().ok())
    }

    /// Memory of all its processes, in MiB; what they share counts once.
    pub fn memory_mib(&self) -> Option<f64> {
        self.sum(|process| process.proportional_kib().ok().map(mib))
    }

    fn sum(&self, measure: impl Fn(&Process) -> Option<f64>) -> Option<f64> {
        let processes = self.process.as_ref()?.with_children().ok()?;
        processes.iter().map(measure).sum()
    }

    /// The last lines of its log, which has only warnings and errors.
    pub fn complaints(&self) -> Vec<String> {
        self.program.as_ref().map(Program::complaints).unwrap_or_default()
    }
}

/// Messages that a channel of a durable contender remembers at least.
const DURABLE_HISTORY: u32 = 10;
/// Channels that are set up with one request.
const CONFIGURED: usize = 500;

async fn start(kind: Kind, setup: &Setup, directory: &Path) -> anyhow::Result<(Target, Program)> {
    match kind {
        Kind::Ours | Kind::History => channelstream::start(setup, directory).await,
        Kind::Postgres => channelstream::start_on_postgres(setup, directory).await,
        Kind::Original => channelstream::start_original(directory).await,
        Kind::Nchan => nchan::start(2, setup, directory).await,
        Kind::Nchan1 => nchan::start(1, setup, directory).await,
        Kind::Limit => limit::start(false, directory).await,
        Kind::LimitQ => limit::start(true, directory).await,
    }
}
