//! A restart is a pause: after an orderly stop and after SIGKILL of the real program all that was
//! acknowledged is as it was, and whoever comes back in time was never away.

mod support;

use std::time::{Duration, Instant};

use indexmap::IndexMap;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use support::{Process, Socket, TestServer, in_order, list, numbers, send, texts, until, without};

/// How a process ends.
#[derive(Clone, Copy)]
enum End {
    Stop,
    Kill,
}

/// Runs each case with both ends.
macro_rules! after_both_ends {
    ($($case:ident)*) => {
        mod after_a_stop {
            $(#[tokio::test] async fn $case() { super::$case(super::End::Stop).await; })*
        }
        mod after_a_kill {
            $(#[tokio::test] async fn $case() { super::$case(super::End::Kill).await; })*
        }
    };
}

after_both_ends! {
    every_answer_is_as_before
    messages_can_be_edited_deleted_and_repeated_as_before
    connections_are_alive_and_nobody_parts_or_joins
    who_does_not_come_back_parts
    a_listener_gets_what_it_missed
    long_histories_and_many_channels_come_back
    a_restart_after_a_restart_changes_nothing
}

async fn again(process: &mut Process, end: End) {
    match end {
        End::Stop => {
            let status = process.terminate().await;
            assert!(status.success(), "{status}: {}", process.log());
        }
        End::Kill => process.kill(),
    }
    process.restart().await;
}

/// Numbers and an order of keys that a careless reader would change.
const STATE: &str = r#"{"z":1.0,"a":123456789012345678901234567890,"":"","t":"ż\u0000","e":1E2,"f":false,"m":-0.0}"#;

/// Fills a server with some of everything.
async fn live_a_little(process: &Process) {
    process
        .configure("created first", json!({"store_history": true, "history_size": 5, "notify_presence": true}))
        .await;
    let settings = json!({"notify_presence": true, "store_history": true, "history_size": 0, "replay_size": 7,
        "broadcast_presence_with_user_lists": true, "notify_state": true, "store_frames": false, "history_ttl": 86400});
    process.configure("all set", settings).await;
    process.configure("a plain one", Value::Null).await;
    process.configure("no longer stored", json!({"store_history": true})).await;

    let connect = format!(
        r#"{{"username": "ann", "channels": ["of ann", "created first"], "fresh_user_state": {STATE},
            "state_public_keys": ["z", "unknown"], "channel_configs": {{"of ann": {{"store_history": true}}}}}}"#
    );
    assert_eq!(process.send("POST", "/connect", &connect).await.status, 200);
    process.post("/user_state", json!({"user": "ann", "user_state": {"": null}})).await;
    let bob = process.connect("bob", &["created first", "all set"]).await;
    process.connect("bob", &["created first"]).await;
    process.post("/unsubscribe", json!({"conn_id": bob, "channels": ["all set"]})).await;
    process.post("/subscribe", json!({"conn_id": bob, "channels": ["żółw/🐢"]})).await;
    process.post("/user_state", json!({"user": "bob", "user_state": {"b": 2, "a": 1}})).await;
    process.post("/user_state", json!({"user": "bob", "user_state": {"b": null}, "state_public_keys": ["b"]})).await;

    // What is not kept, not even when it happened, comes before what is.
    let passing = json!({"user": "x", "channel": "created first", "message": {"n": 99}, "no_history": true});
    process.post("/message", json!([passing])).await;
    process.say("no longer stored", [1]).await;
    let posted = process.say("created first", 0..9).await;
    let at = |index: usize| json!({"uuid": posted[index]["uuid"], "channel": "created first"});
    let edit = |index, body: Value| json!([support::in_order(merged(at(index), body))]);
    process.ask("PATCH", "/message", edit(8, json!({"message": {"n": 80}, "user": "editor"}))).await;
    process.ask("PATCH", "/message", edit(8, json!({"message": {"n": 88}, "edited": "2020-01-01T01:01+02:00"}))).await;
    process.ask("PATCH", "/message", edit(1, json!({"message": {"n": 11}}))).await;
    process.ask("DELETE", "/message", json!([at(7)])).await;
    process.configure("no longer stored", json!({})).await;
    let exact = format!(
        r#"[{{"user": "x\u0001", "channel": "of ann", "timestamp": "2010-01-01 01:01:02.5Z", "message": {STATE}}},
            {{"user": "x", "channel": "of ann", "pm_users": ["ann", "bob"], "exclude_users": ["bob"]}},
            {{"user": "x", "pm_users": ["ann", "bob"], "message": {{"n": 5}}}}]"#
    );
    assert_eq!(process.send("POST", "/message", &exact).await.status, 200);
}

fn merged(mut one: Value, other: Value) -> Value {
    if let (Value::Object(one), Value::Object(other)) = (&mut one, other) {
        one.extend(other);
    }
    one
}

/// All that a server tells, as far as it does not depend on how long it runs.
struct Told {
    info: Value,
    order: Vec<String>,
    parts: Vec<Value>,
    exact: Vec<String>,
    report: Value,
}

impl Told {
    async fn by(process: &Process) -> Self {
        let info = process.send("POST", "/info", "").await;
        let raw: IndexMap<String, Box<RawValue>> = serde_json::from_str(&info.text).expect("an object");
        let channels: IndexMap<String, Box<RawValue>> = serde_json::from_str(raw["channels"].get()).expect("an object");
        let mut parts = Vec::new();
        for options in [
            json!({"return_public_state": true}),
            json!({"include_users": false, "exclude_channels": ["all set"]}),
            json!({"channels": ["all set", "none", "created first", "all set"], "include_history": false}),
        ] {
            parts.push(in_order(process.post("/info", json!({"info": options})).await));
        }
        let mut exact = Vec::new();
        for user in ["ann", "bob"] {
            exact.push(process.send("POST", "/user_state", &json!({"user": user}).to_string()).await.text);
        }
        let report = send(process.signed("GET", "/admin/admin.json")).await.json();
        let since_the_start = ["uptime", "total_messages", "total_unique_messages"];
        Self {
            info: in_order(info.json()),
            order: channels.into_keys().collect(),
            parts,
            exact,
            report: in_order(sorted_connections(without(report, &since_the_start))),
        }
    }

    fn is(&self, before: &Self) {
        assert_eq!(self.order, before.order, "channels in order of creation");
        for (name, channel) in before.info["channels"].as_object().expect("channels") {
            assert_eq!(&self.info["channels"][name], channel, "{name}");
        }
        assert_eq!(self.info, before.info);
        assert_eq!(self.parts, before.parts);
        assert_eq!(self.exact, before.exact);
        assert_eq!(self.report, before.report);
    }
}

/// The connections of each user come in no order.
fn sorted_connections(mut report: Value) -> Value {
    for user in report["users"].as_array_mut().expect("users") {
        user["connections"].as_array_mut().expect("connections").sort_by_key(Value::to_string);
    }
    report
}

async fn every_answer_is_as_before(end: End) {
    let mut process = Process::start(&[]).await;
    live_a_little(&process).await;
    let before = Told::by(&process).await;
    let names = ["created first", "all set", "a plain one", "no longer stored", "of ann", "żółw/🐢"];
    assert_eq!(before.order, names, "the test itself");
    assert_eq!(numbers(list(&before.info["channels"]["created first"]["history"])), [3, 4, 5, 6, 88]);
    let connect = json!({"username": "ann", "conn_id": "3106dab9-3425-43c4-9b95-4d22d8fc9561", "channels": ["of ann"],
        "state_public_keys": ["z", "unknown"]})
    .to_string();
    let connected = process.send("POST", "/connect", &connect).await;
    for exact in [&connected.text, &before.exact[0]] {
        assert!(exact.contains(r#""z":1.0,"a":123456789012345678901234567890,"":null"#), "{exact}");
        assert!(exact.contains(r#""e":1E2,"f":false,"m":-0.0}"#), "{exact}");
    }
    let before = Told::by(&process).await;

    again(&mut process, end).await;
    Told::by(&process).await.is(&before);
    assert_eq!(process.send("POST", "/connect", &connect).await.text, connected.text);
}

async fn messages_can_be_edited_deleted_and_repeated_as_before(end: End) {
    let mut process = Process::start(&[]).await;
    process.configure("room", json!({"store_history": true, "history_size": 3})).await;
    process.connect("ann", &[]).await;
    let posted = process.say("room", 0..6).await;
    let private = |uuid: Value| json!([{"user": "x", "pm_users": ["ann"], "uuid": uuid, "message": {"n": 7}}]);
    let letter = process.post("/message", private(json!("3106dab9-3425-43c4-9b95-4d22d8fc9561"))).await;
    let uuids: Vec<&Value> = list(&posted).iter().map(|message| &message["uuid"]).collect();
    let at = |index: usize| json!([{"uuid": uuids[index], "channel": "room"}]);
    let deleted = process.ask("DELETE", "/message", at(5)).await;
    assert_eq!(process.history("room").await, [2, 3, 4]);

    again(&mut process, end).await;
    let post = |index: usize| json!([{"uuid": uuids[index], "user": "x", "channel": "room", "message": {"n": 100}}]);
    for (index, n, cursor) in [(0, 0, &posted[0]), (4, 4, &posted[4]), (5, 100, &deleted[0])] {
        let repeated = process.post("/message", post(index)).await;
        assert_eq!(repeated[0]["duplicate"], true, "{index}");
        assert_eq!((&repeated[0]["message"]["n"], &repeated[0]["cursor"]), (&json!(n), &cursor["cursor"]));
    }
    let repeated = process.post("/message", private(letter[0]["uuid"].clone())).await;
    assert_eq!((&repeated[0]["duplicate"], &repeated[0]["cursor"]), (&json!(true), &letter[0]["cursor"]));

    let edit = json!([{"uuid": uuids[2], "channel": "room", "message": {"n": 22}},
        {"uuid": uuids[0], "channel": "room", "message": {"n": 33}}]);
    process.ask("PATCH", "/message", edit).await;
    process.ask("DELETE", "/message", at(3)).await;
    assert_eq!(process.history("room").await, [1, 22, 4], "what is left of the log comes back into the history");

    again(&mut process, end).await;
    assert_eq!(process.history("room").await, [1, 22, 4]);
    process.configure("room", json!({"store_history": true, "history_size": 10})).await;
    assert_eq!(process.history("room").await, [33, 1, 22, 4]);
    let next = process.say("room", [8]).await;
    let position = |message: &Value| {
        let cursor = message["cursor"].as_str().and_then(|cursor| cursor.split_once('-')).expect("a cursor");
        (cursor.0.to_owned(), cursor.1.parse::<u64>().expect("a position"))
    };
    let (first, last) = (position(&posted[0]), position(&next[0]));
    assert_eq!((first.0, last.1 - first.1), (last.0, 11), "the numbering goes on");
}

async fn connections_are_alive_and_nobody_parts_or_joins(end: End) {
    let mut process = Process::start(&[]).await;
    process.configure("room", json!({"notify_presence": true, "notify_state": true})).await;
    let mut ids = Vec::new();
    for user in ["ann", "bob", "bob", "eve"] {
        ids.push(process.connect(user, &["room"]).await);
    }
    let mut sockets = Vec::new();
    for id in &ids[..3] {
        sockets.push(Socket::open(&process, id).await);
    }
    process.say("room", [0]).await;
    for socket in &mut sockets {
        while socket.next().await["type"] != "message" {} // some were told that others joined
    }

    for n in 1..3 {
        again(&mut process, end).await;
        for socket in &mut sockets {
            let code = socket.rest().await.1;
            assert_eq!(code, if matches!(end, End::Stop) { 1012 } else { support::NO_CLOSE_FRAME });
        }
        let room = process.channel("room").await;
        assert_eq!((&room["total_connections"], &room["users"]), (&json!(4), &json!(["ann", "bob", "eve"])));
        sockets.clear();
        for id in &ids[..3] {
            sockets.push(Socket::open(&process, id).await);
        }
        process.say("room", [n]).await;
        for socket in &mut sockets {
            assert_eq!(numbers(&socket.take(1).await), [n]);
        }
    }
    // Who did not listen before can do so now, and everything else works on as well.
    let mut eve = Socket::open(&process, &ids[3]).await;
    while eve.next().await["message"]["n"] != 2 {} // it had been told of nobody yet
    process.post("/subscribe", json!({"conn_id": ids[0], "channels": ["other"]})).await;
    process.say("other", [3]).await;
    assert_eq!(numbers(&sockets[0].take(1).await), [3]);
    assert_eq!(sockets.pop().expect("a socket of bob").close().await, 1000);
    process.post("/user_state", json!({"user": "eve", "user_state": {"a": 1}, "state_public_keys": ["a"]})).await;
    assert_eq!(eve.next().await["type"], "user_state_change", "bob has another connection");
}

async fn who_does_not_come_back_parts(end: End) {
    let mut process = Process::start(&[("gc_conns_after", "1")]).await;
    process.configure("room", json!({"notify_presence": true})).await;
    let watcher = process.connect("watcher", &["room"]).await;
    let ann = process.connect("ann", &["room"]).await;
    again(&mut process, end).await;
    let started = Instant::now();
    let mut socket = Socket::open(&process, &watcher).await;
    let parted = socket.next().await;
    assert_eq!((&parted["user"], &parted["message"]["action"]), (&json!("ann"), &json!("parted")));
    assert!(started.elapsed() > Duration::from_millis(800), "{:?}", started.elapsed());
    assert_eq!(Socket::open(&process, &ann).await.closed().await, 4001);
    process.say("room", [1]).await;
    assert_eq!(numbers(&socket.take(1).await), [1], "who did come back stays");
}

/// Without a cursor, as a stock client: it goes on where it was; after a crash it may hear
/// something twice, but nothing that was kept is missing.
async fn a_listener_gets_what_it_missed(end: End) {
    let mut process = Process::start(&[]).await;
    process.configure("room", json!({"store_history": true})).await;
    let id = process.connect("ann", &["room"]).await;
    let mut socket = Socket::open(&process, &id).await;
    process.say("room", [1]).await;
    assert_eq!(numbers(&socket.take(1).await), [1]);
    socket.lose();
    process.say("room", [2]).await;
    process.post("/message", json!([{"user": "x", "pm_users": ["ann"], "message": {"n": 3}}])).await;
    again(&mut process, end).await;
    process.say("room", [4]).await;

    let mut socket = Socket::open(&process, &id).await;
    process.say("room", [5]).await;
    let mut heard = Vec::new();
    while heard.last() != Some(&5) {
        heard.extend(numbers(&socket.take(1).await));
    }
    let missing: Vec<i64> = [2, 3, 4].into_iter().filter(|n| !heard.contains(n)).collect();
    assert_eq!(missing, [0; 0], "of what was said while it was away; heard: {heard:?}");
    if matches!(end, End::Stop) {
        assert!(!heard.contains(&1), "it had heard that before: {heard:?}");
    }
}

async fn long_histories_and_many_channels_come_back(end: End) {
    let mut process = Process::start(&[("commit_timeout", "30")]).await;
    process.configure("long", json!({"store_history": true, "history_size": 100_000})).await;
    for start in (0..3000).step_by(500) {
        process.say("long", start..start + 500).await;
    }
    process.configure("short", json!({"store_history": true, "history_size": 2, "replay_size": 3})).await;
    for start in (0..300).step_by(20) {
        process.say("short", start..start + 20).await;
    }
    let names: Vec<String> = (0..1200).map(|n| format!("channel {}", n * 7919 % 1200)).collect();
    process.post("/connect", json!({"username": "ann", "channels": names})).await;

    again(&mut process, end).await;
    assert_eq!(process.history("long").await, (0..3000).collect::<Vec<_>>());
    assert_eq!(process.history("short").await, [298, 299]);
    let info = process.send("POST", "/info", r#"{"info": {"include_history": false}}"#).await;
    let raw: IndexMap<String, Box<RawValue>> = serde_json::from_str(&info.text).expect("an object");
    let channels: IndexMap<String, Value> = serde_json::from_str(raw["channels"].get()).expect("an object");
    assert!(channels.keys().skip(2).eq(&names), "all of them, in order of creation");
    assert!(channels.values().skip(2).all(|channel| channel["users"] == json!(["ann"])));
}

async fn a_restart_after_a_restart_changes_nothing(end: End) {
    let mut process = Process::start(&[]).await;
    live_a_little(&process).await;
    let before = Told::by(&process).await;
    for _ in 0..3 {
        again(&mut process, end).await;
    }
    Told::by(&process).await.is(&before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_tells_every_listener_before_the_process_ends() {
    let mut process = Process::start(&[]).await;
    let mut sockets = Vec::new();
    for n in 0..200 {
        let id = process.connect(&format!("user {n}"), &["room"]).await;
        sockets.push(Socket::open(&process, &id).await);
    }
    let listening: Vec<_> =
        sockets.into_iter().map(|mut socket| tokio::spawn(async move { socket.closed().await })).collect();
    let stopped = Instant::now();
    assert!(process.terminate().await.success());
    assert!(stopped.elapsed() < Duration::from_secs(10), "{:?}", stopped.elapsed());
    let mut codes = Vec::new();
    for listener in listening {
        codes.push(listener.await.expect("a listener"));
    }
    assert_eq!(codes, [1012; 200]);
}

#[tokio::test]
async fn requests_under_way_are_answered_at_a_stop() {
    let mut process = Process::start(&[]).await;
    process.configure("room", json!({"store_history": true, "history_size": 10_000})).await;
    let publishing = tokio::spawn({
        let client = process.client();
        async move {
            let mut acknowledged = Vec::new();
            for n in 0.. {
                let message = json!([{"user": "x", "channel": "room", "message": {"n": n}}]);
                let sent = client.signed("POST", "/message").body(message.to_string()).send().await;
                match sent {
                    Ok(answer) if answer.status() == 200 => acknowledged.push(n),
                    _ => break,
                }
            }
            acknowledged
        }
    });
    until("some messages", async || process.history("room").await.len() > 20).await;
    assert!(process.terminate().await.success());
    let acknowledged = publishing.await.expect("a publisher");
    process.restart().await;
    assert_eq!(process.history("room").await, acknowledged, "all that were answered, and no other");
}

#[tokio::test]
async fn a_message_past_its_time_is_gone_before_and_after_a_restart() {
    let mut server = TestServer::start().await;
    server.configure("room", json!({"store_history": true, "history_ttl": 1})).await;
    server.say("room", [1]).await;
    assert_eq!(server.history("room").await, [1]);
    until("the message to be past its time", async || server.history("room").await.is_empty()).await;
    server.restart().await;
    assert_eq!(server.history("room").await, [0; 0]);
    server.say("room", [2]).await;
    assert_eq!(server.history("room").await, [2]);
}

#[tokio::test]
async fn idle_users_are_forgotten_and_others_are_not() {
    let mut server = TestServer::start().await;
    for user in ["ann", "bob"] {
        let state = json!({"username": user, "fresh_user_state": {"a": 1}, "channels": ["room"]});
        server.post("/connect", state).await;
    }
    let id = server.connect("ann", &[]).await;
    let ids = send(server.signed("GET", "/admin/admin.json")).await.json();
    let ann = list(&ids["users"]).iter().find(|user| user["user"] == "ann").expect("ann");
    assert!(texts(std::slice::from_ref(ann), "user") == ["ann"] && list(&ann["connections"]).contains(&json!(id)));
    for connection in list(&ann["connections"]) {
        server.get(&format!("/disconnect?conn_id={}", connection.as_str().expect("an id"))).await;
    }
    until("ann to be gone", async || server.channel("room").await["users"] == json!(["bob"])).await;
    server.post("/message", json!([{"user": "x", "pm_users": ["ann"], "message": {"n": 1}}])).await;
    server.restart().await;
    assert_eq!(server.post("/user_state", json!({"user": "ann"})).await["user_state"], json!({"a": 1}));

    server.restart_with(|config| config.forget_users_after = Some(Duration::from_millis(1))).await;
    let body = json!({"user": "ann"}).to_string();
    until("ann to be forgotten", async || server.send("POST", "/user_state", &body).await.status == 422).await;
    assert_eq!(server.post("/user_state", json!({"user": "bob"})).await["user_state"], json!({"a": 1}));
    server.restart_with(|config| config.forget_users_after = None).await;
    assert_eq!(server.send("POST", "/user_state", &body).await.status, 422);
    let back = server.post("/connect", json!({"username": "ann", "fresh_user_state": {"b": 2}})).await;
    assert_eq!(back["state"], json!({"b": 2}), "somebody new of that name");
}
