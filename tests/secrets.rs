//! Promise 9: nothing secret is in a log, an answer or an error, wherever somebody puts it.

mod support;

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::json;
use support::{Client, Process, binary, free_port, send, try_send, until};
use tempfile::tempdir;

const SECRET: &str = "hunter2-secret";
const PASSWORD: &str = "hunter2-password";
const TOKEN: &str = "hunter2-token";

#[tokio::test]
async fn no_log_and_no_answer_has_a_secret_even_at_its_most_talkative() {
    let folder = tempdir().unwrap();
    let port = free_port();
    let log = folder.path().join("log");
    let mut command = binary(folder.path());
    let settings = [
        ("RUST_LOG", "trace"),
        ("CHANNELSTREAM_HOST", "127.0.0.1"),
        ("CHANNELSTREAM_PORT", &port.to_string()),
        ("CHANNELSTREAM_SECRET", SECRET),
        ("CHANNELSTREAM_ADMIN_SECRET", PASSWORD),
        ("CHANNELSTREAM_COOKIE_SECRET", "hunter2-cookie"),
        ("CHANNELSTREAM_METRICS_TOKEN", TOKEN),
        ("CHANNELSTREAM_DRAIN_SECONDS", "0"),
    ];
    let mut child = command.envs(settings).stderr(File::create(&log).unwrap()).spawn().unwrap();
    let client = Client::new(SocketAddr::from(([127, 0, 0, 1], port)), SECRET);
    until("the server", async || try_send(client.request("GET", "/readyz")).await.is_ok()).await;

    let token = client.token();
    let id = client.connect("ann", &[]).await;
    let form = "application/x-www-form-urlencoded";
    let sign_in = format!("username=admin&password={PASSWORD}");
    let session = send(client.request("POST", "/admin/sign_in").header("content-type", form).body(sign_in)).await;
    let cookie = session.header("set-cookie").split(';').next().unwrap().to_owned();
    let requests = [
        client.request("POST", &format!("/info?secret={token}")),
        client.request("POST", &format!("/nothing?secret={SECRET}")),
        client.request("POST", "/info").header("content-type", form).body(format!("secret={token}")),
        client.request("POST", "/info").header("content-type", form).body(format!("secret={SECRET}")),
        client.request("POST", "/info").header("x-channelstream-secret", SECRET),
        client.signed("POST", "/message").body(format!("{{\"secret\": \"{SECRET}")),
        client.signed("POST", "/connect").body(format!("{{\"{SECRET}\": 1}}")),
        client.request("POST", "/admin/sign_in").header("content-type", form).body(format!("username={PASSWORD}")),
        client.request("GET", "/admin").header("cookie", &cookie),
        client.request("GET", "/metrics").header("authorization", format!("Bearer {TOKEN}")),
        client.request("GET", "/metrics").header("authorization", format!("Bearer {TOKEN}x")),
        client.request("GET", "/readyz").header("x-request-id", format!("{{{SECRET}}}")),
        client.request("GET", &format!("/ws?conn_id={id}")),
        client.request("GET", &format!("/listen?conn_id={id}x")),
        client.request("GET", &format!("/disconnect?conn_id={id}")),
    ];
    for request in requests {
        let answer = send(request).await;
        let headers = format!("{:?}", answer.headers);
        for secret in [SECRET, PASSWORD, TOKEN, "hunter2-cookie", token.as_str()] {
            assert!(!answer.text.contains(secret) && !headers.contains(secret), "{headers} {}", answer.text);
        }
    }
    let sent = Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(sent.success() && child.wait().unwrap().success());
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("DEBUG") && log.contains("path=\"/info\""), "it says much: {log}");
    for secret in ["hunter2", token.as_str(), id.as_str(), cookie.as_str()] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "the log has {secret}");
    }
}

/// Runs the program to its end.
fn run(directory: &Path, database_url: &str, arguments: &[&str]) -> Output {
    let mut command = binary(directory);
    command.env("CHANNELSTREAM_DATABASE_URL", database_url).env("CHANNELSTREAM_PORT", "0");
    command.env("CHANNELSTREAM_POSTGRES_TIMEOUT", "1").env("RUST_LOG", "trace");
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
}

#[test]
fn no_error_about_a_database_has_its_password() {
    let folder = tempdir().unwrap();
    for url in [
        "postgres://me:hunter2@127.0.0.1:1/db",
        "postgres://me:hunter2@127.0.0.1:99999/db",
        "postgres://me:hunter2@bad host/db",
        "postgres://me:hunter2@[::1/db",
        "postgres://me:hun/ter2@127.0.0.1:1/hunter2?x",
        "postgres://127.0.0.1:1/db?password=hunter2",
        "postgres://127.0.0.1:1/db?password=hunter2&sslmode=hunter2",
        "postgres://127.0.0.1:1/db?hunter2=1",
        "sqlite://missing/folder.db?key=hunter2",
        "sqlite://file.db?mode=hunter2",
        "mysql://me:hunter2@host/db",
    ] {
        let commands: [&[&str]; 3] = [&["serve"], &["new-epoch"], &["copy", "--from", url, "--to", "sqlite://new.db"]];
        for arguments in commands {
            let output = run(folder.path(), url, arguments);
            let said = String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap();
            assert!(!output.status.success(), "{url} {arguments:?}: {said}");
            assert!(!said.contains("hunter2"), "{url} {arguments:?}: {said}");
        }
    }
}

#[tokio::test]
async fn requests_have_ids_in_log_and_answer() {
    let mut process = Process::start(&[("log_level", "debug"), ("log_format", "json")]).await;
    let given = send(process.request("GET", "/healthz").header("x-request-id", "from-a-proxy.1")).await;
    assert_eq!(given.header("x-request-id"), "from-a-proxy.1");
    let made = process.get("/nothing").await;
    let made = made.header("x-request-id").to_owned();
    assert_eq!(made.len(), 32);
    assert!(process.terminate().await.success());
    let lines: Vec<serde_json::Value> =
        process.log().lines().map(|line| serde_json::from_str(line).expect("JSON in each line")).collect();
    let line =
        |id: &str| lines.iter().find(|line| line["request_id"] == json!(id)).unwrap_or_else(|| panic!("no {id}"));
    assert_eq!(line("from-a-proxy.1")["path"], "/healthz");
    assert_eq!((&line(&made)["status"], &line(&made)["level"]), (&json!(404), &json!("DEBUG")));
}
