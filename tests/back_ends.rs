//! What back ends may ask for beyond the stock protocol, over real sockets.

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{Socket, TestServer, in_order, list, numbers, texts, without};

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

// ---- Much at once ----

/// Has an answer that comes in parts: many channels, some of them in memory, with many members.
async fn crowded(server: &TestServer) {
    let names = |range: std::ops::Range<u32>| range.map(|number| format!("room-{number:04}"));
    let settings: serde_json::Map<String, Value> =
        names(0..1_200).map(|name| (name, json!({"store_history": true}))).collect();
    server.post("/channel_config", settings.into()).await;
    for number in [0, 600, 1_199] {
        server.say(&format!("room-{number:04}"), 0..5).await;
    }
    for user in ["ann", "bob", "cat"] {
        let state =
            json!({"username": user, "channels": names(500..700).collect::<Vec<_>>(), "user_state": {"of": user}});
        server.post("/connect", state).await;
    }
}

fn users(answer: &Value) -> Vec<(&str, &Value)> {
    let mut users: Vec<_> =
        list(&answer["users"]).iter().map(|user| (user["user"].as_str().unwrap(), &user["state"])).collect();
    users.sort_by_key(|(name, _)| *name);
    users
}

#[tokio::test]
async fn a_long_answer_comes_in_parts_and_is_one_document() {
    let mut server = TestServer::start().await;
    crowded(&server).await;
    for restart in [false, true] {
        if restart {
            // All but channels with members leaves memory.
            server.restart().await;
        }
        let answer = server.send("POST", "/info", "").await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
        assert_eq!((answer.header("content-length"), answer.header("transfer-encoding")), ("", "chunked"));
        let info = in_order(answer.json());
        let names: Vec<&String> = info["channels"].as_object().unwrap().keys().collect();
        assert_eq!(names.len(), 1_200);
        let (of_ann, of_bob, of_cat) = (json!({"of": "ann"}), json!({"of": "bob"}), json!({"of": "cat"}));
        assert_eq!(users(&info), [("ann", &of_ann), ("bob", &of_bob), ("cat", &of_cat)]);
        assert_eq!(numbers(list(&info["channels"]["room-1199"]["history"])), [0, 1, 2, 3, 4]);
        assert_eq!(info["channels"]["room-0500"]["users"], json!(["ann", "bob", "cat"]));
        assert_eq!(info["channels"]["room-0699"]["total_connections"], 3);
        let positions: Vec<usize> = [0, 499, 500, 1_199]
            .iter()
            .map(|number| answer.text.find(&format!("\"room-{number:04}\"")).unwrap())
            .collect();
        assert!(positions.is_sorted(), "in the order in which they were made");

        let bare = json!({"info": {"include_history": false, "include_users": false}});
        let bare = server.post("/info", bare).await;
        let hidden = ["history", "users"];
        assert_eq!(without(bare.clone(), &hidden), without(info.clone(), &hidden));
        assert!(bare["channels"].as_object().unwrap().values().all(|channel| channel["history"] == json!([])));
        assert_eq!(bare["users"], json!([]));
    }
}

#[tokio::test]
async fn the_admin_report_comes_in_parts_as_well() {
    let server = TestServer::start().await;
    crowded(&server).await;
    let answer = server.send("POST", "/admin/admin.json", "").await;
    assert_eq!((answer.status, answer.header("transfer-encoding")), (200, "chunked"));
    let report = answer.json();
    let keys: Vec<&String> = report.as_object().unwrap().keys().collect();
    assert_eq!(keys.len(), 10, "{keys:?}");
    assert_eq!((&report["unique_user_count"], &report["total_connections"]), (&json!(3), &json!(3)));
    assert_eq!((&report["total_channels"], &report["total_unique_messages"]), (&json!(1_200), &json!(15)));
    assert_eq!(report["channels"].as_object().unwrap().len(), 1_200);
    assert_eq!(users(&report).iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["ann", "bob", "cat"]);
    assert!(report["version"].is_string() && report["uptime"].as_str().unwrap().starts_with("0:00:"));
    assert_eq!(
        server.send("POST", "/info", "{\"info\": {\"channels\": [\"room-0001\"]}}").await.header("transfer-encoding"),
        ""
    );
}

#[tokio::test]
async fn many_messages_of_which_nothing_is_stored_come_in_their_order() {
    let server = TestServer::start().await;
    let ann = server.connect("ann", &["one", "two"]).await;
    let mut socket = Socket::open(&server, &ann).await;
    let messages: Vec<Value> = (0..2_000)
        .map(|n| json!({"user": "x", "channel": if n % 3 == 0 { "one" } else { "two" }, "message": {"n": n}}))
        .collect();
    let posted = server.post("/message", messages.into()).await;
    assert_eq!(numbers(list(&posted)), (0..2_000).collect::<Vec<_>>());
    assert_eq!(numbers(&socket.take(2_000).await), (0..2_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_request_may_name_many_channels() {
    let server = TestServer::start().await;
    let names: Vec<String> = (0..1_500).map(|number| format!("room-{number:04}")).collect();
    let repeated: Vec<&String> = names.iter().chain(&names[..700]).collect();
    let connect = json!({"username": "ann", "channels": repeated, "since": "earliest"});
    let connected = server.post("/connect", connect).await;
    assert_eq!(list(&connected["channels"]).len(), 2_200);
    assert_eq!(connected["channels_info"]["channels"].as_object().unwrap().len(), 1_500);
    assert_eq!(connected["channels_info"]["channels"]["room-1499"]["users"], json!(["ann"]));
    let id = &connected["conn_id"];

    let removed = server.post("/unsubscribe", json!({"conn_id": id, "channels": names[500..]})).await;
    assert_eq!((&removed["unsubscribed_from"], &removed["channels"]), (&json!(names[500..]), &json!(names[..500])));
    let added = server.post("/subscribe", json!({"conn_id": id, "channels": repeated})).await;
    assert_eq!((&added["subscribed_to"], &added["channels"]), (&json!(names[500..]), &json!(names)));
    assert_eq!(added["channels_info"]["channels"].as_object().unwrap().len(), 1_500);
    assert_eq!(list(&added["channels_info"]["users"]).len(), 1);
    let settings: serde_json::Map<String, Value> =
        names.iter().map(|name| (name.clone(), json!({"notify_state": true}))).collect();
    let configured = server.post("/channel_config", settings.into()).await;
    assert_eq!(configured["channels"].as_object().unwrap().len(), 1_500);
    let info = server.post("/info", json!({"info": {"include_history": false}})).await;
    let channels = info["channels"].as_object().unwrap();
    assert!(channels.len() == 1_500 && channels.values().all(|channel| channel["total_connections"] == 1));
    assert!(channels.values().all(|channel| channel["settings"]["notify_state"] == true));
}

#[tokio::test]
async fn a_user_with_many_connections_is_forgotten_with_all_of_them() {
    let server = TestServer::start().await;
    for _ in 0..600 {
        server.connect("ann", &["room"]).await;
    }
    let mut socket = Socket::open(&server, &server.connect("ann", &["room"]).await).await;
    assert_eq!(server.channel("room").await["total_connections"], 601);
    server.ask("DELETE", "/user", json!({"user": "ann"})).await;
    let room = server.channel("room").await;
    assert_eq!((&room["total_connections"], &room["users"]), (&json!(0), &json!([])));
    assert_eq!(socket.closed().await, 4001);
}
