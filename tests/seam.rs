//! The seam between what was missed and what is live: whatever happens while a listener attaches and
//! reads, and however often it comes back, it loses nothing and gets nothing twice.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use channelstream::domain::channel::Channel;
use channelstream::domain::draft::HeldByUuid;
use channelstream::domain::event::Event;
use channelstream::domain::message::{Audience, Body, Deletion, Edit, Message};
use channelstream::domain::names::{ChannelName, ConnectionId, Username};
use channelstream::domain::operation::{Configure, Connect, Delete, EditMessages, Post, PostOne};
use channelstream::domain::position::{Cursor, Position};
use channelstream::domain::replay::{Doubt, Since};
use channelstream::domain::settings::SettingsPatch;
use channelstream::domain::state::{PublicKeys, UserState};
use channelstream::domain::tail::{Place, TailPart};
use channelstream::domain::tails::TailLimits;
use channelstream::domain::user::User;
use channelstream::domain::view::InfoOptions;
use channelstream::hub::{Hub, HubOptions, Transport};
use channelstream::journal::Failure;
use channelstream::mailbox::Mail;
use channelstream::store::{
    self, Batch, HistoryPage, HistoryQuery, ReplayPage, ReplayQuery, Store, StoreError, StoreTotals, StoredConnection,
    Synchronous,
};
use chrono::NaiveDateTime;
use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use support::{Client, Events, Random, Socket, TestServer, in_time, new_store, send};
use tempfile::TempDir;
use uuid::Uuid;

// ---- A store that takes its time ----

/// Before and after each answer it may pause, so that anything can happen in between.
struct Dawdling {
    store: Arc<dyn Store>,
    random: Mutex<Random>,
    tails: AtomicU8,
    /// It does not take the message of this uuid.
    refused: Uuid,
}

const TAILS_WORK: u8 = 0;
const TAILS_FAIL: u8 = 1;
const TAILS_HANG: u8 = 2;

impl Dawdling {
    async fn pause(&self) {
        let (kind, length) = {
            let mut random = self.random.lock();
            (random.below(4), random.below(4_000))
        };
        match kind {
            0 => {}
            1 => tokio::task::yield_now().await,
            _ => tokio::time::sleep(Duration::from_micros(length)).await,
        }
    }

    async fn around<T>(&self, asked: impl Future<Output = T>) -> T {
        self.pause().await;
        let answer = asked.await;
        self.pause().await;
        answer
    }
}

#[async_trait]
impl Store for Dawdling {
    async fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        let is_refused = |event: &Event| matches!(event, Event::Posted { message, .. } if message.uuid == self.refused);
        if batch.events.iter().any(is_refused) {
            return Err(StoreError::Refused("a test wants it so".to_owned()));
        }
        self.around(self.store.commit(batch)).await
    }

    async fn settle(&self, batch: Uuid) -> Result<bool, StoreError> {
        self.store.settle(batch).await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.store.check().await
    }

    async fn channels(&self, names: &HashSet<ChannelName>) -> Result<HashMap<ChannelName, Channel>, StoreError> {
        self.around(self.store.channels(names)).await
    }

    async fn bare_channels(&self, names: &HashSet<ChannelName>) -> Result<HashMap<ChannelName, Channel>, StoreError> {
        self.around(self.store.bare_channels(names)).await
    }

    async fn users(&self, names: &HashSet<Username>) -> Result<HashMap<Username, User>, StoreError> {
        self.around(self.store.users(names)).await
    }

    async fn held(&self, uuids: &HashSet<Uuid>) -> Result<HeldByUuid, StoreError> {
        self.around(self.store.held(uuids)).await
    }

    async fn positions_at(
        &self,
        times: &HashSet<NaiveDateTime>,
    ) -> Result<HashMap<NaiveDateTime, Position>, StoreError> {
        self.store.positions_at(times).await
    }

    async fn history(&self, query: &HistoryQuery<'_>) -> Result<Option<HistoryPage>, StoreError> {
        self.store.history(query).await
    }

    async fn replay(&self, query: &ReplayQuery<'_>) -> Result<ReplayPage, StoreError> {
        self.around(self.store.replay(query)).await
    }

    async fn holding(&self, user: &Username, doubts: &[Doubt]) -> Result<Vec<Doubt>, StoreError> {
        self.around(self.store.holding(user, doubts)).await
    }

    async fn tails(&self, places: &[(Place, Position)], limit: u32, bytes: u32) -> Result<Vec<TailPart>, StoreError> {
        match self.tails.load(Ordering::Relaxed) {
            TAILS_FAIL => return Err(StoreError::Unavailable("a test wants it so".to_owned())),
            TAILS_HANG => std::future::pending().await,
            _ => {}
        }
        self.around(self.store.tails(places, limit, bytes)).await
    }

    async fn channel_names(&self, after: i64, limit: u32) -> Result<Vec<(i64, ChannelName)>, StoreError> {
        self.store.channel_names(after, limit).await
    }

    async fn connections(&self) -> Result<Vec<StoredConnection>, StoreError> {
        self.store.connections().await
    }

    async fn note_seen(&self, seen: &[(ConnectionId, Position)]) -> Result<(), StoreError> {
        self.store.note_seen(seen).await
    }

    async fn expired_channels(&self, at: NaiveDateTime, limit: u32) -> Result<Vec<ChannelName>, StoreError> {
        self.store.expired_channels(at, limit).await
    }

    async fn idle_users(&self, since: NaiveDateTime, limit: u32) -> Result<Vec<Username>, StoreError> {
        self.store.idle_users(since, limit).await
    }

    async fn size(&self) -> Result<u64, StoreError> {
        self.store.size().await
    }

    async fn totals(&self) -> Result<StoreTotals, StoreError> {
        self.store.totals().await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.store.close().await
    }
}

// ---- A hub over it ----

struct Ground {
    _directory: TempDir,
    url: String,
    store: Arc<Dawdling>,
    hub: Arc<Hub>,
    random: Random,
    tails: TailLimits,
}

const CHANNELS: [&str; 2] = ["news", "talk"];

fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name).expect("a name")
}

fn user(name: &str) -> Username {
    Username::parse(name).expect("a name")
}

fn body(n: u64) -> Option<Body> {
    Some(RawValue::from_string(format!(r#"{{"n":{n}}}"#)).expect("JSON").into())
}

impl Ground {
    async fn new(seed: u64, tails: TailLimits) -> Self {
        let directory = tempfile::tempdir().expect("a temporary folder");
        let url = new_store(directory.path());
        let (store, hub) = open(&url, seed, tails).await;
        let ground = Self { _directory: directory, url, store, hub, random: Random::new(seed), tails };
        let settings = || SettingsPatch {
            store_history: Some(true),
            history_size: Some(5),
            replay_size: Some(10_000),
            ..SettingsPatch::default()
        };
        let channels = CHANNELS.map(|name| (channel(name), Uuid::new_v4(), Some(settings())));
        ground.hub.perform(Configure { channels: channels.into() }, 0).await.expect("channels");
        ground
    }

    /// Nobody may listen any more.
    async fn restart(&mut self) {
        self.hub.stop().await.expect("a hub that stops");
        (self.store, self.hub) = open(&self.url, self.random.below(1_000), self.tails).await;
    }

    async fn connect(&self, name: &str) -> ConnectionId {
        let connect = Connect {
            user: user(name),
            user_uuid: Uuid::new_v4(),
            id: ConnectionId(Uuid::new_v4()),
            channels: CHANNELS.map(channel).into(),
            channel_uuids: CHANNELS.map(|_| Uuid::new_v4()).into(),
            fresh_user_state: UserState::default(),
            user_state: UserState::default(),
            public_keys: PublicKeys::default(),
            channel_configs: Default::default(),
            since: None,
            info: InfoOptions::default(),
        };
        self.hub.perform(connect, 0).await.expect("a connection").id
    }
}

async fn open(url: &str, seed: u64, tails: TailLimits) -> (Arc<Dawdling>, Arc<Hub>) {
    let (store, start) = store::open(url, &Synchronous::Normal.into()).await.expect("a store");
    let (random, tails_work) = (Mutex::new(Random::new(seed)), AtomicU8::new(TAILS_WORK));
    let store = Dawdling { store, random, tails: tails_work, refused: Uuid::new_v4() };
    let store = Arc::new(store);
    let options = HubOptions {
        grace: Duration::from_secs(3600),
        resume_window: Duration::from_secs(3600),
        commit_timeout: Duration::from_secs(10),
        max_queue_bytes: 20_000,
        tails,
        max_listeners: None,
        attach_rate: None,
    };
    let hub = Hub::start(store.clone(), start, options).await.expect("a hub");
    (store, hub)
}

/// What was said, with its present content; none: it is gone.
type Said = BTreeMap<Uuid, Option<u64>>;

/// Says, edits and deletes until it is told to stop, and at least so often; in channels and privately.
async fn speak(hub: Arc<Hub>, mut random: Random, least: usize, stop: Arc<AtomicBool>) -> Said {
    let mut said: BTreeMap<Uuid, (Option<ChannelName>, Option<u64>)> = BTreeMap::new();
    let mut order = Vec::new();
    let audience = |channel: &Option<ChannelName>| match channel {
        Some(_) => Audience::default(),
        None => Audience { only: [user("ann"), user("bob")].into(), except: [].into() },
    };
    let mut n = 0;
    while n < least as u64 || !stop.load(Ordering::Relaxed) {
        n += 1;
        let recent = order.len().saturating_sub(1 + random.below(30) as usize);
        let known = order.get(recent).map(|uuid: &Uuid| (*uuid, said[uuid].clone()));
        let timestamp = hub.now().timestamp();
        match (random.below(10), known) {
            (0..=1, Some((uuid, (channel, Some(_))))) => {
                let audience = audience(&channel);
                said.insert(uuid, (channel.clone(), Some(n)));
                let edit = Edit {
                    uuid,
                    channel,
                    sender: None,
                    body: body(n),
                    timestamp: None,
                    edited: timestamp,
                    audience,
                    no_history: false,
                };
                let edits = EditMessages { edits: vec![edit.into()], positions: Vec::new() };
                hub.perform(edits, 0).await.expect("an edit");
            }
            (2, Some((uuid, (channel, Some(_))))) => {
                said.insert(uuid, (channel.clone(), None));
                let audience = audience(&channel);
                let deletion = Deletion { uuid, channel, audience, no_history: false };
                let deletions = Delete { deletions: vec![deletion.into()], positions: Vec::new() };
                hub.perform(deletions, 0).await.expect("a deletion");
            }
            _ => {
                let messages = (0..1 + random.below(5)).map(|_| {
                    let place = random.below(5) as usize;
                    let channel = CHANNELS.get(place / 2).map(|name| channel(name));
                    let uuid = Uuid::new_v4();
                    said.insert(uuid, (channel.clone(), Some(n)));
                    order.push(uuid);
                    let message = Message {
                        uuid,
                        audience: audience(&channel),
                        channel,
                        sender: user("speaker"),
                        body: body(n),
                        timestamp,
                        edited: None,
                        no_history: false,
                    };
                    PostOne { message: message.into(), uuid_given: false }
                });
                let post = Post { messages: messages.collect(), posted: Vec::new() };
                hub.post(post, 0).await.expect("messages");
            }
        }
    }
    said.into_iter().map(|(uuid, (_, n))| (uuid, n)).collect()
}

/// Someone who keeps a cursor, and what they know by it.
#[derive(Debug, Default)]
struct Knowing {
    cursor: Option<Cursor>,
    known: Said,
    replays: usize,
}

impl Knowing {
    fn since(&self) -> Since {
        self.cursor.clone().map_or(Since::Floors, Since::Cursor)
    }

    fn hear(&mut self, frame: &Value) {
        let cursor = frame["cursor"].as_str().expect("all of it is logged");
        let cursor = Cursor::parse(cursor).expect("a cursor");
        let before = self.cursor.as_ref().map_or(Position(0), |cursor| cursor.position);
        let kind = frame["type"].as_str().expect("a type");
        if matches!(kind, "replay" | "cursor") {
            assert!(cursor.position >= before, "{frame} after {before:?}");
            assert!(kind == "cursor" || frame["gaps"] == json!([]), "{frame}");
            self.cursor = Some(cursor);
            return;
        }
        assert!(cursor.position > before, "{frame} after {before:?}");
        self.cursor = Some(cursor);
        let uuid: Uuid = frame["uuid"].as_str().expect("a uuid").parse().expect("a uuid");
        match kind {
            "message" => {
                let n = frame["message"]["n"].as_u64();
                assert!(n.is_some() && !self.known.contains_key(&uuid), "said twice: {frame}");
                self.known.insert(uuid, n);
            }
            // What was deleted meanwhile need not have been told.
            "message:edit" => {
                assert!(self.known.contains_key(&uuid), "what is edited was said: {frame}");
                self.known.insert(uuid, frame["message"]["n"].as_u64());
            }
            "message:delete" => _ = self.known.insert(uuid, None),
            other => panic!("unexpected: {other}"),
        }
    }
}

fn array(text: &[u8]) -> Vec<Value> {
    serde_json::from_slice(text).expect("an array")
}

/// Comes, reads, listens for a while and goes, again and again, until all is quiet.
async fn listen(hub: Arc<Hub>, id: ConnectionId, mut random: Random, quiet: Arc<AtomicBool>, knowing: &mut Knowing) {
    let mut is_last = false;
    while !is_last {
        is_last = quiet.load(Ordering::Relaxed);
        let (listener, mut backlog) =
            hub.listen(id, Some(&knowing.since()), Transport::LongPoll).expect("a connection");
        if random.below(2) == 0 {
            tokio::time::sleep(Duration::from_micros(random.below(3_000))).await;
        }
        let mut breaks = !is_last && random.below(6) == 0;
        while let Some(part) = backlog.next().await.expect("a store that can be read") {
            let frames = array(part.array());
            let heard = if breaks { random.below(frames.len() as u64 + 1) as usize } else { frames.len() };
            frames[..heard].iter().for_each(|frame| knowing.hear(frame));
            if heard < frames.len() {
                breaks = true;
                break;
            }
            breaks = false;
            if random.below(3) == 0 {
                tokio::time::sleep(Duration::from_micros(random.below(2_000))).await;
            }
        }
        if breaks {
            continue;
        }
        array(backlog.marker(None).expect("a marker").array()).iter().for_each(|frame| knowing.hear(frame));
        knowing.replays += 1;
        let until = tokio::time::Instant::now() + Duration::from_micros(random.below(10_000));
        while let Ok(Mail::Pieces(pieces)) = tokio::time::timeout_at(until, listener.mail()).await {
            let tick = pieces.back().expect("a piece").tick;
            pieces.iter().flat_map(|piece| array(piece.array())).for_each(|frame| knowing.hear(&frame));
            listener.mark_written(tick);
        }
    }
}

/// Three listen while two speak; with restarts in between.
async fn run(seed: u64, tails: TailLimits, rounds: usize) {
    let mut ground = Ground::new(seed, tails).await;
    let ids = [ground.connect("ann").await, ground.connect("ann").await, ground.connect("bob").await];
    let mut knowing = [Knowing::default(), Knowing::default(), Knowing::default()];
    let mut said = Said::new();
    for round in 0..rounds {
        let (stop, quiet) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let mut random = || Random::new(ground.random.below(u64::MAX));
        let speakers = [(); 2].map(|()| tokio::spawn(speak(ground.hub.clone(), random(), 100, stop.clone())));
        let listeners: Vec<_> = knowing
            .into_iter()
            .zip(ids)
            .map(|(mut knowing, id)| {
                let (hub, random, quiet) = (ground.hub.clone(), random(), quiet.clone());
                tokio::spawn(async move {
                    listen(hub, id, random, quiet, &mut knowing).await;
                    knowing
                })
            })
            .collect();
        stop.store(true, Ordering::Relaxed);
        for speaker in speakers {
            said.extend(in_time("the speakers", speaker).await.expect("a speaker"));
        }
        quiet.store(true, Ordering::Relaxed);
        let mut heard = Vec::new();
        for listener in listeners {
            heard.push(in_time("a listener", listener).await.expect("a listener"));
        }
        knowing = heard.try_into().expect("three");
        for (index, one) in knowing.iter().enumerate() {
            assert!(one.replays > 1, "listener {index} came back");
            for (uuid, n) in &said {
                let known = one.known.get(uuid).copied().flatten();
                assert_eq!(known, *n, "listener {index} about {uuid}, round {round}, seed {seed}, {tails:?}");
            }
        }
        if round + 1 < rounds {
            ground.restart().await;
        }
    }
}

const TAILS: [TailLimits; 4] = [
    TailLimits { place: 256 << 10, all: 256 << 20 },
    TailLimits { place: 6_000, all: 256 << 20 },
    TailLimits { place: 256 << 10, all: 12_000 },
    TailLimits { place: 0, all: 0 },
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_whatever_takes_its_time() {
    let seed =
        std::env::var("SEED").map_or_else(|_| Random::new_seed() % 1_000_000, |seed| seed.parse().expect("a number"));
    println!("SEED={seed}");
    for tails in TAILS {
        run(seed, tails, 2).await;
    }
}

// ---- Tails that cannot be read ----

async fn somebody_after_a_restart(tails: u8, patience: Duration) {
    let mut ground = Ground::new(1, TailLimits::default()).await;
    let id = ground.connect("ann").await;
    let said = speak(ground.hub.clone(), Random::new(1), 50, Arc::new(AtomicBool::new(true))).await;
    ground.restart().await;
    ground.store.tails.store(tails, Ordering::Relaxed);
    let quiet = Arc::new(AtomicBool::new(true));
    let mut knowing = Knowing::default();
    let heard = listen(ground.hub.clone(), id, Random::new(2), quiet, &mut knowing);
    tokio::time::timeout(patience, heard).await.expect("an answer in time");
    for (uuid, n) in said {
        assert_eq!(knowing.known.get(&uuid).copied().flatten(), n);
    }
}

#[tokio::test]
async fn when_tails_cannot_be_read_the_store_is_asked_directly() {
    somebody_after_a_restart(TAILS_FAIL, Duration::from_secs(5)).await;
}

#[tokio::test]
async fn when_the_journal_is_stuck_the_store_is_asked_directly() {
    // No longer than a request waits for its commit.
    somebody_after_a_restart(TAILS_HANG, Duration::from_secs(15)).await;
}

// ---- A store that does not take everything ----

/// Also while a channel waits to be trimmed, which comes at the end of every batch.
#[tokio::test]
async fn what_the_store_refuses_harms_nobody_else() {
    let ground = Ground::new(9, TailLimits::default()).await;
    let settings = SettingsPatch {
        store_history: Some(true),
        history_size: Some(1),
        replay_size: Some(1),
        ..SettingsPatch::default()
    };
    let channels = vec![(channel("small"), Uuid::new_v4(), Some(settings))];
    ground.hub.perform(Configure { channels }, 0).await.expect("a channel");
    let post = |uuids: Vec<Uuid>| {
        let timestamp = ground.hub.now().timestamp();
        let messages = uuids.into_iter().map(|uuid| {
            let message = Message {
                uuid,
                channel: Some(channel("small")),
                sender: user("speaker"),
                body: body(1),
                timestamp,
                edited: None,
                audience: Audience::default(),
                no_history: false,
            };
            PostOne { message: message.into(), uuid_given: false }
        });
        ground.hub.post(Post { messages: messages.collect(), posted: Vec::new() }, 0)
    };
    for _ in 0..5 {
        post((0..18).map(|_| Uuid::new_v4()).collect()).await.expect("so many that some have to go");
        let uuids: Vec<Uuid> = (0..9).map(|n| if n % 4 == 0 { ground.store.refused } else { Uuid::new_v4() }).collect();
        let posted = futures_util::future::join_all(uuids.iter().map(|uuid| post(vec![*uuid])));
        for (uuid, posted) in uuids.iter().zip(in_time("answers", posted).await) {
            let failure = posted.err();
            assert_eq!(failure, (*uuid == ground.store.refused).then_some(Failure::Rejected));
        }
    }
}

// ---- Over real sockets ----

/// The arrays that come before someone goes away again.
async fn visit(client: &Client, id: &str, since: &str, transport: u64, arrays: u64) -> Vec<Value> {
    let mut frames = Vec::new();
    match transport {
        0 => {
            let path = format!("/ws?conn_id={id}&since={since}");
            let mut socket = Socket::try_open(client, &path).await.expect("a websocket");
            for _ in 0..arrays {
                frames.extend(socket.array().await.expect("an array"));
            }
        }
        1 => {
            let request = client.request("GET", &format!("/sse?conn_id={id}&since={since}"));
            let Ok(mut events) = Events::try_open(request).await else { panic!("no stream") };
            for _ in 0..arrays {
                frames.extend(events.array().await.expect("an array"));
            }
        }
        _ => {
            let answer = send(client.request("GET", &format!("/listen?conn_id={id}&since={since}"))).await;
            assert_eq!(answer.status, 200, "{}", answer.text);
            frames = array(answer.text.as_bytes());
        }
    }
    frames
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coming_back_all_the_time_under_full_load_loses_nothing() {
    const MESSAGES: i64 = 10_000;
    let server = TestServer::with(|config| config.attach_rate = None).await;
    server.configure("news", json!({"store_history": true, "replay_size": MESSAGES})).await;
    let id = server.connect("ann", &["news"]).await;
    let client = server.client();
    let publisher = tokio::spawn(async move {
        for first in (0..MESSAGES).step_by(5) {
            client.say("news", first..first + 5).await;
        }
    });
    let mut random = Random::new(7);
    let (mut since, mut next, mut visits) = (String::new(), 0, [0, 0, 0]);
    while next < MESSAGES {
        let transport = random.below(3);
        let arrays = 1 + random.below(2);
        let frames = in_time("frames", visit(&server, &id, &since, transport, arrays)).await;
        visits[transport as usize] += 1;
        for frame in &frames {
            if frame["type"] == "message" {
                assert_eq!(frame["message"]["n"], next, "by transport {transport} since {since}: {frame}");
                next += 1;
            } else if frame["type"] == "replay" {
                assert_eq!(frame["gaps"], json!([]), "{frame}");
            }
            since = frame["cursor"].as_str().unwrap_or(&since).to_owned();
        }
    }
    publisher.await.expect("a publisher");
    assert!(visits.iter().all(|visits| *visits > 3), "{visits:?}");
}

/// A message of which nothing is stored waits for an edit in its channel, which waits for the channel
/// to begin to store: by then it has to be stored, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waited_may_have_to_be_stored_by_then() {
    let ground = Ground::new(5, TailLimits::default()).await;
    let mut stored = 0;
    for n in 0..40 {
        let name = channel(&format!("later {n}"));
        let configure = |store_history| {
            let settings = SettingsPatch { store_history: Some(store_history), ..SettingsPatch::default() };
            Configure { channels: vec![(name.clone(), Uuid::new_v4(), Some(settings))] }
        };
        ground.hub.perform(configure(false), 0).await.expect("a channel");
        let (uuid, timestamp) = (Uuid::new_v4(), ground.hub.now().timestamp());
        let edit = Edit {
            uuid: Uuid::new_v4(),
            channel: Some(name.clone()),
            sender: None,
            body: body(n),
            timestamp: None,
            edited: timestamp,
            audience: Audience::default(),
            no_history: false,
        };
        let message = Message {
            uuid,
            channel: Some(name.clone()),
            sender: user("speaker"),
            body: body(n),
            timestamp,
            edited: None,
            audience: Audience::default(),
            no_history: false,
        };
        let post = Post { messages: vec![PostOne { message: message.into(), uuid_given: false }], posted: Vec::new() };
        let edits = EditMessages { edits: vec![edit.into()], positions: Vec::new() };
        let (configured, edited, posted) = tokio::join!(
            ground.hub.perform(configure(true), 0),
            ground.hub.perform(edits, 0),
            ground.hub.post(post, 0)
        );
        configured.expect("settings");
        edited.expect("an edit");
        let position = posted.expect("a message")[0].position;
        let held = ground.store.held(&HashSet::from([uuid])).await.expect("what is held");
        assert_eq!(held.is_empty(), position.is_none(), "what has a position is in the store");
        stored += usize::from(position.is_some());
    }
    assert!(stored > 0, "it never came to that");
    assert!(!ground.hub.is_lost());
}
