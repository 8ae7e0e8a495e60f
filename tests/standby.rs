//! Two servers on one store: one serves, the other stands by and takes over when the first is gone.

mod support;

use serde_json::json;
use support::{Process, Socket, in_time, new_store, numbers, send, try_send, until};
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
#[tokio::test]
async fn one_serves_and_the_other_takes_over() {
    let folder = tempdir().expect("a temporary folder");
    let url = new_store(folder.path());
    let (mut first, mut second) = two(&url).await;
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

/// However many start at once, and make the tables at once, one serves.
#[tokio::test]
async fn of_several_that_start_at_once_one_serves() {
    let folder = tempdir().expect("a temporary folder");
    let url = new_store(folder.path());
    let mut processes: Vec<Process> = (0..5).map(|_| Process::new(&[("database_url", &url)])).collect();
    for process in &mut processes {
        process.spawn(&[]);
    }
    while processes.len() > 1 {
        let mut ready = Vec::new();
        for (index, process) in processes.iter().enumerate() {
            until("a process to answer", async || try_send(process.request("GET", "/healthz")).await.is_ok()).await;
            if process.get("/readyz").await.status == 200 {
                ready.push(index);
            }
        }
        assert!(ready.len() <= 1, "{ready:?} all serve");
        let Some(owner) = ready.pop() else { continue };
        processes[owner].connect("ann", &["room"]).await;
        processes.remove(owner);
    }
}

/// Told to stop, a standby ends in good order, and the owner does not notice.
#[tokio::test]
async fn a_standby_ends_in_good_order() {
    let folder = tempdir().expect("a temporary folder");
    let (first, mut second) = two(&new_store(folder.path())).await;
    assert!(second.terminate().await.success());
    first.connect("ann", &["room"]).await;
}
