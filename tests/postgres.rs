//! What is special about a store in Postgres: a database that stops, hangs or loses its connections
//! under load, that is taken by another server or goes back in time, and what an operator is told.
//!
//! What all engines promise is in `store_contract` and in the tests that run on every engine.

#[path = "support/proxy.rs"]
mod proxy;
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use proxy::{Proxy, Way};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor, query_scalar};
use support::postgres::{PostgresServer, connect, shared};
use support::{Client, Process, Random, Socket, TestServer, binary, free_port, in_time, numbers, send, until};
use tokio::task::JoinHandle;
use uuid::Uuid;

/// How long a request may wait in these tests.
const COMMIT_TIMEOUT: Duration = Duration::from_millis(400);
/// How long the database may take to answer in these tests.
const DATABASE_TIMEOUT: Duration = Duration::from_millis(800);

async fn server_at(url: &str) -> TestServer {
    let server = TestServer::with(|config| {
        config.database_url = url.parse().expect("an address of a database");
        config.commit_timeout = COMMIT_TIMEOUT;
        config.postgres_timeout = DATABASE_TIMEOUT;
    })
    .await;
    server.configure("room", json!({"store_history": true, "history_size": 100_000})).await;
    server
}

/// A server whose database is behind a proxy.
async fn server_behind_a_proxy() -> (TestServer, Proxy, String) {
    let database = shared();
    let url = database.database();
    let proxy = Proxy::start(database.port()).await;
    (server_at(&proxy.through(&url, database.port())).await, proxy, url)
}

fn position(item: &Value) -> u64 {
    let cursor = item["cursor"].as_str().unwrap_or_else(|| panic!("no cursor: {item}"));
    cursor.split_once('-').expect("an epoch and a position").1.parse().expect("a number")
}

// ---- Load ----

/// Back ends that say one thing after the other, each until it is acknowledged, and a listener that
/// must not be cut off whatever happens to the database.
struct Load {
    publishers: Vec<JoinHandle<(Vec<i64>, u64)>>,
    listener: JoinHandle<Vec<Value>>,
    enough: Arc<Mutex<bool>>,
}

const PUBLISHERS: i64 = 4;

impl Load {
    async fn start(client: &Client) -> Self {
        let enough = Arc::new(Mutex::new(false));
        let mut socket = Socket::open(client, &client.connect("listener", &["room"]).await).await;
        let listener = tokio::spawn(async move {
            let mut shown = Vec::new();
            loop {
                let frame = socket.next_or_closed().await.expect("a listener stays");
                if frame["message"]["n"] == -1 {
                    return shown;
                }
                shown.push(frame);
            }
        });
        let publishers = (0..PUBLISHERS).map(|publisher| {
            let (client, enough) = (client.fresh(), enough.clone());
            tokio::spawn(async move {
                let (mut said, mut refused) = (Vec::new(), 0);
                while !*enough.lock() {
                    let n = publisher * 1_000_000 + said.len() as i64;
                    refused += say(&client, n).await;
                    said.push(n);
                }
                (said, refused)
            })
        });
        let publishers = publishers.collect();
        Self { publishers, listener, enough }
    }

    /// Ends, and compares what was acknowledged, what was shown and what is kept; gives how much was
    /// said and how often somebody had to repeat.
    async fn end(self, client: &Client) -> (usize, u64) {
        *self.enough.lock() = true;
        let (mut said, mut refused) = (Vec::new(), 0);
        for publisher in self.publishers {
            let (own, times) = in_time("a publisher", publisher).await.expect("a publisher");
            said.push(own);
            refused += times;
        }
        say(client, -1).await;
        let shown = in_time("the last message", self.listener).await.expect("a listener");
        let positions: Vec<u64> = shown.iter().map(position).collect();
        assert!(positions.is_sorted_by(|one, two| one < two), "shown once each and in order of the log");
        let shown = numbers(&shown);
        let mut kept = client.history("room").await;
        assert_eq!(kept.pop(), Some(-1));
        assert_eq!(shown, kept, "what is kept was shown, and nothing else");
        for own in &said {
            let begin = own.first().copied().unwrap_or_default();
            let of_own = kept.iter().copied().filter(|n| (begin..begin + 1_000_000).contains(n));
            assert_eq!(of_own.collect::<Vec<_>>(), *own, "all that was acknowledged is there, once and in order");
        }
        (kept.len(), refused)
    }
}

/// Says something until it is acknowledged; how often it was not.
async fn say(client: &Client, n: i64) -> u64 {
    let message = json!([{"user": "x", "channel": "room", "uuid": Uuid::new_v4(), "message": {"n": n}}]);
    let mut refused = 0;
    loop {
        let started = Instant::now();
        let answer = in_time("an answer", send(client.signed("POST", "/message").json(&message))).await;
        match answer.status {
            200 => return refused,
            503 => {
                assert!(!answer.header("retry-after").is_empty());
                assert!(started.elapsed() < COMMIT_TIMEOUT * 4, "{:?}", started.elapsed());
                refused += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            _ => panic!("{answer:?}"),
        }
    }
}

// ---- The database fails ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_crashes_under_load_loses_and_doubles_nothing() {
    let mut database = PostgresServer::start();
    let server = server_at(&database.database()).await;
    let _bystander = Socket::open(&server, &server.connect("ann", &["quick"]).await).await;
    let load = Load::start(&server).await;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        database.stop_at_once();
        until("the server not to be ready", async || server.get("/readyz").await.status == 503).await;
        assert_eq!(server.get("/healthz").await.status, 200);
        server.say("quick", [1]).await;
        database.start_again();
        until("the server to be ready again", async || server.get("/readyz").await.status == 200).await;
    }
    let (said, refused) = load.end(&server).await;
    println!("{said} messages, {refused} times refused");
    assert!(said > 50 && refused > 4, "there was load: {said}, {refused}");
}

/// The commit may have taken place, or not: nobody was told. What did is shown, all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_cut_inside_a_commit_lose_and_double_nothing() {
    let (server, proxy, _) = server_behind_a_proxy().await;
    let load = Load::start(&server).await;
    let mut random = Random::new(Random::new_seed());
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(random.below(60))).await;
        let before = proxy.cuts();
        proxy.set(Way::AnswersCut);
        until("an answer to be swallowed", async || proxy.cuts() > before).await;
        if random.below(2) == 0 {
            proxy.set(Way::Closed);
        }
        proxy.set(Way::Open);
        // Sometimes what is cut next is the attempt to find out what became of the commit.
        if random.below(4) > 0 {
            until("the server to be ready again", async || server.get("/readyz").await.status == 200).await;
        }
    }
    let (said, refused) = load.end(&server).await;
    println!("{said} messages, {refused} times refused, {} answers swallowed", proxy.cuts());
    assert!(said > 50, "there was load: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_hangs_stops_only_what_needs_it() {
    let (server, proxy, url) = server_behind_a_proxy().await;
    let mut listener = Socket::open(&server, &server.connect("ann", &["room", "quick"]).await).await;
    server.say("room", [0]).await;
    listener.take(1).await;
    for round in 1..=2 {
        proxy.set(Way::Stalled);
        let uuid = Uuid::new_v4();
        let message = json!([{"user": "x", "channel": "room", "uuid": uuid, "message": {"n": round}}]);
        for (path, body) in [
            ("/message", message.clone()),
            ("/connect", json!({"username": "bob"})),
            ("/user_state", json!({"user": "ann", "user_state": {"n": round}})),
            ("/channel_config", json!({"other": {"history_size": round}})),
        ] {
            let started = Instant::now();
            let refused = send(server.signed("POST", path).json(&body)).await;
            assert_eq!(refused.refusal(), (503, json!({"request": ["Storage is unavailable."]})), "{path}");
            assert!(!refused.header("retry-after").is_empty(), "{path}");
            assert!(started.elapsed() < COMMIT_TIMEOUT * 4, "{path}: {:?}", started.elapsed());
        }
        assert_eq!(server.get("/readyz").await.status, 503);
        let started = Instant::now();
        server.say("quick", [round * 10]).await;
        assert_eq!(numbers(&[listener.next().await]), [round * 10], "what needs no store goes on");
        assert!(started.elapsed() < COMMIT_TIMEOUT * 4, "{:?}", started.elapsed());
        // In the second round the path is dead for good: sessions are made anew.
        if round == 2 {
            proxy.set(Way::Closed);
        }
        proxy.set(Way::Open);
        until("the server to be ready again", async || server.get("/readyz").await.status == 200).await;
        in_time("it to be kept", async {
            while send(server.signed("POST", "/message").json(&message)).await.status != 200 {}
        })
        .await;
        assert_eq!(numbers(&[listener.next().await]), [round], "shown once");
    }
    assert_eq!(server.history("room").await, [0, 1, 2]);
    let mut looking = connect(&url).await;
    let sessions = query_scalar::<_, i64>(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'channelstream' AND datname = current_database()",
    );
    let sessions = sessions.fetch_one(&mut looking).await.expect("a count");
    assert!(sessions <= 10, "{sessions} sessions are open: broken ones are not left behind");
}

/// Commits that were on their way when it hung, and take place when it goes on, are shown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_hung_and_was_kept_after_all_is_shown() {
    let (server, proxy, _) = server_behind_a_proxy().await;
    let load = Load::start(&server).await;
    let mut random = Random::new(Random::new_seed());
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(50 + random.below(100))).await;
        proxy.set(Way::Stalled);
        // Shorter and longer than anybody waits.
        tokio::time::sleep(Duration::from_millis(random.below(1_500))).await;
        proxy.set(Way::Open);
    }
    let (said, refused) = load.end(&server).await;
    println!("{said} messages, {refused} times refused");
    assert!(said > 50, "there was load: {said}");
}

// ---- The store is not ours ----

/// Another server writes its name into the store: nothing more is written, listeners are sent away,
/// and since nobody holds the lock the store is taken over again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_taken_is_let_go_of() {
    let url = shared().database();
    let server = server_at(&url).await;
    let id = server.connect("ann", &["room"]).await;
    let open = async |since: &str| {
        Socket::try_open(&server, &format!("/ws?conn_id={id}&since={since}")).await.expect("a socket")
    };
    let mut listener = open("").await;
    listener.take(1).await;
    server.say("room", [1]).await;
    let shown = listener.next().await;
    let epoch = server.hub().epoch().clone();

    let mut other = connect(&url).await;
    other.execute("UPDATE meta SET owner = gen_random_uuid()").await.expect("another owner");
    assert_eq!(listener.closed().await, 1012, "also when nothing is said");
    until("the store to be ours again", async || server.get("/readyz").await.status == 200).await;
    let mut listener = open(shown["cursor"].as_str().expect("a cursor")).await;
    assert_eq!((&listener.next().await["count"]), 0);
    say(&server, 2).await;
    assert_eq!(numbers(&[listener.next().await]), [2]);
    assert_eq!(server.history("room").await, [1, 2]);
    assert_eq!(server.hub().epoch(), &epoch, "the numbering goes on");
}

/// As after a failover to a standby that had not got everything: what was shown of the log and is not
/// in it any more must not be continued from.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_went_back_in_time_begins_a_new_epoch() {
    let url = shared().database();
    let server = server_at(&url).await;
    let id = server.connect("ann", &["room"]).await;
    let open = async |since: &str| {
        Socket::try_open(&server, &format!("/ws?conn_id={id}&since={since}")).await.expect("a socket")
    };
    let mut listener = open("").await;
    listener.take(1).await;
    server.say("room", 1..=5).await;
    let shown = listener.take(5).await;

    let mut other = connect(&url).await;
    let back = "BEGIN; DELETE FROM log WHERE position > 3; UPDATE meta SET head = 3; COMMIT";
    other.execute(back).await.expect("a store that is older");
    let refused = server.send("POST", "/message", r#"[{"user": "x", "channel": "room", "message": {"n": 6}}]"#).await;
    assert_eq!(refused.status, 503);
    assert_eq!(listener.rest().await.1, 1012);
    until("the store to be ours again", async || server.get("/readyz").await.status == 200).await;

    say(&server, 7).await;
    assert_eq!(server.history("room").await, [1, 2, 3, 7]);
    let cursors: Vec<&str> = shown.iter().map(|frame| frame["cursor"].as_str().expect("a cursor")).collect();
    let frames = open(cursors[2]).await.take(2).await;
    assert_eq!(
        (numbers(&frames[..1]), &frames[1]["gaps"]),
        (vec![7], &json!([])),
        "what is still true can be continued"
    );
    let marker = open(cursors[4]).await.next().await;
    assert_eq!(marker["gaps"], json!([{"channel": "room", "reason": "unknown_cursor"}]), "{marker}");
}

/// Stores in several schemas of one database have an owner each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemas_are_stores_of_their_own() {
    let url = shared().database();
    connect(&url).await.execute("CREATE SCHEMA one; CREATE SCHEMA two").await.expect("schemas");
    let one = server_at(&format!("{url}?options[search_path]=one")).await;
    let two = server_at(&format!("{url}?options[search_path]=two")).await;
    one.say("room", [1]).await;
    two.say("room", [2]).await;
    assert_eq!((one.history("room").await, two.history("room").await), (vec![1], vec![2]));
}

// ---- What an operator is told ----

/// What the program says that does not start with such a database.
fn refusal(url: &str) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = binary(folder.path());
    command.env("CHANNELSTREAM_DATABASE_URL", url).env("CHANNELSTREAM_PORT", free_port().to_string());
    let output = command.env("CHANNELSTREAM_POSTGRES_TIMEOUT", "2").output().expect("an output");
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).expect("text");
    text.lines().last().expect("a sentence").to_owned()
}

#[tokio::test]
async fn what_is_wrong_with_a_database_is_told() {
    let server = shared();
    let url = server.database();
    let mut admin = connect(&server.url("postgres")).await;
    for statement in [
        "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'",
        "CREATE ROLE guest LOGIN PASSWORD 'a secret'",
    ] {
        admin.execute(AssertSqlSafe(statement.to_owned())).await.expect(statement);
    }
    let closed = free_port();
    for (url, words) in [
        (server.url("nowhere"), &["nowhere", "does not exist"][..]),
        (server.url("latin"), &["latin", "LATIN1", "UTF8"]),
        (format!("postgres://x:secret@127.0.0.1:{closed}/db"), &["db at 127.0.0.1", "refused"]),
        (format!("{url}?sslmode=nonsense"), &["database_url"]),
        (format!("{url}?pasword=secret"), &["database_url", "pasword"]),
        (format!("{url}?sslmode=require"), &["TLS"]),
        (url.replace("postgres@", "guest:secret@"), &["permission denied"]),
        (url.replace("postgres@", "guest:first?secret@"), &["database_url", "%3F"]),
        (url.replace("postgres@", "guest:1/secret@"), &["database_url", "%2F"]),
    ] {
        let sentence = refusal(&url);
        for word in words {
            assert!(sentence.contains(word), "{word} in {sentence}");
        }
        assert!(!sentence.contains("secret"), "{sentence}");
    }
    let newer = server.database();
    drop(server_at(&newer).await);
    let later = "INSERT INTO refinery_schema_history VALUES (99, 'later', '2030-01-01T00:00:00Z', '1')";
    connect(&newer).await.execute(later).await.expect("a migration of a later release");
    assert!(refusal(&newer).contains("newer release"), "{}", refusal(&newer));
}

/// A log has the place of the database and no password.
#[tokio::test]
async fn a_log_tells_no_password() {
    let url = shared().database().replace("postgres@", "postgres:a-password@");
    let process = Process::start(&[("database_url", &url), ("log_level", "debug")]).await;
    process.connect("ann", &["room"]).await;
    let log = process.log();
    assert!(log.contains("test_") && !log.contains("a-password"), "{log}");
}

// ---- After restoring a backup ----

#[tokio::test]
async fn a_new_epoch_begins_when_nobody_owns_the_store() {
    let url = shared().database();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let new_epoch = || {
        let mut command = binary(folder.path());
        let output = command.env("CHANNELSTREAM_DATABASE_URL", &url).arg("new-epoch").output().expect("an output");
        (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).expect("text"))
    };
    let mut server = server_at(&url).await;
    server.say("room", [1, 2]).await;
    let (begun, sentence) = new_epoch();
    assert!(!begun && sentence.contains("another server is using"), "{sentence}");
    let before = server.hub().epoch().clone();
    server.stop().await;
    let (begun, sentence) = new_epoch();
    assert!(begun && sentence.contains("after position 2:"), "{sentence}");
    server.restart().await;
    let after = server.hub().epoch().clone();
    assert!(after != before && sentence.contains(after.as_str()), "{sentence}");
    assert_eq!(server.history("room").await, [1, 2]);
}

// ---- Where the database's own past is in doubt ----

/// A commit that waits for a replica is not acknowledged by finding out that it is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_replica_has_is_not_acknowledged() {
    let database = PostgresServer::start();
    let url = database.database();
    let server = server_at(&url).await;
    let configure = async |names: &'static str| {
        let mut admin = connect(&url).await;
        admin.execute(names).await.expect("a setting");
        admin.execute("SELECT pg_reload_conf()").await.expect("a setting that counts");
    };
    configure("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await;
    until("commits to wait for a replica", async || {
        let mut admin = connect(&url).await;
        let commit = admin.execute("SELECT pg_logical_emit_message(true, 'channelstream', 'a write')");
        tokio::time::timeout(Duration::from_millis(300), commit).await.is_err()
    })
    .await;
    let message = json!([{"user": "x", "channel": "room", "uuid": Uuid::new_v4(), "message": {"n": 1}}]);
    let begun = Instant::now();
    while begun.elapsed() < DATABASE_TIMEOUT * 3 {
        let answer = send(server.signed("POST", "/message").json(&message)).await;
        assert_eq!(answer.status, 503, "nobody else has it: {answer:?}");
    }
    configure("ALTER SYSTEM RESET synchronous_standby_names").await;
    until("the server to be ready again", async || server.get("/readyz").await.status == 200).await;
    in_time("an answer", async { while send(server.signed("POST", "/message").json(&message)).await.status != 200 {} })
        .await;
    assert_eq!(server.history("room").await, [1]);
}

/// As after a failover, whoever takes over: a server that knows nothing of what was shown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_timeline_of_the_database_is_another_epoch() {
    let mut server = server_at(&shared().database()).await;
    let epoch = server.hub().epoch().clone();
    server.restart().await;
    assert_eq!(server.hub().epoch(), &epoch, "a restart alone is none");
    server.stop().await;
    let url = server.database_url();
    connect(&url).await.execute("UPDATE meta SET timeline = 'another'").await.expect("another past");
    server.restart().await;
    assert_ne!(server.hub().epoch(), &epoch);
}

/// What has no position goes back as well: a server whose store lacks what it committed lets go of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_lacks_what_was_kept_is_let_go_of() {
    let url = shared().database();
    let server = server_at(&url).await;
    let mut listener = Socket::open(&server, &server.connect("ann", &["room"]).await).await;
    let mut other = connect(&url).await;
    let before = query_scalar::<_, Uuid>("SELECT last_batch FROM meta").fetch_one(&mut other).await.expect("a batch");
    server.post("/user_state", json!({"user": "ann", "user_state": {"mood": "good"}})).await;
    let back = "UPDATE meta SET last_batch = $1";
    sqlx::query(back).bind(before).execute(&mut other).await.expect("a store that is older");
    assert_eq!(listener.closed().await, 1012, "also when nothing is said");
    until("the store to be ours again", async || server.get("/readyz").await.status == 200).await;
}
