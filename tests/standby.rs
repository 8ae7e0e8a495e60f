//! Two servers on one store: one serves, the other stands by and takes over when the first is gone.

mod support;

use serde_json::json;
use support::{Process, Socket, in_time, numbers, send, try_send, until};
use tempfile::tempdir;

/// Two processes with one database; the first serves already.
async fn two(url: &str) -> (Process, Process) {
    let settings = [("database_url", url)];
    let first = Process::start(&settings).await;
    let mut second = Process::new(&settings);
    second.spawn(&[]);
    until("the second to answer", async || try_send(second.request("GET", "/healthz")).await.is_ok()).await;
    (first, second)
}

/// Killed, stopped in good order and killed again: each time the other one goes on.
async fn one_serves_and_the_other_takes_over(url: &str) {
    let (mut first, mut second) = two(url).await;
    first.configure("room", json!({"store_history": true, "history_size": 10})).await;
    let id = first.connect("ann", &["room"]).await;
    let mut said = Vec::new();
    for round in 0..3 {
        first.say("room", [round]).await;
        said.push(round);
        assert_eq!(second.get("/healthz").await.status, 200);
        let ready = second.get("/readyz").await;
        assert_eq!(ready.status, 503);
        assert!(ready.text.contains("another server owns the store"), "{}", ready.text);
        let refused = second.send("POST", "/message", "[]").await;
        assert_eq!(refused.refusal(), (503, json!({"request": ["This server stands by."]})));
        assert!(!refused.header("retry-after").is_empty());
        let poll = send(second.request("GET", &format!("/listen?conn_id={id}"))).await;
        assert_eq!((poll.status, poll.header("access-control-allow-origin")), (503, "*"), "a page may read it");

        if round == 1 {
            assert!(first.terminate().await.success());
        } else {
            first.kill();
        }
        until("the other to take over", async || second.get("/readyz").await.status == 200).await;
        assert_eq!(second.history("room").await, said, "all that was acknowledged");
        let mut socket = Socket::try_open(&second, &format!("/ws?conn_id={id}&since=")).await.expect("a socket");
        let missed = in_time("what was said", socket.take(said.len())).await;
        assert_eq!(numbers(&missed), said, "the connection is good here too");
        drop(socket);
        std::mem::swap(&mut first, &mut second);
        second.spawn(&[]);
        until("the killed one to be back", async || try_send(second.request("GET", "/healthz")).await.is_ok()).await;
    }
}

#[tokio::test]
async fn on_sqlite_one_serves_and_the_other_takes_over() {
    let folder = tempdir().expect("a temporary folder");
    one_serves_and_the_other_takes_over(&format!("sqlite://{}/store.db", folder.path().display())).await;
}
