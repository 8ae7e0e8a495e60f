//! The stock protocol as its clients meet it, over real sockets: the same cases over websocket and
//! long poll, then what is special about each of the two.

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{
    Listener, NO_CLOSE_FRAME, PATIENCE, Socket, TestServer, Transport, in_time, list, numbers, send, texts, until,
    without,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::interval;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

/// Runs each case over both transports.
macro_rules! over_both_transports {
    ($($case:ident)*) => {
        mod websocket {
            $(#[tokio::test] async fn $case() { super::$case(super::Transport::WebSocket).await; })*
        }
        mod long_poll {
            $(#[tokio::test] async fn $case() { super::$case(super::Transport::LongPoll).await; })*
        }
    };
}

over_both_transports! {
    messages_edits_and_deletions_come_as_the_protocol_writes_them
    an_audience_is_kept_live_and_in_history
    private_messages_reach_those_named_once
    timestamps_and_bodies_come_as_they_were_given
    what_a_connection_joins_and_leaves_decides_what_it_hears
    only_public_state_is_told
    presence_is_told_to_the_others
    what_was_missed_is_caught_up_once
    caught_up_frames_stand_by_channel_and_show_messages_as_they_are_now
    many_messages_keep_one_order
    a_dismissed_connection_is_over
}

const HISTORY: &str = r#"{"store_history": true, "history_size": 100, "notify_presence": false}"#;

fn history() -> Value {
    serde_json::from_str(HISTORY).expect("settings")
}

async fn messages_edits_and_deletions_come_as_the_protocol_writes_them(transport: Transport) {
    let server = TestServer::start().await;
    server.configure("room", history()).await;
    let mut bob = Listener::connect(transport, &server, "bob", &["room"]).await;

    let posted =
        server.post("/message", json!([{"user": "alice", "channel": "room", "message": {"text": "hi"}}])).await;
    let [message] = list(&posted) else { panic!("{posted}") };
    let (uuid, cursor, timestamp) = (&message["uuid"], &message["cursor"], &message["timestamp"]);
    assert_eq!(
        posted,
        json!([{"pm_users": [], "exclude_users": [], "channel": "room", "no_history": false, "uuid": uuid,
            "timestamp": timestamp, "user": "alice", "message": {"text": "hi"}, "edited": null, "cursor": cursor}])
    );
    let frame = json!({"channel": "room", "uuid": uuid, "timestamp": timestamp, "user": "alice",
        "message": {"text": "hi"}, "edited": null, "type": "message", "cursor": cursor});
    assert_eq!(bob.take(1).await, [frame]);

    let edited =
        server.ask("PATCH", "/message", json!([{"uuid": uuid, "channel": "room", "message": {"text": "hello"}}])).await;
    let (edited_at, edit_cursor) = (&edited[0]["edited"], &edited[0]["cursor"]);
    assert_eq!(
        edited,
        json!([{"pm_users": [], "exclude_users": [], "channel": "room", "no_history": false, "uuid": uuid,
            "message": {"text": "hello"}, "edited": edited_at, "cursor": edit_cursor}])
    );
    let frame = json!({"channel": "room", "uuid": uuid, "message": {"text": "hello"}, "edited": edited_at,
        "type": "message:edit", "cursor": edit_cursor});
    assert_eq!(bob.take(1).await, [frame]);
    let entry = json!([{"pm_users": [], "exclude_users": [], "channel": "room", "no_history": false, "uuid": uuid,
        "timestamp": timestamp, "user": "alice", "message": {"text": "hello"}, "edited": edited_at,
        "catchup": false, "type": "message", "cursor": cursor}]);
    assert_eq!(server.channel("room").await["history"], entry);

    let deleted = server.ask("DELETE", "/message", json!([{"uuid": uuid, "channel": "room"}])).await;
    let cursor = &deleted[0]["cursor"];
    assert_eq!(
        deleted,
        json!([{"pm_users": [], "exclude_users": [], "channel": "room", "no_history": false, "uuid": uuid,
            "cursor": cursor}])
    );
    let frame = json!({"channel": "room", "uuid": uuid, "type": "message:delete", "cursor": cursor});
    assert_eq!(bob.take(1).await, [frame]);
    assert_eq!(server.history("room").await, [0; 0]);
}

async fn an_audience_is_kept_live_and_in_history(transport: Transport) {
    let server = TestServer::start().await;
    server.configure("room", history()).await;
    let mut listeners = Vec::new();
    for user in ["ann", "bob", "eve"] {
        listeners.push(Listener::connect(transport, &server, user, &["room"]).await);
    }
    let say = |n: i64, only: &[&str], except: &[&str]| {
        let message = json!({"n": n});
        json!({"user": "x", "channel": "room", "pm_users": only, "exclude_users": except, "message": message})
    };
    let posted = server
        .post(
            "/message",
            json!([
                say(1, &[], &[]),
                say(2, &["ann", "bob"], &[]),
                say(3, &[], &["bob"]),
                say(4, &["ann", "eve"], &["eve", "ann"]),
                say(5, &["nobody", "eve"], &[]),
                say(6, &[], &[]),
            ]),
        )
        .await;
    assert_eq!(numbers(list(&posted)), [1, 2, 3, 4, 5, 6]);
    for (listener, expected) in listeners.iter_mut().zip([&[1, 2, 3, 6][..], &[1, 2, 6], &[1, 3, 5, 6]]) {
        assert_eq!(numbers(&listener.take(expected.len()).await), expected);
    }
    let answer = server.post("/connect", json!({"username": "bob", "channels": ["room"]})).await;
    assert_eq!(numbers(list(&answer["channels_info"]["channels"]["room"]["history"])), [1, 2, 6]);
    assert_eq!(server.history("room").await, [1, 2, 3, 4, 5, 6]);

    // An edit or deletion goes to the audience of the message, whatever it names itself.
    let uuid = &posted[1]["uuid"];
    server.ask("PATCH", "/message", json!([{"uuid": uuid, "channel": "room", "message": {"n": 22}}])).await;
    for listener in &mut listeners[..2] {
        assert_eq!(listener.next().await["type"], "message:edit");
    }
    server.ask("DELETE", "/message", json!([{"uuid": uuid, "channel": "room", "pm_users": ["eve"]}])).await;
    server.say("room", [7]).await;
    for (listener, types) in
        listeners.iter_mut().zip([&["message:delete", "message"][..], &["message:delete", "message"], &["message"]])
    {
        assert_eq!(texts(&listener.take(types.len()).await, "type"), types);
    }
}

async fn private_messages_reach_those_named_once(transport: Transport) {
    let server = TestServer::start().await;
    let mut ann = Listener::connect(transport, &server, "ann", &[]).await;
    let mut ann_again = Listener::connect(transport, &server, "ann", &["room"]).await;
    let mut bob = Listener::connect(transport, &server, "bob", &[]).await;
    let private = |n: i64, only: &[&str], except: &[&str]| {
        let message = json!({"n": n});
        json!({"user": "x", "pm_users": only, "exclude_users": except, "message": message})
    };
    let posted = server
        .post(
            "/message",
            json!([
                private(1, &["ann", "bob", "ann", "nobody"], &[]),
                private(2, &["bob", "ann"], &["ann"]),
                private(3, &["ann"], &[]),
                {"user": "x", "message": {"n": 4}},
            ]),
        )
        .await;
    assert_eq!(numbers(list(&posted)), [1, 2, 3], "what has no target is dropped");
    for listener in [&mut ann, &mut ann_again] {
        let frames = listener.take(2).await;
        assert_eq!(numbers(&frames), [1, 3]);
        assert!(frames.iter().all(|frame| frame["channel"].is_null() && frame["cursor"].is_string()), "{frames:?}");
    }
    assert_eq!(numbers(&bob.take(2).await), [1, 2]);

    let uuid = &posted[0]["uuid"];
    server.ask("PATCH", "/message", json!([{"uuid": uuid, "pm_users": ["ann", "bob"], "message": {"n": 9}}])).await;
    for listener in [&mut ann, &mut ann_again, &mut bob] {
        assert_eq!(listener.next().await["type"], "message:edit");
    }
    server.ask("DELETE", "/message", json!([{"uuid": uuid, "pm_users": ["bob"]}])).await;
    for listener in [&mut ann, &mut ann_again, &mut bob] {
        assert_eq!(listener.next().await["type"], "message:delete");
    }
}

async fn timestamps_and_bodies_come_as_they_were_given(transport: Transport) {
    let server = TestServer::start().await;
    server.configure("room", history()).await;
    let mut listener = Listener::connect(transport, &server, "ann", &["room"]).await;
    let body = r#"{"z":1.0,"a":123456789012345678901234567890,"e":1e2,"t":"ż\u2028\u0000 \ud83d\ude00","l":[null,[]]}"#;
    let post = format!(
        r#"[{{"user": "żółw/\u0001", "channel": "room", "timestamp": "2010-01-01 01:01:02.5Z", "message": {body}}},
            {{"user": "x", "channel": "room", "timestamp": "2010-01-01T01:01"}}]"#
    );
    let answer = server.send("POST", "/message", &post).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let posted = answer.json();
    assert_eq!(texts(list(&posted), "timestamp"), ["2010-01-01T01:01:02.500000+00:00", "2010-01-01T01:01:00"]);
    for digits in ["1.0", "123456789012345678901234567890"] {
        assert!(answer.text.contains(digits), "{}", answer.text);
        let info = server.send("POST", "/info", "").await;
        assert!(info.text.contains(digits), "{}", info.text);
    }
    assert!(posted[1].get("message").is_none(), "what is absent stays absent");

    let frames = listener.take(2).await;
    assert_eq!(frames[0]["timestamp"], "2010-01-01T01:01:02.500000Z");
    assert_eq!(frames[0]["user"], "żółw/\u{1}");
    assert_eq!(frames[0]["message"], serde_json::from_str::<Value>(body).expect("a body"));
    assert!(frames[1].get("message").is_none());
}

async fn what_a_connection_joins_and_leaves_decides_what_it_hears(transport: Transport) {
    let server = TestServer::start().await;
    let id = server.connect("ann", &["first"]).await;
    let mut ann = Listener::open(transport, &server, &id).await;
    server.say("first", [1]).await;
    server.say("second", [2]).await;
    assert_eq!(numbers(&ann.take(1).await), [1]);

    let answer = server.post("/subscribe", json!({"conn_id": id, "channels": ["second", "first", "third"]})).await;
    assert_eq!(answer["channels"], json!(["first", "second", "third"]));
    assert_eq!(answer["subscribed_to"], json!(["second", "third"]));
    server.say("second", [3]).await;
    assert_eq!(numbers(&ann.take(1).await), [3]);

    let answer = server.post(&format!("/unsubscribe?conn_id={id}"), json!({"channels": ["first", "none"]})).await;
    assert_eq!(answer["channels"], json!(["second", "third"]));
    assert_eq!(answer["unsubscribed_from"], json!(["first"]));
    server.say("first", [4]).await;
    server.say("third", [5]).await;
    assert_eq!(numbers(&ann.take(1).await), [5]);

    // The same id again adds channels; nobody else can have it.
    let again = json!({"username": "ann", "conn_id": id, "channels": ["fourth"]});
    assert_eq!(server.post("/connect", again).await["conn_id"], json!(id));
    server.say("fourth", [6]).await;
    assert_eq!(numbers(&ann.take(1).await), [6]);
    let stolen = json!({"username": "eve", "conn_id": id, "channels": ["fourth"]});
    let answer = server.send("POST", "/connect", &stolen.to_string()).await;
    assert_eq!(answer.status, 422, "{}", answer.text);
    assert!(answer.json()["conn_id"].is_array(), "{}", answer.text);
}

async fn only_public_state_is_told(transport: Transport) {
    let server = TestServer::start().await;
    server.configure("room", json!({"notify_state": true})).await;
    let mut ann = Listener::connect(transport, &server, "ann", &["room", "other"]).await;
    let mut bob = Listener::connect(transport, &server, "bob", &["room"]).await;
    let change = |state: Value| json!({"user": "ann", "user_state": state, "state_public_keys": ["mood", "n"]});

    let answer = server.post("/user_state", change(json!({"mood": "ok", "secret": 1}))).await;
    assert_eq!(answer["changed_state"], json!([{"key": "mood", "value": "ok"}, {"key": "secret", "value": 1}]));
    assert_eq!(answer["user_state"], json!({"mood": "ok", "secret": 1}));
    assert_eq!(answer["public_keys"], json!(["mood", "n"]));
    // Neither of these two is a change that anybody may see.
    server.post("/user_state", change(json!({"secret": 2}))).await;
    server.post("/user_state", change(json!({"mood": "ok", "unknown": null}))).await;
    server.post("/user_state", change(json!({"n": 1}))).await;
    server.post("/user_state", change(json!({"n": true, "secret": 3}))).await;

    for listener in [&mut ann, &mut bob] {
        let frames = listener.take(3).await;
        let told: Vec<&Value> = frames.iter().map(|frame| &frame["message"]).collect();
        let expected = [
            json!({"state": {"mood": "ok"}, "changed": [{"key": "mood", "value": "ok"}]}),
            json!({"state": {"mood": "ok", "n": 1}, "changed": [{"key": "n", "value": 1}]}),
            json!({"state": {"mood": "ok", "n": true}, "changed": [{"key": "n", "value": true}]}),
        ];
        assert_eq!(told, expected.iter().collect::<Vec<_>>());
        for frame in &frames {
            assert_eq!(
                (&frame["type"], &frame["user"], &frame["channel"]),
                (&json!("user_state_change"), &json!("ann"), &json!("room"))
            );
            assert!(frame["uuid"].is_string() && frame["timestamp"].is_string() && frame.get("cursor").is_none());
        }
    }
}

async fn presence_is_told_to_the_others(transport: Transport) {
    let server = TestServer::start().await;
    let settings = json!({"notify_presence": true, "broadcast_presence_with_user_lists": true});
    server.configure("room", settings).await;
    let mut ann = Listener::connect(transport, &server, "ann", &["room"]).await;

    let bob = json!({"username": "bob", "channels": ["room"], "fresh_user_state": {"c": "red", "s": 1},
        "state_public_keys": ["c"]});
    let first = server.post("/connect", bob).await;
    let id = first["conn_id"].as_str().expect("an id");
    let frame = ann.take(1).await.remove(0);
    let users = support::in_order(frame["users"].clone());
    assert_eq!(users, json!([{"user": "ann", "state": {}}, {"user": "bob", "state": {"c": "red"}}]));
    assert_eq!(
        without(frame, &["uuid", "timestamp", "users"]),
        json!({"type": "presence", "user": "bob", "channel": "room", "message": {"action": "joined"},
            "state": {"c": "red"}})
    );

    // A second connection of his is no news, nor is its end.
    let second = server.connect("bob", &["room"]).await;
    server.post("/unsubscribe", json!({"conn_id": second, "channels": ["room"]})).await;
    // Who is not there cannot part.
    server.post("/unsubscribe", json!({"conn_id": second, "channels": ["room"]})).await;
    server.post("/unsubscribe", json!({"conn_id": id, "channels": ["room"]})).await;
    let frame = ann.take(1).await.remove(0);
    assert_eq!(
        without(frame, &["uuid", "timestamp"]),
        json!({"type": "presence", "user": "bob", "channel": "room", "message": {"action": "parted"}, "state": null,
            "users": [{"user": "ann", "state": {}}]})
    );
    server.say("room", [1]).await;
    assert_eq!(numbers(&ann.take(1).await), [1]);
}

async fn what_was_missed_is_caught_up_once(transport: Transport) {
    let server = TestServer::start().await;
    let id = server.connect("ann", &["room"]).await;
    // Before it ever listened, and between any two times.
    for round in 0..3 {
        server.say("room", [round * 10, round * 10 + 1]).await;
        server.post("/message", json!([{"user": "x", "pm_users": ["ann"], "message": {"n": round * 10 + 2}}])).await;
        let mut listener = Listener::open(transport, &server, &id).await;
        let mut frames = Vec::new();
        while frames.len() < 3 {
            frames.push(listener.next().await);
        }
        assert_eq!(numbers(&frames), [round * 10, round * 10 + 1, round * 10 + 2]);
        assert!(frames.iter().all(|frame| frame["catchup"] == true), "{frames:?}");
        if let Listener::Socket(mut socket) = listener {
            server.say("room", [round * 10 + 3]).await;
            let live = socket.next().await;
            assert_eq!((&live["message"]["n"], &live["catchup"]), (&json!(round * 10 + 3), &json!(false)));
            socket.lose();
            server.listeners(0).await;
        }
    }
    // The other transport goes on where this one was.
    let other = if transport == Transport::LongPoll { Transport::WebSocket } else { Transport::LongPoll };
    server.say("room", [99]).await;
    assert_eq!(numbers(&Listener::open(other, &server, &id).await.take(1).await), [99]);
}

async fn caught_up_frames_stand_by_channel_and_show_messages_as_they_are_now(transport: Transport) {
    let server = TestServer::start().await;
    for channel in ["a", "b"] {
        server.configure(channel, history()).await;
    }
    server.configure("forgetful", json!({"store_frames": false})).await;
    let id = server.connect("ann", &["b", "a", "forgetful"]).await;
    server.post("/message", json!([{"user": "x", "pm_users": ["ann"], "message": {"n": 0}}])).await;
    let posted = server.say("b", [1, 2, 3]).await;
    server.say("forgetful", [4]).await;
    server.say("a", [5]).await;
    server.ask("PATCH", "/message", json!([{"uuid": posted[0]["uuid"], "channel": "b", "message": {"n": 11}}])).await;
    server.ask("DELETE", "/message", json!([{"uuid": posted[1]["uuid"], "channel": "b"}])).await;

    let frames = Listener::open(transport, &server, &id).await.take(6).await;
    let seen: Vec<(&str, &Value, &Value)> = frames
        .iter()
        .map(|frame| (frame["type"].as_str().expect("a type"), &frame["channel"], &frame["message"]["n"]))
        .collect();
    let (a, b) = (&json!("a"), &json!("b"));
    assert_eq!(
        seen,
        [
            ("message", a, &json!(5)),
            ("message", b, &json!(11)),
            ("message", b, &json!(3)),
            ("message:edit", b, &json!(11)),
            ("message:delete", b, &Value::Null),
            ("message", &Value::Null, &json!(0)),
        ]
    );
}

async fn many_messages_keep_one_order(transport: Transport) {
    const PUBLISHERS: i64 = 4;
    const EACH: i64 = 60;
    let server = TestServer::start().await;
    server.configure("room", json!({"store_history": true, "history_size": 1000})).await;
    let mut listeners = Vec::new();
    for user in ["ann", "bob"] {
        listeners.push(Listener::connect(transport, &server, user, &["room"]).await);
    }
    let total = (PUBLISHERS * EACH) as usize;
    let listening = listeners.into_iter().map(|mut listener| tokio::spawn(async move { listener.take(total).await }));
    let listening: Vec<_> = listening.collect();
    let publishing = (0..PUBLISHERS).map(|publisher| {
        let client = server.client();
        tokio::spawn(async move {
            let mut next = 0;
            while next < EACH {
                // One, two or three in a request.
                let end = (next + 1 + next % 3).min(EACH);
                client.say("room", (next..end).map(|n| publisher * 1000 + n)).await;
                next = end;
                // A poll catches up no more than the newest hundred frames.
                tokio::time::sleep(Duration::from_millis(8)).await;
            }
        })
    });
    for publisher in publishing.collect::<Vec<_>>() {
        publisher.await.expect("a publisher");
    }
    let stored = server.history("room").await;
    for listener in listening {
        let frames = listener.await.expect("a listener");
        assert_eq!(numbers(&frames), stored, "live order is stored order");
        let positions: Vec<u64> = frames.iter().map(position).collect();
        assert!(positions.is_sorted_by(|one, two| one < two), "{positions:?}");
    }
    for publisher in 0..PUBLISHERS {
        let own: Vec<i64> = stored.iter().copied().filter(|n| n / 1000 == publisher).collect();
        assert_eq!(own, (0..EACH).map(|n| publisher * 1000 + n).collect::<Vec<_>>());
    }
}

/// The position in a cursor.
fn position(frame: &Value) -> u64 {
    let cursor = frame["cursor"].as_str().expect("a cursor");
    cursor.split_once('-').and_then(|(_, digits)| digits.parse().ok()).expect("a position")
}

async fn a_dismissed_connection_is_over(transport: Transport) {
    let server = TestServer::start().await;
    server.configure("room", json!({"notify_presence": true})).await;
    let mut watcher = Socket::open(&server, &server.connect("watcher", &["room"]).await).await;
    let id = server.connect("ann", &["room"]).await;
    let mut ann = Listener::open(transport, &server, &id).await;
    server.say("room", [1]).await;
    ann.take(1).await;

    let dismissed = match transport {
        Transport::WebSocket => send(server.request("POST", "/disconnect").json(&json!({"conn_id": id}))).await,
        Transport::LongPoll => server.get(&format!("/disconnect?conn_id={id}")).await,
    };
    assert_eq!((dismissed.status, dismissed.text.trim()), (200, "true"));
    let frames = watcher.take(3).await;
    assert_eq!(texts(&frames[..1], "user"), ["ann"]);
    assert_eq!(frames[2]["message"], json!({"action": "parted"}));
    if let Listener::Socket(mut socket) = ann {
        assert_eq!(socket.closed().await, 1000);
    }
    let dismissed = server.get(&format!("/disconnect?conn_id={id}")).await;
    assert_eq!(dismissed.text.trim(), "false");
    assert_eq!(server.get(&format!("/listen?conn_id={id}")).await.status, 401);
}

// ---- Websockets ----

#[tokio::test]
async fn an_id_that_is_opened_again_replaces_the_socket_before() {
    let server = TestServer::start().await;
    server.configure("room", json!({"notify_presence": true})).await;
    let mut watcher = Socket::open(&server, &server.connect("watcher", &["room"]).await).await;
    let id = server.connect("ann", &["room"]).await;
    assert_eq!(watcher.next().await["user"], "ann");
    let mut sockets = vec![Socket::open(&server, &id).await];
    for n in 0..4 {
        let mut next = Socket::open(&server, &id).await;
        let old = sockets.last_mut().expect("a socket");
        assert_eq!(old.closed().await, 4010);
        server.say("room", [n]).await;
        assert_eq!(numbers(&next.take(1).await), [n], "nothing is missing, nothing comes twice");
        sockets.push(next);
    }
    // A poll replaces a socket as well, and the old ones' ends are no end of the connection.
    let poll = tokio::spawn({
        let (client, id) = (server.client(), id.clone());
        async move { client.poll(&id).await }
    });
    assert_eq!(sockets.pop().expect("a socket").closed().await, 4010);
    drop(sockets);
    server.say("room", [4]).await;
    assert_eq!(numbers(&poll.await.expect("a poll")), [4]);
    assert_eq!(numbers(&watcher.take(5).await), [0, 1, 2, 3, 4], "nobody parted or joined");
}

#[tokio::test]
async fn an_id_nobody_knows_is_closed_with_4001_and_the_connection_ends() {
    let server = TestServer::start().await;
    let mut socket = Socket::open(&server, &Uuid::new_v4().to_string()).await;
    assert_eq!(socket.closed().await, 4001);
    assert_eq!(socket.message().await, Err(NO_CLOSE_FRAME), "the TCP connection ends as well");
}

#[tokio::test]
async fn a_handshake_that_cannot_succeed_is_refused_before_it() {
    let server = TestServer::start().await;
    for (query, fault) in [
        ("", "Field may not be null."),
        ("?conn_id=", "Not a valid UUID."),
        ("?conn_id=bad", "Not a valid UUID."),
        ("?conn_id=bad&conn_id=3106dab9-3425-43c4-9b95-4d22d8fc9561", "Not a valid UUID."),
    ] {
        let answer = send(server.handshake(&format!("/ws{query}"))).await;
        assert_eq!(answer.refusal(), (422, json!({"conn_id": [fault]})), "{query}");
    }
    let id = server.connect("ann", &[]).await;
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] {
        let answer = send(server.request(method, &format!("/ws?conn_id={id}"))).await;
        assert!([400, 426].contains(&answer.status), "{method}: {}", answer.status);
    }
    let opened = Socket::try_open(&server, &format!("/ws?conn_id={{{}}}&conn_id=bad", id.to_uppercase())).await;
    assert!(opened.is_ok(), "any spelling, and the first of several wins");
    let opened = Socket::try_open(&server, &format!("/ws?secret=wrong&conn_id={id}")).await;
    assert!(opened.is_ok(), "a wrong signature does not matter here");
}

#[tokio::test]
async fn one_id_is_opened_so_many_times_a_second() {
    let server = TestServer::with(|config| config.attach_rate = Some(3)).await;
    let (id, other) = (server.connect("ann", &[]).await, server.connect("bob", &[]).await);
    let started = Instant::now();
    let mut statuses = Vec::new();
    while statuses.len() < 4 {
        let opened = Socket::try_open(&server, &format!("/ws?conn_id={id}")).await;
        statuses.push(opened.err().unwrap_or(101));
    }
    assert!(started.elapsed() > Duration::from_secs(1) || statuses == [101, 101, 101, 429], "{statuses:?}");
    let answer = send(server.handshake(&format!("/ws?conn_id={id}"))).await;
    if started.elapsed() < Duration::from_secs(1) {
        assert_eq!(answer.status, 429);
        assert!(answer.json()["request"].is_array());
    }
    Socket::open(&server, &other).await;
    until("the second to pass", async || Socket::try_open(&server, &format!("/ws?conn_id={id}")).await.is_ok()).await;
}

#[tokio::test]
async fn no_more_listen_than_may() {
    let server = TestServer::with(|config| config.max_connections = Some(2)).await;
    let mut ids = Vec::new();
    for user in ["ann", "bob", "eve"] {
        ids.push(server.connect(user, &["room"]).await);
    }
    let mut ann = Socket::open(&server, &ids[0]).await;
    let bob = Socket::open(&server, &ids[1]).await;
    for refused in [
        send(server.handshake(&format!("/ws?conn_id={}", ids[2]))).await,
        server.get(&format!("/listen?conn_id={}", ids[2])).await,
    ] {
        assert_eq!(refused.status, 503);
        assert!(refused.json()["request"].is_array());
        assert!(!refused.header("retry-after").is_empty());
    }
    server.say("room", [1]).await;
    assert_eq!(numbers(&ann.take(1).await), [1], "who is there stays");
    assert_eq!(bob.close().await, 1000);
    server.listeners(1).await;
    assert_eq!(numbers(&Socket::open(&server, &ids[2]).await.take(1).await), [1]);
}

#[tokio::test]
async fn a_full_server_still_lets_a_listener_take_its_own_place() {
    let server = TestServer::with(|config| config.max_connections = Some(1)).await;
    let id = server.connect("ann", &[]).await;
    let mut before = Socket::open(&server, &id).await;
    let _after = Socket::open(&server, &id).await;
    assert_eq!(before.closed().await, 4010);
}

#[tokio::test]
async fn a_socket_that_its_client_closes_ends_the_connection() {
    let server = TestServer::start().await;
    server.configure("room", json!({"notify_presence": true})).await;
    let mut watcher = Socket::open(&server, &server.connect("watcher", &["room"]).await).await;
    let id = server.connect("ann", &["room"]).await;
    let ann = Socket::open(&server, &id).await;
    assert_eq!(ann.close().await, 1000);
    let closed = Instant::now();
    let frames = watcher.take(2).await;
    assert_eq!(
        [&frames[0]["message"], &frames[1]["message"]],
        [&json!({"action": "joined"}), &json!({"action": "parted"})]
    );
    assert!(closed.elapsed() < Duration::from_secs(10), "not only after the grace time");
    let mut late = Socket::open(&server, &id).await;
    assert_eq!(late.closed().await, 4001);
}

#[tokio::test]
async fn a_lost_socket_may_come_back_within_the_grace_time() {
    let server = TestServer::with(|config| config.gc_conns_after = Duration::from_millis(1500)).await;
    server.configure("room", json!({"notify_presence": true})).await;
    let mut watcher = Socket::open(&server, &server.connect("watcher", &["room"]).await).await;
    let id = server.connect("ann", &["room"]).await;
    assert_eq!(watcher.next().await["message"], json!({"action": "joined"}));
    for n in 0..2 {
        Socket::open(&server, &id).await.lose();
        server.listeners(1).await;
        server.say("room", [n]).await;
        assert_eq!(numbers(&watcher.take(1).await), [n], "nobody has parted");
        assert_eq!(numbers(&Socket::open(&server, &id).await.take(1).await), [n]);
    }
    let lost = Instant::now();
    assert_eq!(watcher.next().await["message"], json!({"action": "parted"}));
    assert!(lost.elapsed() > Duration::from_millis(1300), "{:?}", lost.elapsed());
}

#[tokio::test]
async fn connections_that_nobody_listens_on_end_with_and_without_channels() {
    let server = TestServer::with(|config| config.gc_conns_after = Duration::from_millis(100)).await;
    for _ in 0..5 {
        server.connect("ann", &["room"]).await;
        server.connect("ann", &[]).await;
    }
    until("all to be collected", async || {
        send(server.signed("GET", "/admin/admin.json")).await.json()["total_connections"] == 0
    })
    .await;
    assert_eq!(server.channel("room").await["users"], json!([]));
}

#[tokio::test]
async fn heartbeats_come_while_a_socket_is_open() {
    let server = TestServer::with(|config| config.heartbeat_interval = Duration::from_millis(150)).await;
    let id = server.connect("ann", &["room"]).await;
    for _ in 0..2 {
        let mut socket = Socket::open(&server, &id).await;
        let opened = Instant::now();
        for _ in 0..3 {
            assert_eq!(socket.message().await, Ok(Message::text("[]")));
        }
        assert!(opened.elapsed() > Duration::from_millis(400), "{:?}", opened.elapsed());
        socket.lose();
    }
}

#[tokio::test]
async fn whatever_a_client_sends_is_ignored_but_for_pings() {
    let server = TestServer::start().await;
    let mut socket = Socket::open(&server, &server.connect("ann", &["room"]).await).await;
    for text in ["", "nonsense", r#"{"type": "heartbeat"}"#, r#"[{"channel": "room"}]"#, &"x".repeat(60_000)] {
        socket.send(Message::text(text)).await;
        socket.send(Message::binary(text.as_bytes().to_vec())).await;
    }
    socket.send(Message::Pong(b"unasked".to_vec().into())).await;
    socket.send(Message::Ping(b"who".to_vec().into())).await;
    assert_eq!(socket.message().await, Ok(Message::Pong(b"who".to_vec().into())));
    server.say("room", [1]).await;
    assert_eq!(numbers(&socket.take(1).await), [1]);
    assert_eq!(socket.close().await, 1000);
}

#[tokio::test]
async fn what_happens_together_comes_in_one_array() {
    let server = TestServer::start().await;
    server.configure("room", history()).await;
    let mut socket = Socket::open(&server, &server.connect("ann", &["room", "quick"]).await).await;
    for channel in ["room", "quick"] {
        server.say(channel, 0..50).await;
        let array = socket.array().await.expect("an array");
        assert_eq!(numbers(&array), (0..50).collect::<Vec<_>>(), "{channel}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_is_cut_off_and_comes_back_while_others_get_everything() {
    const COUNT: i64 = 300;
    let server = TestServer::with(|config| config.max_queue_bytes = 256 << 10).await;
    server.configure("room", json!({"store_history": true, "history_size": 1000})).await;
    let slow_id = server.connect("slow", &["room"]).await;
    let tcp = TcpSocket::new_v4().expect("a socket");
    tcp.set_recv_buffer_size(8 << 10).expect("a small buffer");
    let mut slow = Socket::on(tcp, &server, &format!("/ws?conn_id={slow_id}")).await.expect("an open socket");
    let mut quick = Socket::open(&server, &server.connect("quick", &["room"]).await).await;
    let others = tokio::spawn(async move { numbers(&quick.take(COUNT as usize).await) });

    let padding = "x".repeat(60_000);
    for n in 0..COUNT {
        let message = json!([{"user": "x", "channel": "room", "message": {"n": n, "padding": padding}}]);
        server.post("/message", message).await;
    }
    assert_eq!(others.await.expect("the others"), (0..COUNT).collect::<Vec<_>>());

    // Now it reads on: what was on its way, then the close.
    let (frames, code) = slow.rest().await;
    assert_eq!(code, 4008);
    let seen = numbers(&frames);
    assert_eq!(seen, (0..seen.len() as i64).collect::<Vec<_>>(), "a part without holes");
    assert!(seen.len() < COUNT as usize);
    server.say("room", [COUNT]).await;
    let back = Socket::open(&server, &slow_id).await.next().await;
    assert_eq!((&back["type"], &back["catchup"]), (&json!("message"), &json!(true)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_makes_progress_is_not_cut_off() {
    const BYTES: usize = 28_000_000;
    let server = TestServer::with(|config| config.max_body_bytes = 32 << 20).await;
    let id = server.connect("ann", &["room"]).await;
    let tcp = TcpSocket::new_v4().expect("a socket");
    tcp.set_recv_buffer_size(8 << 10).expect("a small buffer");
    let mut socket = Socket::on(tcp, &server, &format!("/ws?conn_id={id}")).await.expect("an open socket");
    let large = json!([{"user": "x", "channel": "room", "message": {"n": 1, "padding": "x".repeat(BYTES)}}]);
    server.post("/message", large).await;
    // Two megabytes a second: even without what the network takes at once, the writing lasts
    // longer than a reader may stand still.
    let mut buffer = vec![0; BYTES / 20];
    let mut pace = interval(Duration::from_millis(700));
    let started = Instant::now();
    for part in 0..20 {
        pace.tick().await;
        if let Err(error) = socket.tcp().read_exact(&mut buffer).await {
            panic!("cut off while reading part {part} of 20, after {:?}: {error}", started.elapsed());
        }
    }
}

/// Who goes on reading may lag further behind than who stands still, over any transport.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_stream_that_is_read_slowly_is_not_cut_off() {
    const POSTS: i64 = 10;
    let server = TestServer::start().await;
    let id = server.connect("ann", &["room"]).await;
    let tcp = TcpSocket::new_v4().expect("a socket");
    tcp.set_recv_buffer_size(8 << 10).expect("a small buffer");
    let mut stream = tcp.connect(server.address()).await.expect("a connection");
    let request = format!("GET /sse?conn_id={id} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("a request");
    server.listeners(1).await;
    let client = server.client();
    let publisher = tokio::spawn(async move {
        let padding = "x".repeat(10_000);
        for _ in 0..POSTS {
            let message = json!({"user": "x", "channel": "room", "message": {"padding": padding}});
            client.post("/message", json!(vec![message; 50])).await;
        }
        client.say("room", [-1]).await;
    });
    let mut received = Vec::new();
    while !received[received.len().saturating_sub(25_000)..].windows(8).any(|part| part == br#"{"n":-1}"#) {
        let read = in_time("bytes", stream.read_buf(&mut received)).await.expect("a stream");
        assert!(read > 0, "cut off after {} bytes", received.len());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    publisher.await.expect("a publisher");
}

#[tokio::test]
async fn a_stop_sends_everybody_away_and_their_ids_stay_good() {
    let mut server = TestServer::start().await;
    server.configure("room", json!({"notify_presence": true, "store_history": true})).await;
    let mut ids = Vec::new();
    for user in ["ann", "bob", "eve"] {
        ids.push(server.connect(user, &["room"]).await);
    }
    let mut sockets = Vec::new();
    for id in &ids {
        sockets.push(Socket::open(&server, id).await);
    }
    server.say("room", [0]).await;
    for socket in &mut sockets {
        while socket.next().await["type"] != "message" {} // some were told that others joined
    }
    server.stop().await;
    for socket in &mut sockets {
        assert_eq!(socket.rest().await.1, 1012);
    }
    server.restart().await;
    let mut back = Vec::new();
    for id in &ids {
        back.push(Socket::open(&server, id).await);
    }
    server.say("room", [1]).await;
    for socket in &mut back {
        assert_eq!(numbers(&socket.take(1).await), [1], "nobody parted or joined");
    }
    let room = server.channel("room").await;
    assert_eq!((&room["total_connections"], &room["users"]), (&json!(3), &json!(["ann", "bob", "eve"])));
}

#[tokio::test]
async fn closes_at_a_stop_are_spread_over_a_while() {
    let mut server = TestServer::with(|config| config.drain_seconds = Duration::from_secs(1)).await;
    let mut listening = Vec::new();
    for n in 0..4 {
        let mut socket = Socket::open(&server, &server.connect(&format!("user {n}"), &["room"]).await).await;
        listening.push(tokio::spawn(async move { (socket.closed().await, Instant::now()) }));
    }
    let stopped = Instant::now();
    server.stop().await;
    let mut times = Vec::new();
    for listener in listening {
        let (code, at) = listener.await.expect("a listener");
        assert_eq!(code, 1012);
        times.push(at - stopped);
    }
    times.sort_unstable();
    for (n, time) in (0..).zip(times) {
        assert!(time >= Duration::from_millis(240) * n, "number {n} is sent away after {time:?}");
    }
}

// ---- Long polls ----

#[tokio::test]
async fn an_idle_poll_ends_empty_and_a_poll_wakes_when_something_happens() {
    let server = TestServer::start().await;
    let (idle, busy) = (server.connect("ann", &["idle"]).await, server.connect("ann", &["busy"]).await);
    let waking = async {
        let speak = async {
            server.listeners(2).await;
            server.say("busy", [1]).await;
        };
        let started = Instant::now();
        let (frames, ()) = tokio::join!(server.poll(&busy), speak);
        assert_eq!(numbers(&frames), [1]);
        assert_eq!(frames[0]["catchup"], false);
        assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    };
    let started = Instant::now();
    let (frames, ()) = tokio::join!(server.poll(&idle), waking);
    assert_eq!(frames, Vec::<Value>::new());
    assert!((4..7).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
}

#[tokio::test]
async fn polls_are_not_counted_by_the_rate_of_openings() {
    let server = TestServer::with(|config| config.attach_rate = Some(2)).await;
    let id = server.connect("ann", &["room"]).await;
    for n in 0..4 {
        server.say("room", [n]).await;
        assert_eq!(numbers(&server.poll(&id).await), [n]);
    }
}

#[tokio::test]
async fn a_stop_answers_polls_and_their_ids_stay_good() {
    let mut server = TestServer::start().await;
    let id = server.connect("ann", &["room"]).await;
    let poll = tokio::spawn({
        let (client, id) = (server.client(), id.clone());
        async move { client.poll(&id).await }
    });
    server.listeners(1).await;
    let stopped = Instant::now();
    server.stop().await;
    assert_eq!(poll.await.expect("a poll"), Vec::<Value>::new());
    assert!(stopped.elapsed() < Duration::from_secs(4), "{:?}", stopped.elapsed());
    server.restart().await;
    server.say("room", [1]).await;
    assert_eq!(numbers(&server.poll(&id).await), [1]);
}

#[tokio::test]
async fn steady_traffic_does_not_hold_a_poll_back() {
    let server = TestServer::start().await;
    let id = server.connect("ann", &["room"]).await;
    let talking = tokio::spawn({
        let client = server.client();
        async move {
            for n in 0.. {
                client.say("room", [n]).await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    });
    let started = Instant::now();
    let mut heard = numbers(&server.poll(&id).await);
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    heard.extend(numbers(&server.poll(&id).await));
    talking.abort();
    assert_eq!(heard, (0..heard.len() as i64).collect::<Vec<_>>(), "no hole and no double between polls");
    assert!(heard.len() > 5);
}

#[tokio::test]
async fn a_second_poll_takes_over() {
    let server = TestServer::start().await;
    let id = server.connect("ann", &["room"]).await;
    let poll = || {
        let (client, id) = (server.client(), id.clone());
        tokio::spawn(async move { client.poll(&id).await })
    };
    let first = poll();
    server.listeners(1).await;
    let second = poll();
    server.listeners(2).await;
    server.say("room", [1]).await;
    assert_eq!(numbers(&second.await.expect("a poll")), [1]);
    assert_eq!(first.await.expect("a poll"), Vec::<Value>::new());
}

#[tokio::test]
async fn a_poll_that_its_client_gave_up_loses_nothing() {
    let server = TestServer::start().await;
    let id = server.connect("ann", &["room"]).await;
    let poll = tokio::spawn({
        let (client, id) = (server.client(), id.clone());
        async move { client.poll(&id).await }
    });
    server.listeners(1).await;
    poll.abort();
    server.listeners(0).await;
    server.say("room", [1]).await;
    assert_eq!(numbers(&server.poll(&id).await), [1]);
}

#[tokio::test]
async fn a_callback_makes_a_script_of_the_answer() {
    let server = TestServer::start().await;
    let id = server.connect("ann", &["room"]).await;
    let text = "line\u{2028}paragraph\u{2029}</script>";
    server.post("/message", json!([{"user": "x", "channel": "room", "message": {"text": text}}])).await;
    let answer = server.get(&format!("/listen?conn_id={id}&callback=my.cb_1$")).await;
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").starts_with("application/javascript"), "{}", answer.header("content-type"));
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert!(!answer.text.contains(['\u{2028}', '\u{2029}']), "{}", answer.text);
    let json = answer.text.strip_prefix("my.cb_1$(").and_then(|text| text.trim_end_matches(';').strip_suffix(')'));
    let frames: Vec<Value> = serde_json::from_str(json.expect("a call")).expect("a list");
    assert_eq!(frames[0]["message"]["text"], text);

    server.say("room", [1]).await;
    let answer = server.get(&format!("/listen?conn_id={id}")).await;
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(numbers(list(&answer.json())), [1]);
}

#[tokio::test]
async fn a_poll_says_what_is_wrong_with_it() {
    let server = TestServer::start().await;
    let wrong = json!(["Wrong UUID format"]);
    for query in ["?conn_id=", "?conn_id=bad", "?conn_id=bad&conn_id=3106dab9-3425-43c4-9b95-4d22d8fc9561"] {
        assert_eq!(server.get(&format!("/listen{query}")).await.refusal(), (422, wrong.clone()));
    }
    let answer = server.get("/listen").await;
    assert_eq!(answer.refusal(), (422, json!({"conn_id": ["Field may not be null."]})));
    assert_eq!(server.get(&format!("/listen?conn_id={}", Uuid::new_v4())).await.status, 401);
}

#[tokio::test]
async fn head_is_answered_at_once_and_takes_nothing() {
    let server = TestServer::start().await;
    let id = server.connect("ann", &["room"]).await;
    server.say("room", [1]).await;
    let started = Instant::now();
    let answer = send(server.request("HEAD", &format!("/listen?conn_id={id}"))).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, ""));
    assert!(started.elapsed() < PATIENCE / 4);
    assert_eq!(numbers(&server.poll(&id).await), [1]);
}

// ---- Back ends ----

#[tokio::test]
async fn a_uuid_that_is_posted_again_adds_nothing() {
    let server = TestServer::start().await;
    server.configure("room", history()).await;
    let mut socket = Socket::open(&server, &server.connect("ann", &["room"]).await).await;
    let message = |uuid: Uuid, n: i64| json!({"user": "x", "channel": "room", "uuid": uuid, "message": {"n": n}});
    let (first, second) = (Uuid::new_v4(), Uuid::new_v4());
    let posted = server.post("/message", json!([message(first, 1), message(first, 2), message(second, 3)])).await;
    assert_eq!(numbers(list(&posted)), [1, 1, 3]);
    let again = server.post("/message", json!([message(second, 4), message(first, 5)])).await;
    assert_eq!(numbers(list(&again)), [3, 1]);
    assert!(list(&again).iter().all(|message| message["duplicate"] == true));
    assert_eq!(again[1]["cursor"], posted[0]["cursor"]);

    let deleted = server.ask("DELETE", "/message", json!([{"uuid": first, "channel": "room"}])).await;
    let after = server.post("/message", json!([message(first, 6)])).await;
    assert_eq!((&after[0]["duplicate"], &after[0]["cursor"]), (&json!(true), &deleted[0]["cursor"]));
    server.say("room", [7]).await;
    let frames = socket.take(4).await;
    assert_eq!(texts(&frames, "type"), ["message", "message", "message:delete", "message"]);
    assert_eq!(server.history("room").await, [3, 7]);
}

#[tokio::test]
async fn posts_at_the_same_time_with_one_uuid_store_it_once() {
    let server = TestServer::start().await;
    server.configure("room", history()).await;
    let uuid = Uuid::new_v4();
    let posts = (0..20).map(|n| {
        let client = server.client();
        tokio::spawn(async move {
            let message = json!([{"user": "x", "channel": "room", "uuid": uuid, "message": {"n": n}}]);
            client.post("/message", message).await
        })
    });
    let mut firsts = 0;
    for post in posts.collect::<Vec<_>>() {
        firsts += usize::from(post.await.expect("a post")[0].get("duplicate").is_none());
    }
    assert_eq!((firsts, server.history("room").await.len()), (1, 1));
}

#[tokio::test]
async fn settings_take_effect_at_once() {
    let server = TestServer::start().await;
    let answer = server.post("/channel_config", json!({"room": history(), "other": null})).await;
    assert_eq!(answer["channels"]["room"]["settings"]["history_size"], 100);
    server.say("room", 0..20).await;
    server.configure("room", json!({"store_history": true, "history_size": 3})).await;
    assert_eq!(server.history("room").await, [17, 18, 19]);
    server.configure("room", json!({"store_history": true, "history_size": 5})).await;
    assert_eq!(server.history("room").await, [15, 16, 17, 18, 19], "the log still held them");
    server.configure("room", json!({"history_size": 5})).await;
    server.say("room", [20]).await;
    assert_eq!(server.history("room").await, [15, 16, 17, 18, 19], "unnamed keys went back to their defaults");
    server.configure("room", json!({"store_history": true, "history_size": 0})).await;
    server.say("room", [21]).await;
    assert_eq!(server.history("room").await, [0; 0]);
    let huge = json!({"store_history": true, "history_size": 4_000_000_000_u32, "replay_size": 7});
    server.configure("room", huge).await;
    let settings = server.channel("room").await["settings"].clone();
    assert_eq!((&settings["history_size"], &settings["replay_size"]), (&json!(100_000), &json!(7)));
    server.configure("room", json!({})).await;
    assert_eq!(server.channel("room").await["settings"]["replay_size"], 7, "ours stay");
}
