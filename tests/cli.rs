//! The program on the command line: what it prints, what it refuses and how it says so.

mod support;

use std::net::TcpListener;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use channelstream::config::{Config, KEYS};
use serde_json::json;
use support::{Process, Socket, binary, free_port, in_time, send};
use tempfile::{TempDir, tempdir};

const CONFIG: &str = include_str!("../config.ini");

/// What came of a run that ended by itself.
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

impl Ran {
    /// The one sentence that a failure is told in.
    fn sentence(&self) -> &str {
        assert!(!self.success, "it succeeded: {}", self.out);
        assert_eq!(self.out, "", "a failure is not told on standard output");
        let sentence = self.err.strip_suffix('\n').expect("a line");
        assert!(!sentence.contains('\n') && sentence.starts_with("channelstream: "), "{sentence}");
        assert!(!sentence.contains("Error") && !sentence.contains("panicked"), "{sentence}");
        sentence
    }
}

/// Runs the program in a folder and waits for its end.
fn run_in(directory: &Path, environment: &[(&str, &str)], arguments: &[&str]) -> Ran {
    let secrets = [("CHANNELSTREAM_SECRET", "not the default"), ("CHANNELSTREAM_ADMIN_SECRET", "not the default")];
    let mut command = binary(directory);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    let makes_config = arguments.first().is_some_and(|first| first.starts_with("make"));
    let secrets = secrets.into_iter().filter(|_| !makes_config);
    command.envs(secrets.chain(environment.iter().copied()));
    let mut child = command.spawn().expect("a process");
    // Who serves does not end: that would be a failure, and must not hang.
    for _ in 0..2_000 {
        if child.try_wait().expect("a status").is_some() {
            return child.wait_with_output().expect("an output").into();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().expect("a signal");
    let ran = Ran::from(child.wait_with_output().expect("an output"));
    panic!("{arguments:?} does not end: {}", ran.err);
}

fn run(arguments: &[&str]) -> Ran {
    run_in(folder().path(), &[], arguments)
}

fn folder() -> TempDir {
    tempdir().expect("a temporary folder")
}

/// Tries to serve with a configuration file; gives the sentence why it does not.
fn refused_file(text: &str) -> String {
    let directory = folder();
    std::fs::write(directory.path().join("my.ini"), text).expect("a file");
    run_in(directory.path(), &[], &["-i", "my.ini"]).sentence().to_owned()
}

// ---- What it prints ----

#[test]
fn it_says_its_version_and_explains_itself() {
    for flag in ["--version", "-V"] {
        let ran = run(&[flag]);
        assert_eq!((ran.success, ran.out.as_str()), (true, concat!("channelstream ", env!("CARGO_PKG_VERSION"), "\n")));
    }
    for flag in ["--help", "-h", "help"] {
        let ran = run(&[flag]);
        assert!(ran.success && ran.err.is_empty(), "{flag}: {}", ran.err);
        for word in ["serve", "make-config", "sign", "new-epoch", "copy", "--ini", "--version"] {
            assert!(ran.out.contains(word), "{flag} says nothing of {word}:\n{}", ran.out);
        }
    }
    assert!(run(&["make-config", "--help"]).out.contains("--json"));
}

#[test]
fn what_it_does_not_know_it_refuses() {
    for arguments in [&["nonsense"][..], &["--nonsense"], &["serve", "--port", "1"], &["-i"], &["sign", "x"]] {
        let ran = run(arguments);
        assert!(!ran.success && ran.out.is_empty(), "{arguments:?}");
        assert!(ran.err.starts_with("error: ") && ran.err.contains("--help"), "{arguments:?}: {}", ran.err);
    }
}

#[test]
fn the_example_file_is_what_make_config_prints() {
    for command in ["make-config", "make_config"] {
        let ran = run(&[command]);
        assert!(ran.success && ran.err.is_empty(), "{}", ran.err);
        assert_eq!(ran.out, CONFIG, "write it anew: channelstream make-config -o config.ini");
    }
    let directory = folder();
    let file = directory.path().join("example.ini");
    std::fs::write(&file, CONFIG).expect("a file");
    let loaded = Config::load(Some(&file), std::iter::empty()).expect("the example is good");
    assert_eq!(loaded.config, Config::default());
    for key in KEYS {
        assert!(CONFIG.lines().any(|line| line.split(" =").next() == Some(key.name)), "{}", key.name);
    }
}

#[test]
fn make_config_takes_values_and_a_place_to_write() {
    let directory = folder();
    let json = r#"{"port": 9000, "secret": "50%", "enforce_https": true, "allow_posting_from": "10.0.0.0/8,\n::1"}"#;
    let ran = run_in(directory.path(), &[], &["make-config", "-o", "my.ini", "-j", json]);
    assert!(ran.success && ran.out.is_empty() && ran.err.is_empty(), "{}{}", ran.out, ran.err);
    let written = std::fs::read_to_string(directory.path().join("my.ini")).expect("a file");
    for line in ["port = 9000", "secret = 50%%", "enforce_https = true", "admin_user = admin"] {
        assert!(written.lines().any(|other| other == line), "{line}");
    }
    let loaded = Config::load(Some(&directory.path().join("my.ini")), std::iter::empty()).expect("a good file");
    assert_eq!((loaded.config.port, loaded.config.secret.expose()), (9000, "50%"));

    // Without values it takes those of the environment.
    let environment = [("CHANNELSTREAM_PORT", "9001"), ("CHANNELSTREAM_INI", "nowhere.ini")];
    let ran = run_in(directory.path(), &environment, &["make-config", "--output", "other.ini"]);
    assert!(ran.success, "{}", ran.err);
    let written = std::fs::read_to_string(directory.path().join("other.ini")).expect("a file");
    assert!(written.contains("\nport = 9001\n"), "{written}");
}

#[test]
fn make_config_refuses_what_no_file_could_say() {
    for (json, words) in [
        ("{", &["--json", "JSON object"][..]),
        ("[]", &["--json", "JSON object"]),
        (r#"{"port": null}"#, &["--json", "`port`"]),
        (r#"{"port": [80]}"#, &["--json", "`port`"]),
        (r#"{"prot": 80}"#, &["make-config: `prot`", "did you mean `port`?"]),
        (r#"{"port": 65536}"#, &["make-config: `port`", "65536", "from 0 to 65535"]),
        (r#"{"secret": "a\nb"}"#, &["make-config: `secret`"]),
    ] {
        let ran = run(&["make-config", "-j", json]);
        for word in words {
            assert!(ran.sentence().contains(word), "{json}: {word} in {}", ran.sentence());
        }
    }
    let ran = run(&["make-config", "-o", "/nowhere/at/all.ini"]);
    assert!(ran.sentence().contains("/nowhere/at/all.ini"), "{}", ran.sentence());
}

// ---- Configuration ----

#[test]
fn a_mistake_in_the_file_is_told_with_its_line() {
    for (text, words) in [
        ("[channelstream]\n\nprot = 80\n", &["my.ini:3", "`prot`", "did you mean `port`?"][..]),
        ("# one\n[channelstream]\nport = eighty\n", &["my.ini:3", "`port`", "\"eighty\"", "from 0 to 65535"]),
        ("[channelstream]\nport = 1\nport = 2\n", &["my.ini:3", "`port`", "line 2"]),
        ("[channelstream]\nport\n", &["my.ini:2", "no `=`"]),
        ("[channelstream]\nhost = a b\n", &["my.ini:2", "`host`"]),
        ("[channelstream]\nallow_posting_from = 127.0.0.1,\n  nonsense\n", &["my.ini:2", "\"nonsense\""]),
        ("[channelstream]\ngc_conns_after = -1\n", &["my.ini:2", "`gc_conns_after`", "seconds"]),
        ("[channelstream]\nmax_body_bytes = 8 elephants\n", &["my.ini:2", "`max_body_bytes`", "MiB"]),
        ("[channelstream]\nenforce_https = perhaps\n", &["my.ini:2", "`true` or `false`"]),
        ("[channelstream]\ndatabase_url = mysql://me:hunter2@db\n", &["my.ini:2", "`database_url`", "sqlite:"]),
        ("[channelstream]\nadmin_user =\n", &["my.ini:2", "`admin_user`", "empty"]),
        ("[channelstream]\nadmin_secret = %(secret)s\n", &["my.ini:2", "`%(`"]),
        ("[other]\nport = 80\n", &["my.ini", "[channelstream]"]),
        ("port = 80\n", &["my.ini:1", "[channelstream]"]),
        ("", &["my.ini", "[channelstream]"]),
    ] {
        let sentence = refused_file(text);
        for word in words {
            assert!(sentence.contains(word), "{text}: {word} in {sentence}");
        }
        assert!(!sentence.contains("hunter2"), "{sentence}");
    }
}

#[test]
fn a_mistake_in_the_environment_is_told_with_its_variable() {
    for (name, value, words) in [
        ("CHANNELSTREAM_PROT", "80", &["did you mean `CHANNELSTREAM_PORT`?"][..]),
        ("CHANNELSTREAM_SERVICE_PORT_8000_TCP", "80", &["enableServiceLinks"]),
        ("CHANNELSTREAM_PORT", "eighty", &["\"eighty\"", "from 0 to 65535"]),
        ("CHANNELSTREAM_COOKIE_SECRET", "hunter2\u{1}", &["not shown"]),
        ("CHANNELSTREAM_HOST", "", &["empty"]),
    ] {
        let ran = run_in(folder().path(), &[(name, value)], &[]);
        for word in [name].iter().chain(words) {
            assert!(ran.sentence().contains(word), "{word} in {}", ran.sentence());
        }
        assert!(!ran.sentence().contains("hunter2"), "{}", ran.sentence());
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    for (environment, arguments) in [
        (&[][..], &["-i", "none.ini"][..]),
        (&[], &["serve", "--ini", "none.ini"]),
        (&[], &["sign", "-i", "none.ini"]),
        (&[("CHANNELSTREAM_INI", "none.ini")], &[]),
    ] {
        let ran = run_in(folder().path(), environment, arguments);
        let sentence = ran.sentence();
        assert!(sentence.contains("none.ini") && sentence.contains("make-config"), "{arguments:?}: {sentence}");
    }
    let directory = folder();
    std::fs::write(directory.path().join("latin.ini"), b"[channelstream]\nsecret = \xff\n").expect("a file");
    let ran = run_in(directory.path(), &[], &["-i", "latin.ini"]);
    assert!(ran.sentence().contains("latin.ini:2"), "{}", ran.sentence());
    assert!(run_in(directory.path(), &[], &["-i", "."]).sentence().contains("cannot be read"));
}

// ---- Starting ----

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let environment = [("CHANNELSTREAM_HOST", "127.0.0.1"), ("CHANNELSTREAM_PORT", &port)];
    let ran = run_in(folder().path(), &environment, &[]);
    assert!(ran.sentence().contains(&format!("127.0.0.1:{port}")), "{}", ran.sentence());
    let environment = [("CHANNELSTREAM_HOST", "192.0.2.1"), ("CHANNELSTREAM_PORT", "0")];
    let ran = run_in(folder().path(), &environment, &[]);
    assert!(ran.sentence().contains("192.0.2.1"), "{}", ran.sentence());
}

#[test]
fn a_database_that_cannot_be_had_is_named() {
    let directory = folder();
    std::fs::write(directory.path().join("text.db"), "this is no database ".repeat(200)).expect("a file");
    std::fs::create_dir(directory.path().join("folder.db")).expect("a folder");
    for (url, words) in [
        ("sqlite:///nowhere/at/all/store.db", &["/nowhere/at/all/store.db"][..]),
        ("sqlite://text.db", &["text.db", "not a database"]),
        ("sqlite://folder.db", &["folder.db"]),
        ("sqlite://store.db?mode=nonsense", &["database_url"]),
    ] {
        let port = free_port().to_string();
        let environment = [("CHANNELSTREAM_DATABASE_URL", url), ("CHANNELSTREAM_PORT", port.as_str())];
        let ran = run_in(directory.path(), &environment, &[]);
        for word in words {
            assert!(ran.sentence().contains(word), "{word} in {}", ran.sentence());
        }
    }
}

// ---- After restoring a backup ----

#[tokio::test]
async fn a_new_epoch_tells_cursors_of_the_lost_time_from_others() {
    let mut process = Process::start(&[]).await;
    process.configure("room", json!({"store_history": true})).await;
    let id = process.connect("ann", &["room"]).await;
    let kept = process.say("room", 1..3).await;
    assert!(process.terminate().await.success());
    let (store, backup) = (process.directory().join("store.db"), process.directory().join("backup.db"));
    std::fs::copy(&store, &backup).expect("a copy");
    process.restart().await;
    let lost = process.say("room", 3..5).await;
    assert!(process.terminate().await.success());
    std::fs::copy(&backup, &store).expect("a copy");

    let environment = [("CHANNELSTREAM_DATABASE_URL", "sqlite://store.db")];
    let ran = run_in(process.directory(), &environment, &["new-epoch"]);
    assert!(ran.success && ran.err.is_empty(), "{}", ran.err);
    let sentence = ran.out.strip_suffix(".\n").expect("a sentence");
    assert!(!sentence.contains('\n') && sentence.contains("sqlite://store.db after position 2:"), "{sentence}");
    process.restart().await;
    let since = async |cursor: &serde_json::Value| {
        let path = format!("/listen?conn_id={id}&since={}", cursor.as_str().expect("a cursor"));
        let frames: Vec<serde_json::Value> = serde_json::from_str(&process.get(&path).await.text).expect("frames");
        let marker = frames.last().expect("a marker").clone();
        (support::numbers(&frames[..frames.len() - 1]), marker)
    };
    // Under the numbers that were lost something else is said now.
    let new = process.say("room", 13..15).await;
    assert_eq!(lost[1]["cursor"].as_str().map(|text| text.rsplit('-').next()), Some(Some("4")));
    let epoch =
        |item: &serde_json::Value| item["cursor"].as_str().expect("a cursor").split('-').next().map(str::to_owned);
    assert!(sentence.contains(&epoch(&new[0]).expect("an epoch")) && epoch(&new[0]) != epoch(&kept[0]), "{sentence}");
    for message in [&lost[0], &lost[1]] {
        let (heard, marker) = since(&message["cursor"]).await;
        assert_eq!((heard.len(), &marker["gaps"][0]["reason"]), (0, &json!("unknown_cursor")));
    }
    let (heard, marker) = since(&kept[1]["cursor"]).await;
    assert_eq!((heard, &marker["gaps"]), (vec![13, 14], &json!([])));
    let (heard, marker) = since(&kept[0]["cursor"]).await;
    assert_eq!((heard, &marker["gaps"]), (vec![2, 13, 14], &json!([])));
    let (heard, marker) = since(&new[0]["cursor"]).await;
    assert_eq!((heard, &marker["gaps"]), (vec![14], &json!([])));
}

#[tokio::test]
async fn a_new_epoch_is_refused_while_a_server_runs_and_without_a_database() {
    let process = Process::start(&[]).await;
    let refused = |url: &str| {
        let environment = [("CHANNELSTREAM_DATABASE_URL", url)];
        run_in(process.directory(), &environment, &["new-epoch"]).sentence().to_owned()
    };
    let sentence = refused("sqlite://store.db");
    assert!(sentence.contains("another server is using") && sentence.contains("stop it"), "{sentence}");
    let sentence = refused("sqlite://none.db");
    assert!(sentence.contains("there is no database none.db"), "{sentence}");
    assert!(!process.directory().join("none.db").exists(), "and none is made");
    std::fs::write(process.directory().join("text.db"), "this is no database ".repeat(200)).expect("a file");
    assert!(refused("sqlite://text.db").contains("not a database"));
    assert_eq!(process.get("/readyz").await.status, 200, "the server does not mind");
    let ran = run_in(process.directory(), &[], &["new-epoch", "-i", "none.ini"]);
    assert!(ran.sentence().contains("none.ini"), "{}", ran.sentence());
}

#[test]
fn a_new_epoch_may_begin_again_and_before_anything_is_stored() {
    let directory = folder();
    std::fs::write(directory.path().join("store.db"), "").expect("a file");
    std::fs::write(directory.path().join("my.ini"), "[channelstream]\ndatabase_url = sqlite://store.db\n")
        .expect("a file");
    let epochs: Vec<String> = (0..2)
        .map(|_| {
            let ran = run_in(directory.path(), &[], &["new-epoch", "-i", "my.ini"]);
            assert!(ran.out.contains("after position 0:"), "{}{}", ran.out, ran.err);
            ran.out
        })
        .collect();
    assert_ne!(epochs[0], epochs[1]);
}

// ---- Running ----

#[tokio::test]
async fn what_sign_prints_opens_the_server() {
    let process = Process::start(&[]).await;
    let secret = "zażółć 😀 50%";
    let directory = folder();
    let file = format!("[channelstream]\nsecret = {}\n", secret.replace('%', "%%"));
    std::fs::write(directory.path().join("my.ini"), file).expect("a file");
    let mut signer = binary(directory.path());
    let output = signer.args(["sign", "-i", "my.ini"]).output().expect("an output");
    let token = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success() && output.stderr.is_empty());
    let token = token.strip_suffix('\n').expect("a line");
    let status = async |process: &Process| {
        let request = process.request("POST", "/connect").header("x-channelstream-secret", token);
        send(request.json(&json!({"username": "ann"}))).await.status
    };
    assert_eq!(status(&process).await, 401, "it was signed with another secret");
    let mut process = process;
    process.restart_with(&[("secret", secret)]).await;
    assert_eq!(status(&process).await, 200);
}

#[tokio::test]
async fn the_environment_wins_over_the_file() {
    let mut process = Process::start(&[]).await;
    let file = "[channelstream]\nhost = 192.0.2.1\nmax_body_bytes = 1 KiB\nsignature_checker = a.b:C\n";
    std::fs::write(process.directory().join("my.ini"), file).expect("a file");
    process.restart_with(&[("ini", "my.ini")]).await;
    let large = json!({"username": "ann", "x": "y".repeat(2000)}).to_string();
    assert_eq!(process.send("POST", "/connect", &large).await.status, 413);
    assert!(process.log().contains("`signature_checker`"), "{}", process.log());
}

#[tokio::test]
async fn a_log_tells_where_it_serves_and_no_secret() {
    let mut process = Process::start(&[("secret", "hunter2"), ("admin_secret", "hunter3"), ("debug", "true")]).await;
    send(process.request("GET", "/info?secret=hunter4").header("x-channelstream-secret", "hunter5")).await;
    let password = [("username", "admin"), ("password", "hunter6")];
    send(process.request("POST", "/admin/sign_in").form(&password)).await;
    assert!(process.terminate().await.success());
    let log = process.log();
    assert!(log.contains(&process.address().to_string()), "{log}");
    assert!(log.contains("/admin/sign_in") && !log.contains("hunter"), "{log}");

    process.restart_with(&[("secret", "secret")]).await;
    assert!(process.log().contains("`secret` is the default"), "{}", process.log());
}

#[tokio::test]
async fn from_the_moment_it_answers_it_can_be_told_to_stop() {
    let mut process = Process::new(&[]);
    for round in 0..15 {
        process.spawn(&[]);
        let answers = async {
            // No pause: the moment right after the first answer is what this is about.
            while process.request("GET", "/healthz").send().await.is_err() {}
        };
        in_time("an answer", answers).await;
        let status = process.terminate().await;
        assert!(status.success(), "{status}, at start number {round}");
    }
}

#[tokio::test]
async fn told_twice_it_ends_at_once() {
    let mut process = Process::start(&[("drain_seconds", "600")]).await;
    let mut sockets = Vec::new();
    for user in ["ann", "bob", "eve"] {
        let id = process.connect(user, &["room"]).await;
        sockets.push(Socket::open(&process, &id).await);
    }
    process.tell_to_stop();
    assert_eq!(sockets[0].closed().await, 1012, "the first goes at once, the others in their turn");
    assert!(process.terminate().await.success());
}

#[tokio::test]
async fn it_ends_in_good_order_when_it_is_told_to() {
    let mut process = Process::start(&[("drain_seconds", "600")]).await;
    let id = process.connect("ann", &["room"]).await;
    assert!(process.terminate().await.success(), "nobody listens: there is nothing to wait for");
    process.restart().await;
    let poll = tokio::spawn({
        let (client, id) = (process.client(), id.clone());
        async move { client.get(&format!("/listen?conn_id={id}")).await.status }
    });
    let report = async || send(process.signed("GET", "/admin/admin.json")).await.status == 200;
    support::until("a report", report).await;
    assert!(process.terminate().await.success());
    assert!(poll.await.is_ok());
}
