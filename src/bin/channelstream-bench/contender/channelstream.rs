//! Our server, and the original.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use uuid::Uuid;

use crate::contender::Setup;
use crate::http::Target;
use crate::program::{Program, free_port};
use crate::server::{SECRET, Server};

/// Starts ours on a SQLite database of its own.
pub async fn start(setup: &Setup, directory: &Path) -> anyhow::Result<(Target, Program)> {
    let database = format!("sqlite://{}", directory.join("bench.db").display());
    start_on(&database, setup, directory).await
}

/// Starts ours on a new database of the Postgres server that POSTGRES_URL names. That server's own
/// costs are not measured.
pub async fn start_on_postgres(setup: &Setup, directory: &Path) -> anyhow::Result<(Target, Program)> {
    let url = postgres_url()?;
    let name = format!("bench_{}", Uuid::new_v4().simple());
    let psql = std::env::var_os("POSTGRES_BIN").map_or_else(|| "psql".into(), |bin| PathBuf::from(bin).join("psql"));
    let create = format!("CREATE DATABASE {name}");
    let made = Command::new(psql).args(["-q", "-d", &url, "-c", &create]).output().context("psql cannot be run")?;
    if !made.status.success() {
        bail!("no database was made: {}", String::from_utf8_lossy(&made.stderr));
    }
    let (server, _) = url.rsplit_once('/').context("POSTGRES_URL names no database")?;
    start_on(&format!("{server}/{name}"), setup, directory).await
}

async fn start_on(database: &str, setup: &Setup, directory: &Path) -> anyhow::Result<(Target, Program)> {
    let heartbeat = setup.heartbeat.map(|seconds| ("HEARTBEAT_INTERVAL", seconds.to_string()));
    let settings = setup.settings.iter().chain(&heartbeat);
    let settings: Vec<(&str, &str)> = settings.map(|(key, value)| (*key, value.as_str())).collect();
    let server = Server::start_on(database, &directory.join("server.log"), &settings).await?;
    let target = server.target().clone();
    Ok((target, server.into_program()))
}

/// Starts the original.
pub async fn start_original(directory: &Path) -> anyhow::Result<(Target, Program)> {
    let path = original()?;
    let port = free_port()?;
    let file = directory.join("original.ini");
    let settings = format!(
        "[channelstream]\nhost = 127.0.0.1\nport = {port}\nsecret = {SECRET}\nadmin_secret = {SECRET}\n\
         log_level = WARNING\nallow_posting_from = 127.0.0.1\ndemo = false\n"
    );
    fs::write(&file, settings).with_context(|| format!("{} cannot be written", file.display()))?;
    let mut command = Command::new(path);
    command.arg("-i").arg(&file);
    let target = Target { acknowledge: true, ..Target::local(port, Some(SECRET)) };
    let program = Program::start(command, &directory.join("original.log"), &target, "/admin/sign_in").await?;
    Ok((target, program))
}

/// Where a Postgres server is, on which databases may be made.
pub fn postgres_url() -> anyhow::Result<String> {
    variable("POSTGRES_URL", "postgres://user@host/database, whose user may create databases")
}

/// Where the original is.
pub fn original() -> anyhow::Result<String> {
    variable("ORIGINAL", "the path to the program `channelstream` of the Python package")
}

fn variable(name: &str, meaning: &str) -> anyhow::Result<String> {
    match std::env::var(name) {
        Ok(value) if !value.is_empty() => Ok(value),
        _ => bail!("{name} is not set: {meaning}"),
    }
}
