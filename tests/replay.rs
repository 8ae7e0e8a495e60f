//! Coming back with a cursor, as clients meet it: the same cases over websocket, long poll and
//! server-sent events, then what is special about each of them.

mod support;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{
    Client, Events, PATIENCE, Random, Socket, TestServer, in_time, list, numbers, send, texts, until, without,
};
use tokio::net::TcpSocket;
use tokio::time::timeout;

/// Runs each case over all three ways to listen.
macro_rules! over_all_ways {
    ($($case:ident)*) => {
        mod websocket {
            $(#[tokio::test] async fn $case() { super::$case(super::Way::WebSocket).await; })*
        }
        mod long_poll {
            $(#[tokio::test] async fn $case() { super::$case(super::Way::LongPoll).await; })*
        }
        mod sse {
            $(#[tokio::test] async fn $case() { super::$case(super::Way::Sse).await; })*
        }
    };
}

over_all_ways! {
    what_was_missed_comes_once_and_live_events_follow
    a_new_connection_id_is_no_reason_to_lose_anything
    a_restart_in_between_changes_nothing
    edits_and_deletions_come_as_their_net_effect
    a_deleted_body_is_never_told_again
    an_audience_is_kept
    private_messages_are_replayed_to_those_who_have_them
    channels_and_inbox_come_in_one_order
    a_long_replay_comes_whole
    large_messages_come_whole
    nothing_missed_is_an_empty_replay
    an_empty_cursor_means_from_the_floors

    what_retention_dropped_is_a_gap
    what_is_past_its_time_is_a_gap
    an_edit_of_a_message_past_its_time_is_not_told
    a_trimmed_inbox_is_a_gap
    what_lies_below_the_floor_is_a_gap
    a_channel_that_keeps_no_frames_is_a_gap
    a_cursor_that_nobody_knows_is_a_gap_everywhere
    of_several_gaps_in_a_channel_the_first_is_told
    gaps_are_told_however_long_the_replay_is

    a_floor_is_the_first_subscription
    unsubscribing_ends_a_floor
    another_connection_holds_a_floor
    a_floor_lasts_for_the_resume_window
    a_back_end_lowers_and_raises_the_floor
    a_floor_after_a_time
    a_floor_below_what_retention_left_is_a_gap

    a_channel_of_a_deleted_name_tells_of_the_gap
    a_user_of_a_deleted_name_is_told_of_the_gap
    a_listener_of_a_deleted_user_is_closed

    unlogged_frames_come_from_memory_without_cursor
    a_listener_without_cursor_gets_no_marker
    a_malformed_cursor_is_refused
    who_reconnects_in_a_tight_loop_under_load_hears_everything_once
    who_overflows_while_reading_loses_and_doubles_nothing
}

// ---- Listeners ----

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    WebSocket,
    LongPoll,
    Sse,
}

impl Way {
    fn path(self, id: &str, since: &str) -> String {
        let path = match self {
            Self::WebSocket => "ws",
            Self::LongPoll => "listen",
            Self::Sse => "sse",
        };
        format!("/{path}?conn_id={id}&since={since}")
    }
}

enum Stream {
    Socket(Box<Socket>),
    Events(Box<Events>),
    Polls,
}

/// A listener that keeps the newest cursor of what it has taken.
struct Reader {
    way: Way,
    client: Client,
    id: String,
    cursor: String,
    stream: Stream,
    frames: VecDeque<Value>,
}

impl Reader {
    async fn open(way: Way, client: &Client, id: &str, since: &str) -> Self {
        let path = way.path(id, since);
        let stream = match way {
            Way::WebSocket => match Socket::try_open(client, &path).await {
                Ok(socket) => Stream::Socket(Box::new(socket)),
                Err(status) => panic!("{path} is refused: {status}"),
            },
            Way::Sse => match Events::try_open(client.request("GET", &path)).await {
                Ok(events) => Stream::Events(Box::new(events)),
                Err(answer) => panic!("{path} is refused: {answer:?}"),
            },
            Way::LongPoll => Stream::Polls,
        };
        let (client, id, cursor) = (client.clone(), id.to_owned(), since.to_owned());
        Self { way, client, id, cursor, stream, frames: VecDeque::new() }
    }

    /// Lets a user in, who listens from there on.
    async fn connect(way: Way, client: &Client, user: &str, channels: &[&str]) -> Self {
        let answer = client.post("/connect", json!({"username": user, "channels": channels})).await;
        let mut reader = Self::open(way, client, answer["conn_id"].as_str().expect("an id"), cursor(&answer)).await;
        // A poll that has nothing to tell would wait.
        if way != Way::LongPoll {
            let (frames, marker) = reader.replay().await;
            assert_eq!((frames.len(), &marker["gaps"]), (0, &json!([])), "{frames:?}");
        }
        reader
    }

    /// The next frame; none if the stream ended.
    async fn try_next(&mut self) -> Option<Value> {
        while self.frames.is_empty() {
            let frames = match &mut self.stream {
                Stream::Socket(socket) => socket.array().await.ok()?,
                Stream::Events(events) => {
                    let frames = events.array().await?;
                    let newest = frames.iter().rev().find_map(|frame| frame["cursor"].as_str());
                    if newest.is_some() {
                        assert_eq!(events.last_id.as_deref(), newest, "the event's id");
                    }
                    frames
                }
                Stream::Polls => {
                    let answer = self.client.get(&self.way.path(&self.id, &self.cursor)).await;
                    assert_eq!(answer.status, 200, "{}", answer.text);
                    let frames: Vec<Value> = serde_json::from_str(&answer.text).expect("a list of frames");
                    assert_eq!(frames.last().expect("a marker")["type"], "replay");
                    frames
                }
            };
            self.frames.extend(frames);
        }
        let frame = self.frames.pop_front().expect("a frame");
        if let Some(cursor) = frame["cursor"].as_str() {
            self.cursor = cursor.to_owned();
        }
        Some(frame)
    }

    async fn next(&mut self) -> Value {
        in_time("a frame", self.try_next()).await.expect("a stream that goes on")
    }

    /// The frames up to the marker, and the marker, which must fit them.
    async fn replay(&mut self) -> (Vec<Value>, Value) {
        let mut frames = Vec::new();
        loop {
            let frame = self.next().await;
            if frame["type"] != "replay" {
                frames.push(frame);
                continue;
            }
            let logged: Vec<u64> = frames.iter().filter(|frame| frame.get("cursor").is_some()).map(position).collect();
            assert!(logged.is_sorted_by(|a, b| a < b), "{logged:?}");
            assert!(logged.last().is_none_or(|last| *last <= position(&frame)), "{logged:?} {frame}");
            let caught_up = |frame: &&Value| frame["catchup"] == true;
            if frame["count"] != 0 || self.way != Way::LongPoll {
                assert!(frames.iter().all(|frame| caught_up(&frame)), "{frames:?}");
                assert_eq!(frame["count"], logged.len(), "{frames:?}");
                let first = frames.iter().position(|frame| frame.get("cursor").is_none()).unwrap_or(frames.len());
                assert_eq!(first, logged.len(), "what is logged comes first: {frames:?}");
            }
            return (frames, frame);
        }
    }

    /// The next frames of events, without saying whether they were missed, which a poll cannot help.
    async fn live(&mut self, count: usize) -> Vec<Value> {
        let mut frames = Vec::with_capacity(count);
        let live = async {
            while frames.len() < count {
                let frame = self.next().await;
                if frame["type"] != "replay" && frame["type"] != "cursor" {
                    frames.push(without(frame, &["catchup"]));
                }
            }
        };
        // Empty answers to polls do not make the wait longer.
        if timeout(PATIENCE, live).await.is_err() {
            panic!("waited in vain for {count} frames, got {}: {:?}", frames.len(), frames.last());
        }
        frames
    }

    /// Hears of messages, and ends as a lost network does; gives the id and the newest cursor.
    async fn hear_and_drop(mut self, server: &TestServer, expected: &[i64]) -> (String, String) {
        assert_eq!(numbers(&self.live(expected.len()).await), expected);
        self.drop(server).await
    }

    /// Ends as a lost network does; gives the id and the newest cursor.
    async fn drop(self, server: &TestServer) -> (String, String) {
        let Self { id, cursor, stream, .. } = self;
        drop(stream);
        server.listeners(0).await;
        (id, cursor)
    }
}

/// Opens a connection once, for what it has missed.
async fn come_back(way: Way, client: &Client, id: &str, since: &str) -> (Vec<Value>, Value) {
    Reader::open(way, client, id, since).await.replay().await
}

fn position(item: &Value) -> u64 {
    let cursor = item["cursor"].as_str().unwrap_or_else(|| panic!("no cursor: {item}"));
    cursor.split_once('-').expect("an epoch and a position").1.parse().expect("a number")
}

fn cursor(item: &Value) -> &str {
    item["cursor"].as_str().unwrap_or_else(|| panic!("no cursor: {item}"))
}

/// The same cursor for another position.
fn moved(cursor: &str, by: i64) -> String {
    let (epoch, position) = cursor.split_once('-').expect("an epoch and a position");
    format!("{epoch}-{}", position.parse::<i64>().expect("a number") + by)
}

/// What frames say, briefly.
fn brief(frames: &[Value]) -> Vec<String> {
    let one = |frame: &Value| {
        let place = frame["channel"].as_str().unwrap_or("private");
        match frame["type"].as_str() {
            Some("message") => format!("{place} {}", frame["message"]["n"]),
            Some("message:edit") => format!("{place} edited {}", frame["message"]["n"]),
            Some("message:delete") => format!("{place} deleted"),
            other => panic!("unexpected {other:?}: {frame}"),
        }
    };
    frames.iter().map(one).collect()
}

async fn with_history(server: &TestServer, channels: &[&str]) {
    for channel in channels {
        server.configure(channel, json!({"store_history": true, "history_size": 1000})).await;
    }
}

async fn private(server: &TestServer, users: &[&str], n: i64) -> Value {
    server.post("/message", json!([{"user": "x", "pm_users": users, "message": {"n": n}}])).await[0].take()
}

async fn edit(server: &TestServer, message: &Value, n: i64) -> Value {
    let users = &message["pm_users"];
    let edit =
        json!([{"uuid": message["uuid"], "channel": message["channel"], "pm_users": users, "message": {"n": n}}]);
    server.ask("PATCH", "/message", edit).await[0].take()
}

async fn delete(server: &TestServer, message: &Value) -> Value {
    let deletion = json!([{"uuid": message["uuid"], "channel": message["channel"], "pm_users": message["pm_users"]}]);
    server.ask("DELETE", "/message", deletion).await[0].take()
}

async fn subscribe(server: &TestServer, id: &str, channels: &[&str]) {
    server.post("/subscribe", json!({"conn_id": id, "channels": channels})).await;
}

async fn unsubscribe(server: &TestServer, id: &str, channels: &[&str]) {
    server.post("/unsubscribe", json!({"conn_id": id, "channels": channels})).await;
}

// ---- What is replayed ----

async fn what_was_missed_comes_once_and_live_events_follow(way: Way) {
    let server = TestServer::start().await;
    with_history(&server, &["room"]).await;
    let ann = Reader::connect(way, &server, "ann", &["room"]).await;
    server.say("room", 1..4).await;
    let (id, since) = ann.hear_and_drop(&server, &[1, 2, 3]).await;

    let said = server.say("room", 4..7).await;
    let mut ann = Reader::open(way, &server, &id, &since).await;
    let (frames, marker) = ann.replay().await;
    assert_eq!(numbers(&frames), [4, 5, 6]);
    assert_eq!(texts(&frames, "cursor"), texts(list(&said), "cursor"));
    assert_eq!(marker, json!({"type": "replay", "cursor": said[2]["cursor"], "count": 3, "gaps": []}));
    let frame = json!({"channel": "room", "uuid": said[0]["uuid"], "timestamp": said[0]["timestamp"],
        "user": "speaker", "message": {"n": 4}, "edited": null, "catchup": true, "type": "message",
        "cursor": said[0]["cursor"]});
    assert_eq!(frames[0], frame);
    server.say("room", [7]).await;
    let (id, since) = ann.hear_and_drop(&server, &[7]).await;
    assert_eq!(numbers(&come_back(way, &server, &id, &since).await.0), [0; 0]);
}

async fn a_new_connection_id_is_no_reason_to_lose_anything(way: Way) {
    let server = TestServer::start().await;
    with_history(&server, &["room", "other"]).await;
    let ann = Reader::connect(way, &server, "ann", &["room", "other"]).await;
    server.say("room", [1]).await;
    let (old, since) = ann.hear_and_drop(&server, &[1]).await;
    server.say("room", [2]).await;
    dismiss(&server, &old).await;
    server.say("other", [3]).await;

    let id = server.connect("ann", &["other", "room"]).await;
    assert_ne!(id, old);
    server.say("room", [4]).await;
    let mut ann = Reader::open(way, &server, &id, &since).await;
    let (frames, marker) = ann.replay().await;
    assert_eq!(numbers(&frames), [2, 3, 4]);
    assert_eq!(marker["gaps"], json!([]));
    server.say("room", [5]).await;
    assert_eq!(numbers(&ann.live(1).await), [5]);
}

async fn a_restart_in_between_changes_nothing(way: Way) {
    let mut server = TestServer::start().await;
    with_history(&server, &["room"]).await;
    let ann = Reader::connect(way, &server, "ann", &["room"]).await;
    server.say("room", 1..3).await;
    private(&server, &["ann"], 3).await;
    let (id, since) = ann.hear_and_drop(&server, &[1, 2, 3]).await;
    let first = server.say("room", [4, 5]).await;
    server.restart().await;
    private(&server, &["ann"], 6).await;
    edit(&server, &first[0], 44).await;
    server.restart().await;
    delete(&server, &first[1]).await;

    let mut ann = Reader::open(way, &server, &id, &since).await;
    let (frames, marker) = ann.replay().await;
    assert_eq!(brief(&frames), ["room 44", "private 6"]);
    assert_eq!((&marker["count"], &marker["gaps"]), (&json!(2), &json!([])));
    server.say("room", [7]).await;
    let (_, since) = ann.hear_and_drop(&server, &[7]).await;
    server.say("room", [8]).await;
    server.restart().await;
    let new = server.connect("ann", &["room"]).await;
    let (frames, marker) = come_back(way, &server, &new, &since).await;
    assert_eq!((brief(&frames), &marker["gaps"]), (vec!["room 8".to_owned()], &json!([])));
}

async fn edits_and_deletions_come_as_their_net_effect(way: Way) {
    let mut server = TestServer::start().await;
    with_history(&server, &["room"]).await;
    let ann = Reader::connect(way, &server, "ann", &["room"]).await;
    let old = server.say("room", 1..5).await;
    let (id, since) = ann.hear_and_drop(&server, &[1, 2, 3, 4]).await;

    let new = server.say("room", [6]).await;
    edit(&server, &old[0], 11).await;
    edit(&server, &new[0], 66).await;
    let deleted = delete(&server, &old[1]).await;
    edit(&server, &old[2], 33).await;
    let edited = edit(&server, &old[0], 111).await;
    let edited_and_deleted = delete(&server, &old[2]).await;
    let passing = server.say("room", [7]).await;
    edit(&server, &passing[0], 77).await;
    delete(&server, &passing[0]).await;
    let last = server.say("room", [8]).await;
    let edited_last = edit(&server, &last[0], 88).await;

    for restart in [false, true] {
        if restart {
            server.restart().await;
        }
        let (frames, marker) = come_back(way, &server, &id, &since).await;
        let expected = ["room 66", "room deleted", "room edited 111", "room deleted", "room 88"];
        assert_eq!(brief(&frames), expected);
        let receipts = [&new[0], &deleted, &edited, &edited_and_deleted, &last[0]];
        assert_eq!(texts(&frames, "cursor"), receipts.map(cursor));
        assert_eq!(frames[1]["uuid"], old[1]["uuid"]);
        assert_eq!((&frames[2]["uuid"], &frames[2]["edited"]), (&old[0]["uuid"], &edited["edited"]));
        assert_eq!((&frames[4]["edited"], &frames[4]["uuid"]), (&edited_last["edited"], &last[0]["uuid"]));
        assert_eq!((cursor(&marker), &marker["count"]), (cursor(&edited_last), &json!(5)));

        // From in between: what was new is old now.
        let (frames, _) = come_back(way, &server, &id, cursor(&new[0])).await;
        let expected = ["room deleted", "room edited 111", "room deleted", "room 88"];
        assert_eq!(brief(&frames)[..1], ["room edited 66"], "{frames:?}");
        assert_eq!(brief(&frames)[1..], expected);
        let (frames, _) = come_back(way, &server, &id, cursor(&last[0])).await;
        assert_eq!(brief(&frames), ["room edited 88"]);
    }
}

async fn a_deleted_body_is_never_told_again(way: Way) {
    let server = TestServer::start().await;
    with_history(&server, &["room"]).await;
    let ann = Reader::connect(way, &server, "ann", &["room"]).await;
    let old = server.say("room", [777_001]).await;
    let (id, since) = ann.hear_and_drop(&server, &[777_001]).await;
    let new = server.say("room", [777_002]).await;
    edit(&server, &old[0], 777_003).await;
    let letter = private(&server, &["ann"], 777_004).await;
    for message in [&old[0], &new[0], &letter] {
        delete(&server, message).await;
    }
    let (frames, _) = come_back(way, &server, &id, &since).await;
    assert_eq!(brief(&frames), ["room deleted"]);
    let mut told = frames[0].clone();
    told.as_object_mut().unwrap().remove("cursor");
    let deletion = json!({"type": "message:delete", "uuid": old[0]["uuid"], "channel": "room", "catchup": true});
    assert_eq!(told, deletion, "and nothing else of it");
}

async fn an_audience_is_kept(way: Way) {
    let server = TestServer::start().await;
    with_history(&server, &["room"]).await;
    let mut readers = Vec::new();
    let first = server.say("room", [0]).await;
    for user in ["ann", "bob", "eve"] {
        let id = server.connect(user, &["room"]).await;
        readers.push((id, cursor(&first[0]).to_owned()));
    }
    let say = |n: i64, only: &[&str], except: &[&str]| {
        let message = json!({"n": n});
        json!({"user": "x", "channel": "room", "pm_users": only, "exclude_users": except, "message": message})
    };
    let messages = json!([
        say(1, &[], &[]),
        say(2, &["ann", "bob"], &[]),
        say(3, &[], &["bob"]),
        say(4, &["ann", "eve"], &["eve", "ann"]),
        say(5, &["nobody", "eve"], &[]),
    ]);
    let posted = server.post("/message", messages).await;
    for ((id, since), expected) in readers.iter().zip([&[1, 2, 3][..], &[1, 2], &[1, 3, 5]]) {
        let (frames, marker) = come_back(way, &server, id, since).await;
        assert_eq!(numbers(&frames), expected);
        assert_eq!(cursor(&marker), cursor(&posted[4]), "others' positions are behind it too");
    }

    // An edit or deletion goes to the audience of the message, whatever it names itself.
    let mut to_eve = posted[1].clone();
    to_eve["pm_users"] = json!(["eve"]);
    edit(&server, &to_eve, 22).await;
    to_eve = posted[2].clone();
    to_eve["pm_users"] = json!(["bob"]);
    delete(&server, &to_eve).await;
    let since = cursor(&posted[4]);
    let expected = [&["room edited 22", "room deleted"][..], &["room edited 22"], &["room deleted"]];
    for ((id, _), expected) in readers.iter().zip(expected) {
        assert_eq!(brief(&come_back(way, &server, id, since).await.0), expected);
    }
}

async fn private_messages_are_replayed_to_those_who_have_them(way: Way) {
    let mut server = TestServer::start().await;
    let (ann, bob) = (server.connect("ann", &[]).await, server.connect("bob", &[]).await);
    let eve = server.connect("eve", &[]).await;
    let answer = server.post("/connect", json!({"username": "ann", "channels": []})).await;
    let since = cursor(&answer).to_owned();
    private(&server, &["ann"], 1).await;
    let shared = private(&server, &["ann", "bob", "nobody", "ann"], 2).await;
    let edited = edit(&server, &shared, 22).await;
    let gone = private(&server, &["bob", "eve"], 3).await;
    let unlogged = json!([{"user": "x", "pm_users": ["ann"], "message": {"n": 4}, "no_history": true}]);
    server.post("/message", unlogged).await;
    server.restart().await;
    let deleted = delete(&server, &gone).await;

    let to_ann = come_back(way, &server, &ann, &since).await;
    assert_eq!(brief(&to_ann.0), ["private 1", "private 22"]);
    assert_eq!(to_ann.0[1]["channel"], Value::Null);
    assert_eq!(cursor(&to_ann.1), cursor(&deleted));
    assert_eq!(brief(&come_back(way, &server, &bob, &since).await.0), ["private 22"]);
    assert_eq!(brief(&come_back(way, &server, &eve, &since).await.0), [""; 0]);
    assert_eq!(brief(&come_back(way, &server, &ann, cursor(&shared)).await.0), ["private edited 22"]);
    assert_eq!(brief(&come_back(way, &server, &eve, cursor(&gone)).await.0), ["private deleted"]);
    let to_ann = come_back(way, &server, &ann, cursor(&edited)).await;
    assert_eq!((brief(&to_ann.0).len(), &to_ann.1["gaps"]), (0, &json!([])), "what eve and bob had is none of hers");
}

async fn channels_and_inbox_come_in_one_order(way: Way) {
    let server = TestServer::start().await;
    let channels = ["a", "b", "c"];
    with_history(&server, &channels).await;
    with_history(&server, &["elsewhere"]).await;
    let ann = Reader::connect(way, &server, "ann", &channels).await;
    let (id, since) = ann.drop(&server).await;
    let mut expected = Vec::new();
    let mut random = Random::new(5);
    for n in 0..120 {
        match random.below(5) {
            0 => {
                private(&server, &["ann"], n).await;
                expected.push(n);
            }
            1 => {
                server.say("elsewhere", [n]).await;
            }
            which => {
                server.say(channels[which as usize - 2], [n]).await;
                expected.push(n);
            }
        }
    }
    let (frames, marker) = come_back(way, &server, &id, &since).await;
    assert_eq!(numbers(&frames), expected);
    assert_eq!(marker["gaps"], json!([]));
}

async fn a_long_replay_comes_whole(way: Way) {
    let server = TestServer::start().await;
    server.configure("room", json!({"store_history": true, "replay_size": 10_000})).await;
    server.configure("other", json!({"store_history": true, "replay_size": 10_000})).await;
    let ann = Reader::connect(way, &server, "ann", &["room", "other"]).await;
    let (id, since) = ann.drop(&server).await;
    // Whole pages, and a last one that is empty, full or neither.
    let mut said = 0;
    for count in [99, 1, 1, 99, 450] {
        let channel = if count == 99 { "other" } else { "room" };
        server.say(channel, said..said + count).await;
        said += count;
        let (frames, marker) = come_back(way, &server, &id, &since).await;
        assert_eq!(numbers(&frames), (0..said).collect::<Vec<_>>());
        assert_eq!((&marker["count"], &marker["gaps"]), (&json!(said), &json!([])));
    }
}

/// More than one array or one answer to a poll takes: the replay goes on from each cursor.
async fn large_messages_come_whole(way: Way) {
    let server = TestServer::start().await;
    server.configure("room", json!({"store_history": true, "replay_size": 10_000})).await;
    let ann = Reader::connect(way, &server, "ann", &["room"]).await;
    let (id, since) = ann.drop(&server).await;
    let filler = "x".repeat(60_000);
    for n in 0..60 {
        let message = json!([{"user": "x", "channel": "room", "message": {"n": n, "filler": filler}}]);
        server.post("/message", message).await;
    }
    let mut ann = Reader::open(way, &server, &id, &since).await;
    assert_eq!(numbers(&ann.live(60).await), (0..60).collect::<Vec<_>>());
}

async fn nothing_missed_is_an_empty_replay(way: Way) {
    let server = TestServer::start().await;
    with_history(&server, &["room", "elsewhere"]).await;
    let ann = Reader::connect(way, &server, "ann", &["room"]).await;
    server.say("room", [1]).await;
    let (id, since) = ann.hear_and_drop(&server, &[1]).await;
    let last = server.say("elsewhere", [2]).await;
    let (frames, marker) = come_back(way, &server, &id, &since).await;
    assert_eq!(frames.len(), 0);
    assert_eq!(marker, json!({"type": "replay", "cursor": last[0]["cursor"], "count": 0, "gaps": []}));
}

async fn an_empty_cursor_means_from_the_floors(way: Way) {
    let server = TestServer::start().await;
    with_history(&server, &["room", "later"]).await;
    server.say("room", [1]).await;
    server.say("later", [2]).await;
    let id = server.connect("ann", &["room"]).await;
    server.say("room", [3]).await;
    server.say("later", [4]).await;
    subscribe(&server, &id, &["later"]).await;
    server.say("later", [5]).await;
    private(&server, &["ann"], 6).await;
    for _ in 0..2 {
        let (frames, marker) = come_back(way, &server, &id, "").await;
        assert_eq!(numbers(&frames), [3, 5, 6]);
        assert_eq!(marker["gaps"], json!([]), "nobody asked for more");
    }
}

// ---- Gaps ----

/// Says so much that a small channel is trimmed, and gives the cursors.
async fn overfill(server: &TestServer, channel: &str) -> Vec<String> {
    let mut cursors = Vec::new();
    for numbers in [1..41, 41..42] {
        let said = server.say(channel, numbers).await;
        cursors.extend(list(&said).iter().map(|message| cursor(message).to_owned()));
    }
    cursors
}

async fn what_retention_dropped_is_a_gap(way: Way) {
    let mut server = TestServer::start().await;
    for channel in ["small", "quiet"] {
        server.configure(channel, json!({"store_history": true, "history_size": 5, "replay_size": 5})).await;
    }
    with_history(&server, &["large"]).await;
    let ann = Reader::connect(way, &server, "ann", &["small", "quiet", "large"]).await;
    let (id, since) = ann.drop(&server).await;
    let cursors = overfill(&server, "small").await;
    overfill(&server, "large").await;
    let gap = json!([{"channel": "small", "reason": "trimmed"}]);
    for restart in [false, true] {
        if restart {
            server.restart().await;
        }
        let (frames, marker) = come_back(way, &server, &id, &since).await;
        assert_eq!(numbers(&frames[..5]), (37..42).collect::<Vec<_>>(), "what is left");
        assert_eq!((frames.len(), &marker["gaps"]), (5 + 41, &gap));
        let (frames, marker) = come_back(way, &server, &id, &cursors[34]).await;
        assert_eq!((frames.len(), &marker["gaps"]), (5 + 41, &gap), "one is missing");
        let (frames, marker) = come_back(way, &server, &id, &cursors[35]).await;
        assert_eq!((frames.len(), &marker["gaps"]), (5 + 41, &json!([])), "none is missing");
        let (frames, marker) = come_back(way, &server, &id, &cursors[36]).await;
        assert_eq!((frames.len(), &marker["gaps"]), (4 + 41, &json!([])));
        assert_eq!(come_back(way, &server, &id, "").await.1["gaps"], gap);
    }
}

async fn what_is_past_its_time_is_a_gap(way: Way) {
    let server = TestServer::start().await;
    server.configure("brief", json!({"store_history": true, "history_ttl": 1})).await;
    let ann = Reader::connect(way, &server, "ann", &["brief"]).await;
    let (id, since) = ann.drop(&server).await;
    let said = server.say("brief", 1..3).await;
    let (frames, marker) = come_back(way, &server, &id, &since).await;
    assert_eq!((numbers(&frames), &marker["gaps"]), (vec![1, 2], &json!([])));
    until("the messages to be past their time", async || server.history("brief").await.is_empty()).await;
    server.say("brief", [3]).await;
    let (frames, marker) = come_back(way, &server, &id, &since).await;
    assert_eq!(numbers(&frames), [3]);
    assert_eq!(marker["gaps"], json!([{"channel": "brief", "reason": "trimmed"}]));
    let (frames, marker) = come_back(way, &server, &id, cursor(&said[1])).await;
    assert_eq!((numbers(&frames), &marker["gaps"]), (vec![3], &json!([])), "it had them");
}

/// The message has left the log, and its edit with it.
async fn an_edit_of_a_message_past_its_time_is_not_told(way: Way) {
    let server = TestServer::start().await;
    server.configure("brief", json!({"store_history": true, "history_ttl": 1})).await;
    let ann = Reader::connect(way, &server, "ann", &["brief"]).await;
    let said = server.say("brief", [1]).await;
    let (id, since) = ann.hear_and_drop(&server, &[1]).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    edit(&server, &said[0], 11).await;
    until("the message to be past its time", async || server.history("brief").await.is_empty()).await;
    let (frames, _) = come_back(way, &server, &id, &since).await;
    assert_eq!(brief(&frames), [""; 0]);
}

async fn a_trimmed_inbox_is_a_gap(way: Way) {
    let server = TestServer::start().await;
    let ann = Reader::connect(way, &server, "ann", &[]).await;
    let (id, since) = ann.drop(&server).await;
    let letter = |n: i64| json!({"user": "x", "pm_users": ["ann"], "message": {"n": n}});
    let letters = server.post("/message", (1..71).map(letter).collect()).await;
    private(&server, &["ann"], 71).await;
    let (frames, marker) = come_back(way, &server, &id, &since).await;
    assert_eq!(numbers(&frames), (22..72).collect::<Vec<_>>());
    assert_eq!(marker["gaps"], json!([{"user": "ann", "reason": "trimmed"}]));
    let (frames, marker) = come_back(way, &server, &id, cursor(&letters[20])).await;
    assert_eq!((frames.len(), &marker["gaps"]), (50, &json!([])));
    let (_, marker) = come_back(way, &server, &id, cursor(&letters[19])).await;
    assert_eq!(marker["gaps"], json!([{"user": "ann", "reason": "trimmed"}]));
}

async fn what_lies_below_the_floor_is_a_gap(way: Way) {
    let server = TestServer::start().await;
    with_history(&server, &["lobby", "busy", "quiet"]).await;
    let ann = Reader::connect(way, &server, "ann", &["lobby"]).await;
    let (id, since) = ann.drop(&server).await;
    let before = server.say("busy", 1..4).await;
    subscribe(&server, &id, &["busy", "quiet"]).await;
    server.say("busy", [4]).await;
    server.say("quiet", [5]).await;
    for since in [&since, cursor(&before[0]), cursor(&before[1])] {
        let (frames, marker) = come_back(way, &server, &id, since).await;
        assert_eq!(numbers(&frames), [4, 5]);
        assert_eq!(marker["gaps"], json!([{"channel": "busy", "reason": "floor"}]));
    }
    let (frames, marker) = come_back(way, &server, &id, cursor(&before[2])).await;
    assert_eq!((numbers(&frames), &marker["gaps"]), (vec![4, 5], &json!([])));
}

async fn a_channel_that_keeps_no_frames_is_a_gap(way: Way) {
    let server = TestServer::start().await;
    let off = json!({"store_history": true, "store_frames": false});
    for channel in ["off", "quiet"] {
        server.configure(channel, off.clone()).await;
    }
    server.configure("unlogged", json!({"store_frames": false})).await;
    with_history(&server, &["room"]).await;
    server.say("quiet", [1]).await;
    let ann = Reader::connect(way, &server, "ann", &["off", "quiet", "unlogged", "room"]).await;
    let (id, since) = ann.drop(&server).await;
    let said = server.say("off", 2..4).await;
    server.say("unlogged", [4]).await;
    server.say("room", [5]).await;
    for since in [since.as_str(), cursor(&said[0]), ""] {
        let (frames, marker) = come_back(way, &server, &id, since).await;
        assert_eq!(numbers(&frames), [5]);
        assert_eq!(marker["gaps"], json!([{"channel": "off", "reason": "not_kept"}]), "since {since:?}");
    }
    let (frames, marker) = come_back(way, &server, &id, cursor(&said[1])).await;
    assert_eq!((numbers(&frames), &marker["gaps"]), (vec![5], &json!([])));
    // Its live events come all the same.
    let mut ann = Reader::open(way, &server, &id, cursor(&said[1])).await;
    ann.replay().await;
    if way != Way::LongPoll {
        server.say("off", [6]).await;
        assert_eq!(numbers(&ann.live(1).await), [6]);
    }
}

async fn a_cursor_that_nobody_knows_is_a_gap_everywhere(way: Way) {
    let mut server = TestServer::start().await;
    with_history(&server, &["room", "quiet", "elsewhere"]).await;
    server.configure("off", json!({"store_history": true, "store_frames": false})).await;
    server.say("room", [1]).await;
    let ann = Reader::connect(way, &server, "ann", &["off", "quiet", "room"]).await;
    let (id, start) = ann.drop(&server).await;
    let room = |reason: &str| json!({"channel": "room", "reason": reason});
    for since in ["abcd1234-0", "abcd1234-1", &moved(&start, 1), &moved(&start, 1_000_000)] {
        let (frames, marker) = come_back(way, &server, &id, since).await;
        assert_eq!(frames.len(), 0);
        assert_eq!(marker, json!({"type": "replay", "cursor": start, "count": 0, "gaps": [room("unknown_cursor")]}));
    }
    server.say("room", [2]).await;
    server.say("off", [3]).await;
    let last = private(&server, &["ann"], 4).await;
    let gap = |channel: &str| json!({"channel": channel, "reason": "unknown_cursor"});
    for restart in [false, true] {
        if restart {
            server.restart().await;
        }
        let mut ann = Reader::open(way, &server, &id, "zzz-2").await;
        let (frames, marker) = ann.replay().await;
        assert_eq!((frames.len(), cursor(&marker)), (0, cursor(&last)));
        let mut gaps = list(&marker["gaps"]).to_vec();
        gaps.sort_by_key(|gap| gap["channel"].to_string());
        assert_eq!(gaps, [gap("off"), gap("room"), json!({"user": "ann", "reason": "unknown_cursor"})]);
        let since = cursor(&marker).to_owned();
        ann.drop(&server).await;
        assert_eq!(come_back(way, &server, &id, &since).await.1["gaps"], json!([]), "and then all is well");
    }
}

async fn of_several_gaps_in_a_channel_the_first_is_told(way: Way) {
    let server = TestServer::start().await;
    let small = json!({"store_history": true, "history_size": 5, "replay_size": 5});
    with_history(&server, &["lobby"]).await;
    server.configure("room", small.clone()).await;
    let ann = Reader::connect(way, &server, "ann", &["lobby"]).await;
    let (id, since) = ann.drop(&server).await;
    overfill(&server, "room").await;
    subscribe(&server, &id, &["room"]).await;
    let reason = async |since: &str| {
        let (_, marker) = come_back(way, &server, &id, since).await;
        assert_eq!(list(&marker["gaps"]).len(), 1, "{marker}");
        marker["gaps"][0]["reason"].clone()
    };
    assert_eq!(reason(&since).await, "floor", "and trimmed");
    let mut off = small.clone();
    off["store_frames"] = json!(false);
    server.configure("room", off).await;
    assert_eq!(reason(&since).await, "not_kept", "and floor");
    assert_eq!(reason("zzz-1").await, "unknown_cursor", "and all others");
    server.configure("room", small).await;
    overfill(&server, "room").await;
    assert_eq!(reason("").await, "trimmed");
}

/// Each answer to a poll has its marker; what they tell together is no less than one would.
async fn gaps_are_told_however_long_the_replay_is(way: Way) {
    let server = TestServer::start().await;
    server.configure("off", json!({"store_history": true, "store_frames": false})).await;
    server.configure("room", json!({"store_history": true, "replay_size": 10_000})).await;
    with_history(&server, &["joined later"]).await;
    server.configure("small", json!({"store_history": true, "history_size": 5, "replay_size": 5})).await;
    let ann = Reader::connect(way, &server, "ann", &["off", "room", "small"]).await;
    let (id, since) = ann.drop(&server).await;
    server.say("off", [1]).await;
    server.say("joined later", [2]).await;
    subscribe(&server, &id, &["joined later"]).await;
    overfill(&server, "small").await;
    let filler = "x".repeat(15_000);
    for n in 0..150 {
        let message = json!([{"user": "x", "channel": "room", "message": {"n": n, "filler": filler}}]);
        server.post("/message", message).await;
    }
    let mut ann = Reader::open(way, &server, &id, &since).await;
    let (mut gaps, mut heard) = (BTreeMap::new(), Vec::new());
    while heard.last() != Some(&149) {
        let (frames, marker) = ann.replay().await;
        heard.extend(numbers(&frames));
        for gap in list(&marker["gaps"]) {
            gaps.insert(gap["channel"].to_string(), gap["reason"].clone());
        }
    }
    let expected = [("joined later", "floor"), ("off", "not_kept"), ("small", "trimmed")];
    assert_eq!(gaps, expected.map(|(channel, reason)| (json!(channel).to_string(), json!(reason))).into());
}

// ---- Floors ----

async fn a_floor_is_the_first_subscription(way: Way) {
    let mut server = TestServer::start().await;
    with_history(&server, &["room"]).await;
    let start = server.post("/connect", json!({"username": "bob", "channels": ["room"]})).await;
    server.say("room", [1]).await;
    let id = server.connect("ann", &["room"]).await;
    server.say("room", [2]).await;
    // Once more, in every way: it stays.
    server.post("/connect", json!({"username": "ann", "conn_id": id, "channels": ["room"]})).await;
    subscribe(&server, &id, &["room"]).await;
    let second = server.connect("ann", &["room"]).await;
    server.say("room", [3]).await;
    for restart in [false, true] {
        if restart {
            server.restart().await;
        }
        for id in [&id, &second] {
            for since in ["", cursor(&start)] {
                assert_eq!(numbers(&come_back(way, &server, id, since).await.0), [2, 3]);
            }
        }
    }
}

async fn unsubscribing_ends_a_floor(way: Way) {
    let mut server = TestServer::start().await;
    with_history(&server, &["room"]).await;
    let ann = Reader::connect(way, &server, "ann", &["room"]).await;
    let (id, since) = ann.drop(&server).await;
    server.say("room", [1]).await;
    unsubscribe(&server, &id, &["room"]).await;
    let (frames, marker) = come_back(way, &server, &id, &since).await;
    assert_eq!((frames.len(), &marker["gaps"]), (0, &json!([])), "it is not its channel any more");
    server.say("room", [2]).await;
    subscribe(&server, &id, &["room"]).await;
    server.say("room", [3]).await;
    for restart in [false, true] {
        if restart {
            server.restart().await;
        }
        let (frames, marker) = come_back(way, &server, &id, &since).await;
        assert_eq!(numbers(&frames), [3]);
        assert_eq!(marker["gaps"], json!([{"channel": "room", "reason": "floor"}]));
        assert_eq!(numbers(&come_back(way, &server, &id, "").await.0), [3]);
    }
}

async fn another_connection_holds_a_floor(way: Way) {
    let mut server = TestServer::start().await;
    with_history(&server, &["room"]).await;
    let ann = Reader::connect(way, &server, "ann", &["room"]).await;
    let (id, since) = ann.drop(&server).await;
    server.say("room", [1]).await;
    server.connect("ann", &["room"]).await;
    unsubscribe(&server, &id, &["room"]).await;
    server.say("room", [2]).await;
    subscribe(&server, &id, &["room"]).await;
    server.say("room", [3]).await;
    for restart in [false, true] {
        if restart {
            server.restart().await;
        }
        let (frames, marker) = come_back(way, &server, &id, &since).await;
        assert_eq!((numbers(&frames), &marker["gaps"]), (vec![1, 2, 3], &json!([])));
    }
}

async fn a_floor_lasts_for_the_resume_window(way: Way) {
    let mut server = TestServer::with(|config| config.resume_window = Duration::from_secs(3600)).await;
    with_history(&server, &["room"]).await;
    let ann = Reader::connect(way, &server, "ann", &["room"]).await;
    let (id, since) = ann.drop(&server).await;
    let said = server.say("room", [1]).await;
    dismiss(&server, &id).await;
    server.restart().await;
    let id = server.connect("ann", &["room"]).await;
    let (frames, marker) = come_back(way, &server, &id, &since).await;
    assert_eq!((numbers(&frames), &marker["gaps"]), (vec![1], &json!([])));

    server.listeners(0).await;
    dismiss(&server, &id).await;
    server.restart_with(|config| config.resume_window = Duration::from_millis(1)).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    server.say("room", [2]).await;
    let id = server.connect("ann", &["room"]).await;
    server.say("room", [3]).await;
    let (frames, marker) = come_back(way, &server, &id, &since).await;
    assert_eq!(numbers(&frames), [3]);
    assert_eq!(marker["gaps"], json!([{"channel": "room", "reason": "floor"}]));
    let (frames, _) = come_back(way, &server, &id, cursor(&said[0])).await;
    assert_eq!(numbers(&frames), [3]);
}

/// Ends a connection that nobody listens on, the only one in its channels, and waits until it has ended.
async fn dismiss(server: &TestServer, id: &str) {
    send(server.request("POST", "/disconnect").body(json!({"conn_id": id}).to_string())).await;
    until("the connection to end", async || server.channel("room").await["users"] == json!([])).await;
}

/// Lets a user in whose floors the back end sets; gives the connection's id.
async fn connect_since(server: &TestServer, user: &str, id: Option<&str>, channels: &[&str], since: &str) -> String {
    let mut body = json!({"username": user, "channels": channels, "since": since});
    if let Some(id) = id {
        body["conn_id"] = json!(id);
    }
    server.post("/connect", body).await["conn_id"].as_str().expect("an id").to_owned()
}

async fn a_back_end_lowers_and_raises_the_floor(way: Way) {
    let mut server = TestServer::start().await;
    with_history(&server, &["room", "other"]).await;
    let start = server.post("/connect", json!({"username": "bob"})).await;
    let said = server.say("room", 1..4).await;
    server.say("other", 4..6).await;
    let id = server.connect("ann", &["room", "other"]).await;
    let from_floors = async |server: &TestServer, id: &str, expected: &[i64]| {
        let (frames, marker) = come_back(way, server, id, "").await;
        assert_eq!((numbers(&frames), &marker["gaps"]), (expected.to_vec(), &json!([])));
        server.listeners(0).await;
    };
    server.say("other", [6]).await;
    for restart in [false, true] {
        if restart {
            server.restart().await;
        }
        assert_eq!(connect_since(&server, "ann", Some(&id), &["room"], "earliest").await, id);
        from_floors(&server, &id, &[1, 2, 3, 6]).await;
        connect_since(&server, "ann", Some(&id), &["room"], cursor(&said[1])).await;
        from_floors(&server, &id, &[3, 6]).await;
        connect_since(&server, "ann", Some(&id), &["room"], cursor(&start)).await;
        from_floors(&server, &id, &[1, 2, 3, 6]).await;
    }
    server.restart().await;
    from_floors(&server, &id, &[1, 2, 3, 6]).await;
    // It is the user's, not the connection's.
    let second = connect_since(&server, "ann", None, &["room"], cursor(&said[2])).await;
    from_floors(&server, &id, &[6]).await;
    from_floors(&server, &second, &[0; 0]).await;
    let (frames, marker) = come_back(way, &server, &second, cursor(&start)).await;
    assert_eq!((frames.len(), &marker["gaps"]), (0, &json!([{"channel": "room", "reason": "floor"}])));
}

async fn a_floor_after_a_time(way: Way) {
    let server = TestServer::start().await;
    with_history(&server, &["room"]).await;
    server.say("room", [1]).await;
    let pause = Duration::from_millis(30);
    tokio::time::sleep(pause).await;
    let time = chrono::Utc::now();
    tokio::time::sleep(pause).await;
    server.say("room", 2..4).await;
    let zone = chrono::FixedOffset::east_opt(2 * 3600).expect("a zone");
    let later = time + Duration::from_secs(3600);
    for (since, expected) in [
        (time.to_rfc3339(), &[2, 3][..]),
        (time.naive_utc().to_string(), &[2, 3]),
        (time.with_timezone(&zone).to_rfc3339(), &[2, 3]),
        ("1999-12-31T23:59:59Z".to_owned(), &[1, 2, 3]),
        (later.to_rfc3339(), &[]),
    ] {
        let id = connect_since(&server, "ann", None, &["room"], &since).await;
        let (frames, marker) = come_back(way, &server, &id, "").await;
        assert_eq!((numbers(&frames), &marker["gaps"]), (expected.to_vec(), &json!([])), "{since}");
    }
}

async fn a_floor_below_what_retention_left_is_a_gap(way: Way) {
    let server = TestServer::start().await;
    server.configure("room", json!({"store_history": true, "history_size": 5, "replay_size": 5})).await;
    with_history(&server, &["other"]).await;
    server.say("room", [0]).await;
    overfill(&server, "room").await;
    server.say("room", [900]).await;
    let left = server.history("room").await;
    let other = server.say("other", [901]).await;
    for (since, gaps) in
        [("earliest", json!([{"channel": "room", "reason": "trimmed"}])), (cursor(&other[0]), json!([]))]
    {
        let id = connect_since(&server, "ann", None, &["room", "other"], since).await;
        let (frames, marker) = come_back(way, &server, &id, "").await;
        assert_eq!(marker["gaps"], gaps, "{since}");
        let frames: Vec<Value> = frames.into_iter().filter(|frame| frame["channel"] == "room").collect();
        match since {
            "earliest" => assert!(numbers(&frames).ends_with(&left), "{frames:?}"),
            _ => assert_eq!(frames.len(), 0),
        }
    }
}

// ---- After a deletion ----

async fn a_channel_of_a_deleted_name_tells_of_the_gap(way: Way) {
    let mut server = TestServer::start().await;
    with_history(&server, &["room", "quiet", "other"]).await;
    let ann = Reader::connect(way, &server, "ann", &["room", "quiet", "other"]).await;
    let (id, start) = ann.drop(&server).await;
    server.say("room", 1..3).await;
    let last = server.say("room", [3]).await;
    let other = server.say("other", [4]).await;
    for channel in ["room", "quiet"] {
        let gone = server.ask("DELETE", "/channel", json!({"channel": channel})).await;
        assert_eq!(gone, json!({"channel": channel}));
    }
    // It is not its channel any more.
    let (frames, marker) = come_back(way, &server, &id, &start).await;
    assert_eq!((numbers(&frames), &marker["gaps"]), (vec![4], &json!([])));
    with_history(&server, &["room", "quiet"]).await;
    subscribe(&server, &id, &["room", "quiet"]).await;
    server.say("room", [5]).await;
    let gap = |reason: &str| json!([{"channel": "room", "reason": reason}]);
    for restart in [false, true] {
        if restart {
            server.restart().await;
        }
        // Its floor is where it was subscribed again, after all that is gone.
        let (frames, marker) = come_back(way, &server, &id, &start).await;
        assert_eq!((numbers(&frames), &marker["gaps"]), (vec![4, 5], &gap("floor")));
        for since in [cursor(&last[0]), cursor(&other[0])] {
            let (frames, marker) = come_back(way, &server, &id, since).await;
            assert_eq!((numbers(&frames).last(), &marker["gaps"]), (Some(&5), &json!([])), "nothing was missed");
        }
    }
    connect_since(&server, "ann", Some(&id), &["room", "quiet"], &start).await;
    for since in [&start, ""] {
        let (frames, marker) = come_back(way, &server, &id, since).await;
        assert_eq!((numbers(&frames), &marker["gaps"]), (vec![4, 5], &gap("trimmed")));
    }
}

async fn a_user_of_a_deleted_name_is_told_of_the_gap(way: Way) {
    let mut server = TestServer::start().await;
    with_history(&server, &["room"]).await;
    let start = Reader::connect(way, &server, "ann", &[]).await.drop(&server).await.1;
    server.connect("bob", &[]).await;
    let letters = [private(&server, &["ann"], 1).await, private(&server, &["ann"], 2).await];
    server.say("room", [3]).await;
    for user in ["ann", "bob"] {
        assert_eq!(server.ask("DELETE", "/user", json!({"user": user})).await, json!({"user": user}));
    }
    let ids = [server.connect("ann", &[]).await, server.connect("bob", &[]).await];
    private(&server, &["ann", "bob"], 4).await;
    for restart in [false, true] {
        if restart {
            server.restart().await;
        }
        for since in [&start, cursor(&letters[0])] {
            let (frames, marker) = come_back(way, &server, &ids[0], since).await;
            assert_eq!((numbers(&frames), &marker["gaps"]), (vec![4], &json!([{"user": "ann", "reason": "floor"}])));
        }
        for (id, since) in [(&ids[0], cursor(&letters[1])), (&ids[1], &start), (&ids[0], "")] {
            let (frames, marker) = come_back(way, &server, id, since).await;
            assert_eq!((numbers(&frames), &marker["gaps"]), (vec![4], &json!([])), "nothing was missed");
        }
    }
}

async fn a_listener_of_a_deleted_user_is_closed(way: Way) {
    let server = TestServer::start().await;
    with_history(&server, &["room"]).await;
    let mut ann = Reader::connect(way, &server, "ann", &["room"]).await;
    if way == Way::LongPoll {
        server.say("room", [1]).await;
        assert_eq!(numbers(&ann.live(1).await), [1]);
    }
    server.ask("DELETE", "/user", json!({"user": "ann"})).await;
    match &mut ann.stream {
        Stream::Socket(socket) => assert_eq!(socket.closed().await, 4001),
        Stream::Events(events) => assert_eq!(in_time("the end", events.array()).await, None),
        Stream::Polls => assert_eq!(server.get(&way.path(&ann.id, &ann.cursor)).await.status, 401),
    }
    server.listeners(0).await;
}

// ---- And else ----

async fn unlogged_frames_come_from_memory_without_cursor(way: Way) {
    let server = TestServer::start().await;
    server.configure("room", json!({"store_history": true, "notify_presence": true})).await;
    server.configure("passing", json!({})).await;
    let ann = Reader::connect(way, &server, "ann", &["room", "passing"]).await;
    server.say("room", [1]).await;
    server.say("passing", [2]).await;
    let (id, since) = ann.hear_and_drop(&server, &[1, 2]).await;
    server.say("passing", [3]).await;
    server.connect("bob", &["room"]).await;
    server.say("room", [4]).await;
    let unlogged = json!([{"user": "x", "channel": "room", "message": {"n": 5}, "no_history": true}]);
    server.post("/message", unlogged).await;

    let mut ann = Reader::open(way, &server, &id, &since).await;
    let (frames, marker) = ann.replay().await;
    assert_eq!(numbers(&frames[..1]), [4]);
    assert_eq!(texts(&frames[1..], "type"), ["message", "presence", "message"]);
    let mut unlogged = vec![frames[1]["message"]["n"].clone(), frames[3]["message"]["n"].clone()];
    unlogged.sort_by_key(Value::to_string);
    assert_eq!(unlogged, [3, 5]);
    assert!(frames[1..].iter().all(|frame| frame.get("cursor").is_none() && frame["catchup"] == true));
    assert_eq!((&marker["count"], &marker["gaps"]), (&json!(1), &json!([])));
    let (id, since) = ann.drop(&server).await;
    assert_eq!(come_back(way, &server, &id, &since).await.0.len(), 0, "they were told");
}

async fn a_listener_without_cursor_gets_no_marker(way: Way) {
    let server = TestServer::with(|config| config.heartbeat_interval = Duration::from_millis(30)).await;
    with_history(&server, &["room", "other", "elsewhere"]).await;
    let id = server.connect("ann", &["room"]).await;
    server.say("room", [1]).await;
    let speak = async || {
        server.listeners(1).await;
        server.say("elsewhere", [2]).await;
        subscribe(&server, &id, &["other"]).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.say("other", [3]).await;
    };
    let frames = match way {
        Way::LongPoll => {
            let mut frames = server.poll(&id).await;
            let (more, ()) = tokio::join!(server.poll(&id), speak());
            frames.extend(more);
            frames
        }
        Way::WebSocket => {
            let mut socket = Socket::open(&server, &id).await;
            speak().await;
            socket.take(2).await
        }
        Way::Sse => {
            let request = server.request("GET", &format!("/sse?conn_id={id}"));
            let mut events = Events::try_open(request).await.expect("a stream");
            speak().await;
            let mut frames = events.array().await.expect("frames");
            frames.extend(events.array().await.expect("frames"));
            frames
        }
    };
    assert_eq!(texts(&frames, "type"), ["message", "message"], "{frames:?}");
    assert_eq!(numbers(&frames), [1, 3]);
}

async fn a_malformed_cursor_is_refused(way: Way) {
    let server = TestServer::start().await;
    let known = server.connect("ann", &["room"]).await;
    let fault = json!({"since": ["Not a valid cursor."]});
    for since in ["x", "-", "-1", "abc-", "abc-01", "ABC-1", "abc-1-1", "abc-9223372036854775808", "%20", "abc%2D-1"] {
        for id in [known.as_str(), "3106dab9-3425-43c4-9b95-4d22d8fc9561"] {
            let path = way.path(id, since);
            let answer = match way {
                Way::WebSocket => send(server.handshake(&path)).await,
                Way::LongPoll | Way::Sse => server.get(&path).await,
            };
            assert_eq!(answer.status, 422, "{since}: {}", answer.text);
            let refused = answer.json();
            let refused = refused.get("errors").unwrap_or(&refused);
            assert_eq!(*refused, fault, "{since}");
        }
    }
    server.listeners(0).await;
}

/// Says numbers in three channels, some to others, until it has said so many; gives what the
/// listener has to hear.
async fn chatter(client: Client, count: i64) -> Vec<i64> {
    let mut random = Random::new(11);
    let (mut expected, mut n) = (Vec::new(), 0);
    while n < count {
        let mut messages = Vec::new();
        for _ in 0..=random.below(8) {
            let channel = ["a", "b", "c", "elsewhere"][random.below(4) as usize];
            let hidden = random.below(6) == 0;
            let only: &[&str] = if hidden { &["bob"] } else { &[] };
            let filler = "x".repeat(random.below(300) as usize);
            let message = json!({"n": n, "filler": filler});
            messages.push(json!({"user": "x", "channel": channel, "pm_users": only, "message": message}));
            if !hidden && channel != "elsewhere" {
                expected.push(n);
            }
            n += 1;
        }
        client.post("/message", messages.into()).await;
    }
    expected
}

/// Opens, takes a few frames, and drops, until it has heard `last`; each logged event must come
/// once, and positions must rise.
async fn follow(way: Way, server: &TestServer, id: &str, since: &str, expected_count: usize, take: u64) -> Vec<i64> {
    let mut random = Random::new(7);
    let (mut heard, mut since, mut newest) = (Vec::new(), since.to_owned(), 0);
    let mut openings = 0;
    while heard.len() < expected_count {
        let mut reader = Reader::open(way, server, id, &since).await;
        openings += 1;
        let mut left = 1 + random.below(take);
        while left > 0 && heard.len() < expected_count {
            // A listener that is too slow is closed, and comes back.
            let Some(frame) = in_time("a frame", reader.try_next()).await else { break };
            left -= 1;
            if frame["type"] == "replay" {
                assert_eq!(frame["gaps"], json!([]));
            }
            assert!(frame["type"] != "replay" || position(&frame) >= newest);
            if frame["type"] == "message" {
                assert!(position(&frame) > newest, "{} after {newest}: {frame}", position(&frame));
                heard.push(frame["message"]["n"].as_i64().expect("a number"));
            }
            newest = newest.max(position(&frame));
        }
        since = reader.cursor.clone();
    }
    assert!(openings > 5 || way == Way::LongPoll, "{openings} openings");
    heard
}

async fn who_reconnects_in_a_tight_loop_under_load_hears_everything_once(way: Way) {
    let server = TestServer::with(|config| config.attach_rate = None).await;
    for channel in ["a", "b", "c", "elsewhere"] {
        server.configure(channel, json!({"store_history": true, "replay_size": 100_000})).await;
    }
    let count = 3_000;
    let ann = Reader::connect(way, &server, "ann", &["a", "b", "c"]).await;
    let (id, since) = ann.drop(&server).await;
    let talking = tokio::spawn(chatter(server.client(), count));
    // About five of eight are for her to hear.
    let mut heard = follow(way, &server, &id, &since, count as usize / 2, 60).await;
    let expected = in_time("all to be said", talking).await.expect("a publisher");
    assert_eq!(heard, expected[..heard.len()]);
    let since = {
        let (frames, _) = come_back(way, &server, &id, &since).await;
        assert_eq!(numbers(&frames)[..heard.len()], heard);
        cursor(&frames[heard.len() - 1]).to_owned()
    };
    let mut rest = Reader::open(way, &server, &id, &since).await;
    heard.extend(numbers(&rest.live(expected.len() - heard.len()).await));
    assert_eq!(heard, expected);
}

async fn who_overflows_while_reading_loses_and_doubles_nothing(way: Way) {
    let server = TestServer::with(|config| {
        config.attach_rate = None;
        config.max_queue_bytes = 2_000;
    })
    .await;
    for channel in ["a", "b", "c", "elsewhere"] {
        server.configure(channel, json!({"store_history": true, "replay_size": 100_000})).await;
    }
    let ann = Reader::connect(way, &server, "ann", &["a", "b", "c"]).await;
    let (id, since) = ann.drop(&server).await;
    let mut expected: Vec<i64> = (0..2_500).map(|n| -n).collect();
    server.say("a", expected.iter().copied()).await;
    let talking = tokio::spawn(chatter(server.client(), 1_500));
    let enough = expected.len() + 400;
    let heard = follow(way, &server, &id, &since, enough, 4_000 / if way == Way::LongPoll { 1 } else { 8 }).await;
    expected.extend(in_time("all to be said", talking).await.expect("a publisher"));
    assert_eq!(heard, expected[..heard.len()]);
}

// ---- Cursor frames ----

/// A server whose heartbeats come often, or never.
async fn beating(every: Duration) -> TestServer {
    let server = TestServer::with(|config| config.heartbeat_interval = every).await;
    with_history(&server, &["room", "other", "elsewhere"]).await;
    server
}

async fn a_cursor_comes_after_a_subscription(way: Way) {
    let server = beating(Duration::from_secs(3600)).await;
    let mut ann = Reader::connect(way, &server, "ann", &["room"]).await;
    let said = server.say("elsewhere", 1..3).await;
    subscribe(&server, &ann.id, &["other"]).await;
    assert_eq!(ann.next().await, json!({"type": "cursor", "cursor": said[1]["cursor"]}));
    // Nothing is new: nothing is told.
    subscribe(&server, &ann.id, &["elsewhere", "other"]).await;
    server.say("elsewhere", [3]).await;
    assert_eq!(numbers(&[ann.next().await]), [3]);
    // Without it, what was said before the floor would be a gap.
    let (id, since) = ann.drop(&server).await;
    assert_eq!(come_back(way, &server, &id, &since).await.1["gaps"], json!([]));
}

async fn a_cursor_comes_beside_a_heartbeat_when_others_were_told_something(way: Way) {
    let server = beating(Duration::from_millis(40)).await;
    let mut ann = Reader::connect(way, &server, "ann", &["room"]).await;
    server.connect("bob", &["room"]).await;
    let hidden = json!([{"user": "x", "channel": "room", "pm_users": ["bob"], "message": {"n": 2}}]);
    for round in 0..3 {
        let last = match round {
            0 => server.say("elsewhere", [1]).await[0].take(),
            1 => server.post("/message", hidden.clone()).await[0].take(),
            _ => private(&server, &["bob"], 3).await,
        };
        assert_eq!(ann.next().await, json!({"type": "cursor", "cursor": last["cursor"]}));
    }
    // Once each: many heartbeats later the next frame is the next event.
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.say("room", [4]).await;
    assert_eq!(numbers(&[ann.next().await]), [4]);
    // What it heard itself needs no other cursor.
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.say("room", [5]).await;
    assert_eq!(numbers(&[ann.next().await]), [5]);
}

mod cursor_frames {
    use super::*;

    #[tokio::test]
    async fn after_a_subscription_over_websocket() {
        a_cursor_comes_after_a_subscription(Way::WebSocket).await;
    }

    #[tokio::test]
    async fn after_a_subscription_over_sse() {
        a_cursor_comes_after_a_subscription(Way::Sse).await;
    }

    #[tokio::test]
    async fn beside_a_heartbeat_over_websocket() {
        a_cursor_comes_beside_a_heartbeat_when_others_were_told_something(Way::WebSocket).await;
    }

    #[tokio::test]
    async fn beside_a_heartbeat_over_sse() {
        a_cursor_comes_beside_a_heartbeat_when_others_were_told_something(Way::Sse).await;
    }
}

// ---- Long polls ----

async fn poll(server: &TestServer, id: &str, since: &str) -> Vec<Value> {
    let answer = server.get(&Way::LongPoll.path(id, since)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    serde_json::from_str(&answer.text).expect("a list of frames")
}

#[tokio::test]
async fn a_lost_answer_to_a_poll_is_repeated_by_the_same_cursor() {
    let server = TestServer::start().await;
    with_history(&server, &["room"]).await;
    let answer = server.post("/connect", json!({"username": "ann", "channels": ["room"]})).await;
    let (id, since) = (answer["conn_id"].as_str().expect("an id"), cursor(&answer));
    server.say("room", 1..3).await;
    let caught_up = poll(&server, id, since).await;
    assert_eq!(numbers(&caught_up[..2]), [1, 2]);
    assert_eq!(caught_up[2]["count"], 2);
    assert_eq!(poll(&server, id, since).await, caught_up);

    // What a poll waited for: its marker covers that.
    let since = cursor(&caught_up[2]);
    let speak = async {
        server.listeners(1).await;
        server.say("room", 3..5).await
    };
    let (live, said) = tokio::join!(poll(&server, id, since), speak);
    assert_eq!(numbers(&live[..2]), [3, 4]);
    assert!(live[..2].iter().all(|frame| frame["catchup"] == false), "{live:?}");
    assert_eq!(live[2], json!({"type": "replay", "cursor": said[1]["cursor"], "count": 0, "gaps": []}));
    let again = poll(&server, id, since).await;
    assert_eq!(numbers(&again[..2]), [3, 4]);
    assert_eq!((&again[2]["count"], cursor(&again[2])), (&json!(2), cursor(&live[2])));
}

#[tokio::test]
async fn a_poll_that_missed_something_answers_at_once() {
    let server = TestServer::start().await;
    with_history(&server, &["room"]).await;
    server.configure("off", json!({"store_history": true, "store_frames": false})).await;
    let answer = server.post("/connect", json!({"username": "ann", "channels": ["off", "room"]})).await;
    let (id, since) = (answer["conn_id"].as_str().expect("an id"), cursor(&answer));
    let said = server.say("off", [1]).await;
    let started = Instant::now();
    assert_eq!(list(&poll(&server, id, since).await[0]["gaps"]).len(), 1, "a gap is something, too");
    server.say("room", [2]).await;
    assert_eq!(numbers(&poll(&server, id, cursor(&said[0])).await[..1]), [2]);
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_idle_poll_ends_with_its_marker_alone() {
    let server = TestServer::start().await;
    with_history(&server, &["elsewhere"]).await;
    let answer = server.post("/connect", json!({"username": "ann", "channels": ["room"]})).await;
    let (id, since) = (answer["conn_id"].as_str().expect("an id"), cursor(&answer));
    let head = server.say("elsewhere", [1]).await;
    let started = Instant::now();
    let marker = json!({"type": "replay", "cursor": head[0]["cursor"], "count": 0, "gaps": []});
    assert_eq!(poll(&server, id, since).await, [marker]);
    assert!((4..7).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
}

// ---- Server-sent events ----

#[tokio::test]
async fn the_last_event_id_wins_over_the_query() {
    let server = TestServer::start().await;
    with_history(&server, &["room"]).await;
    let id = server.connect("ann", &["room"]).await;
    let said = server.say("room", 1..5).await;
    let heard = async |query: Option<&str>, last: Option<&str>| {
        let query = query.map(|since| format!("&since={since}")).unwrap_or_default();
        let mut request = server.request("GET", &format!("/sse?conn_id={id}{query}"));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let mut events = Events::try_open(request).await.expect("a stream");
        numbers(&events.array().await.expect("frames"))
    };
    let (first, third) = (cursor(&said[0]), cursor(&said[2]));
    assert_eq!(heard(Some(first), Some(third)).await, [4]);
    assert_eq!(heard(Some(third), Some(first)).await, [2, 3, 4]);
    assert_eq!(heard(None, Some(third)).await, [4]);
    assert_eq!(heard(Some(third), Some("")).await, [4], "none yet");
    for (query, last) in [("", "x"), (third, "x-"), (third, "ż")] {
        let request = server.request("GET", &Way::Sse.path(&id, query)).header("last-event-id", last.as_bytes());
        let refused = send(request).await;
        assert_eq!(refused.status, 422, "{last}");
        assert!(refused.text.contains(r#""since":["Not a valid cursor."]"#), "{}", refused.text);
    }
}

#[tokio::test]
async fn a_stream_is_written_as_browsers_read_it() {
    let server = TestServer::with(|config| config.heartbeat_interval = Duration::from_millis(50)).await;
    with_history(&server, &["room"]).await;
    let id = server.connect("ann", &["room", "passing"]).await;
    let said = server.say("room", [1]).await;
    let request = server.request("GET", &Way::Sse.path(&id, ""));
    let mut events = Events::try_open(request).await.expect("a stream");
    assert!(events.block().await.expect("a block")[0].starts_with("retry: "));
    let id_line = format!("id: {}", cursor(&said[0]));
    let block = events.block().await.expect("a block");
    assert_eq!((block.len(), &block[0]), (2, &id_line));
    assert!(block[1].starts_with(r#"data: [{"channel":"room","#), "{block:?}");
    let marker = events.block().await.expect("a block");
    assert_eq!((marker.len(), &marker[0]), (2, &id_line));
    server.say("passing", [2]).await;
    let mut block = events.block().await.expect("a block");
    while block[0].starts_with(':') {
        block = events.block().await.expect("a block");
    }
    assert_eq!(block.len(), 1, "without cursor no id: {block:?}");
    assert!(block[0].starts_with("data: ["), "{block:?}");
    assert!(events.block().await.expect("a heartbeat")[0].starts_with(':'));

    let unknown = server.get("/sse?conn_id=3106dab9-3425-43c4-9b95-4d22d8fc9561&since=").await;
    assert_eq!(unknown.status, 401, "{}", unknown.text);
}

/// What was not read is not claimed: who is forgotten meanwhile is sent away without a marker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_forgotten_while_it_is_caught_up_gets_no_marker() {
    let server = TestServer::start().await;
    server.configure("room", json!({"store_history": true, "replay_size": 10_000})).await;
    let id = server.connect("ann", &["room"]).await;
    let padding = "x".repeat(10_000);
    for _ in 0..40 {
        let message = json!({"user": "x", "channel": "room", "message": {"padding": padding}});
        server.post("/message", json!(vec![message; 50])).await;
    }
    let tcp = TcpSocket::new_v4().expect("a socket");
    tcp.set_recv_buffer_size(8 << 10).expect("a small buffer");
    let mut socket = Socket::on(tcp, &server, &format!("/ws?conn_id={id}&since=")).await.expect("an open socket");
    socket.take(1).await;
    server.ask("DELETE", "/user", json!({"user": "ann"})).await;
    let (frames, code) = socket.rest().await;
    assert_eq!(code, 4001);
    assert!(frames.len() < 1_999 && frames.iter().all(|frame| frame["type"] == "message"), "{} frames", frames.len());
}
