//! What back ends may ask for beyond the stock protocol, over real sockets.

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{Socket, TestServer, list, numbers, texts};

async fn with_history(server: &TestServer, channels: &[&str]) {
    for channel in channels {
        server.configure(channel, json!({"store_history": true, "history_size": 1000})).await;
    }
}

// ---- History ----

/// A page of history: its numbers, and whether there are more.
async fn page(server: &TestServer, body: Value) -> (Vec<i64>, bool) {
    let answer = server.post("/history", body).await;
    (numbers(list(&answer["messages"])), answer["has_more"].as_bool().expect("a flag"))
}

#[tokio::test]
async fn history_is_read_page_by_page_in_both_directions() {
    let mut server = TestServer::start().await;
    server.configure("room", json!({"store_history": true, "history_size": 2, "replay_size": 200})).await;
    with_history(&server, &["other"]).await;
    for n in 0..120 {
        server.say("room", [n]).await;
        server.say("other", [1000 + n]).await;
    }
    for restart in [false, true] {
        if restart {
            server.restart().await;
        }
        let (mut newest_first, mut before) = (Vec::new(), None);
        loop {
            let mut body = json!({"channel": "room", "limit": 33});
            before.iter().for_each(|before: &String| body["before"] = json!(before));
            let answer = server.post("/history", body).await;
            let messages = list(&answer["messages"]);
            newest_first.splice(0..0, numbers(messages));
            before = Some(texts(messages, "cursor")[0].to_owned());
            if answer["has_more"] == false {
                break;
            }
        }
        assert_eq!(newest_first, (0..120).collect::<Vec<_>>());
        let first = server.post("/history", json!({"channel": "room", "limit": 1, "before": before})).await;
        assert_eq!((&first["messages"], &first["has_more"]), (&json!([]), &json!(false)), "before the first");
        let all = server.post("/history", json!({"channel": "room", "limit": 1000})).await;
        let cursors = texts(list(&all["messages"]), "cursor");
        let after = |position: usize| json!({"channel": "room", "limit": 3, "after": cursors[position]});
        assert_eq!(page(&server, after(9)).await, (vec![10, 11, 12], true));
        assert_eq!(page(&server, after(116)).await, (vec![117, 118, 119], false));
        let mut between = after(9);
        between["before"] = json!(cursors[12]);
        assert_eq!(page(&server, between).await, (vec![10, 11], false));
        assert_eq!(page(&server, json!({"channel": "room"})).await, ((70..120).collect(), true), "fifty");
    }
}

#[tokio::test]
async fn history_shows_entries_as_the_info_does() {
    let server = TestServer::start().await;
    with_history(&server, &["room"]).await;
    server.connect("ann", &["room"]).await;
    let said = server.say("room", 1..4).await;
    let uuid = |index: usize| said[index]["uuid"].clone();
    let edit = json!([{"uuid": uuid(0), "channel": "room", "message": {"n": 11}}]);
    server.ask("PATCH", "/message", edit).await;
    server.ask("DELETE", "/message", json!([{"uuid": uuid(1), "channel": "room"}])).await;
    let for_eve = json!([{"user": "x", "channel": "room", "pm_users": ["eve"], "message": {"n": 4}}]);
    server.post("/message", for_eve).await;
    server.post("/message", json!([{"user": "x", "channel": "room", "no_history": true, "message": {"n": 5}}])).await;
    let private = server.post("/message", json!([{"user": "x", "pm_users": ["ann"], "message": {"n": 6}}])).await;
    let last = &private[0]["cursor"];

    let answer = server.post("/history", json!({"channel": "room"})).await;
    assert_eq!(answer["messages"], server.channel("room").await["history"]);
    assert_eq!(numbers(list(&answer["messages"])), [11, 3, 4]);
    assert_eq!((&answer["channel"], &answer["cursor"], answer.get("user")), (&json!("room"), last, None));
    let answer = server.post("/history", json!({"user": "ann"})).await;
    let mut entry = private[0].clone();
    (entry["type"], entry["catchup"]) = (json!("message"), json!(false));
    assert_eq!(answer, json!({"user": "ann", "messages": [entry], "cursor": last, "has_more": false}));
}

#[tokio::test]
async fn history_leaves_out_what_is_past_its_time_at_once() {
    let server = TestServer::start().await;
    server.configure("brief", json!({"store_history": true, "history_ttl": 1})).await;
    server.say("brief", [1]).await;
    assert_eq!(page(&server, json!({"channel": "brief"})).await, (vec![1], false));
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    assert_eq!(page(&server, json!({"channel": "brief"})).await, (vec![], false));
}

#[tokio::test]
async fn a_page_of_history_holds_eight_mebibytes() {
    let server = TestServer::start().await;
    with_history(&server, &["room"]).await;
    let filler = "x".repeat(3 << 20);
    for n in 0..4 {
        let message = json!([{"user": "x", "channel": "room", "message": {"n": n, "filler": filler}}]);
        server.post("/message", message).await;
    }
    assert_eq!(page(&server, json!({"channel": "room"})).await, (vec![2, 3], true));
}

#[tokio::test]
async fn history_of_what_is_unknown_is_404_and_a_strange_cursor_422() {
    let server = TestServer::start().await;
    with_history(&server, &["room"]).await;
    let said = server.say("room", [1]).await;
    let answer = async |body: Value| server.send("POST", "/history", &body.to_string()).await.refusal();
    assert_eq!(answer(json!({"channel": "nowhere"})).await, (404, json!({"channel": ["Unknown channel"]})));
    assert_eq!(answer(json!({"user": "nobody"})).await, (404, json!({"user": ["Unknown user"]})));
    let head = said[0]["cursor"].as_str().expect("a cursor");
    for key in ["before", "after"] {
        for cursor in ["zzz-0", &head.replace("-1", "-2")] {
            let asked = json!({"channel": "room", key: cursor});
            assert_eq!(answer(asked).await, (422, json!({key: ["Unknown cursor"]})), "{cursor}");
        }
    }
    let both = (422, json!({"_schema": ["Name either a channel or a user."]}));
    assert_eq!(answer(json!({"channel": "room", "user": "ann"})).await, both);
    let unsigned = server.request("POST", "/history").body(r#"{"channel": "room"}"#);
    assert_eq!(support::send(unsigned).await.status, 403);
}

// ---- Forgetting ----

async fn refused(server: &TestServer, method: &str, path: &str, body: Value) -> (u16, Value) {
    server.send(method, path, &body.to_string()).await.refusal()
}

#[tokio::test]
async fn a_deleted_user_is_gone_for_good() {
    let mut server = TestServer::start().await;
    server.configure("room", json!({"store_history": true, "notify_presence": true})).await;
    let bob = server.connect("bob", &["room"]).await;
    let mut bob = Socket::open(&server, &bob).await;
    let state = json!({"username": "ann", "channels": ["room"], "user_state": {"secret": 1}});
    let ids = [server.post("/connect", state).await["conn_id"].clone(), json!(server.connect("ann", &[]).await)];
    let mut ann = Socket::open(&server, ids[0].as_str().expect("an id")).await;
    server.post("/message", json!([{"user": "x", "pm_users": ["ann"], "message": {"n": 1}}])).await;
    assert_eq!(bob.next().await["message"], json!({"action": "joined"}));

    assert_eq!(server.ask("DELETE", "/user", json!({"user": "ann"})).await, json!({"user": "ann"}));
    let parted = bob.next().await;
    assert_eq!((&parted["user"], &parted["message"]), (&json!("ann"), &json!({"action": "parted"})));
    let (_, code) = ann.rest().await;
    assert_eq!(code, 4001);
    for restart in [false, true] {
        if restart {
            server.restart().await;
        }
        let unknown = (404, json!({"user": ["Unknown user"]}));
        assert_eq!(refused(&server, "DELETE", "/user", json!({"user": "ann"})).await, unknown);
        assert_eq!(refused(&server, "POST", "/history", json!({"user": "ann"})).await, unknown);
        assert_eq!(refused(&server, "POST", "/user_state", json!({"user": "ann"})).await.0, 422);
        for id in &ids {
            let body = json!({"conn_id": id, "channels": ["room"]});
            assert_eq!(refused(&server, "POST", "/subscribe", body).await.0, 422);
        }
        assert_eq!(server.channel("room").await["users"], json!(["bob"]));
    }
    let again = server.post("/connect", json!({"username": "ann"})).await;
    assert_eq!(again["state"], json!({}));
    assert_eq!(page(&server, json!({"user": "ann"})).await, (vec![], false));
}

#[tokio::test]
async fn a_deleted_channel_is_gone_for_good() {
    let mut server = TestServer::start().await;
    let settings = json!({"store_history": true, "notify_presence": true, "replay_size": 7});
    server.configure("room", settings).await;
    let ids = [server.connect("ann", &["room", "other"]).await, server.connect("bob", &["room"]).await];
    let mut sockets = Vec::new();
    for id in &ids {
        sockets.push(Socket::open(&server, id).await);
    }
    let uuid = server.channel("room").await["uuid"].clone();
    let posted = json!([{"user": "x", "channel": "room", "message": {"n": 1}, "uuid": ids[0]}]);
    server.post("/message", posted.clone()).await;

    assert_eq!(server.ask("DELETE", "/channel", json!({"channel": "room"})).await, json!({"channel": "room"}));
    for (socket, other) in sockets.iter_mut().zip(["bob", "ann"]) {
        let parted = async |socket: &mut Socket| loop {
            let frame = socket.next().await;
            if frame["message"]["action"] == "parted" {
                break frame;
            }
        };
        let frame = support::in_time("a frame", parted(socket)).await;
        assert_eq!((&frame["user"], &frame["channel"], &frame["users"]), (&json!(other), &json!("room"), &json!([])));
    }
    for restart in [false, true] {
        if restart {
            server.restart().await;
        }
        let unknown = (404, json!({"channel": ["Unknown channel"]}));
        assert_eq!(refused(&server, "DELETE", "/channel", json!({"channel": "room"})).await, unknown);
        assert_eq!(refused(&server, "POST", "/history", json!({"channel": "room"})).await, unknown);
        assert_eq!(server.channel("room").await, Value::Null);
        let info = server.post("/info", json!({"info": {}})).await;
        assert_eq!(info["channels"].as_object().expect("channels").keys().collect::<Vec<_>>(), ["other"]);
    }
    // Who is still connected may come into a new one.
    let subscribed = json!({"conn_id": ids[0], "channels": ["room"]});
    assert_eq!(server.post("/subscribe", subscribed).await["channels"], json!(["other", "room"]));
    let room = server.channel("room").await;
    assert_ne!(room["uuid"], uuid);
    assert_eq!((&room["settings"]["store_history"], &room["settings"]["replay_size"]), (&json!(false), &json!(100)));
    server.configure("room", json!({"store_history": true})).await;
    assert_eq!(server.post("/message", posted).await[0].get("duplicate"), None, "its uuid is free again");
    assert_eq!(server.history("room").await, [1]);
}

#[tokio::test]
async fn deletions_and_what_they_meet_leave_nothing_half() {
    let mut server = TestServer::start().await;
    for round in 0..20 {
        server.configure("room", json!({"store_history": true, "history_size": 100})).await;
        let say = async {
            for n in 0..5 {
                server.say("room", [n]).await;
                server.post("/message", json!([{"user": "x", "pm_users": ["ann"], "message": {"n": n}}])).await;
            }
        };
        let come = async {
            for _ in 0..5 {
                server.connect("ann", &["room"]).await;
            }
        };
        let go = async {
            server.send("DELETE", "/user", r#"{"user": "ann"}"#).await;
            server.send("DELETE", "/channel", r#"{"channel": "room"}"#).await;
        };
        tokio::join!(say, come, go);
        let before = server.channel("room").await;
        if round % 5 == 0 {
            server.restart().await;
        }
        let after = server.channel("room").await;
        let (before, after) = (support::without(before, &["last_active"]), support::without(after, &["last_active"]));
        assert_eq!(before, after, "round {round}");
    }
}
