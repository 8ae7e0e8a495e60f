//! The command line.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use tracing::warn;

use crate::app;
use crate::config::{Config, Loaded, make_config};
use crate::copy::{Meter, copy};
use crate::signature::Signer;
use crate::store;
use crate::telemetry::Log;

/// A push server that stands beside a web application.
///
/// Without a command it serves. Settings come from the file, and from environment variables
/// `CHANNELSTREAM_<KEY>`, which win; without both the defaults are good for trying it out.
#[derive(Debug, Parser)]
#[command(name = "channelstream", version, about, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(flatten)]
    file: File,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Args)]
struct File {
    /// The configuration file
    #[arg(short = 'i', long = "ini", env = "CHANNELSTREAM_INI", value_name = "FILE")]
    ini: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves; the same as no command
    Serve(File),
    /// Prints a configuration file in which every key is explained
    #[command(alias = "make_config")]
    MakeConfig {
        /// Writes it to a file instead
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Values that differ from the defaults, as a JSON object; without it, the environment's
        #[arg(short, long, value_name = "JSON")]
        json: Option<String>,
    },
    /// Prints a value for the header x-channelstream-secret, good for a minute
    Sign(File),
    /// Copies a store to another place, or to the other engine, while no server uses it
    Copy {
        /// The store, as in `database_url`
        #[arg(long, value_name = "URL")]
        from: String,
        /// Where to: a new file, or an empty database
        #[arg(long, value_name = "URL")]
        to: String,
    },
    /// Has the server, which must be stopped, number what is stored anew: after restoring a backup
    ///
    /// Listeners may hold cursors from after the backup was made. With this they are told that their
    /// cursor is not known, and load anew; without it they would miss what is said from now on under
    /// the same numbers. Cursors from before the backup stay good.
    NewEpoch(File),
}

impl Cli {
    /// Does what was asked.
    ///
    /// # Errors
    /// With a sentence for whoever typed it.
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            None => serve(&self.file),
            Some(Command::Serve(file)) => serve(&file),
            Some(Command::MakeConfig { output, json }) => write_config(output, json.as_deref()),
            Some(Command::Sign(file)) => sign(&file),
            Some(Command::Copy { from, to }) => copy_store(&from, &to),
            Some(Command::NewEpoch(file)) => new_epoch(&file),
        }
    }
}

fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
}

fn load(file: &File) -> anyhow::Result<Loaded> {
    Ok(Config::load(file.ini.as_deref(), environment())?)
}

fn serve(file: &File) -> anyhow::Result<()> {
    let Loaded { config, warnings } = load(file)?;
    let _log = Log::start(config.log_level, config.log_format);
    for warning in warnings {
        warn!("{warning}");
    }
    let runtime = tokio::runtime::Runtime::new().context("the system gives no threads")?;
    Ok(runtime.block_on(app::run(config))?)
}

fn write_config(output: Option<PathBuf>, json: Option<&str>) -> anyhow::Result<()> {
    let text = make_config(&overrides(json)?)?;
    match output {
        Some(path) => std::fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display())),
        None => {
            print!("{text}");
            Ok(())
        }
    }
}

/// The values that a JSON object names; without one, those of the environment.
fn overrides(json: Option<&str>) -> anyhow::Result<BTreeMap<String, String>> {
    let Some(json) = json else {
        let ours = |(key, value): (String, String)| Some((key.strip_prefix("CHANNELSTREAM_")?.to_lowercase(), value));
        return Ok(environment().filter_map(ours).filter(|(key, _)| key != "ini").collect());
    };
    let values: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(json).context("--json takes a JSON object from keys to values")?;
    let mut overrides = BTreeMap::new();
    for (key, value) in values {
        let text = match value {
            serde_json::Value::String(text) => text,
            serde_json::Value::Bool(_) | serde_json::Value::Number(_) => value.to_string(),
            _ => bail!("--json: `{key}` is neither text nor number nor boolean"),
        };
        overrides.insert(key, text);
    }
    Ok(overrides)
}

fn sign(file: &File) -> anyhow::Result<()> {
    let config = load(file)?.config;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
    println!("{}", Signer::new(config.secret.expose()).sign("channelstream", now.as_secs()));
    Ok(())
}

fn copy_store(from: &str, to: &str) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("the system gives no threads")?;
    let mut meter = Meter::on_stderr();
    println!("{}", runtime.block_on(copy(from, to, |progress| meter.show(progress)))?);
    Ok(())
}

fn new_epoch(file: &File) -> anyhow::Result<()> {
    let config = load(file)?.config;
    let runtime = tokio::runtime::Runtime::new().context("the system gives no threads")?;
    let (epoch, after) = runtime.block_on(store::begin_epoch(config.database_url.as_str()))?;
    println!(
        "A new epoch, {}, begins in {} after position {}: earlier cursors stay good, later ones are not known any more.",
        epoch.as_str(),
        format!("{:?}", config.database_url).replace('"', ""),
        after.0
    );
    Ok(())
}
