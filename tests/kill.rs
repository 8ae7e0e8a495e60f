//! SIGKILL under load: whatever moment the process dies at, all that was acknowledged is there, in
//! order and once; what was not is there once or not at all, and saying it again does not double
//! it; nobody was shown what is not kept. The same where a commit is given up, or the store stuck.
//!
//! Publishers write down what they asked for and what was answered. After each start their books
//! are compared with what the server tells; what was open then is settled by what is found.

mod support;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use channelstream::store::{self, StoreOptions};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Executor};
use support::{Client, Process, Random, Socket, TestServer, in_time, list, new_store, send, until};
use tempfile::{TempDir, tempdir};
use uuid::Uuid;

/// How often the process is killed.
const KILLS: usize = 24;
/// Channels that all publishers post to.
const CHANNELS: [&str; 3] = ["one", "two", "three"];
const PUBLISHERS: usize = 4;

// ---- What is in the store ----

/// A message as a history shows it.
#[derive(Clone, Debug, PartialEq)]
struct Stored {
    position: u64,
    n: i64,
}

/// The histories of all channels, by uuid; positions rise within each channel.
struct Histories(HashMap<(&'static str, Uuid), Stored>);

impl Histories {
    async fn of(client: &Client) -> Self {
        let info = client.post("/info", json!({"info": {"channels": CHANNELS, "include_users": false}})).await;
        let mut stored = HashMap::new();
        for channel in CHANNELS {
            let mut last = 0;
            for entry in list(&info["channels"][channel]["history"]) {
                let here = Stored { position: position(entry), n: number(entry) };
                assert!(here.position > last, "{channel} is in order of the log");
                last = here.position;
                assert_eq!(stored.insert((channel, uuid(entry)), here), None, "{channel}: {entry} is there twice");
            }
        }
        Self(stored)
    }

    fn get(&self, channel: &'static str, uuid: Uuid) -> Option<&Stored> {
        self.0.get(&(channel, uuid))
    }
}

fn uuid(message: &Value) -> Uuid {
    message["uuid"].as_str().and_then(|uuid| uuid.parse().ok()).expect("a uuid")
}

fn number(message: &Value) -> i64 {
    message["message"]["n"].as_i64().expect("a number")
}

/// The position in a cursor.
fn position(message: &Value) -> u64 {
    let digits = message["cursor"].as_str().and_then(|cursor| cursor.split_once('-')).expect("a cursor").1;
    digits.parse().expect("a position")
}

// ---- Publishers ----

/// What a publisher knows of a message of its own.
#[derive(Clone, Debug)]
struct Entry {
    channel: &'static str,
    uuid: Uuid,
    /// What it says after all that was acknowledged.
    n: i64,
    position: u64,
}

/// The request that was under way when the process died.
#[derive(Clone, Debug)]
enum Open {
    /// Messages with uuids of ours, all of them or none.
    Post(Vec<(&'static str, Uuid, i64)>),
    /// A message whose uuid the server was to choose: only its number tells it.
    PostWithoutUuid(&'static str, i64),
    Edit(usize, i64),
    Delete(usize),
    State(i64),
    Config(i64),
}

/// Asks for one thing after the other and keeps books.
struct Publisher {
    name: String,
    random: Random,
    /// Each message says another number, rising.
    next: i64,
    entries: Vec<Entry>,
    deleted: Vec<(&'static str, Uuid)>,
    state: i64,
    config: i64,
    open: Option<Open>,
    acknowledged: u64,
}

impl Publisher {
    fn new(index: usize, seed: u64) -> Self {
        Self {
            name: format!("publisher {index}"),
            random: Random::new(seed.wrapping_add(index as u64)),
            next: index as i64 * 1_000_000,
            entries: Vec::new(),
            deleted: Vec::new(),
            state: 0,
            config: 1,
            open: None,
            acknowledged: 0,
        }
    }

    /// Works until a request is not answered; what is open then may have happened or not.
    async fn work(&mut self, client: &Client) {
        loop {
            let open = self.choose();
            self.open = Some(open.clone());
            let Some(answer) = self.ask(client, &open).await else { return };
            self.settle(&open, Some(&answer));
            self.acknowledged += 1;
        }
    }

    fn choose(&mut self) -> Open {
        let channel = CHANNELS[self.random.below(CHANNELS.len() as u64) as usize];
        let some_entry = self.random.below(self.entries.len().max(1) as u64) as usize;
        match self.random.below(12) {
            0..=3 => Open::Post(vec![(channel, self.new_uuid(), self.new_number())]),
            4 | 5 => {
                let mut messages = Vec::new();
                for _ in 0..2 + self.random.below(4) {
                    let channel = CHANNELS[self.random.below(CHANNELS.len() as u64) as usize];
                    messages.push((channel, self.new_uuid(), self.new_number()));
                }
                Open::Post(messages)
            }
            6 | 7 => Open::PostWithoutUuid(channel, self.new_number()),
            8 if !self.entries.is_empty() => Open::Edit(some_entry, self.new_number()),
            9 if self.entries.len() > 10 => Open::Delete(some_entry),
            10 => Open::State(self.state + 1),
            _ => Open::Config(self.config + 1),
        }
    }

    fn new_number(&mut self) -> i64 {
        self.next += 1;
        self.next
    }

    fn new_uuid(&mut self) -> Uuid {
        Uuid::from_u64_pair(self.random.below(u64::MAX), self.random.below(u64::MAX))
    }

    /// None: no answer, or one that says nothing about what happened.
    async fn ask(&self, client: &Client, open: &Open) -> Option<Value> {
        let message = |channel: &str, n: i64| json!({"user": self.name, "channel": channel, "message": {"n": n}});
        let about = |index: &usize| {
            let Entry { channel, uuid, .. } = &self.entries[*index];
            json!({"channel": channel, "uuid": uuid})
        };
        let (method, path, body) = match open {
            Open::Post(messages) => {
                let mut body = Vec::new();
                for (channel, uuid, n) in messages {
                    let mut message = message(channel, *n);
                    message["uuid"] = json!(uuid);
                    body.push(message);
                }
                ("POST", "/message", json!(body))
            }
            Open::PostWithoutUuid(channel, n) => ("POST", "/message", json!([message(channel, *n)])),
            Open::Edit(index, n) => {
                let mut edit = about(index);
                edit["message"] = json!({"n": n});
                ("PATCH", "/message", json!([edit]))
            }
            Open::Delete(index) => ("DELETE", "/message", json!([about(index)])),
            Open::State(n) => ("POST", "/user_state", json!({"user": self.name, "user_state": {"n": n}})),
            Open::Config(n) => ("POST", "/channel_config", json!({&self.name: {"history_size": n}})),
        };
        let answer = client.signed(method, path).body(body.to_string()).send().await.ok()?;
        let status = answer.status().as_u16();
        let text = answer.text().await.ok()?;
        match status {
            200 => Some(serde_json::from_str(&text).expect("JSON")),
            503 => None,
            _ => panic!("{method} {path} {body}: {status} {text}"),
        }
    }

    /// Enters that something happened; the answer, if there was one, says where.
    fn settle(&mut self, open: &Open, answer: Option<&Value>) {
        self.open = None;
        match open {
            Open::Post(messages) => {
                for (index, (channel, uuid, n)) in messages.iter().enumerate() {
                    let position = answer.map_or(0, |answer| position(&answer[index]));
                    self.entries.push(Entry { channel, uuid: *uuid, n: *n, position });
                }
            }
            Open::PostWithoutUuid(channel, n) => {
                if let Some([message]) = answer.map(list) {
                    let (uuid, position) = (uuid(message), position(message));
                    self.entries.push(Entry { channel, uuid, n: *n, position });
                }
            }
            Open::Edit(index, n) => self.entries[*index].n = *n,
            Open::Delete(index) => {
                let Entry { channel, uuid, .. } = self.entries.remove(*index);
                self.deleted.push((channel, uuid));
            }
            Open::State(n) => self.state = *n,
            Open::Config(n) => self.config = *n,
        }
    }

    /// Compares the books with what a server tells, and settles what is open.
    async fn check(&mut self, client: &Client, histories: &Histories) {
        let open = self.open.take();
        let state = client.post("/user_state", json!({"user": self.name})).await["user_state"]["n"].as_i64();
        let config = client.channel(&self.name).await["settings"]["history_size"].as_i64();
        let (open_state, open_config) = match open {
            Some(Open::State(n)) => (Some(n), None),
            Some(Open::Config(n)) => (None, Some(n)),
            _ => (None, None),
        };
        let state = state.unwrap_or(0);
        assert!(state == self.state || Some(state) == open_state, "{}: {state} for {}", self.name, self.state);
        let config = config.unwrap_or(1);
        assert!(config == self.config || Some(config) == open_config, "{}: {config} for {}", self.name, self.config);
        (self.state, self.config) = (state, config);

        for (index, entry) in self.entries.iter_mut().enumerate() {
            match (histories.get(entry.channel, entry.uuid), &open) {
                (Some(stored), Some(Open::Edit(edited, n))) if *edited == index && stored.n == *n => entry.n = *n,
                (Some(stored), _) => assert_eq!(stored.n, entry.n, "{}: {entry:?}", self.name),
                (None, Some(Open::Delete(deleted))) if *deleted == index => {}
                (None, _) => panic!("{}: {entry:?} was acknowledged and is lost", self.name),
            }
            let stored = histories.get(entry.channel, entry.uuid).map_or(0, |stored| stored.position);
            if entry.position > 0 && stored > 0 {
                assert_eq!(stored, entry.position, "{}: {entry:?} is where the answer said", self.name);
            }
        }
        for (channel, uuid) in &self.deleted {
            assert_eq!(histories.get(channel, *uuid), None, "{}: {uuid} was deleted", self.name);
        }
        match open {
            Some(Open::Delete(index)) => {
                let entry = &self.entries[index];
                if histories.get(entry.channel, entry.uuid).is_none() {
                    self.settle(&Open::Delete(index), None);
                }
            }
            Some(Open::Post(messages)) => {
                let there = messages.iter().filter(|(channel, uuid, _)| histories.get(channel, *uuid).is_some());
                let there = there.count();
                assert!(there == 0 || there == messages.len(), "{}: a part of {messages:?}", self.name);
                // It is said again, as a back end does that had no answer.
                let answer = in_time("an answer", async {
                    loop {
                        if let Some(answer) = self.ask(client, &Open::Post(messages.clone())).await {
                            return answer;
                        }
                    }
                })
                .await;
                for message in list(&answer) {
                    let doubled = message["duplicate"] == true;
                    // A 503 on the way may have been a success.
                    assert!(doubled || there == 0, "{}: {message} was there", self.name);
                }
                self.settle(&Open::Post(messages), Some(&answer));
            }
            Some(Open::PostWithoutUuid(channel, n)) => {
                let found = histories.0.iter().find(|((place, _), stored)| *place == channel && stored.n == n);
                if let Some(((_, uuid), Stored { position, .. })) = found {
                    self.entries.push(Entry { channel, uuid: *uuid, n, position: *position });
                }
            }
            _ => {}
        }
    }

    /// Within each channel the log has what was said in the order in which it was said.
    fn check_order(&self) {
        for channel in CHANNELS {
            let own: Vec<u64> =
                self.entries.iter().filter(|entry| entry.channel == channel).map(|entry| entry.position).collect();
            assert!(own.is_sorted(), "{}: {channel}: {own:?}", self.name);
        }
    }
}

/// Nothing is in the histories that nobody has asked for, and nothing twice under two uuids.
fn check_that_all_is_known(publishers: &[Publisher], histories: &Histories) {
    let mut known = HashMap::new();
    for publisher in publishers {
        for entry in &publisher.entries {
            known.insert((entry.channel, entry.uuid), entry.n);
        }
    }
    for (place, stored) in &histories.0 {
        assert_eq!(known.get(place), Some(&stored.n), "{place:?} {stored:?}");
    }
    let mut numbers: Vec<i64> = histories.0.values().map(|stored| stored.n).collect();
    numbers.sort_unstable();
    assert!(numbers.is_sorted_by(|one, two| one < two), "a message is there twice");
}

// ---- The listener ----

/// What a listener was shown of logged events: by position, the frame.
type Shown = Arc<Mutex<BTreeMap<u64, Value>>>;

/// Listens until the process dies.
async fn listen(mut socket: Socket, shown: Shown) {
    let mut last = 0;
    while let Ok(frame) = socket.next_or_closed().await {
        if frame["cursor"].is_string() {
            let here = position(&frame);
            assert!(frame["catchup"] == true || here > last, "live order is log order: {here} after {last}");
            last = here.max(last);
            shown.lock().insert(here, frame);
        }
    }
}

/// All that was shown is in the store, but for what was taken away later; publishers know what
/// they took away, and that the numbers in edits of one message rise.
fn check_shown(shown: &BTreeMap<u64, Value>, histories: &Histories, publishers: &[Publisher]) {
    for (position, frame) in shown {
        let channel = CHANNELS.into_iter().find(|channel| frame["channel"] == *channel).expect("a channel");
        let stored = histories.get(channel, uuid(frame));
        let was_deleted = || publishers.iter().any(|publisher| publisher.deleted.contains(&(channel, uuid(frame))));
        match (frame["type"].as_str(), stored) {
            (Some("message:delete"), stored) => assert_eq!(stored, None, "{frame} was shown and is not kept"),
            (_, None) => assert!(was_deleted(), "{frame} was shown and is not kept"),
            (Some("message"), Some(stored)) => assert_eq!(stored.position, *position, "{frame}"),
            (_, Some(stored)) => assert!(stored.n >= number(frame), "{frame} was shown and is not kept"),
        }
    }
}

// ---- The tests ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_the_server_keeps_its_word() {
    let seed = Random::new_seed();
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let mut process = Process::start(&[("gc_conns_after", "300")]).await;
    for channel in CHANNELS {
        process.configure(channel, json!({"store_history": true, "history_size": 100_000})).await;
    }
    let mut publishers: Vec<Publisher> = (0..PUBLISHERS).map(|index| Publisher::new(index, seed)).collect();
    for publisher in &publishers {
        process.connect(&publisher.name, &[]).await;
    }
    let listener = process.connect("listener", &CHANNELS).await;

    let mut shown_in_all = 0;
    for round in 0..KILLS {
        let shown = Shown::default();
        let socket = Socket::open(&process, &listener).await;
        let listening = tokio::spawn(listen(socket, shown.clone()));
        let working = publishers.drain(..).map(|mut publisher| {
            let client = process.client().fresh();
            tokio::spawn(async move {
                publisher.work(&client).await;
                publisher
            })
        });
        let working: Vec<_> = working.collect();
        tokio::time::sleep(Duration::from_millis(30 + random.below(300))).await;
        process.kill();
        for publisher in working {
            publishers.push(in_time("a publisher to notice", publisher).await.expect("a publisher"));
        }
        in_time("the listener to notice", listening).await.expect("a listener");

        // Every third time it dies again before anybody has looked.
        if round % 3 == 2 {
            process.restart().await;
            process.kill();
        }
        process.restart().await;
        let before = Histories::of(&process).await;
        for publisher in &mut publishers {
            publisher.check(&process, &before).await;
        }
        let shown = std::mem::take(&mut *shown.lock());
        check_shown(&shown, &before, &publishers);
        shown_in_all += shown.len();
        let after = Histories::of(&process).await;
        for publisher in &mut publishers {
            publisher.check(&process, &after).await;
            publisher.check_order();
        }
        check_that_all_is_known(&publishers, &after);
    }
    let acknowledged: u64 = publishers.iter().map(|publisher| publisher.acknowledged).sum();
    println!("{acknowledged} requests acknowledged, {shown_in_all} logged events shown");
    assert!(acknowledged > KILLS as u64 * 5 && shown_in_all > KILLS * 5, "there was load");
    assert!(!process.log().contains("panicked"), "{}", process.log());
}

/// About how long a commit takes here and now.
async fn usual_commit(client: &Client) -> Duration {
    client.configure("measured", json!({"store_history": true})).await;
    let mut times = Vec::new();
    for n in 0..30 {
        let started = Instant::now();
        client.say("measured", [n]).await;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    times[times.len() / 2]
}

/// A commit that takes longer than the server waits is answered with 503, although it may succeed
/// while the server gives it up: what is said again is there once and in order all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_is_given_up_loses_and_doubles_nothing() {
    let mut server = TestServer::start().await;
    for channel in CHANNELS {
        server.configure(channel, json!({"store_history": true, "history_size": 100_000})).await;
    }
    let seed = Random::new_seed();
    println!("seed {seed}");
    let mut publishers: Vec<Publisher> = (0..PUBLISHERS).map(|index| Publisher::new(index, seed)).collect();
    for publisher in &publishers {
        server.connect(&publisher.name, &[]).await;
    }
    let usual = usual_commit(&server).await;
    for share in [0.3, 0.5, 0.7, 0.9, 1.1, 1.5, 2.0] {
        server.restart_with(|config| config.commit_timeout = usual.mul_f64(share)).await;
        let started = Instant::now();
        let working = publishers.drain(..).map(|mut publisher| {
            let client = server.client();
            tokio::spawn(async move {
                while started.elapsed() < Duration::from_millis(400) {
                    let open = publisher.open.take().unwrap_or_else(|| {
                        let channel = CHANNELS[publisher.random.below(3) as usize];
                        Open::Post(vec![(channel, publisher.new_uuid(), publisher.new_number())])
                    });
                    match publisher.ask(&client, &open).await {
                        Some(answer) => {
                            publisher.settle(&open, Some(&answer));
                            publisher.acknowledged += 1;
                        }
                        None => publisher.open = Some(open),
                    }
                }
                publisher
            })
        });
        for publisher in working.collect::<Vec<_>>() {
            publishers.push(publisher.await.expect("a publisher"));
        }
        server.restart_with(|config| config.commit_timeout = Duration::from_secs(10)).await;
        let histories = Histories::of(&server).await;
        for publisher in &mut publishers {
            publisher.check(&server, &histories).await;
        }
        let after = Histories::of(&server).await;
        publishers.iter().for_each(Publisher::check_order);
        check_that_all_is_known(&publishers, &after);
    }
}

/// A server that has given commits up goes on by itself, and shows what turns out to be kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_gave_commits_up_goes_on_by_itself() {
    let mut server = TestServer::start().await;
    server.configure("room", json!({"store_history": true, "history_size": 100_000})).await;
    let id = server.connect("ann", &["room"]).await;
    let usual = usual_commit(&server).await;
    server.restart_with(|config| config.commit_timeout = usual.mul_f64(1.2)).await;
    let mut listener = Socket::open(&server, &id).await;
    let mut refused = 0;
    for n in 0..100 {
        let message = json!([{"user": "x", "channel": "room", "uuid": Uuid::new_v4(), "message": {"n": n}}]);
        in_time("a message to be kept", async {
            loop {
                let answer = send(server.signed("POST", "/message").json(&message)).await;
                match answer.status {
                    200 => break,
                    503 => refused += 1,
                    _ => panic!("{answer:?}"),
                }
            }
        })
        .await;
        assert_eq!(number(&listener.next().await), n, "each is shown, once and in order");
    }
    println!("{refused} times refused");
    assert_eq!(server.history("room").await, (0..100).collect::<Vec<_>>());
}

/// Dying while it makes its tables, takes its store over, or stops, is no worse than at any other time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_its_start_and_at_its_end_the_server_comes_back() {
    let seed = Random::new_seed();
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let mut process = Process::new(&[]);
    for _ in 0..25 {
        process.spawn(&[]);
        tokio::time::sleep(Duration::from_millis(random.below(60))).await;
        process.kill();
    }
    process.restart().await;
    process.configure("room", json!({"store_history": true, "history_size": 100})).await;
    for n in 0..15 {
        process.say("room", [n]).await;
        process.tell_to_stop();
        tokio::time::sleep(Duration::from_millis(random.below(12))).await;
        process.kill();
        process.spawn(&[]);
        tokio::time::sleep(Duration::from_millis(random.below(60))).await;
        process.restart().await;
        assert_eq!(process.history("room").await, (0..=n).collect::<Vec<_>>());
    }
}

/// Who is killed cannot give the store back, yet the next may have it at once.
#[tokio::test]
async fn a_killed_server_leaves_no_lock_behind() {
    let folder = tempdir().expect("a temporary folder");
    let url = new_store(folder.path());
    let mut process = Process::start(&[("database_url", &url)]).await;
    assert!(store::open(&url, &StoreOptions::default()).await.is_err(), "it has an owner");
    process.kill();
    // Postgres notices a little later that its client is no more.
    let (store, _) = in_time("a store that nobody has", async {
        loop {
            if let Ok(opened) = store::open(&url, &StoreOptions::default()).await {
                return opened;
            }
        }
    })
    .await;
    store.close().await.expect("a good end");
    drop(store);
    process.restart().await;
}

/// How long a request may wait for a store that is stuck.
const COMMIT_TIMEOUT: Duration = Duration::from_millis(300);

/// A server whose database can be held by another program, as a backup may; and that program.
async fn server_and_holder(directory: &TempDir) -> (TestServer, SqliteConnection) {
    let file = directory.path().join("held.db");
    let url = format!("sqlite://{}", file.display());
    let server = TestServer::with(|config| {
        config.database_url = url.parse().expect("an address");
        config.commit_timeout = COMMIT_TIMEOUT;
    })
    .await;
    server.configure("room", json!({"store_history": true, "history_size": 100})).await;
    (server, SqliteConnectOptions::new().filename(&file).connect().await.expect("a connection"))
}

/// Listeners stay, what needs no store goes on, and what does is refused in time; afterwards all
/// is well by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_stuck_stops_only_what_needs_it() {
    let directory = tempdir().expect("a temporary folder");
    let (server, mut holder) = server_and_holder(&directory).await;
    let mut listener = Socket::open(&server, &server.connect("ann", &["room", "quick"]).await).await;
    server.say("room", [0]).await;
    assert_eq!(number(&listener.next().await), 0);

    holder.execute("BEGIN IMMEDIATE").await.expect("the lock");
    let message = |n: i64, uuid: Uuid| json!([{"user": "x", "channel": "room", "uuid": uuid, "message": {"n": n}}]);
    let uuids: Vec<Uuid> = (0..3).map(|_| Uuid::new_v4()).collect();
    for (n, uuid) in (1..).zip(&uuids) {
        for (path, body) in [
            ("/message", message(n, *uuid)),
            ("/connect", json!({"username": "bob"})),
            ("/user_state", json!({"user": "ann", "user_state": {"n": n}})),
            ("/channel_config", json!({"other": {}})),
        ] {
            let started = Instant::now();
            let refused = send(server.signed("POST", path).json(&body)).await;
            assert_eq!(refused.refusal(), (503, json!({"request": ["Storage is unavailable."]})), "{path}");
            assert!(!refused.header("retry-after").is_empty(), "{path}");
            assert!(started.elapsed() < COMMIT_TIMEOUT * 4, "{path}: {:?}", started.elapsed());
        }
        let started = Instant::now();
        server.say("quick", [n * 10]).await;
        assert_eq!(number(&listener.next().await), n * 10);
        assert!(started.elapsed() < COMMIT_TIMEOUT * 4, "{:?}", started.elapsed());
        assert_eq!(server.history("room").await, [0], "it can still be asked");
    }
    assert_eq!(server.get("/healthz").await.status, 200);

    holder.execute("ROLLBACK").await.expect("the lock is given back");
    for (n, uuid) in (1..).zip(&uuids) {
        in_time("a message to be kept", async {
            while send(server.signed("POST", "/message").json(&message(n, *uuid))).await.status != 200 {}
        })
        .await;
        assert_eq!(number(&listener.next().await), n);
    }
    assert_eq!(server.history("room").await, [0, 1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_tells_that_the_store_is_stuck() {
    let directory = tempdir().expect("a temporary folder");
    let (server, mut holder) = server_and_holder(&directory).await;
    assert_eq!(server.get("/readyz").await.status, 200);
    holder.execute("BEGIN IMMEDIATE").await.expect("the lock");
    let say = json!([{"user": "x", "channel": "room", "message": {"n": 1}}]);
    assert_eq!(send(server.signed("POST", "/message").json(&say)).await.status, 503);
    assert_eq!(server.get("/readyz").await.status, 503, "whoever sends work here gets 503");
    holder.execute("ROLLBACK").await.expect("the lock is given back");
    until("the server to be ready", async || server.get("/readyz").await.status == 200).await;
}
