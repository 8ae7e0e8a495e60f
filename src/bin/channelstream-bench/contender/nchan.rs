//! nginx with the nchan module, as Debian packages it (`nginx`, `libnginx-mod-nchan`).

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::contender::Setup;
use crate::http::Target;
use crate::program::{Program, free_port};

/// Messages that a channel remembers at least: without any, those that are posted quickly may be lost.
const MIN_BUFFER: u32 = 10;
/// Where Debian puts the module.
const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";

/// Why it cannot be started here, if so.
pub fn missing() -> Option<String> {
    (!Path::new(MODULE).exists()).then(|| format!("there is no {MODULE}"))
}

/// Starts it with so many workers.
pub async fn start(workers: usize, setup: &Setup, directory: &Path) -> anyhow::Result<(Target, Program)> {
    let port = free_port()?;
    let file = directory.join("nginx.conf");
    fs::write(&file, configuration(workers, setup, port))
        .with_context(|| format!("{} cannot be written", file.display()))?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(directory).arg("-c").arg(&file).args(["-g", "daemon off;"]);
    let target = Target::local(port, None);
    let program = Program::start(command, &directory.join("nginx.log"), &target, "/ready").await?;
    Ok((target, program))
}

/// As quick as it goes: no access log, connections that stay, each worker with a socket of its own to
/// accept from, no patterns in paths.
fn configuration(workers: usize, setup: &Setup, port: u16) -> String {
    let reuse = if workers > 1 { " reuseport" } else { "" };
    let buffer = setup.history.max(MIN_BUFFER);
    let ping = setup.heartbeat.map(|seconds| format!("nchan_websocket_ping_interval {seconds}s;")).unwrap_or_default();
    format!(
        "load_module {MODULE};
worker_processes {workers};
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    nchan_shared_memory_size 1G;
    server {{
        listen 127.0.0.1:{port} backlog=4096{reuse};
        location = /ready {{ return 200; }}
        location = /post {{
            nchan_publisher;
            nchan_channel_id $arg_channel;
            nchan_message_buffer_length {buffer};
            nchan_message_timeout 1h;
        }}
        location = /listen {{
            nchan_subscriber websocket;
            nchan_channel_id $arg_channel;
            nchan_subscriber_first_message newest;
            {ping}
        }}
        location = /history {{
            nchan_subscriber websocket;
            nchan_channel_id $arg_channel;
            nchan_subscriber_first_message oldest;
        }}
    }}
}}
"
    )
}
