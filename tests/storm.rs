//! Reconnect storms: many listeners come back at once, and the store is hardly asked.

mod support;

use futures_util::future::join_all;
use serde_json::{Value, json};
use support::{Client, Process, Socket, TestServer, in_time, numbers};

const LISTENERS: usize = 40;

/// Users in channels, each with its connection.
async fn crowd(server: &Client, channels: &[&str]) -> Vec<String> {
    for name in channels {
        server.configure(name, json!({"store_history": true, "history_size": 10, "replay_size": 5000})).await;
    }
    let mut ids = Vec::new();
    for n in 0..LISTENERS {
        ids.push(server.connect(&format!("user{n}"), channels).await);
    }
    ids
}

/// The frames up to the marker, and that.
async fn missed(server: &Client, id: &str, since: &str) -> (Vec<Value>, Value) {
    let mut socket =
        Socket::try_open(server, &format!("/ws?conn_id={id}&since={since}")).await.expect("an open connection");
    let mut frames = Vec::new();
    loop {
        let frame = socket.next().await;
        if frame["type"] == "replay" {
            return (frames, frame);
        }
        frames.push(frame);
    }
}

/// All come back at once; each gets these messages, once and in order, and there is no gap.
async fn all_come_back(server: &Client, ids: &[String], since: &str, expected: &[i64]) {
    let replays = join_all(ids.iter().map(|id| missed(server, id, since))).await;
    for (frames, marker) in replays {
        assert_eq!(numbers(&frames), expected);
        assert_eq!((&marker["count"], &marker["gaps"]), (&json!(expected.len()), &json!([])));
    }
}

fn cursor(answer: &Value) -> String {
    let last = answer.as_array().and_then(|posted| posted.last()).expect("a message");
    last["cursor"].as_str().expect("a cursor").to_owned()
}

#[tokio::test]
async fn without_a_restart_the_store_is_not_asked() {
    let server = TestServer::start().await;
    let ids = crowd(&server, &["news", "talk"]).await;
    let since = cursor(&server.say("news", [0]).await);
    let expected: Vec<i64> = (1..=150).collect();
    for part in expected.chunks(50) {
        server.say("news", part.iter().copied()).await;
        server.post("/message", json!([{"user": "x", "pm_users": ["nobody"], "message": {}}])).await;
    }
    all_come_back(&server, &ids, &since, &expected).await;
    all_come_back(&server, &ids, "", &[&[0], &expected[..]].concat()).await;
    assert_eq!(server.hub().replay_reads(), 0);
}

#[tokio::test]
async fn after_a_restart_the_store_is_asked_once_for_each_place() {
    let mut server = TestServer::start().await;
    let ids = crowd(&server, &["news", "talk"]).await;
    let since = cursor(&server.say("news", [0]).await);
    server.say("news", 1..=100).await;
    server.say("talk", 101..=130).await;
    server.restart().await;
    let expected: Vec<i64> = (1..=130).collect();
    all_come_back(&server, &ids, &since, &expected).await;
    let reads = server.hub().replay_reads();
    assert!((1..=2).contains(&reads), "two places were asked for {reads} times");
    // What came since is there without asking.
    server.say("talk", [131]).await;
    all_come_back(&server, &ids, &since, &(1..=131).collect::<Vec<_>>()).await;
    assert_eq!(server.hub().replay_reads(), reads);
}

#[tokio::test]
async fn inboxes_are_read_several_at_a_time() {
    let mut server = TestServer::start().await;
    let ids = crowd(&server, &[]).await;
    let since = cursor(&server.post("/message", json!([{"user": "x", "pm_users": ["user0"], "message": {}}])).await);
    let users: Vec<String> = (0..LISTENERS).map(|n| format!("user{n}")).collect();
    for n in 0..3 {
        server.post("/message", json!([{"user": "x", "pm_users": users, "message": {"n": n}}])).await;
    }
    server.restart().await;
    all_come_back(&server, &ids, &since, &[0, 1, 2]).await;
    let reads = server.hub().replay_reads();
    assert!(reads <= LISTENERS as u64 + 1, "{reads} times for {LISTENERS} inboxes");
}

#[tokio::test]
async fn what_is_deeper_than_memory_is_read_from_the_store() {
    for place in [256 << 10, 0] {
        let mut server = TestServer::with(|config| config.tail_memory = place).await;
        let ids = crowd(&server, &["news"]).await;
        let since = cursor(&server.say("news", [0]).await);
        let expected: Vec<i64> = (1..=1_500).collect();
        for part in expected.chunks(500) {
            server.say("news", part.iter().copied()).await;
        }
        all_come_back(&server, &ids[..5], &since, &expected).await;
        server.restart().await;
        all_come_back(&server, &ids[..5], &since, &expected).await;
    }
}

#[tokio::test]
async fn a_killed_server_comes_back_to_the_same_crowd() {
    let mut server = Process::start(&[("gc_conns_after", "60")]).await;
    let ids = crowd(&server, &["news"]).await;
    let since = cursor(&server.say("news", [0]).await);
    server.say("news", 1..=100).await;
    server.kill();
    server.restart().await;
    in_time("all of them", all_come_back(&server, &ids, &since, &(1..=100).collect::<Vec<_>>())).await;
}
