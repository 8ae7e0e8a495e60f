//! Moving house with `channelstream copy`: listeners come back at the new place as after a restart;
//! what cannot be copied is refused in a sentence; a copy that does not get to its end was never there.

mod support;

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use channelstream::copy::copy;
use channelstream::store::{self, StoreOptions};
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, query_scalar};
use support::postgres::{connect, shared};
use support::{Client, Socket, TestServer, binary, list, numbers};
use tempfile::{TempDir, tempdir};

fn folder() -> TempDir {
    tempdir().expect("a temporary folder")
}

/// Some places in a folder.
struct Places(TempDir);

impl Places {
    fn new() -> Self {
        Self(folder())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str) -> String {
        format!("sqlite://{}", self.path(name).display())
    }
}

async fn server_at(url: &str) -> TestServer {
    TestServer::with(|config| config.database_url = url.parse().expect("an address")).await
}

async fn copied(from: &str, to: &str) {
    let copied = copy(from, to, |_| {}).await;
    copied.unwrap_or_else(|error| panic!("{error}"));
}

// ---- Listeners at each station ----

/// Comes back with a cursor: the frames up to the marker, the marker, and the socket.
async fn come_back(client: &Client, id: &str, since: &str) -> (Vec<Value>, Value, Socket) {
    let opened = Socket::try_open(client, &format!("/ws?conn_id={id}&since={since}")).await;
    let mut socket = opened.unwrap_or_else(|status| panic!("{id} is refused: {status}"));
    let mut frames = Vec::new();
    loop {
        let frame = socket.next().await;
        if frame["type"] == "replay" {
            return (frames, frame, socket);
        }
        frames.push(frame);
    }
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

fn cursor(item: &Value) -> (String, u64) {
    let (epoch, position) = item["cursor"].as_str().expect("a cursor").split_once('-').expect("both parts");
    (epoch.to_owned(), position.parse().expect("a number"))
}

async fn change(server: &TestServer, method: &str, message: &Value, n: i64) -> Value {
    let change = json!([{"uuid": message["uuid"], "channel": message["channel"], "message": {"n": n}}]);
    server.ask(method, "/message", change).await[0].take()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_come_back_with_their_cursors_at_each_station() {
    let places = Places::new();
    let (first, second, third) = (places.file("1.db"), shared().database(), places.file("3.db"));
    let mut server = server_at(&first).await;
    server.configure("room", json!({"store_history": true, "history_size": 100, "notify_presence": true})).await;
    let entered = server.post("/connect", json!({"username": "ann", "channels": ["room"]})).await;
    let ann = entered["conn_id"].as_str().expect("an id").to_owned();
    let (_, _, mut socket) = come_back(&server, &ann, entered["cursor"].as_str().expect("a cursor")).await;
    let old = server.say("room", 1..4).await;
    assert_eq!(numbers(&socket.take(3).await), [1, 2, 3]);
    socket.lose();
    let since = old[2]["cursor"].as_str().expect("a cursor").to_owned();
    // One who listens until the server stops.
    let bob = server.connect("bob", &["room"]).await;
    let bobs = Socket::open(&server, &bob).await;
    server.say("room", 4..6).await;
    server.post("/message", json!([{"user": "x", "pm_users": ["ann"], "message": {"n": 6}}])).await;
    change(&server, "PATCH", &old[0], 11).await;
    let deleted = change(&server, "DELETE", &old[1], 0).await;
    let missed = ["room 4", "room 5", "private 6", "room edited 11", "room deleted"];
    server.stop().await;
    drop(bobs);

    copied(&first, &second).await;
    let mut server = server_at(&second).await;
    let (frames, marker, mut socket) = come_back(&server, &ann, &since).await;
    let others = frames.iter().filter(|frame| frame.get("cursor").is_some()).cloned().collect::<Vec<_>>();
    assert_eq!(brief(&others), missed);
    assert_eq!(marker["gaps"], json!([]));
    // Who was there at the stop is there still, and nobody joins or parts.
    let _bobs = Socket::open(&server, &bob).await;
    let mut users: Vec<String> = list(&server.channel("room").await["users"]).iter().map(ToString::to_string).collect();
    users.sort_unstable();
    assert_eq!(users, [r#""ann""#, r#""bob""#]);
    assert_eq!(server.history("room").await, [11, 3, 4, 5]);
    // The log goes on in a numbering of its own.
    let new = server.say("room", [7]).await;
    assert_eq!(numbers(&socket.take(1).await), [7]);
    socket.lose();
    let ((epoch, position), (old_epoch, last)) = (cursor(&new[0]), cursor(&deleted));
    assert_eq!(position, last + 1);
    assert_ne!(epoch, old_epoch);
    // What the old place might have gone on with is not what happened here.
    let (_, marker, _) = come_back(&server, &ann, &format!("{old_epoch}-{position}")).await;
    assert_ne!(marker["gaps"], json!([]));
    let newer = new[0]["cursor"].as_str().expect("a cursor");
    let said = server.say("room", [8]).await;
    change(&server, "PATCH", &new[0], 77).await;
    server.stop().await;

    copied(&second, &third).await;
    let server = server_at(&third).await;
    for (since, missed) in [
        (since.as_str(), [&missed[..], &["room 77", "room 8"]].concat()),
        (newer, vec!["room 8", "room edited 77"]),
        (said[0]["cursor"].as_str().expect("a cursor"), vec!["room edited 77"]),
    ] {
        let (frames, marker, _) = come_back(&server, &ann, since).await;
        assert_eq!(brief(&frames), missed, "since {since}");
        assert_eq!(marker["gaps"], json!([]), "since {since}");
    }
    let id = server.connect("carl", &["room", "new room"]).await;
    let mut socket = Socket::open(&server, &id).await;
    let new = server.say("room", [9]).await;
    assert_eq!(cursor(&new[0]).1, position + 3);
    while socket.next().await["type"] != "message" {}
}

// ---- The program ----

/// What came of a run.
struct Ran {
    success: bool,
    out: String,
    err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Self { success: output.status.success(), out: text(output.stdout), err: text(output.stderr) }
    }
}

fn command(from: &str, to: &str) -> Command {
    let mut command = binary(Path::new("/"));
    command.args(["copy", "--from", from, "--to", to]).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn run(from: &str, to: &str) -> Ran {
    let mut command = command(from, to);
    let ran = tokio::task::spawn_blocking(move || command.output()).await;
    ran.expect("a run").expect("a process").into()
}

/// The sentence in which a copy is refused.
async fn refused(from: &str, to: &str) -> String {
    let ran = run(from, to).await;
    assert!(!ran.success && ran.out.is_empty(), "{}", ran.out);
    let sentence = ran.err.lines().last().expect("a sentence");
    assert!(!ran.err.contains("hunter2"), "a password: {}", ran.err);
    sentence.strip_prefix("channelstream: ").unwrap_or_else(|| panic!("{}", ran.err)).to_owned()
}

/// A store with a little in it, that nobody uses.
async fn furnish(url: &str) {
    let mut server = server_at(url).await;
    server.configure("room", json!({"store_history": true})).await;
    server.connect("ann", &["room"]).await;
    server.say("room", 1..4).await;
    server.stop().await;
}

async fn sqlite(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    options.disable_statement_logging().connect().await.expect("a connection")
}

#[tokio::test]
async fn it_tells_what_it_does_and_what_comes_next() {
    let places = Places::new();
    let (from, to) = (places.file("old.db"), places.file("new.db"));
    furnish(&from).await;
    let ran = run(&from, &to).await;
    assert!(ran.success, "{}", ran.err);
    let (old, new) = (places.path("old.db"), places.path("new.db"));
    let said = format!(
        "copied from {} to {} (epochs: 1, channels: 1, users: 1, log entries: 3, connections: 1, subscriptions: 1, \
         memberships: 1, head: 3); now set `database_url` to what `--to` says, start the server, and start none on \
         the old place any more\n",
        old.display(),
        new.display()
    );
    assert_eq!(ran.out, said);
    let shown: Vec<&str> = ran.err.lines().collect();
    assert_eq!(shown[..4], ["epochs: 1 of 1", "channels: 1 of 1", "users: 1 of 1", "log entries: 3 of 3"]);
}

#[tokio::test]
async fn the_old_place_stays_as_it_is() {
    let places = Places::new();
    let source = places.file("old.db");
    furnish(&source).await;
    let before = std::fs::read(places.path("old.db")).expect("a file");
    for target in [places.file("new.db"), shared().database()] {
        copied(&source, &target).await;
        assert!(std::fs::read(places.path("old.db")).expect("a file") == before);
    }
    let server = server_at(&source).await;
    assert_eq!(server.say("room", [4]).await[0]["uuid"].as_str().map(str::len), Some(36));
}

/// What the random stores of `copy_model` have not got: channels that were deleted, and ids that are missing.
#[tokio::test]
async fn ids_and_deleted_channels_stay_and_new_ids_come_behind_them() {
    let places = Places::new();
    let stations = [places.file("1.db"), shared().database(), places.file("3.db")];
    furnish(&stations[0]).await;
    let more = "INSERT INTO channels SELECT 77, 'gone', uuid, notify_presence, store_history, history_size,
                    broadcast_presence_with_user_lists, notify_state, store_frames, replay_size, 86400, last_active, 2, 3
                FROM channels;
                INSERT INTO users SELECT 88, 'eve', uuid, '{ \"a\" : 1.0, \"b\": 1E400 }', '[\"b\"]', 1, last_active, 1
                FROM users;
                INSERT INTO forgotten_users VALUES ('mallory', 2)";
    sqlite(&places.path("1.db")).await.execute(more).await.expect("more rows");
    for pair in stations.windows(2) {
        copied(&pair[0], &pair[1]).await;
        let mut server = server_at(&pair[1]).await;
        server.connect("new", &[&format!("new in {}", &pair[1][..6])]).await;
        server.stop().await;
    }
    let rows =
        "SELECT id || ' ' || name || coalesce(' deleted ' || deleted, '') || coalesce(' ttl ' || history_ttl, '')
                    || ' trimmed ' || trimmed FROM channels
                UNION ALL SELECT id || ' ' || name || ' ' || state || public_keys || ' trimmed ' || trimmed FROM users";
    let mut rows: Vec<String> =
        query_scalar(rows).fetch_all(&mut sqlite(&places.path("3.db")).await).await.expect("rows");
    rows.sort_unstable();
    let forgotten = "SELECT name || ' trimmed ' || trimmed FROM forgotten_users";
    let forgotten: Vec<String> =
        query_scalar(forgotten).fetch_all(&mut sqlite(&places.path("3.db")).await).await.expect("rows");
    assert_eq!(forgotten, ["mallory trimmed 2"]);
    let expected = [
        "1 ann {}[] trimmed 0",
        "1 room trimmed 0",
        "77 gone deleted 3 ttl 86400 trimmed 2",
        "78 new in postgr trimmed 0",
        "79 new in sqlite trimmed 0",
        r#"88 eve { "a" : 1.0, "b": 1E400 }["b"] trimmed 1"#,
        "89 new {}[] trimmed 0",
    ];
    assert_eq!(rows, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_in_either_place_is_in_the_way() {
    let places = Places::new();
    for url in [places.file("one.db"), shared().database()] {
        let other = places.file("other.db");
        furnish(&other).await;
        let server = server_at(&url).await;
        server.say("room", [1]).await;
        for (from, to) in [(&url, &other), (&other, &url)] {
            let sentence = refused(from, to).await;
            assert!(sentence.starts_with("a server is using the database "), "{sentence}");
            assert!(sentence.ends_with(": stop it first, and those that stand by"), "{sentence}");
        }
        // It is none the worse for that.
        server.say("room", [2]).await;
    }
}

#[tokio::test]
async fn a_place_that_holds_something_is_refused() {
    let places = Places::new();
    let source = places.file("old.db");
    furnish(&source).await;
    for target in [places.file("new.db"), shared().database()] {
        copied(&source, &target).await;
        let sentence = refused(&source, &target).await;
        let expected = " holds something already (epochs: 2, channels: 1, users: 1, log entries: 3, connections: 1, \
                        subscriptions: 1, memberships: 1, head: 3): name a new file or an empty database; see `--to`";
        assert!(sentence.starts_with("the database ") && sentence.ends_with(expected), "{sentence}");
    }
}

#[tokio::test]
async fn a_store_that_a_server_made_and_did_not_use_is_empty() {
    let places = Places::new();
    let source = places.file("old.db");
    furnish(&source).await;
    for target in [places.file("new.db"), shared().database()] {
        server_at(&target).await.stop().await;
        let sentence = refused(&target, &source).await;
        assert!(sentence.ends_with(" holds nothing that could be copied; see `--from`"), "{sentence}");
        copied(&source, &target).await;
        assert_eq!(server_at(&target).await.say("room", [4]).await.as_array().map(Vec::len), Some(1));
    }
}

#[tokio::test]
async fn one_place_under_two_names_is_one_place() {
    let places = Places::new();
    let file = places.file("store.db");
    furnish(&file).await;
    std::fs::hard_link(places.path("store.db"), places.path("hard.db")).expect("a link");
    std::os::unix::fs::symlink(places.path("store.db"), places.path("soft.db")).expect("a link");
    let database = shared().database();
    copied(&file, &database).await;
    let same_database = database.replace("127.0.0.1", "localhost").replace("postgres@", "postgres:hunter2@");
    for (from, to) in [
        (&file, &file),
        (&file, &places.file("hard.db")),
        (&file, &places.file("soft.db")),
        (&database, &database),
        (&database, &same_database),
    ] {
        let sentence = refused(from, to).await;
        assert!(sentence.starts_with("`--from` and `--to` name the same database, "), "{sentence}");
    }
}

#[tokio::test]
async fn what_is_no_store_is_said_without_passwords() {
    let places = Places::new();
    let store = places.file("store.db");
    furnish(&store).await;
    std::fs::write(places.path("text.db"), "hello ".repeat(1000)).expect("a file");
    sqlite(&places.path("alien.db")).await.execute("CREATE TABLE notes (text)").await.expect("a table");
    let nowhere = format!("postgres://me:hunter2@127.0.0.1:{}/db", support::free_port());
    let unknown = shared().url("unknown").replace("postgres@", "postgres:hunter2@");
    let empty = shared().database();
    for (argument, url, expected) in [
        ("from", "mysql://me:hunter2@host/db", "`--from` names no engine"),
        ("to", "mysql://me:hunter2@host/db", "`--to` names no engine"),
        ("from", "store.db", "`--from` names no engine"),
        ("from", "postgres://me:hunter2@host:nowhere/db", "`--from` is not a Postgres URL"),
        ("to", "postgres://me:hunter2@host/db?color=hunter", "`--to` has a parameter that we do not know: color"),
        ("from", "sqlite::memory:", "`--from` must name a file"),
        ("to", "sqlite::memory:", "`--to` must name a file"),
        ("from", &nowhere, "cannot be used: "),
        ("to", &nowhere, "; see `--to`"),
        ("from", &unknown, "\"unknown\" does not exist"),
        ("to", &unknown, "\"unknown\" does not exist"),
        ("from", &empty, "there is no store in it; see `--from`"),
        ("from", &places.file("missing.db"), "there is no database "),
        ("from", &places.file("text.db"), "file is not a database"),
        ("from", &places.file("alien.db"), "there is no store in "),
        ("to", &places.file("text.db"), "file is not a database"),
        ("to", &places.file("no/such/folder.db"), "cannot be written: "),
    ] {
        let spare = places.file("spare.db");
        let (from, to) = if argument == "from" { (url, spare.as_str()) } else { (store.as_str(), url) };
        let sentence = refused(from, to).await;
        assert!(sentence.contains(expected), "{argument} {url}: {sentence}");
        assert!(!sentence.contains("database_url"), "{argument} {url}: {sentence}");
        assert!(!places.path("spare.db").exists(), "{argument} {url}: nothing is made");
        assert!(!places.path("missing.db").exists(), "{argument} {url}: nothing is made");
    }
}

// ---- Half-way ----

/// Whether the target is as before.
async fn is_blank(url: &str) -> bool {
    // A database notices a little later that a process died.
    for _ in 0..1_000 {
        let database = store::database(url, &StoreOptions::default()).await.expect("a database");
        let Some(mut archive) = database.archive().await.expect("an answer") else { continue };
        let extent = archive.extent().await.expect("an answer");
        archive.close().await.expect("an end");
        return extent.is_blank();
    }
    panic!("it has an owner still");
}

#[tokio::test]
async fn a_copy_that_fails_near_its_end_was_never_there() {
    let places = Places::new();
    let source = places.file("old.db");
    furnish(&source).await;

    let target = places.file("new.db");
    server_at(&target).await.stop().await;
    let mut look = sqlite(&places.path("new.db")).await;
    let fail = "CREATE TRIGGER fail BEFORE INSERT ON memberships BEGIN SELECT RAISE(ABORT, 'not today'); END";
    look.execute(fail).await.expect("a trigger");
    let sentence = refused(&source, &target).await;
    assert!(sentence.starts_with("nothing was copied: ") && sentence.contains("not today; see `--to`"), "{sentence}");
    assert!(is_blank(&target).await);
    look.execute("DROP TRIGGER fail").await.expect("an end");
    copied(&source, &target).await;

    let target = shared().database();
    server_at(&target).await.stop().await;
    let mut look = connect(&target).await;
    let fail = "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'not today'; END$$;
                CREATE TRIGGER fail BEFORE INSERT ON memberships EXECUTE FUNCTION fail()";
    look.execute(sqlx::raw_sql(fail)).await.expect("a trigger");
    let sentence = refused(&source, &target).await;
    assert!(sentence.contains("not today") && sentence.ends_with("; see `--to`"), "{sentence}");
    assert!(is_blank(&target).await);
    look.execute("DROP TRIGGER fail ON memberships").await.expect("an end");
    copied(&source, &target).await;
}

#[tokio::test]
async fn a_slow_database_is_waited_for() {
    let places = Places::new();
    let source = places.file("old.db");
    furnish(&source).await;
    let target = shared().database();
    server_at(&target).await.stop().await;
    let mut look = connect(&target).await;
    // Slower than any statement of a server may be.
    let slow =
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(5.5); RETURN NEW; END$$;
                CREATE TRIGGER slow BEFORE INSERT ON log EXECUTE FUNCTION slow();
                DO $$BEGIN EXECUTE format('ALTER DATABASE %I SET idle_in_transaction_session_timeout = 1',
                                          current_database()); END$$";
    look.execute(sqlx::raw_sql(slow)).await.expect("a trigger");
    copied(&source, &target).await;
}

/// How many entries a log has that takes a while.
const MANY: i64 = 60_000;

/// A store with a long log.
async fn furnish_well(places: &Places, name: &str) {
    furnish(&places.file(name)).await;
    let fill = format!(
        r#"INSERT INTO log (position, channel, kind, uuid, sender, timestamp, body, committed)
           WITH RECURSIVE n (n) AS (SELECT 4 UNION ALL SELECT n + 1 FROM n WHERE n < {MANY})
           SELECT n, 1, 0, randomblob(16), 'ann', '2020-02-02T02:02:02.000000', '{{"n": ' || n || '.0}}', 9e15 FROM n;
           UPDATE meta SET head = {MANY}"#
    );
    sqlite(&places.path(name)).await.execute(AssertSqlSafe(fill)).await.expect("a long log");
}

/// Ends a copy by SIGKILL while it copies the log.
async fn kill_half_way(from: &str, to: &str) {
    let mut child = command(from, to).spawn().expect("a process");
    let killed = tokio::task::spawn_blocking(move || {
        let mut lines = BufReader::new(child.stderr.take().expect("an output"));
        let mut line = String::new();
        while !line.starts_with("users: 1 of 1") {
            line.clear();
            assert_ne!(lines.read_line(&mut line).expect("a line"), 0, "it has ended");
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        child.kill().expect("a signal");
        let mut rest = String::new();
        lines.read_to_string(&mut rest).expect("the rest");
        assert!(!rest.contains("log entries"), "it was too fast: {rest}");
        child.wait().expect("an end")
    });
    assert!(!killed.await.expect("a kill").success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_was_killed_was_never_there_and_the_next_one_succeeds() {
    let places = Places::new();
    furnish_well(&places, "1.db").await;
    let stations = [places.file("1.db"), shared().database(), places.file("3.db")];
    for pair in stations.windows(2) {
        let (from, to) = (&pair[0], &pair[1]);
        kill_half_way(from, to).await;
        // At once: what is left of the first run is waited for.
        let ran = run(from, to).await;
        assert!(ran.success, "{}", ran.err);
        kill_and_look(from, &places).await;
    }
    let sums = "SELECT count(*) || ' ' || sum(length(body)) || ' ' || max(position) FROM log";
    let mut all = Vec::new();
    for file in ["1.db", "3.db"] {
        let sum: String = query_scalar(sums).fetch_one(&mut sqlite(&places.path(file)).await).await.expect("a sum");
        all.push(sum);
    }
    assert!(all[0].starts_with(&MANY.to_string()) && all[0] == all[1], "{all:?}");
    let server = server_at(&stations[2]).await;
    assert_eq!(cursor(&server.say("room", [1]).await[0]).1, MANY as u64 + 1);
}

/// The same into new places that are looked at before anything else comes.
async fn kill_and_look(from: &str, places: &Places) {
    for to in [places.file("spare.db"), shared().database()] {
        kill_half_way(from, &to).await;
        assert!(is_blank(&to).await);
        for suffix in ["", "-wal", "-shm", "-owner"] {
            let _ = std::fs::remove_file(places.path(&format!("spare.db{suffix}")));
        }
    }
}
