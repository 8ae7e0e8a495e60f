//! Configuration: from what is written in the file and the environment to what the server goes by.
//!
//! ```text
//! file ─┐
//!       ├▶ Written: texts and where they stand ─▶ Config: checked and typed
//! environment (wins) ─┘
//! ```
//!
//! A mistake stops the start with one sentence that names its place. Reading the command line, and
//! deciding which file to read, is not done here.

mod access;
mod file;
mod keys;
mod secret;
#[cfg(test)]
mod tests;
mod value;
mod written;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tracing::Level;

pub use access::{AllowList, AllowedOrigins, BadEntry};
pub use keys::{Accepts, KEYS, Key};
pub use secret::{DatabaseUrl, Secret, UnknownDatabase};
pub use written::ConfigError;

use written::{Source, Written};

/// Every setting, checked. One field per key; [`KEYS`] has the limits and the reasons.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// IP address (an IPv6 one without brackets) or host name to listen on.
    pub host: String,
    /// Port to listen on; 0: any free one.
    pub port: u16,
    /// What back ends sign with.
    pub secret: Secret,
    /// Name for the admin panel.
    pub admin_user: String,
    /// Password for the admin panel.
    pub admin_secret: Secret,
    /// What the admin cookie is signed with; `None`: a random one per start.
    pub cookie_secret: Option<Secret>,
    /// Addresses that may call what is signed.
    pub allow_posting_from: AllowList,
    /// Origins that may read answers.
    pub allow_cors: AllowedOrigins,
    /// Whether a signature expires.
    pub validate_requests: bool,
    /// Whether to refuse what did not come by https.
    pub enforce_https: bool,
    /// Scheme of links; `None`: that of the request.
    pub http_scheme: Option<Scheme>,
    /// Whether debugging is on; `log_level` takes it into account already.
    pub debug: bool,
    /// The least severe level that is logged, at least `DEBUG` with `debug`.
    pub log_level: Level,
    /// What a line of the log looks like.
    pub log_format: LogFormat,
    /// Where the store is.
    pub database_url: DatabaseUrl,
    /// How much SQLite waits for the disk.
    pub sqlite_synchronous: SqliteSynchronous,
    /// Connections to Postgres that read.
    pub postgres_pool_size: u32,
    /// How long Postgres may take to answer.
    pub postgres_timeout: Duration,
    /// How long a connection without listener is kept.
    pub gc_conns_after: Duration,
    /// How long floors outlive a user's last connection.
    pub resume_window: Duration,
    /// Idle time after which a user is forgotten; `None`: never.
    pub forget_users_after: Option<Duration>,
    /// Time between heartbeats.
    pub heartbeat_interval: Duration,
    /// How long a request waits for the store.
    pub commit_timeout: Duration,
    /// How long a client may take for a request's head, and again for its body.
    pub request_timeout: Duration,
    /// How long closing all listeners at the stop is spread over.
    pub drain_seconds: Duration,
    /// Largest request body in bytes.
    pub max_body_bytes: usize,
    /// Most bytes that may wait for one listener.
    pub max_queue_bytes: usize,
    /// Most bytes for log tails in memory, all channels together.
    pub tail_memory: usize,
    /// Most listeners at a time; `None`: no limit.
    pub max_connections: Option<usize>,
    /// Most openings of one connection id a second; `None`: no limit.
    pub attach_rate: Option<u32>,
    /// What opens `/metrics`; `None`: no token does.
    pub metrics_token: Option<Secret>,
}

/// Scheme of the links that the server makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

impl Scheme {
    /// As it stands in a link, without `://`.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

/// What a line of the log looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// A JSON object.
    Json,
}

/// How much SQLite waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SqliteSynchronous {
    /// Each commit is on the disk before it is acknowledged.
    Full,
    /// A power cut may lose the last commits.
    Normal,
}

/// A configuration that was loaded.
#[derive(Debug)]
pub struct Loaded {
    /// What the server goes by.
    pub config: Config,
    /// Sentences for the log: what works, but should not stay so.
    pub warnings: Vec<String>,
}

impl Default for Config {
    /// Loads nothing: every setting at its default.
    fn default() -> Self {
        Self::check(&Written::default()).expect("the defaults of the table fit; a test loads them")
    }
}

impl Config {
    /// Loads `file`, if any, and the variables among `environment` that begin with
    /// `CHANNELSTREAM_`, which win.
    ///
    /// An empty value counts as the default where that is empty, and is refused elsewhere.
    ///
    /// # Errors
    ///
    /// The first mistake found: a file that cannot be read or is no ini file, a setting that is
    /// unknown, given twice in the file, or has a value that does not fit.
    pub fn load(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Loaded, ConfigError> {
        let mut written = Written::default();
        if let Some(path) = file {
            file::read(path, &mut written)?;
        }
        Self::load_over(written, environment)
    }

    fn load_over(
        mut written: Written,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Loaded, ConfigError> {
        written.set_from_environment(environment)?;
        let config = Self::check(&written)?;
        let mut warnings = written.warnings;
        warnings.extend(config.secrets_known_to_everybody());
        Ok(Loaded { config, warnings })
    }

    fn check(written: &Written) -> Result<Self, ConfigError> {
        let secret = |text: &str, accepts: &Accepts| value::text(text, accepts).map(Secret::new);
        let debug = written.value("debug", value::truth)?;
        let log_level = written.value("log_level", value::log_level)?;
        Ok(Self {
            host: written.value("host", value::host)?,
            port: written.value("port", value::whole)?,
            secret: written.value("secret", secret)?,
            admin_user: written.value("admin_user", value::text)?,
            admin_secret: written.value("admin_secret", secret)?,
            cookie_secret: written.optional("cookie_secret", secret)?,
            allow_posting_from: written.list("allow_posting_from")?,
            allow_cors: written.list("allow_cors")?,
            validate_requests: written.value("validate_requests", value::truth)?,
            enforce_https: written.value("enforce_https", value::truth)?,
            http_scheme: written.optional("http_scheme", |text, _| match text {
                "http" => Some(Scheme::Http),
                "https" => Some(Scheme::Https),
                _ => None,
            })?,
            debug,
            log_level: if debug { log_level.max(Level::DEBUG) } else { log_level },
            log_format: written.value("log_format", |text, _| match text.to_ascii_lowercase().as_str() {
                "text" => Some(LogFormat::Text),
                "json" => Some(LogFormat::Json),
                _ => None,
            })?,
            database_url: written.value("database_url", |text, _| text.parse().ok())?,
            sqlite_synchronous: written.value("sqlite_synchronous", |text, _| {
                match text.to_ascii_lowercase().as_str() {
                    "full" => Some(SqliteSynchronous::Full),
                    "normal" => Some(SqliteSynchronous::Normal),
                    _ => None,
                }
            })?,
            postgres_pool_size: written.value("postgres_pool_size", value::whole)?,
            postgres_timeout: written.value("postgres_timeout", value::seconds)?,
            gc_conns_after: written.value("gc_conns_after", value::seconds)?,
            resume_window: written.value("resume_window", value::seconds)?,
            forget_users_after: written.value("forget_users_after", value::days)?,
            heartbeat_interval: written.value("heartbeat_interval", value::seconds)?,
            commit_timeout: written.value("commit_timeout", value::seconds)?,
            request_timeout: written.value("request_timeout", value::seconds)?,
            drain_seconds: written.value("drain_seconds", value::seconds)?,
            max_body_bytes: written.value("max_body_bytes", value::bytes)?,
            max_queue_bytes: written.value("max_queue_bytes", value::bytes)?,
            tail_memory: written.value("tail_memory", value::bytes)?,
            max_connections: written.value("max_connections", value::limit)?,
            attach_rate: written.value("attach_rate", value::limit)?,
            metrics_token: written
                .optional("metrics_token", |text, accepts| value::token(text, accepts).map(Secret::new))?,
        })
    }

    /// Warns of each secret that is still the one in the example file.
    fn secrets_known_to_everybody(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for (name, secret) in [("secret", &self.secret), ("admin_secret", &self.admin_secret)] {
            if Key::find(name).is_some_and(|key| secret.matches(key.default)) {
                warnings.push(format!(
                    "`{name}` is the default, which everybody knows; \
                     set it before others can reach this server"
                ));
            }
        }
        warnings
    }
}

/// Writes a configuration file with every setting explained, those in `overrides` with the given
/// value, others with their default.
///
/// # Errors
///
/// When an override is no setting or has a value that does not fit or cannot be written in a file.
pub fn make_config(overrides: &BTreeMap<String, String>) -> Result<String, ConfigError> {
    let mut given = Written::default();
    for (name, text) in overrides {
        given.set(name, text, Source::Override)?;
    }
    let meant = Config::check(&given)?;

    let mut text = HEADER.to_owned();
    for key in KEYS {
        let explanation = key.explanation.replace('\n', "\n# ");
        let line = format!("{} = {}", key.name, file::escaped(given.text(key)));
        let (takes, line) = (key.takes(), line.trim_end());
        text += &format!("\n# {explanation}\n# {takes}\n{line}\n");
    }

    let mut read_back = Written::default();
    file::read_text("make-config", &text, &mut read_back)?;
    if Config::check(&read_back)? != meant {
        return Err(ConfigError::new("make-config: a value has a line that a file cannot hold; write it in one line"));
    }
    Ok(text)
}

const HEADER: &str = "\
# Configuration of Channelstream, with every setting at its default or as it was given.
#
# A setting that is left out has its default. An environment variable CHANNELSTREAM_<KEY>, such as
# CHANNELSTREAM_PORT, wins over this file. What is unknown or does not fit stops the start.
#
# Comments have lines of their own. Lists may go on in lines that begin with blanks. %% means %.

[channelstream]
";

/// Documents every setting in Markdown: a section each, with default, variable, what it takes and
/// why it is there.
pub fn reference() -> String {
    let mut text = String::new();
    for key in KEYS {
        let default = if key.default.is_empty() { "empty" } else { &format!("`{}`", key.default) };
        let explanation = key.explanation.replace('\n', " ");
        let (name, takes, variable) = (key.name, key.takes(), written::variable(key.name));
        text += &format!(
            "### `{name}`\n\n{explanation}\n\n\
             Default: {default}. {takes} Variable: `{variable}`.\n\n"
        );
    }
    text
}
