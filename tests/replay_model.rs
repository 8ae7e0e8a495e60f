//! Replay against a model that is as simple as can be: it keeps every logged event and works out
//! anew, for each listener that comes back, what that must be shown and which gaps it must be told.
//! The hub is real, and so is its store; there are no sockets.
//!
//! `SCHEDULES=10000` runs more of them; `SEED=17 SCHEDULES=1` runs one again. What retention keeps
//! above its limit is its own business: the model looks into the store's file for what is left.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use channelstream::domain::message::{Audience, Body, Deletion, Edit, Message};
use channelstream::domain::names::{ChannelName, ConnectionId, Username};
use channelstream::domain::operation::{
    Configure, Connect, Delete, EditMessages, Post, PostOne, Posted, Subscribe, Sweep, Unsubscribe,
};
use channelstream::domain::position::Cursor;
use channelstream::domain::replay::Since;
use channelstream::domain::settings::SettingsPatch;
use channelstream::domain::state::{PublicKeys, UserState};
use channelstream::domain::tails::TailLimits;
use channelstream::domain::user::FloorAt;
use channelstream::domain::view::InfoOptions;
use channelstream::hub::{Backlog, Hub, HubOptions, Listener, Transport};
use channelstream::mailbox::Mail;
use channelstream::store::{self, Synchronous};
use futures_util::FutureExt;
use futures_util::future::join_all;
use serde_json::Value;
use serde_json::value::RawValue;
use support::{Engine, Looking, Random, new_store};
use tempfile::TempDir;
use uuid::Uuid;

const USERS: [&str; 3] = ["ann", "bob", "eve"];
const CHANNELS: [&str; 3] = ["news", "sport", "talk"];
/// Small, so that who reads slowly overflows.
const MAX_QUEUE_BYTES: usize = 3_000;

// ---- The hub, spoken to by names ----

/// A hub over a store.
struct Ground {
    _directory: TempDir,
    url: String,
    hub: Option<Arc<Hub>>,
    resume_window: Duration,
    tails: TailLimits,
    looking: Option<Looking>,
}

/// What the store holds.
#[derive(Debug, Default)]
struct Held {
    log: BTreeSet<u64>,
    inboxes: BTreeSet<(String, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Stop,
    Crash,
}

fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name).expect("a channel name")
}

fn user(name: &str) -> Username {
    Username::parse(name).expect("a user name")
}

fn users(names: &[String]) -> Vec<Username> {
    names.iter().map(|name| user(name)).collect()
}

fn body(n: u64) -> Body {
    Arc::from(
        RawValue::from_string(format!(r#"{{"n":{n},"filler":"{}"}}"#, "x".repeat(n as usize % 80))).expect("JSON"),
    )
}

/// What is said, and to whom.
#[derive(Debug, Clone)]
struct Said {
    uuid: Uuid,
    /// None: private, to `only`.
    place: Option<String>,
    only: Vec<String>,
    except: Vec<String>,
    n: u64,
    unlogged: bool,
}

impl Said {
    fn to(place: &str, n: u64) -> Self {
        let place = Some(place.to_owned());
        Self { uuid: Uuid::new_v4(), place, only: Vec::new(), except: Vec::new(), n, unlogged: false }
    }

    fn audience(&self) -> Audience {
        Audience { only: users(&self.only).into(), except: users(&self.except).into() }
    }

    /// Whether a user may see it, who is a member if it is said in a channel.
    fn admits(&self, name: &str) -> bool {
        let named = self.only.iter().any(|only| only == name);
        !self.except.iter().any(|except| except == name) && (named || self.place.is_some() && self.only.is_empty())
    }
}

impl Ground {
    async fn new() -> Self {
        Self::with_tails(TailLimits::default()).await
    }

    async fn with_tails(tails: TailLimits) -> Self {
        let directory = tempfile::tempdir().expect("a temporary folder");
        let resume_window = Duration::from_secs(3600);
        let url = new_store(directory.path());
        let mut ground = Self { _directory: directory, url, hub: None, resume_window, tails, looking: None };
        ground.start().await;
        ground
    }

    async fn start(&mut self) {
        let started = Instant::now();
        // After a crash whatever was under way has to end first.
        let (store, start) = loop {
            match store::open(&self.url, &Synchronous::Normal.into()).await {
                Ok(opened) => break opened,
                Err(error) if started.elapsed() > support::PATIENCE => panic!("{error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        };
        let options = HubOptions {
            grace: Duration::from_secs(3600),
            resume_window: self.resume_window,
            commit_timeout: support::PATIENCE,
            max_queue_bytes: MAX_QUEUE_BYTES,
            tails: self.tails,
            max_listeners: None,
            attach_rate: None,
        };
        self.hub = Some(Hub::start(store, start, options).await.expect("a hub"));
        self.looking = Some(Looking::at(&self.url).await);
    }

    /// Nobody may listen any more.
    async fn restart(&mut self, end: End) {
        if let Some(looking) = self.looking.take() {
            looking.close().await;
        }
        let hub = self.hub.take().expect("a hub");
        if end == End::Stop {
            hub.stop().await.expect("a hub that stops");
        }
        assert_eq!(Arc::strong_count(&hub), 1, "somebody still listens");
        drop(hub);
        self.start().await;
    }

    fn hub(&self) -> &Arc<Hub> {
        self.hub.as_ref().expect("a hub")
    }

    async fn held(&mut self) -> Held {
        let looking = self.looking.as_mut().expect("a reader of the store");
        let log = looking.rows("SELECT CAST(position AS TEXT) FROM log").await;
        let inboxes = r#"SELECT CAST(inbox.position AS TEXT) || ' ' || users.name
                         FROM inbox JOIN users ON users.id = inbox."user""#;
        let inboxes = looking.rows(inboxes).await;
        let position = |text: &str| text.parse().expect("a position");
        let inbox = |row: &String| row.split_once(' ').map(|(at, name)| (name.to_owned(), position(at)));
        Held {
            log: log.iter().map(|text| position(text)).collect(),
            inboxes: inboxes.iter().filter_map(inbox).collect(),
        }
    }

    async fn connect(&self, name: &str, channels: &[&str]) -> ConnectionId {
        self.connect_since(name, channels, None).await
    }

    /// `since`: where the application puts the user's floors.
    async fn connect_since(&self, name: &str, channels: &[&str], since: Option<u64>) -> ConnectionId {
        let since = since.map(|position| match self.after(position) {
            Since::Floors => FloorAt::Earliest,
            Since::Cursor(cursor) => FloorAt::Cursor(cursor),
        });
        let connect = Connect {
            user: user(name),
            user_uuid: Uuid::new_v4(),
            id: ConnectionId(Uuid::new_v4()),
            channels: channels.iter().map(|name| channel(name)).collect(),
            channel_uuids: channels.iter().map(|_| Uuid::new_v4()).collect(),
            fresh_user_state: UserState::default(),
            user_state: UserState::default(),
            public_keys: PublicKeys::default(),
            channel_configs: Default::default(),
            since,
            info: InfoOptions::default(),
        };
        self.hub().perform(connect, 0).await.expect("a connection").id
    }

    async fn subscribe(&self, id: ConnectionId, name: &str) {
        let subscribe = Subscribe {
            id,
            channels: vec![channel(name)],
            channel_uuids: vec![Uuid::new_v4()],
            channel_configs: Default::default(),
            info: InfoOptions::default(),
            added: Vec::new(),
        };
        self.hub().perform(subscribe, 0).await.expect("a subscription");
    }

    async fn unsubscribe(&self, id: ConnectionId, name: &str) {
        let (channels, removed) = (vec![channel(name)], Vec::new());
        let unsubscribe = Unsubscribe { id, channels, info: InfoOptions::default(), removed };
        self.hub().perform(unsubscribe, 0).await.expect("an end of a subscription");
    }

    async fn configure(&self, name: &str, settings: SettingsPatch) {
        let channels = vec![(channel(name), Uuid::new_v4(), Some(settings))];
        self.hub().perform(Configure { channels }, 0).await.expect("settings");
    }

    /// Keeps so many messages.
    async fn keep(&self, name: &str, size: u32) {
        self.configure(name, keeping(size)).await;
    }

    async fn post(&self, said: &[Said]) -> Vec<Option<u64>> {
        let timestamp = self.hub().now().timestamp();
        let messages = said.iter().map(|said| {
            let message = Message {
                uuid: said.uuid,
                channel: said.place.as_deref().map(channel),
                sender: user("speaker"),
                body: Some(body(said.n)),
                timestamp,
                edited: None,
                audience: said.audience(),
                no_history: said.unlogged,
            };
            PostOne { message: message.into(), uuid_given: false }
        });
        let post = Post { messages: messages.collect(), posted: Vec::new() };
        let posted = self.hub().post(post, 0).await.expect("messages");
        posted.into_iter().map(|Posted { position, .. }| position.map(|position| position.0)).collect()
    }

    /// Posts numbers to a channel; gives the last position.
    async fn say(&self, name: &str, numbers: impl IntoIterator<Item = u64>) -> u64 {
        let said: Vec<Said> = numbers.into_iter().map(|n| Said::to(name, n)).collect();
        self.post(&said).await.last().expect("messages").expect("logged")
    }

    async fn edit(&self, said: &Said, n: u64) -> Option<u64> {
        let edit = Edit {
            uuid: said.uuid,
            channel: said.place.as_deref().map(channel),
            sender: None,
            body: Some(body(n)),
            timestamp: None,
            edited: self.hub().now().timestamp(),
            audience: said.audience(),
            no_history: false,
        };
        let edits = EditMessages { edits: vec![edit.into()], positions: Vec::new() };
        self.hub().perform(edits, 0).await.expect("an edit")[0].1.map(|position| position.0)
    }

    async fn delete(&self, said: &Said) -> Option<u64> {
        let channel = said.place.as_deref().map(channel);
        let deletion = Deletion { uuid: said.uuid, channel, audience: said.audience(), no_history: false };
        let deletions = Delete { deletions: vec![deletion.into()], positions: Vec::new() };
        self.hub().perform(deletions, 0).await.expect("a deletion")[0].1.map(|position| position.0)
    }

    /// Ends what was dismissed; whatever is overfull is trimmed before.
    async fn sweep(&self) {
        self.hub().perform(Sweep, 0).await.expect("a sweep");
    }

    /// Opens a connection; what it missed is not read yet.
    fn listen(&self, id: ConnectionId, since: &Since) -> (Listener, Backlog) {
        self.hub().listen(id, Some(since), Transport::LongPoll).expect("a connection to listen on")
    }

    fn after(&self, position: u64) -> Since {
        let text = format!("{}-{position}", self.hub().epoch().as_str());
        Since::Cursor(Cursor::parse(&text).expect("a cursor"))
    }

    /// What someone who opens this connection now has missed.
    async fn replay(&self, id: ConnectionId, since: &Since) -> Replay {
        let (_listener, backlog) = self.listen(id, since);
        read(backlog).await
    }
}

fn keeping(size: u32) -> SettingsPatch {
    SettingsPatch {
        store_history: Some(true),
        history_size: Some(size),
        replay_size: Some(size),
        ..SettingsPatch::default()
    }
}

/// A replay up to its marker.
#[derive(Debug)]
struct Replay {
    frames: Vec<Value>,
    marker: Value,
}

async fn read(mut backlog: Backlog) -> Replay {
    let mut frames = Vec::new();
    while let Some(part) = backlog.next().await.expect("a store that can be read") {
        frames.extend(array(part.array()));
    }
    let marker = backlog.marker(None).expect("a marker");
    let [marker] = array(marker.array()).try_into().expect("one marker");
    Replay { frames, marker }
}

fn array(text: &[u8]) -> Vec<Value> {
    serde_json::from_slice(text).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(text)))
}

/// What waits in a mailbox; and whether that was closed.
fn mail(listener: &Listener) -> (Vec<Value>, bool) {
    let mut frames = Vec::new();
    loop {
        match listener.mail().now_or_never() {
            None => return (frames, false),
            Some(Mail::Closed(_)) => return (frames, true),
            Some(Mail::Beat) => {}
            Some(Mail::Pieces(pieces)) => {
                let tick = pieces.back().expect("a piece").tick;
                frames.extend(pieces.iter().flat_map(|piece| array(piece.array())));
                listener.mark_written(tick);
            }
        }
    }
}

fn position(frame: &Value) -> Option<u64> {
    let cursor = frame.get("cursor")?.as_str().expect("a text");
    Some(cursor.split_once('-').expect("a cursor").1.parse().expect("a number"))
}

fn numbers(frames: &[Value]) -> Vec<u64> {
    frames.iter().map(|frame| frame["message"]["n"].as_u64().unwrap_or_else(|| panic!("no number: {frame}"))).collect()
}

/// Gaps by channel; the inbox has no name.
fn gaps(marker: &Value) -> BTreeMap<Option<String>, String> {
    let gaps = marker["gaps"].as_array().expect("a list").iter();
    let pair = |gap: &Value| {
        (gap["channel"].as_str().map(str::to_owned), gap["reason"].as_str().expect("a reason").to_owned())
    };
    gaps.map(pair).collect()
}

// ---- What happens between opening a connection and reading what it missed ----

/// Nothing is read yet, and by now the mailbox has overflowed.
async fn overflow(ground: &Ground, name: &str, numbers: std::ops::Range<u64>) -> u64 {
    let mut last = 0;
    for n in numbers {
        last = ground.say(name, [n]).await;
    }
    last
}

#[tokio::test]
async fn an_overflow_while_reading_is_read_from_the_log() {
    let ground = Ground::new().await;
    ground.keep("news", 1000).await;
    let id = ground.connect("ann", &["news"]).await;
    ground.say("news", 0..10).await;
    let (listener, backlog) = ground.listen(id, &Since::Floors);
    overflow(&ground, "news", 10..60).await;
    let Replay { frames, marker } = read(backlog).await;
    assert_eq!(numbers(&frames), (0..60).collect::<Vec<_>>());
    assert_eq!((&marker["count"], gaps(&marker).len()), (&Value::from(60), 0));
    ground.say("news", [60]).await;
    assert_eq!(numbers(&mail(&listener).0), [60]);
}

#[tokio::test]
async fn a_channel_joined_while_reading_has_no_hole_after_an_overflow() {
    let ground = Ground::new().await;
    ground.keep("news", 1000).await;
    ground.keep("talk", 1000).await;
    let id = ground.connect("ann", &["news"]).await;
    ground.say("news", 0..10).await;
    let (listener, backlog) = ground.listen(id, &Since::Floors);
    ground.subscribe(id, "talk").await;
    ground.say("talk", 10..15).await;
    overflow(&ground, "news", 15..60).await;
    ground.say("talk", 60..65).await;
    let Replay { mut frames, marker } = read(backlog).await;
    ground.say("talk", [65]).await;
    frames.extend(mail(&listener).0);
    frames.retain(|frame| frame["type"] == "message");
    assert_eq!(numbers(&frames), (0..66).collect::<Vec<_>>(), "{marker}");
}

#[tokio::test]
async fn what_is_trimmed_while_reading_is_a_gap() {
    trimmed_while_reading(true, Since::Floors, "trimmed").await;
}

#[tokio::test]
async fn what_is_trimmed_while_reading_is_a_gap_where_nothing_is_kept() {
    trimmed_while_reading(false, Since::Floors, "not_kept").await;
}

#[tokio::test]
async fn what_is_trimmed_while_reading_is_a_gap_after_an_unknown_cursor() {
    let unknown = Since::Cursor(Cursor::parse("unknown-1").expect("a cursor"));
    trimmed_while_reading(true, unknown, "unknown_cursor").await;
}

/// All that was missed is gone by now, and more.
async fn trimmed_while_reading(store_frames: bool, since: Since, reason: &str) {
    let ground = Ground::new().await;
    ground.configure("news", SettingsPatch { store_frames: Some(store_frames), ..keeping(5) }).await;
    let id = ground.connect("ann", &["news"]).await;
    ground.say("news", 0..4).await;
    let (_listener, backlog) = ground.listen(id, &since);
    ground.say("news", 4..60).await;
    ground.sweep().await;
    let marker = read(backlog).await.marker;
    assert_eq!(gaps(&marker), BTreeMap::from([(Some("news".to_owned()), reason.to_owned())]));
}

#[tokio::test]
async fn what_is_trimmed_while_reading_is_no_gap_if_nothing_was_missed() {
    let ground = Ground::new().await;
    ground.keep("news", 5).await;
    let id = ground.connect("ann", &["news"]).await;
    let head = ground.say("news", [0]).await;
    let (listener, backlog) = ground.listen(id, &ground.after(head));
    ground.say("news", 1..40).await;
    ground.sweep().await;
    let Replay { frames, marker } = read(backlog).await;
    assert_eq!((frames.len(), position(&marker)), (0, Some(head)));
    assert_eq!(numbers(&mail(&listener).0), (1..40).collect::<Vec<_>>(), "all of it comes live");
    assert_eq!(gaps(&marker), BTreeMap::new());
}

#[tokio::test]
async fn a_floor_that_ended_while_reading_hides_what_was_before() {
    let ground = Ground::new().await;
    ground.keep("news", 1000).await;
    let id = ground.connect("ann", &["news"]).await;
    ground.say("news", [0]).await;
    let (_listener, backlog) = ground.listen(id, &Since::Floors);
    ground.unsubscribe(id, "news").await;
    ground.say("news", [1]).await;
    ground.subscribe(id, "news").await;
    assert_eq!(numbers(&read(backlog).await.frames), [0; 0]);
}

#[tokio::test]
async fn what_was_said_while_out_is_not_shown_after_an_overflow() {
    let ground = Ground::new().await;
    ground.keep("news", 1000).await;
    ground.keep("talk", 1000).await;
    let id = ground.connect("ann", &["news", "talk"]).await;
    let (_listener, backlog) = ground.listen(id, &Since::Floors);
    ground.unsubscribe(id, "talk").await;
    ground.say("talk", [1000]).await;
    ground.subscribe(id, "talk").await;
    overflow(&ground, "news", 0..50).await;
    assert_eq!(numbers(&read(backlog).await.frames), (0..50).collect::<Vec<_>>());
}

// ---- Memory and store tell the same ----

#[tokio::test]
async fn a_deletion_that_is_deleted_again_is_the_same_from_memory_and_from_the_store() {
    let mut ground = Ground::new().await;
    let ids = [ground.connect("ann", &[]).await, ground.connect("bob", &[]).await, ground.connect("eve", &[]).await];
    let to = |names: &[&str]| Said {
        place: None,
        only: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Said::to("nowhere", 1)
    };
    let said = to(&["ann", "bob"]);
    ground.post(std::slice::from_ref(&said)).await;
    ground.delete(&said).await;
    // Whoever it names now: it is the two who have it.
    ground.delete(&Said { uuid: said.uuid, ..to(&["ann", "eve"]) }).await;
    ground.post(&[to(&["ann", "bob", "eve"])]).await;
    let mut told = Vec::new();
    for restart in [false, true] {
        if restart {
            ground.restart(End::Stop).await;
        }
        let mut all = Vec::new();
        for id in ids {
            for position in 0..=4 {
                let Replay { frames, marker } = ground.replay(id, &ground.after(position)).await;
                all.push((frames, marker["gaps"].clone()));
            }
        }
        told.push(all);
    }
    assert_eq!(told[0], told[1]);
}

#[tokio::test]
async fn what_is_past_its_time_is_the_same_from_memory_and_from_the_store() {
    let mut ground = Ground::new().await;
    ground.configure("news", SettingsPatch { history_ttl: Some(Some(2)), ..keeping(100) }).await;
    let id = ground.connect("ann", &["news"]).await;
    let first = Said::to("news", 1);
    ground.post(&[first.clone(), Said::to("news", 2)]).await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    ground.edit(&first, 3).await;
    ground.say("news", [4]).await;
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    let mut told = Vec::new();
    for restart in [false, true] {
        if restart {
            // More than two seconds: all would be past its time.
            ground.configure("news", SettingsPatch { history_ttl: Some(Some(60)), ..keeping(100) }).await;
            ground.restart(End::Stop).await;
        }
        let mut all = Vec::new();
        for position in 0..=4 {
            let Replay { frames, marker } = ground.replay(id, &ground.after(position)).await;
            all.push((numbers(&frames), gaps(&marker).into_values().collect::<Vec<_>>()));
        }
        told.push(all);
    }
    let trimmed = || vec!["trimmed".to_owned()];
    let gone = [(vec![4], trimmed()), (vec![4], trimmed()), (vec![4], trimmed()), (vec![4], vec![]), (vec![], vec![])];
    assert_eq!(told[0], gone);
    let back = [vec![3, 2, 4], vec![2, 3, 4], vec![3, 4], vec![4], vec![]].map(|numbers| (numbers, vec![]));
    assert_eq!(told[1], back, "what is there longer after all");
}

// ---- Floors whose changes come together ----

#[tokio::test]
async fn leaving_by_one_connection_and_joining_by_another_begins_a_floor() {
    let mut ground = Ground::new().await;
    ground.keep("news", 1000).await;
    let first = ground.connect("ann", &["news"]).await;
    let second = ground.connect("ann", &[]).await;
    ground.say("news", [1]).await;
    tokio::join!(ground.unsubscribe(first, "news"), ground.subscribe(second, "news"));
    ground.say("news", [2]).await;
    for restart in [None, Some(End::Stop), Some(End::Crash)] {
        if let Some(end) = restart {
            ground.restart(end).await;
        }
        assert_eq!(numbers(&ground.replay(second, &Since::Floors).await.frames), [2], "{restart:?}");
    }
}

#[tokio::test]
async fn the_last_to_be_unsubscribed_ends_the_floor_also_beside_a_sweep() {
    let mut ground = Ground::new().await;
    ground.keep("news", 1000).await;
    let ended = ground.connect("ann", &["news"]).await;
    let id = ground.connect("ann", &["news"]).await;
    ground.say("news", [1]).await;
    ground.hub().dismiss(ended);
    tokio::join!(ground.sweep(), ground.unsubscribe(id, "news"));
    ground.restart(End::Stop).await;
    ground.subscribe(id, "news").await;
    ground.say("news", [2]).await;
    assert_eq!(numbers(&ground.replay(id, &Since::Floors).await.frames), [2]);
}

#[tokio::test]
async fn two_who_come_after_the_resume_window_have_the_floor_of_the_first() {
    let mut ground = Ground::new().await;
    ground.keep("news", 1000).await;
    let gone = ground.connect("ann", &["news"]).await;
    ground.hub().dismiss(gone);
    ground.sweep().await;
    ground.resume_window = Duration::ZERO;
    ground.restart(End::Stop).await;
    ground.say("news", [1]).await;
    let (first, _, second) =
        tokio::join!(ground.connect("ann", &["news"]), ground.say("news", [2]), ground.connect("ann", &["news"]));
    ground.say("news", [3]).await;
    for restart in [false, true] {
        if restart {
            ground.restart(End::Stop).await;
        }
        for id in [first, second] {
            assert_eq!(numbers(&ground.replay(id, &Since::Floors).await.frames), [2, 3], "restart: {restart}");
        }
    }
}

// ---- The model ----

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Message,
    Edit,
    Deletion,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Edit => "message:edit",
            Self::Deletion => "message:delete",
        }
    }
}

/// A logged event.
#[derive(Debug, Clone)]
struct Entry {
    position: u64,
    kind: Kind,
    /// Which of the messages.
    message: usize,
    /// The message's position, if the log held it then.
    about: Option<u64>,
    /// Whose inboxes got it.
    inboxes: Vec<String>,
    /// A later change made it pointless, so that the log does not hold it any more.
    is_over: bool,
    /// The number at that time.
    n: u64,
}

/// A message, also an unlogged one, with its present content.
#[derive(Debug, Clone)]
struct Known {
    said: Said,
    position: Option<u64>,
    is_deleted: bool,
}

#[derive(Debug, Clone, Default)]
struct Settings {
    logs: bool,
    keeps_frames: bool,
    /// How often `keeps_frames` changed.
    changes: u32,
}

#[derive(Debug, Clone, Default)]
struct Member {
    /// The head when it became one.
    joined: u64,
}

#[derive(Debug, Clone)]
struct Connected {
    user: String,
    channels: BTreeMap<String, Member>,
}

#[derive(Debug, Default)]
struct Model {
    log: Vec<Entry>,
    messages: Vec<Known>,
    settings: BTreeMap<String, Settings>,
    users: BTreeSet<String>,
    floors: BTreeMap<(String, String), u64>,
    connections: BTreeMap<ConnectionId, Connected>,
    head: u64,
}

/// Where a listener was when it came.
#[derive(Debug, Clone)]
struct Came {
    /// None: from the floors. A cursor that nobody knows: 0 of it is known.
    since: Option<u64>,
    is_known: bool,
    head: u64,
    connected: Connected,
    settings: BTreeMap<String, Settings>,
}

impl Model {
    /// Where entries of one place are, and what the log holds of them.
    fn entries<'a>(&'a self, place: Option<&'a str>, user: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.log.iter().filter(move |entry| match place {
            Some(place) => self.messages[entry.message].said.place.as_deref() == Some(place),
            None => entry.inboxes.iter().any(|name| name == user),
        })
    }

    /// Compares what a listener was shown with what it had to be shown.
    fn check(&self, came: &Came, held: &Held, id: ConnectionId, replay: &Replay) -> Result<(), String> {
        let Replay { frames, marker } = replay;
        let end = position(marker).expect("a cursor");
        if end != came.head && end != self.head {
            return Err(format!("the marker is neither at {} nor at {}", came.head, self.head));
        }
        let logged: Vec<&Value> = frames.iter().take_while(|frame| frame.get("cursor").is_some()).collect();
        if frames[logged.len()..].iter().any(|frame| frame.get("cursor").is_some()) {
            return Err("logged frames after unlogged ones".to_owned());
        }
        if frames.iter().any(|frame| frame["catchup"] != true) || marker["count"] != logged.len() {
            return Err("not all caught up, or counted wrongly".to_owned());
        }
        let user = &came.connected.user;
        let now = self.connections.get(&id).map(|connected| &connected.channels);
        let told = gaps(marker);
        let (mut must, mut may) = (BTreeMap::new(), BTreeMap::new());
        let places = self.settings.keys().map(|name| Some(name.as_str())).chain([None]);
        for place in places {
            let gap = told.get(&place.map(str::to_owned)).map(String::as_str);
            let was = place.is_none_or(|name| came.connected.channels.contains_key(name));
            let joined = match place {
                None => Some(0),
                Some(name) => now.and_then(|now| now.get(name)).map(|member| member.joined),
            };
            let Some(joined) = joined else {
                if !was && gap.is_some() {
                    return Err(format!("a gap in {place:?}, which it is not in"));
                }
                continue;
            };
            let (floor, settings) = match place {
                None => (0, None),
                Some(name) => {
                    let floor = self.floors.get(&(user.clone(), name.to_owned())).copied();
                    (floor.expect("a member has a floor"), self.settings.get(name))
                }
            };
            let since = if came.is_known { came.since.unwrap_or(floor) } else { 0 };
            let from = since.max(floor);
            let keeps_frames = settings.is_none_or(|settings| settings.keeps_frames);
            let changes_then = place.and_then(|name| came.settings.get(name)).map(|then| then.changes);
            if settings.map(|settings| settings.changes) != changes_then {
                // It kept frames then and does not now, or the other way round: both are right.
                if came.is_known {
                    self.show(place, user, from, from, end, held, &mut may);
                }
                continue;
            }
            // Of what it joined later, it has to hear from there on.
            let is_later = joined > came.head || !was;
            let needed = if is_later { joined.max(came.head).max(from) } else { from };
            let is_held = |entry: &&Entry| self.is_held(entry, place, user, held);
            let held_in = |after: u64, through: u64| {
                let mut entries = self.entries(place, user).filter(is_held);
                entries.any(|entry| entry.position > after && entry.position <= through)
            };
            let dropped = self.entries(place, user).filter(|entry| !entry.is_over && !is_held(entry));
            let dropped: Vec<u64> = dropped.map(|entry| entry.position).collect();
            let dropped_in = |after: u64, through: u64| dropped.iter().any(|at| *at > after && *at <= through);
            let newest_dropped = dropped.last().copied().unwrap_or(0);

            let any = |after: u64, through: u64| held_in(after, through) || dropped_in(after, through);
            // Something was dropped, but perhaps only of what comes live: that cannot be told apart.
            let perhaps = |after: u64, reason| (newest_dropped > end && end > after).then_some(reason);
            let (required, allowed): (Option<&str>, Vec<&str>) = if is_later {
                let is_read = came.is_known && keeps_frames;
                let is_lost = if is_read { dropped_in(needed, end) } else { any(needed, end) };
                // Whatever the reason.
                let told = gap.filter(|_| is_lost);
                (told.or(is_lost.then_some("trimmed")), Vec::from_iter(gap))
            } else if !came.is_known {
                (any(0, end).then_some("unknown_cursor"), Vec::from_iter(perhaps(0, "unknown_cursor")))
            } else if !keeps_frames {
                (any(since, end).then_some("not_kept"), Vec::from_iter(perhaps(since, "not_kept")))
            } else if held_in(since, floor) || newest_dropped > since && newest_dropped <= floor {
                (Some("floor"), vec![])
            } else {
                (dropped_in(from, end).then_some("trimmed"), Vec::from_iter(perhaps(from, "trimmed")))
            };
            if gap != required && !(required.is_none() && gap.is_some_and(|gap| allowed.contains(&gap))) {
                return Err(format!(
                    "gap in {place:?}: {gap:?} instead of {required:?}; since {since}, floor {floor}, \
                     end {end}, dropped {dropped:?}"
                ));
            }
            if came.is_known && keeps_frames {
                self.show(place, user, from, needed, end, held, &mut must);
                self.show(place, user, from, from, end, held, &mut may);
            }
        }
        if told.keys().flatten().any(|name| !self.settings.contains_key(name)) {
            return Err("a gap in a channel that does not exist".to_owned());
        }
        let shown: Vec<(u64, String)> =
            logged.iter().map(|frame| (position(frame).expect("a cursor"), Self::brief(frame))).collect();
        if !shown.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(format!("out of order: {shown:?}"));
        }
        let shown: BTreeMap<u64, String> = shown.into_iter().collect();
        let missing: Vec<_> = must.iter().filter(|(at, what)| shown.get(at) != Some(what)).collect();
        let surplus: Vec<_> =
            shown.iter().filter(|(at, what)| may.get(at) != Some(what) && must.get(at) != Some(what)).collect();
        if !missing.is_empty() || !surplus.is_empty() {
            return Err(format!("missing {missing:?}, surplus {surplus:?}"));
        }
        Ok(())
    }

    fn is_held(&self, entry: &Entry, place: Option<&str>, user: &str, held: &Held) -> bool {
        match place {
            Some(_) => held.log.contains(&entry.position),
            None => held.inboxes.contains(&(user.to_owned(), entry.position)),
        }
    }

    /// The net effect of what is held after `from`, of which what is after `needed` is added.
    #[expect(clippy::too_many_arguments, reason = "a test")]
    fn show(
        &self,
        place: Option<&str>,
        user: &str,
        from: u64,
        needed: u64,
        end: u64,
        held: &Held,
        shown: &mut BTreeMap<u64, String>,
    ) {
        for entry in self.entries(place, user) {
            let known = &self.messages[entry.message];
            let is_news = entry.kind == Kind::Message || entry.about.is_none_or(|about| about <= from);
            let is_there = self.is_held(entry, place, user, held) && known.said.admits(user);
            if is_there && is_news && entry.position > needed && entry.position <= end {
                let n = (entry.kind != Kind::Deletion).then_some(known.said.n);
                shown.insert(entry.position, Self::text(entry.kind.name(), place, n, known.said.uuid));
            }
        }
    }

    fn text(kind: &str, place: Option<&str>, n: Option<u64>, uuid: Uuid) -> String {
        let short = &uuid.simple().to_string()[..4];
        format!("{kind} {} {} {short}", place.unwrap_or("private"), n.map(|n| n.to_string()).unwrap_or_default())
    }

    fn brief(frame: &Value) -> String {
        let uuid = frame["uuid"].as_str().expect("a uuid").parse().expect("a uuid");
        let kind = frame["type"].as_str().expect("a type");
        Self::text(kind, frame["channel"].as_str(), frame["message"]["n"].as_u64(), uuid)
    }
}

// ---- Schedules ----

/// A device of a user.
#[derive(Default)]
struct Device {
    user: String,
    id: Option<ConnectionId>,
    open: Option<Open>,
    /// The newest cursor of its own stream.
    cursor: Option<String>,
}

struct Open {
    listener: Listener,
    backlog: Option<Backlog>,
    came: Came,
    /// What it has to hear live, by position; and what it has heard.
    live: Vec<(u64, String)>,
    heard: usize,
}

struct Schedule {
    random: Random,
    ground: Ground,
    model: Model,
    devices: Vec<Device>,
    /// What each connection was told that is not logged.
    told: BTreeSet<(ConnectionId, String)>,
    next_n: u64,
    story: Vec<String>,
    /// How often hubs before the present one asked the store.
    reads: u64,
}

impl Schedule {
    async fn new(seed: u64, tails: TailLimits) -> Self {
        let mut random = Random::new(seed);
        let users = (0..4).map(|_| USERS[random.below(3) as usize].to_owned());
        let devices = users.map(|user| Device { user, ..Device::default() }).collect();
        let ground = Ground::with_tails(tails).await;
        let (model, told) = (Model::default(), BTreeSet::new());
        Self { random, ground, model, devices, told, next_n: 1, story: Vec::new(), reads: 0 }
    }

    async fn run(&mut self) {
        for name in CHANNELS {
            self.configure(name).await;
        }
        for _ in 0..30 + self.random.below(100) {
            self.step().await;
        }
        // In the end everybody comes back and hears all.
        for device in 0..self.devices.len() {
            self.read(device).await;
            self.close(device);
            if self.devices[device].id.is_some() {
                self.open(device).await;
                self.read(device).await;
            }
        }
        self.post(1).await;
        for device in 0..self.devices.len() {
            self.read(device).await;
        }
    }

    fn note(&mut self, text: String) {
        self.story.push(text);
    }

    async fn step(&mut self) {
        let device = self.random.below(self.devices.len() as u64) as usize;
        match self.random.below(100) {
            0..22 => {
                let count = 1 + self.random.below(3);
                self.post(count).await;
            }
            22..26 => {
                let count = 20 + self.random.below(30);
                self.burst(count).await;
            }
            26..36 => self.edit().await,
            36..44 => self.delete().await,
            44..48 => {
                let name = self.any_channel();
                self.configure(name).await;
            }
            48..56 => {
                let name = self.any_channel();
                self.subscribe(device, name).await;
            }
            56..60 => {
                let name = self.any_channel();
                self.unsubscribe(device, name).await;
            }
            60..74 => {
                self.read(device).await;
                self.close(device);
                self.open(device).await;
                if self.random.below(3) > 0 {
                    self.read(device).await;
                }
            }
            74..82 => self.read(device).await,
            82..86 => self.drop_in_between(device).await,
            86..89 => self.connect(device).await,
            89..91 => self.beat(),
            91..95 => self.together().await,
            95..97 => self.leave(device).await,
            _ => {
                let end = if self.random.below(2) == 0 { End::Stop } else { End::Crash };
                self.restart(end).await;
            }
        }
    }

    fn any_channel(&mut self) -> &'static str {
        CHANNELS[self.random.below(3) as usize]
    }

    fn some_users(&mut self) -> Vec<String> {
        (0..1 + self.random.below(2)).map(|_| USERS[self.random.below(3) as usize].to_owned()).collect()
    }

    // What back ends do.

    async fn configure(&mut self, name: &'static str) {
        let sizes = [0, 1, 3, 6];
        let (logs, frames) = (self.random.below(8) > 0, self.random.below(8) > 0);
        let [history_size, replay_size] = [0, 0].map(|_: u32| sizes[self.random.below(4) as usize]);
        let settings = SettingsPatch {
            store_history: Some(logs),
            history_size: Some(history_size),
            replay_size: Some(replay_size),
            store_frames: Some(frames),
            ..SettingsPatch::default()
        };
        self.note(format!("configure {name} history {logs} {history_size} {replay_size} frames {frames}"));
        self.ground.configure(name, settings).await;
        let settings = self.model.settings.entry(name.to_owned()).or_insert_with(|| Settings {
            logs: false,
            keeps_frames: true,
            changes: 0,
        });
        settings.logs = logs && history_size > 0;
        settings.changes += u32::from(settings.keeps_frames != frames);
        settings.keeps_frames = frames;
    }

    fn new_message(&mut self) -> Said {
        let n = self.next_n;
        self.next_n += 1;
        let place = (self.random.below(4) > 0).then(|| self.any_channel().to_owned());
        let only = if place.is_none() || self.random.below(5) == 0 { self.some_users() } else { Vec::new() };
        let except = if self.random.below(8) == 0 { self.some_users() } else { Vec::new() };
        let unlogged = self.random.below(8) == 0;
        let uuid = Uuid::from_u128(u128::from(n) << 112 | u128::from(self.random.below(u64::MAX)));
        Said { uuid, place, only, except, n, unlogged }
    }

    async fn post(&mut self, count: u64) {
        let said: Vec<Said> = (0..count).map(|_| self.new_message()).collect();
        let positions = self.ground.post(&said).await;
        // A private message that excludes all it names is dropped only if it names nobody.
        assert_eq!(positions.len(), said.len());
        for (said, position) in said.into_iter().zip(positions) {
            self.posted(said, position);
        }
    }

    async fn burst(&mut self, count: u64) {
        let mut said = self.new_message();
        said.unlogged = false;
        let said: Vec<Said> = (0..count)
            .map(|_| {
                let n = self.next_n;
                self.next_n += 1;
                Said { uuid: Uuid::from_u128(u128::from(n) << 112 | 7), n, ..said.clone() }
            })
            .collect();
        let positions = self.ground.post(&said).await;
        for (said, position) in said.into_iter().zip(positions) {
            self.posted(said, position);
        }
    }

    fn posted(&mut self, said: Said, position: Option<u64>) {
        let named = |name: &&String| said.admits(name);
        let inboxes: Vec<String> = match &said.place {
            Some(_) => Vec::new(),
            None => self.model.users.iter().filter(named).cloned().collect(),
        };
        let logs = match &said.place {
            Some(place) => self.model.settings[place].logs,
            None => !inboxes.is_empty(),
        };
        self.note(format!(
            "post {} to {:?} only {:?} except {:?}{} at {position:?}",
            said.n,
            said.place,
            said.only,
            said.except,
            if said.unlogged { " unlogged" } else { "" }
        ));
        assert_eq!(position.is_some(), logs && !said.unlogged, "whether it is logged");
        let n = said.n;
        self.model.messages.push(Known { said, position, is_deleted: false });
        let message = self.model.messages.len() - 1;
        if let Some(position) = position {
            self.logged(Entry { position, kind: Kind::Message, message, about: None, inboxes, is_over: false, n });
        }
    }

    /// The log has one more; who listens has to hear of it.
    fn logged(&mut self, entry: Entry) {
        self.model.head += 1;
        assert_eq!(entry.position, self.model.head, "positions count up");
        let said = &self.model.messages[entry.message].said;
        let place = said.place.as_deref();
        let n = (entry.kind != Kind::Deletion).then_some(entry.n);
        let text = Model::text(entry.kind.name(), place, n, said.uuid);
        for device in &mut self.devices {
            let Some((id, open)) = device.id.zip(device.open.as_mut()) else { continue };
            let member = place.is_none_or(|name| self.model.connections[&id].channels.contains_key(name));
            if member && said.admits(&device.user) {
                open.live.push((entry.position, text.clone()));
            }
        }
        self.model.log.push(entry);
    }

    /// Some message, rather a recent one.
    fn any_message(&mut self) -> Option<usize> {
        let count = self.model.messages.len() as u64;
        let back = if self.random.below(3) > 0 { 10 } else { 1000 };
        (count > 0).then(|| (count - 1 - self.random.below(back.min(count))) as usize)
    }

    /// Whether the log holds a message, and in whose inboxes, after all trimming that is due.
    async fn holders(&mut self, message: usize) -> Option<(u64, Vec<String>)> {
        self.ground.sweep().await;
        let held = self.ground.held().await;
        let known = &self.model.messages[message];
        let position = known.position.filter(|position| !known.is_deleted && held.log.contains(position))?;
        let holders = held.inboxes.iter().filter(|(_, at)| *at == position).map(|(name, _)| name.clone());
        Some((position, holders.collect()))
    }

    async fn edit(&mut self) {
        let Some(message) = self.any_message() else { return };
        let holders = self.holders(message).await;
        let n = self.next_n;
        self.next_n += 1;
        let said = self.model.messages[message].said.clone();
        let position = self.ground.edit(&said, n).await;
        self.note(format!("edit {} of {:?} to {n} at {position:?}", said.n, said.place));
        assert_eq!(position.is_some(), holders.is_some(), "whether the edit is logged");
        let is_deleted = self.model.messages[message].is_deleted;
        if !is_deleted {
            self.model.messages[message].said.n = n;
        }
        let Some((position, (about, inboxes))) = position.zip(holders) else { return };
        for entry in &mut self.model.log {
            entry.is_over |= entry.message == message && entry.kind == Kind::Edit;
        }
        let about = Some(about);
        self.logged(Entry { position, kind: Kind::Edit, message, about, inboxes, is_over: false, n });
    }

    async fn delete(&mut self) {
        let Some(message) = self.any_message() else { return };
        let known = self.model.messages[message].clone();
        if known.is_deleted {
            return;
        }
        let holders = self.holders(message).await;
        let position = self.ground.delete(&known.said).await;
        self.note(format!("delete {} of {:?} at {position:?}", known.said.n, known.said.place));
        let logs = known.said.place.as_ref().is_some_and(|place| self.model.settings[place].logs);
        assert_eq!(position.is_some(), logs || holders.is_some(), "whether the deletion is logged");
        self.model.messages[message].is_deleted = true;
        let Some(position) = position else { return };
        let (about, inboxes) = holders.map_or((None, Vec::new()), |(about, inboxes)| (Some(about), inboxes));
        if about.is_some() {
            for entry in &mut self.model.log {
                entry.is_over |= entry.message == message;
            }
        }
        let n = known.said.n;
        self.logged(Entry { position, kind: Kind::Deletion, message, about, inboxes, is_over: false, n });
    }

    /// A new connection id; the old one is left to itself, or dismissed.
    async fn connect(&mut self, device: usize) {
        self.read(device).await;
        self.close(device);
        if self.random.below(2) == 0 {
            self.leave(device).await;
        }
        let name = self.devices[device].user.clone();
        let channels: Vec<&str> = CHANNELS.into_iter().filter(|_| self.random.below(3) > 0).collect();
        let since = (self.random.below(4) == 0).then(|| self.random.below(self.model.head + 1));
        if since.is_some() {
            // What they are being shown must have been read under the old floors.
            for other in (0..self.devices.len()).filter(|other| self.devices[*other].user == name).collect::<Vec<_>>() {
                self.read(other).await;
            }
        }
        let id = self.ground.connect_since(&name, &channels, since).await;
        self.note(format!("device {device} of {name} connects to {channels:?} since {since:?}"));
        self.model.users.insert(name.clone());
        self.model.connections.insert(id, Connected { user: name.clone(), channels: BTreeMap::new() });
        for channel in channels {
            self.joined(id, channel);
            if let Some(position) = since {
                self.model.floors.insert((name.clone(), channel.to_owned()), position);
            }
        }
        self.devices[device].id = Some(id);
    }

    fn joined(&mut self, id: ConnectionId, name: &str) {
        let head = self.model.head;
        let connected = self.model.connections.get_mut(&id).expect("a connection");
        connected.channels.entry(name.to_owned()).or_insert(Member { joined: head });
        let floor = (connected.user.clone(), name.to_owned());
        self.model.floors.entry(floor).or_insert(head);
    }

    fn parted(&mut self, id: ConnectionId, name: &str, ends_floor: bool) {
        let connected = self.model.connections.get_mut(&id).expect("a connection");
        if connected.channels.remove(name).is_none() {
            return;
        }
        let user = connected.user.clone();
        let mut others = self.model.connections.values();
        if ends_floor && !others.any(|other| other.user == user && other.channels.contains_key(name)) {
            self.model.floors.remove(&(user, name.to_owned()));
        }
    }

    async fn subscribe(&mut self, device: usize, name: &str) {
        let Some(id) = self.devices[device].id else { return };
        self.note(format!("device {device} subscribes to {name}"));
        self.ground.subscribe(id, name).await;
        self.joined(id, name);
    }

    async fn unsubscribe(&mut self, device: usize, name: &str) {
        let Some(id) = self.devices[device].id else { return };
        self.note(format!("device {device} unsubscribes from {name}"));
        self.ground.unsubscribe(id, name).await;
        self.parted(id, name, true);
    }

    /// The connection is over.
    async fn leave(&mut self, device: usize) {
        self.close(device);
        let Some(id) = self.devices[device].id.take() else { return };
        self.note(format!("device {device} is dismissed"));
        self.ground.hub().dismiss(id);
        self.ground.sweep().await;
        self.ended(id);
    }

    fn ended(&mut self, id: ConnectionId) {
        let names: Vec<String> = self.model.connections[&id].channels.keys().cloned().collect();
        for name in names {
            self.parted(id, &name, false);
        }
        self.model.connections.remove(&id);
    }

    /// Several requests at a time, which may share a batch.
    async fn together(&mut self) {
        enum Act {
            Subscribe(ConnectionId, &'static str),
            Unsubscribe(ConnectionId, &'static str),
            Post(Said),
            Sweep(Option<ConnectionId>),
        }
        let mut acts = Vec::new();
        let busy = self.any_channel();
        for _ in 0..2 + self.random.below(4) {
            let device = self.random.below(self.devices.len() as u64) as usize;
            let name = if self.random.below(3) > 0 { busy } else { self.any_channel() };
            match (self.random.below(4), self.devices[device].id) {
                (0, Some(id)) => acts.push(Act::Subscribe(id, name)),
                (1, Some(id)) => acts.push(Act::Unsubscribe(id, name)),
                _ => {
                    let said = Said { unlogged: false, ..self.new_message() };
                    acts.push(Act::Post(Said { place: Some(name.to_owned()), ..said }));
                }
            }
        }
        if self.random.below(2) == 0 {
            // Someone without device, so that nobody else names it.
            let spare =
                self.model.connections.keys().find(|id| self.devices.iter().all(|device| device.id != Some(**id)));
            let spare = spare.copied();
            if let Some(id) = spare {
                self.ground.hub().dismiss(id);
            }
            let at = self.random.below(acts.len() as u64 + 1) as usize;
            acts.insert(at, Act::Sweep(spare));
        }
        let ground = &self.ground;
        let asked = acts.iter().map(async |act| match act {
            Act::Subscribe(id, name) => {
                ground.subscribe(*id, name).await;
                None
            }
            Act::Unsubscribe(id, name) => {
                ground.unsubscribe(*id, name).await;
                None
            }
            Act::Sweep(_) => {
                ground.sweep().await;
                None
            }
            Act::Post(said) => ground.post(std::slice::from_ref(said)).await[0],
        });
        let positions = join_all(asked).await;
        self.note("together:".to_owned());
        for (act, position) in acts.into_iter().zip(positions) {
            match act {
                Act::Subscribe(id, name) => {
                    self.note(format!("{id} subscribes to {name}"));
                    self.joined(id, name);
                }
                Act::Unsubscribe(id, name) => {
                    self.note(format!("{id} unsubscribes from {name}"));
                    self.parted(id, name, true);
                }
                Act::Sweep(spare) => {
                    self.note(format!("sweep of {spare:?}"));
                    if let Some(id) = spare {
                        self.ended(id);
                    }
                }
                Act::Post(said) => self.posted(said, position),
            }
        }
    }

    async fn restart(&mut self, end: End) {
        self.note(format!("restart after {end:?}"));
        for device in 0..self.devices.len() {
            self.close(device);
        }
        self.reads += self.ground.hub().replay_reads();
        self.ground.restart(end).await;
    }

    // What listeners do.

    async fn open(&mut self, device: usize) {
        let Some(id) = self.devices[device].id else { return };
        let (since, is_known, cursor) = match (&self.devices[device].cursor, self.random.below(12)) {
            (None, _) | (_, 0) => (Since::Floors, true, None),
            (_, 1) => (Since::Cursor(Cursor::parse("unknown-1").expect("a cursor")), false, None),
            (_, 2) => (self.ground.after(self.model.head + 1), false, None),
            (_, 3) => {
                let position = self.random.below(self.model.head + 1);
                (self.ground.after(position), true, Some(position))
            }
            (_, 4) => {
                // About where something was dropped.
                let held = self.ground.held().await;
                let dropped: Vec<u64> = (1..=self.model.head).filter(|at| !held.log.contains(at)).collect();
                let at = dropped.get(self.random.below(dropped.len() as u64 + 1) as usize).map_or(0, |at| *at);
                let at = if self.random.below(2) == 0 { dropped.last().copied().unwrap_or(0) } else { at };
                let position = at.saturating_sub(self.random.below(2));
                (self.ground.after(position), true, Some(position))
            }
            (Some(cursor), _) => {
                let cursor = Cursor::parse(cursor).expect("a cursor");
                let position = cursor.position.0;
                (Since::Cursor(cursor), true, Some(position))
            }
        };
        self.note(format!("device {device} opens {id} since {cursor:?} known {is_known}"));
        let (listener, backlog) = self.ground.listen(id, &since);
        let came = Came {
            since: cursor,
            is_known,
            head: self.model.head,
            connected: self.model.connections[&id].clone(),
            settings: self.model.settings.clone(),
        };
        self.devices[device].open = Some(Open { listener, backlog: Some(backlog), came, live: Vec::new(), heard: 0 });
    }

    /// Takes all that waits, and compares it.
    async fn read(&mut self, device: usize) {
        let Some(id) = self.devices[device].id else { return };
        let Some(mut open) = self.devices[device].open.take() else { return };
        if let Some(backlog) = open.backlog.take() {
            let tick = backlog.tick();
            let replay = read(backlog).await;
            open.listener.mark_written(tick);
            let held = self.ground.held().await;
            self.note(format!("device {device} reads {:?}", replay.marker));
            if let Err(wrong) = self.model.check(&open.came, &held, id, &replay) {
                panic!("device {device}, {:?}: {wrong}\n{:?}\n{:?}", open.came, replay.marker, replay.frames);
            }
            for frame in &replay.frames {
                self.check_unlogged(id, frame);
            }
            let end = position(&replay.marker).expect("a cursor");
            // What the marker covers is not heard again.
            open.heard = open.live.partition_point(|(at, _)| *at <= end);
            self.devices[device].cursor = replay.marker["cursor"].as_str().map(str::to_owned);
        }
        let (frames, is_closed) = mail(&open.listener);
        self.note(format!("device {device} hears {} frames, closed: {is_closed}", frames.len()));
        for frame in &frames {
            self.hear(device, &mut open, frame);
        }
        if is_closed {
            assert!(frames.is_empty(), "who is too slow gets nothing more");
            return;
        }
        assert_eq!(open.live[open.heard..], [], "device {device} misses something");
        self.devices[device].open = Some(open);
    }

    fn hear(&mut self, device: usize, open: &mut Open, frame: &Value) {
        let Some(at) = position(frame) else {
            let id = self.devices[device].id.expect("a connection");
            return self.check_unlogged(id, frame);
        };
        if frame["type"] == "cursor" {
            let next = open.live.get(open.heard).map_or(u64::MAX, |(at, _)| *at);
            assert!(at < next && at <= self.model.head, "device {device}: {frame} before {next}");
        } else {
            let expected = open.live.get(open.heard);
            assert_eq!(expected, Some(&(at, Model::brief(frame))), "device {device} hears");
            open.heard += 1;
        }
        self.devices[device].cursor = frame["cursor"].as_str().map(str::to_owned);
    }

    /// Messages that are not logged are told once.
    fn check_unlogged(&mut self, id: ConnectionId, frame: &Value) {
        if frame.get("cursor").is_none() && frame["type"] == "message" {
            let uuid = frame["uuid"].as_str().expect("a uuid").to_owned();
            assert!(self.told.insert((id, uuid)), "told twice: {frame}");
        }
    }

    /// The stream breaks in the middle of what is written.
    async fn drop_in_between(&mut self, device: usize) {
        let Some(mut open) = self.devices[device].open.take() else { return };
        let mut frames = Vec::new();
        if let Some(mut backlog) = open.backlog.take() {
            if let Some(part) = backlog.next().await.expect("a store that can be read") {
                frames.extend(array(part.array()));
            }
        } else {
            frames.extend(mail(&open.listener).0);
        }
        frames.truncate(self.random.below(frames.len() as u64 + 1) as usize);
        self.note(format!("device {device} drops after {} frames", frames.len()));
        let newest = frames.iter().rev().find_map(|frame| frame["cursor"].as_str());
        if let Some(newest) = newest {
            self.devices[device].cursor = Some(newest.to_owned());
        }
        // What of the rest is not logged may be told again or not.
        let id = self.devices[device].id.expect("a connection");
        let unlogged = frames.iter().filter(|frame| frame.get("cursor").is_none());
        for frame in unlogged.filter(|frame| frame["type"] == "message") {
            self.told.remove(&(id, frame["uuid"].as_str().expect("a uuid").to_owned()));
        }
    }

    fn close(&mut self, device: usize) {
        self.devices[device].open = None;
    }

    /// A heartbeat is due for everybody.
    fn beat(&mut self) {
        self.ground.hub().beat(0, 1);
    }
}

/// Memory reaches back as far as it ever does.
#[tokio::test]
async fn listeners_come_back_to_what_a_simple_model_says() {
    run(TailLimits::default()).await;
}

/// Memory reaches back over a few entries of each place.
#[tokio::test]
async fn they_do_over_the_border_of_short_tails() {
    run(TailLimits { place: 2_500, ..TailLimits::default() }).await;
}

/// Memory has room for a few entries of all places together.
#[tokio::test]
async fn they_do_while_tails_go_and_come() {
    run(TailLimits { all: 4_000, ..TailLimits::default() }).await;
}

#[tokio::test]
async fn they_do_without_tails() {
    run(TailLimits { all: 0, ..TailLimits::default() }).await;
}

async fn run(tails: TailLimits) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let usual = match Engine::of_this_run() {
        Engine::Sqlite => 40,
        Engine::Postgres => 10,
    };
    let (first, count) = (number("SEED").unwrap_or(1), number("SCHEDULES").unwrap_or(usual));
    let (mut opened, mut reads) = (0, 0);
    for seed in first..first + count {
        let mut schedule = Schedule::new(seed, tails).await;
        let run = std::panic::AssertUnwindSafe(schedule.run()).catch_unwind().await;
        if let Err(panic) = run {
            eprintln!("seed {seed}, {tails:?}, after\n    {}", schedule.story.join("\n    "));
            std::panic::resume_unwind(panic);
        }
        opened += schedule.story.iter().filter(|line| line.contains(" reads ")).count();
        reads += schedule.reads + schedule.ground.hub().replay_reads();
    }
    println!("{tails:?}: {opened} replays, {reads} times the store was asked");
}
