//! `/metrics`: who may read it, that the figures are true, and that documents, dashboard and alarms
//! speak of what there is.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use channelstream::config::Secret;
use serde_json::json;
use support::{Client, Socket, TestServer, send};

const TOKEN: &str = "a-token-of-this-test";

async fn server() -> TestServer {
    TestServer::with(|config| config.metrics_token = Some(Secret::new(TOKEN))).await
}

async fn exposition(server: &Client) -> String {
    let answer = send(server.request("GET", "/metrics").header("authorization", format!("Bearer {TOKEN}"))).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let kind = answer.headers["content-type"].to_str().unwrap();
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    answer.text
}

/// The value of each sample, by its name and labels as they are written.
async fn figures(server: &Client) -> BTreeMap<String, f64> {
    let text = exposition(server).await;
    assert!(text.ends_with("# EOF\n"));
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        (name.to_owned(), value.parse().expect("a number"))
    };
    samples.map(sample).collect()
}

/// Waits until a figure is as it should be.
async fn comes(server: &Client, name: &str, value: f64) {
    let what = format!("{name} {value}");
    support::until(&what, async || figures(server).await.get(name) == Some(&value)).await;
}

#[tokio::test]
async fn a_token_a_signature_or_a_session_opens_it() {
    let server = server().await;
    let status =
        async |value: &str| send(server.request("GET", "/metrics").header("authorization", value)).await.status;
    assert_eq!(server.get("/metrics").await.status, 403);
    for wrong in ["Bearer", "Bearer ", "Bearer other", "Basic a-token-of-this-test", "a-token-of-this-test"] {
        assert_eq!(status(wrong).await, 403, "{wrong}");
    }
    assert_eq!(status("Bearer a-token-of-this-test").await, 200);
    assert_eq!(status("bearer a-token-of-this-test").await, 200);
    assert_eq!(send(server.signed("GET", "/metrics")).await.status, 200);
    assert_eq!(send(server.request("GET", "/metrics").header("x-channelstream-secret", "a.b.c")).await.status, 401);
}

#[tokio::test]
async fn without_a_token_in_the_configuration_none_opens_it() {
    let server = TestServer::start().await;
    for value in ["Bearer", "Bearer ", "Bearer  "] {
        assert_eq!(send(server.request("GET", "/metrics").header("authorization", value)).await.status, 403);
    }
}

#[tokio::test]
async fn figures_tell_what_happened() {
    let server = server().await;
    server.configure("news", json!({"store_history": true})).await;
    let id = server.connect("ann", &["news"]).await;
    let mut socket = Socket::open(&server, &id).await;
    server.say("news", [1, 2, 3]).await;
    socket.take(3).await;
    let uuid = "11111111-1111-4111-8111-111111111111";
    let message = json!([{"user": "bob", "channel": "news", "message": {}, "uuid": uuid}]);
    for _ in 0..2 {
        server.post("/message", message.clone()).await;
    }
    server.send("POST", "/message", "[{}]").await;
    server.get("/nothing").await;

    let figures = figures(&server).await;
    let figure = |name: &str| *figures.get(name).unwrap_or_else(|| panic!("no {name} in {figures:#?}"));
    assert_eq!(figure("channelstream_listeners{transport=\"websocket\"}"), 1.0);
    assert_eq!(figure("channelstream_listeners{transport=\"sse\"}"), 0.0);
    assert_eq!(figure("channelstream_connections"), 1.0);
    assert_eq!((figure("channelstream_owner"), figure("channelstream_ready")), (1.0, 1.0));
    assert_eq!(figure("channelstream_messages_accepted_total"), 4.0);
    assert_eq!(figure("channelstream_messages_duplicate_total"), 1.0);
    assert_eq!(figure("channelstream_posts_refused_total{reason=\"invalid\"}"), 1.0);
    assert_eq!(figure("channelstream_deliveries_total"), 4.0);
    assert_eq!(figure("channelstream_head_position"), 4.0);
    assert_eq!(figure("channelstream_channels_resident"), 1.0);
    assert!(figure("channelstream_journal_commits_total{outcome=\"kept\"}") >= 4.0);
    assert!(figure("channelstream_store_seconds_count{operation=\"commit\"}") >= 4.0);
    assert!(figure("channelstream_journal_batch_requests_count") >= 4.0);
    assert_eq!(figure("channelstream_store_errors_total{operation=\"commit\"}"), 0.0);
    assert!(figure("channelstream_store_size_bytes") > 10_000.0);
    assert!(figure("channelstream_tail_bytes") > 0.0);
    assert!(figure("channelstream_lock_seconds_count{purpose=\"apply\"}") > 0.0);
    assert_eq!(figure("channelstream_requests_total{route=\"/message\",status=\"200\"}"), 3.0);
    assert_eq!(figure("channelstream_requests_total{route=\"/message\",status=\"422\"}"), 1.0);
    assert_eq!(figure("channelstream_requests_total{route=\"other\",status=\"404\"}"), 1.0);
    assert_eq!(figure("channelstream_request_seconds_count{route=\"/message\"}"), 4.0);
    assert!(figure("process_resident_memory_bytes") > 1e6 && figure("process_open_fds") > 3.0);
    assert!(figure("process_max_fds") >= figure("process_open_fds") && figure("process_start_time_seconds") > 1.7e9);

    socket.close().await;
    comes(&server, "channelstream_listeners{transport=\"websocket\"}", 0.0).await;
    comes(&server, "channelstream_listeners_closed_total{reason=\"client\"}", 1.0).await;
}

#[tokio::test]
async fn replays_and_gaps_are_counted() {
    let mut server = server().await;
    server.configure("news", json!({"store_history": true, "history_size": 2, "replay_size": 2})).await;
    let id = server.connect("ann", &["news"]).await;
    server.say("news", 0..100).await;
    // What is too much goes with the batches that follow.
    server.say("news", [100]).await;
    let listen = async |server: &Client, since: &str| {
        let answer = server.get(&format!("/listen?conn_id={id}&since={since}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    };
    listen(&server, "").await;
    let figures_of = figures(&server).await;
    assert_eq!(figures_of["channelstream_replays_total{source=\"memory\"}"], 1.0, "{figures_of:#?}");
    assert_eq!(figures_of["channelstream_gaps_total{reason=\"trimmed\"}"], 1.0);
    assert_eq!(figures_of["channelstream_replay_store_reads_total"], 0.0);
    let told = figures_of["channelstream_replayed_events_total"];
    assert!((2.0..90.0).contains(&told), "{told}");
    listen(&server, "zz-1").await;
    assert_eq!(figures(&server).await["channelstream_gaps_total{reason=\"unknown_cursor\"}"], 1.0);

    server.restart_with(|config| config.tail_memory = 0).await;
    listen(&server, "").await;
    let figures_of = figures(&server).await;
    assert_eq!(figures_of["channelstream_replays_total{source=\"store\"}"], 1.0);
    assert!(figures_of["channelstream_replay_store_reads_total"] >= 1.0);
}

#[tokio::test]
async fn a_standby_tells_of_itself_to_who_has_the_token() {
    let server = server().await;
    let database = server.database_url();
    let second = TestServer::with(|config| {
        config.metrics_token = Some(Secret::new(TOKEN));
        config.database_url = database.parse().unwrap();
    });
    let second = second.await;
    let figures = figures(&second).await;
    assert_eq!(figures["channelstream_owner"], 0.0);
    assert!(figures.keys().any(|name| name.starts_with("process_")));
    assert_eq!(send(second.signed("GET", "/metrics")).await.status, 403);
}

/// Names of metrics in a text, without what histograms add.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| word.starts_with("channelstream_") || word.starts_with("process_"));
    let whole = ours.filter(|word| !word.ends_with('_')).map(|word| {
        let ends = ["_bucket", "_sum", "_count"];
        ends.iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word).to_owned()
    });
    whole.collect()
}

#[tokio::test]
async fn documents_dashboard_and_alarms_name_what_there_is() {
    let server = server().await;
    server.get("/nothing").await;
    let text = exposition(&server).await;
    let told: String = text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    let there_is = named(&told);
    assert!(there_is.len() > 30, "{there_is:?}");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let read = |path: &str| std::fs::read_to_string(folder.join(path)).unwrap();
    for path in ["operations.md", "operations/dashboard.json", "operations/alerts.yml"] {
        let unknown: Vec<String> = named(&read(path)).difference(&there_is).cloned().collect();
        assert!(unknown.is_empty(), "docs/{path} names {unknown:?}, which /metrics does not have");
    }
    let undocumented: Vec<&String> = there_is.iter().filter(|name| !read("operations.md").contains(*name)).collect();
    assert!(undocumented.is_empty(), "docs/operations.md does not explain {undocumented:?}");
    let alarms = read("operations/alerts.yml");
    for alarm in alarms.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(read("operations.md").contains(alarm), "docs/operations.md does not say what to do about {alarm}");
    }
    serde_json::from_str::<serde_json::Value>(&read("operations/dashboard.json")).expect("JSON");
}
