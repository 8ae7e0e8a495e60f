//! The bare programs of `serve_limit`, each a child process so that its costs are its own.

use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::http::Target;
use crate::program::{Program, free_port};

/// Starts one; `queued`: it writes all that waits with one write.
pub async fn start(queued: bool, directory: &Path) -> anyhow::Result<(Target, Program)> {
    let port = free_port()?;
    let mut command = Command::new(std::env::current_exe().context("this program does not know where it lies")?);
    command.args(["serve-limit", "--port", &port.to_string()]);
    if queued {
        command.arg("--queued");
    }
    let target = Target::local(port, None);
    let program = Program::start(command, &directory.join("limit.log"), &target, "/").await?;
    Ok((target, program))
}
