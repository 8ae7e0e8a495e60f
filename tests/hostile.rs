//! Malformed, oversized and hostile input of every kind: it is refused in the protocol's form,
//! nothing panics, and who does nothing wrong notices nothing.

mod support;

use std::sync::Once;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};
use support::{Answer, Client, NO_CLOSE_FRAME, PATIENCE, Socket, TestServer, in_time, numbers, send};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

/// Every endpoint that reads a signed body of its own, and whether it takes a list.
const SIGNED: [(&str, &str, bool); 12] = [
    ("POST", "/connect", false),
    ("POST", "/subscribe", false),
    ("POST", "/unsubscribe", false),
    ("POST", "/user_state", false),
    ("POST", "/message", true),
    ("PATCH", "/message", true),
    ("DELETE", "/message", true),
    ("POST", "/channel_config", false),
    ("POST", "/info", false),
    ("POST", "/history", false),
    ("DELETE", "/user", false),
    ("DELETE", "/channel", false),
];

// ---- The server under attack ----

/// A server, and somebody who listens to it and does nothing wrong.
struct Target {
    server: TestServer,
    bystander: Socket,
    before: Value,
}

impl Target {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut channelstream::config::Config)) -> Self {
        watch_for_panics();
        let server = TestServer::with(change).await;
        server.configure("bystanders", json!({"store_history": true, "notify_presence": true})).await;
        let bystander = Socket::open(&server, &server.connect("bystander", &["bystanders"]).await).await;
        server.post("/user_state", json!({"user": "bystander", "user_state": {"a": 1.0}})).await;
        server.say("bystanders", [1]).await;
        let mut target = Self { server, bystander, before: Value::Null };
        assert_eq!(numbers(&target.bystander.take(1).await), [1]);
        target.before = target.server.channel("bystanders").await;
        target
    }

    /// After all that was done: the server lives, nothing panicked, nothing was lost.
    async fn assert_unharmed(mut self) {
        assert_eq!(self.server.get("/healthz").await.status, 200);
        assert_eq!(self.server.get("/readyz").await.status, 200);
        assert_eq!(self.server.channel("bystanders").await, self.before);
        let state = self.server.post("/user_state", json!({"user": "bystander"})).await;
        assert_eq!(state["user_state"], json!({"a": 1.0}));
        self.server.say("bystanders", [2]).await;
        assert_eq!(numbers(&self.bystander.take(1).await), [2]);
        assert_eq!(*PANICS.lock(), Vec::<String>::new());
    }

    /// Signs and sends bytes that need not be text.
    async fn bytes(&self, method: &str, path: &str, body: impl Into<Vec<u8>>) -> Answer {
        no_fault_of_ours(send(self.server.signed(method, path).body(body.into())).await)
    }

    /// A signed request of that body must be refused with a 4xx in the protocol's form.
    async fn refuses(&self, method: &str, path: &str, body: &str, statuses: &[u16]) -> Value {
        let answer = self.bytes(method, path, body).await;
        let shown: String = body.chars().take(200).collect();
        assert!(statuses.contains(&answer.status), "{method} {path} {shown}: {} {}", answer.status, answer.text);
        refusal(&answer)
    }
}

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Takes note of panics outside of tests: the server catches them, so that nobody else would know.
fn watch_for_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if panic.location().is_none_or(|location| !location.file().starts_with("tests/")) {
                PANICS.lock().push(panic.to_string());
            }
            print(panic);
        }));
    });
}

fn no_fault_of_ours(answer: Answer) -> Answer {
    assert!(answer.status < 500, "{} {}", answer.status, answer.text);
    answer
}

/// The JSON of a refusal: an object from fields to what is wrong with them.
fn refusal(answer: &Answer) -> Value {
    assert!(answer.header("content-type").starts_with("application/json"), "{}", answer.header("content-type"));
    let faults = answer.json();
    assert!(faults.is_object() && is_fault(&faults), "{faults}");
    faults
}

/// Texts, or faults by field, index or key.
fn is_fault(value: &Value) -> bool {
    match value {
        Value::Array(texts) => !texts.is_empty() && texts.iter().all(Value::is_string),
        Value::Object(parts) => parts.values().all(is_fault),
        _ => false,
    }
}

/// An answer as it came over the wire.
#[derive(Debug)]
struct RawAnswer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl RawAnswer {
    fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        headers.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The first answer in some bytes, if it is whole, and how long it is.
    fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let answer = Self { status, head, body: Vec::new() };
        let length: usize = answer.header("content-length").map_or(0, |length| length.parse().expect("a length"));
        let body = bytes.get(end + 4..end + 4 + length)?.to_vec();
        Some((Self { body, ..answer }, end + 4 + length))
    }
}

/// Writes bytes to a new TCP connection, whether or not they are all taken, and reads up to
/// `count` answers; fewer come if the server ends the connection.
async fn raw(client: &Client, bytes: &[u8], count: usize) -> Vec<RawAnswer> {
    in_time("answers or the end of the connection", async {
        let (mut reader, mut writer) = TcpStream::connect(client.address()).await.expect("a connection").into_split();
        let bytes = bytes.to_vec();
        let writing = tokio::spawn(async move {
            let _ = writer.write_all(&bytes).await;
            writer
        });
        let mut answers = Vec::new();
        let mut read = Vec::new();
        while answers.len() < count {
            if let Some((answer, length)) = RawAnswer::parse(&read) {
                assert!(answer.status < 500, "{answer:?}");
                read.drain(..length);
                if answer.status >= 200 {
                    answers.push(answer);
                }
                continue;
            }
            match reader.read_buf(&mut read).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        writing.abort();
        answers
    })
    .await
}

/// A signed request as text; `rest`: further header lines, the blank line and a body.
fn request(client: &Client, line: &str, rest: &str) -> Vec<u8> {
    format!("{line}\r\nHost: x\r\nx-channelstream-secret: {}\r\n{rest}", client.token()).into_bytes()
}

// ---- Bodies ----

#[tokio::test]
async fn bodies_that_are_no_json_are_400() {
    let target = Target::start().await;
    let bodies: [&[u8]; 20] = [
        b" ",
        b"{",
        b"{bad",
        b"nul",
        b"{} x",
        b"[] []",
        b"{}\0",
        b"\0",
        b"'a'",
        b"{\"username\": \"a\",}",
        b"{\"username\": 'a'}",
        b"{username: \"a\"}",
        b"\xef\xbb\xbf{}",
        b"{\"username\": \"\xe9\xff\"}",
        b"[{\"user\": \"\xed\xa0\x80\"}]",
        b"{\"username\": \"a\nb\"}",
        b"{\"username\": NaN}",
        b"[{\"user\": \"a\", \"message\": {\"a\": -Infinity}}]",
        b"{\"username\": \"\\x41\"}",
        b"{\"username\": 01}",
    ];
    for (method, path, _) in SIGNED {
        for body in bodies {
            let answer = target.bytes(method, path, body).await;
            assert_eq!(answer.status, 400, "{method} {path} {}", String::from_utf8_lossy(body));
            assert!(refusal(&answer)["request"].is_array());
        }
        if path != "/info" {
            assert_eq!(target.bytes(method, path, "").await.status, 400, "{method} {path}");
        }
    }
    for body in bodies.into_iter().chain([&b""[..]]) {
        let answer = send(target.server.request("POST", "/disconnect").body(body)).await;
        assert_eq!(answer.status, 400, "{}", String::from_utf8_lossy(body));
        refusal(&answer);
    }
    target.assert_unharmed().await;
}

#[tokio::test]
async fn bodies_of_the_wrong_shape_are_422() {
    let target = Target::start().await;
    for (method, path, list) in SIGNED {
        for body in ["null", "true", "5", "1e5", "\"x\"", if list { "{}" } else { "[]" }] {
            let faults = target.refuses(method, path, body, &[422]).await;
            assert!(faults["_schema"].is_array(), "{method} {path} {body}: {faults}");
        }
        if list {
            for body in ["[null]", "[5]", "[[]]", "[\"x\"]", "[{}, null]", "[{}]", "[true, {}]"] {
                target.refuses(method, path, body, &[422]).await;
            }
        }
    }
    for body in ["null", "[]", "5", "{}", "{\"conn_id\": null}", "{\"conn_id\": 5}"] {
        let answer = send(target.server.request("POST", "/disconnect").body(body)).await;
        assert_eq!(answer.status, 422, "{body}");
        refusal(&answer);
    }
    target.assert_unharmed().await;
}

#[tokio::test]
async fn depth_is_bounded_where_it_matters_and_harmless_where_it_does_not() {
    let target = Target::start().await;
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let objects = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
    for levels in [200, 100_000] {
        for (method, path, _) in SIGNED {
            target.refuses(method, path, &nested(levels), &[400, 422]).await;
            target.refuses(method, path, &"[".repeat(levels), &[400]).await;
            target.refuses(method, path, &"{\"a\":".repeat(levels), &[400]).await;
        }
        for body in [
            format!(r#"{{"username": "a", "user_state": {}}}"#, objects(levels)),
            format!(r#"{{"username": "a", "channels": {}}}"#, nested(levels)),
            format!(r#"{{"username": "a", "info": {{"channels": {}}}}}"#, nested(levels)),
        ] {
            target.refuses("POST", "/connect", &body, &[422]).await;
        }
        let message = format!(r#"[{{"user": "a", "channel": "x", "message": {}}}]"#, objects(levels));
        target.refuses("POST", "/message", &message, &[422]).await;
        let configs = format!(r#"{{"room": {}}}"#, nested(levels));
        target.refuses("POST", "/channel_config", &configs, &[422]).await;
        // What is ignored may be anything.
        let ignored = format!(r#"{{"username": "a", "x": {}}}"#, nested(levels));
        assert_eq!(target.bytes("POST", "/connect", ignored).await.status, 200);
    }
    let message = format!(r#"[{{"user": "a", "channel": "x", "message": {}}}]"#, objects(100));
    assert_eq!(target.bytes("POST", "/message", message).await.status, 200);
    target.assert_unharmed().await;
}

/// What a field may not be and what it may, as JSON texts.
struct Kind {
    refused: &'static [&'static str],
    accepted: &'static [&'static str],
}

const NAME: Kind = Kind {
    refused: &["null", "true", "5", "1.5", "[]", "{}", r#""""#, r#""\u0000""#, r#""a\u0000b""#, r#""\ud800""#],
    accepted: &[r#""a""#, r#"" ""#, r#""a/\u0001\n""#, r#""😀""#, r#""\ud83d\ude00""#, r#""null""#],
};
const NAMES: Kind = Kind {
    refused: &["null", "true", "5", r#""a""#, "{}", "[null]", "[5]", "[[]]", "[{}]", r#"[""]"#, r#"["a", "\u0000"]"#],
    accepted: &[r#"["a"]"#, r#"["a", "a"]"#, r#"["😀"]"#],
};
const UUID: Kind = Kind {
    refused: &["null", "true", "5", "[]", "{}", r#""""#, r#""x""#, r#""3106dab9""#, r#""\ud800""#],
    accepted: &[],
};
const FLAG: Kind = Kind {
    refused: &["null", "2", "-1", "1e400", "[]", "{}", r#""""#, r#""yes""#, r#""\ud800""#, "0.5"],
    accepted: &["true", "false", "0", "1", "1.0", r#""t""#, r#""False""#],
};
const SIZE: Kind = Kind {
    refused: &[
        "null",
        "-1",
        "1e400",
        "[]",
        "{}",
        r#""""#,
        r#""x""#,
        r#""1.5""#,
        r#""-1""#,
        "4294967296",
        r#""\ud800""#,
        "123456789012345678901234567890",
    ],
    accepted: &["0", "2.9", r#"" 12 ""#, "100001", "1e2"],
};
const MAP: Kind = Kind {
    refused: &[
        "null",
        "true",
        "5",
        r#""x""#,
        "[]",
        r#"{"a": []}"#,
        r#"{"a": {}}"#,
        r#"{"a": 1e400}"#,
        r#"{"a": "\ud800"}"#,
        r#"{"\ud800": 1}"#,
    ],
    accepted: &[
        "{}",
        r#"{"": null, "a": 1, "b": -0.0, "c": true, "d": "\u0000", "e": 123456789012345678901234567890}"#,
    ],
};
const BODY: Kind = Kind {
    refused: &[
        "null",
        "true",
        "5",
        r#""x""#,
        "[]",
        r#"{"a": 1e400}"#,
        r#"{"a": [-1e999]}"#,
        r#"{"a": "\ud800"}"#,
        r#"{"a": "\udc00\ud800"}"#,
        r#"{"\ud800": 1}"#,
    ],
    accepted: &["{}", r#"{"a": [null, {"b": "\u0000"}], "a": 1e2}"#],
};
const TIME: Kind = Kind {
    refused: &[
        "null",
        "true",
        "5",
        "[]",
        "{}",
        r#""""#,
        r#""x""#,
        r#""2010-01-01""#,
        r#""2010-13-01T01:01""#,
        r#""20100101T010101""#,
        r#""2010-01-01T01:01+99:99""#,
        r#""2010-01-01T01:0ż""#,
        r#""\ud800""#,
    ],
    accepted: &[r#""2010-01-01 01:01""#, r#""9999-12-31T23:59:59.999999-23:59""#],
};
/// The last two refused are cursors that nobody gave out.
const SINCE: Kind = Kind {
    refused: &[
        "null",
        "true",
        "5",
        "[]",
        "{}",
        r#""""#,
        r#""x""#,
        r#""Earliest""#,
        r#""2010-01-01T01""#,
        r#""A-1""#,
        r#""a-01""#,
        r#""a-9223372036854775808""#,
        r#""\ud800""#,
        r#""a-0""#,
        r#""2010-11""#,
    ],
    accepted: &[
        r#""earliest""#,
        r#""2010-01-01T01:01Z""#,
        r#""9999-12-31T23:59:59.999999-23:59""#,
        r#""0001-01-01 00:00+23:59""#,
    ],
};
const CURSOR: Kind = Kind {
    refused: &[
        "null",
        "true",
        "5",
        "[]",
        "{}",
        r#""""#,
        r#""x""#,
        r#""earliest""#,
        r#""a-01""#,
        r#""\ud800""#,
        r#""a-0""#,
    ],
    accepted: &[],
};
const PAGE: Kind = Kind {
    refused: &["null", "0", "-1", "1001", "1e400", "[]", "{}", r#""""#, r#""1.5""#, "4294967296", r#""\ud800""#],
    accepted: &["1", "1000", "2.9", r#"" 12 ""#, "true"],
};
const CONFIGS: Kind = Kind {
    refused: &[
        "null",
        "5",
        r#""x""#,
        "[]",
        r#"{"a": null}"#,
        r#"{"a": 5}"#,
        r#"{"a": []}"#,
        r#"{"a": {"history_size": "x"}}"#,
        r#"{"a": {"notify_state": null}}"#,
    ],
    accepted: &["{}", r#"{"a": {}}"#],
};
const OBJECT: Kind = Kind { refused: &["null", "true", "5", r#""x""#, "[]"], accepted: &["{}"] };

/// Every field of every endpoint: method, path, body with `@` for the value, the key whose fault
/// is reported, and what kind of field it is.
const FIELDS: &[(&str, &str, &str, &str, Kind)] = &[
    ("POST", "/connect", r#"{"username": @}"#, "username", NAME),
    ("POST", "/connect", r#"{"username": "a", "conn_id": @}"#, "conn_id", UUID),
    ("POST", "/connect", r#"{"username": "a", "channels": @}"#, "channels", NAMES),
    ("POST", "/connect", r#"{"username": "a", "fresh_user_state": @}"#, "fresh_user_state", MAP),
    ("POST", "/connect", r#"{"username": "a", "user_state": @}"#, "user_state", MAP),
    ("POST", "/connect", r#"{"username": "a", "state_public_keys": @}"#, "state_public_keys", NAMES),
    ("POST", "/connect", r#"{"username": "a", "channel_configs": @}"#, "channel_configs", CONFIGS),
    ("POST", "/connect", r#"{"username": "a", "channels": ["a"], "since": @}"#, "since", SINCE),
    ("POST", "/connect", r#"{"username": "a", "info": @}"#, "info", OBJECT),
    ("POST", "/connect", r#"{"username": "a", "info": {"include_history": @}}"#, "info", FLAG),
    ("POST", "/connect", r#"{"username": "a", "info": {"include_users": @}}"#, "info", FLAG),
    ("POST", "/connect", r#"{"username": "a", "info": {"include_connections": @}}"#, "info", FLAG),
    ("POST", "/connect", r#"{"username": "a", "info": {"return_public_state": @}}"#, "info", FLAG),
    ("POST", "/connect", r#"{"username": "a", "info": {"exclude_channels": @}}"#, "info", NAMES),
    ("POST", "/connect", r#"{"username": "a", "info": {"channels": @}}"#, "info", NAMES),
    ("POST", "/subscribe", r#"{"conn_id": @, "channels": ["a"]}"#, "conn_id", UUID),
    ("POST", "/subscribe", r#"{"conn_id": "ID", "channels": @}"#, "channels", NAMES),
    ("POST", "/subscribe", r#"{"conn_id": "ID", "channels": ["a"], "channel_configs": @}"#, "channel_configs", CONFIGS),
    ("POST", "/subscribe", r#"{"conn_id": "ID", "channels": ["a"], "info": @}"#, "info", OBJECT),
    ("POST", "/unsubscribe", r#"{"conn_id": @, "channels": ["a"]}"#, "conn_id", UUID),
    ("POST", "/unsubscribe", r#"{"conn_id": "ID", "channels": @}"#, "channels", NAMES),
    ("POST", "/unsubscribe", r#"{"conn_id": "ID", "channels": ["a"], "info": @}"#, "info", OBJECT),
    ("POST", "/user_state", r#"{"user": "a", "user_state": @}"#, "user_state", MAP),
    ("POST", "/message", r#"[{"user": @, "channel": "a"}]"#, "0", NAME),
    ("POST", "/message", r#"[{"user": "a", "channel": "a", "pm_users": @}]"#, "0", NAMES),
    ("POST", "/message", r#"[{"user": "a", "channel": "a", "exclude_users": @}]"#, "0", NAMES),
    ("POST", "/message", r#"[{"user": "a", "channel": "a", "message": @}]"#, "0", BODY),
    ("POST", "/message", r#"[{"user": "a", "channel": "a", "uuid": @}]"#, "0", UUID),
    ("POST", "/message", r#"[{"user": "a", "channel": "a", "timestamp": @}]"#, "0", TIME),
    ("POST", "/message", r#"[{"user": "a", "channel": "a", "no_history": @}]"#, "0", FLAG),
    ("PATCH", "/message", r#"[{"uuid": @, "channel": "a"}]"#, "0", UUID),
    ("PATCH", "/message", r#"[{"uuid": "ID", "channel": "a", "user": @}]"#, "0", NAME),
    ("PATCH", "/message", r#"[{"uuid": "ID", "channel": "a", "timestamp": @}]"#, "0", TIME),
    ("PATCH", "/message", r#"[{"uuid": "ID", "channel": "a", "edited": @}]"#, "0", TIME),
    ("PATCH", "/message", r#"[{"uuid": "ID", "channel": "a", "message": @}]"#, "0", BODY),
    ("PATCH", "/message", r#"[{"uuid": "ID", "channel": "a", "pm_users": @}]"#, "0", NAMES),
    ("PATCH", "/message", r#"[{"uuid": "ID", "channel": "a", "exclude_users": @}]"#, "0", NAMES),
    ("PATCH", "/message", r#"[{"uuid": "ID", "channel": "a", "no_history": @}]"#, "0", FLAG),
    ("DELETE", "/message", r#"[{"uuid": @, "channel": "a"}]"#, "0", UUID),
    ("DELETE", "/message", r#"[{"uuid": "ID", "channel": "a", "pm_users": @}]"#, "0", NAMES),
    ("DELETE", "/message", r#"[{"uuid": "ID", "channel": "a", "exclude_users": @}]"#, "0", NAMES),
    ("DELETE", "/message", r#"[{"uuid": "ID", "channel": "a", "no_history": @}]"#, "0", FLAG),
    ("POST", "/channel_config", r#"{"a": {"notify_presence": @}}"#, "notify_presence", FLAG),
    ("POST", "/channel_config", r#"{"a": {"store_history": @}}"#, "store_history", FLAG),
    ("POST", "/channel_config", r#"{"a": {"history_size": @}}"#, "history_size", SIZE),
    (
        "POST",
        "/channel_config",
        r#"{"a": {"broadcast_presence_with_user_lists": @}}"#,
        "broadcast_presence_with_user_lists",
        FLAG,
    ),
    ("POST", "/channel_config", r#"{"a": {"notify_state": @}}"#, "notify_state", FLAG),
    ("POST", "/channel_config", r#"{"a": {"store_frames": @}}"#, "store_frames", FLAG),
    ("POST", "/channel_config", r#"{"a": {"replay_size": @}}"#, "replay_size", SIZE),
    ("POST", "/history", r#"{"channel": "bystanders", "limit": @}"#, "limit", PAGE),
    ("POST", "/history", r#"{"channel": "bystanders", "before": @}"#, "before", CURSOR),
    ("POST", "/history", r#"{"user": "bystander", "after": @}"#, "after", CURSOR),
    ("POST", "/info", r#"{"info": @}"#, "info", OBJECT),
    ("POST", "/info", r#"{"info": {"include_history": @}}"#, "info", FLAG),
    ("POST", "/info", r#"{"info": {"include_users": @}}"#, "info", FLAG),
    ("POST", "/info", r#"{"info": {"include_connections": @}}"#, "info", FLAG),
    ("POST", "/info", r#"{"info": {"return_public_state": @}}"#, "info", FLAG),
    ("POST", "/info", r#"{"info": {"channels": @}}"#, "info", NAMES),
    ("POST", "/info", r#"{"info": {"exclude_channels": @}}"#, "info", NAMES),
];

#[tokio::test]
async fn every_field_refuses_what_it_cannot_be() {
    let target = Target::start().await;
    let id = target.server.connect("a", &[]).await;
    for (method, path, template, key, kind) in FIELDS {
        let template = template.replace("ID", &id);
        for value in kind.refused {
            let faults = target.refuses(method, path, &template.replace('@', value), &[422]).await;
            assert!(faults.get(key).is_some(), "{method} {path} {template} {value}: {faults}");
        }
        for value in ["NaN", "-Infinity", "'a'", "\"\u{7}\"", "01", ".5", "+1", "1.", "truE"] {
            target.refuses(method, path, &template.replace('@', value), &[400]).await;
        }
        for value in kind.accepted {
            let answer = target.bytes(method, path, template.replace('@', value)).await;
            assert_eq!(answer.status, 200, "{method} {path} {template} {value}: {}", answer.text);
        }
    }
    // The few that may be null, and what they may not be.
    let user = |value: &str| format!(r#"{{"user": "a", "state_public_keys": {value}}}"#);
    let channel = |value: &str| format!(r#"[{{"user": "a", "channel": {value}, "uuid": "{id}"}}]"#);
    let ttl = |value: &str| format!(r#"{{"a": {{"history_ttl": {value}}}}}"#);
    for (method, path, body) in [("POST", "/user_state", user("null")), ("POST", "/channel_config", ttl("null"))] {
        assert_eq!(target.bytes(method, path, body).await.status, 200, "{path}");
    }
    for value in NAMES.refused.iter().skip(1) {
        target.refuses("POST", "/user_state", &user(value), &[422]).await;
    }
    for value in NAME.refused.iter() {
        target.refuses("POST", "/user_state", &format!(r#"{{"user": {value}}}"#), &[422]).await;
    }
    for method in ["POST", "PATCH", "DELETE"] {
        assert_eq!(target.bytes(method, "/message", channel("null")).await.status, 200, "{method}");
        for value in NAME.refused.iter().skip(1) {
            target.refuses(method, "/message", &channel(value), &[422]).await;
        }
    }
    for (key, what) in [("channel", "a channel"), ("user", "a user")] {
        for value in NAME.refused {
            target.refuses("POST", "/history", &format!(r#"{{"{key}": {value}}}"#), &[422]).await;
            target.refuses("DELETE", &format!("/{key}"), &format!(r#"{{"{key}": {value}}}"#), &[422]).await;
        }
        for value in [r#""nowhere""#, r#""\u0001\ud83d\ude00""#] {
            let faults = target.refuses("POST", "/history", &format!(r#"{{"{key}": {value}}}"#), &[404]).await;
            assert_eq!(faults, json!({key: [what.replace("a ", "Unknown ")]}));
            target.refuses("DELETE", &format!("/{key}"), &format!(r#"{{"{key}": {value}}}"#), &[404]).await;
        }
    }
    for body in ["{}", r#"{"channel": "a", "user": "a"}"#, r#"{"channel": "a", "user": null}"#] {
        target.refuses("POST", "/history", body, &[422]).await;
    }
    for value in SIZE.refused.iter().skip(1).chain(&["0"]) {
        target.refuses("POST", "/channel_config", &ttl(value), &[422]).await;
    }
    target.assert_unharmed().await;
}

/// Python, which many back ends are written in, has no year 0.
#[tokio::test]
async fn a_year_that_others_cannot_read_is_refused() {
    let target = Target::start().await;
    let message = r#"[{"user": "a", "channel": "a", "timestamp": "0000-01-01T01:01"}]"#;
    target.refuses("POST", "/message", message, &[422]).await;
    target.assert_unharmed().await;
}

#[tokio::test]
async fn of_repeated_keys_the_last_one_counts_and_unknown_ones_do_not() {
    let target = Target::start().await;
    let body =
        r#"{"username": [], "username": 5, "channels": {}, "username": "ann", "channels": ["a"], "x": "\ud800"}"#;
    let answer = target.bytes("POST", "/connect", body).await;
    assert_eq!((answer.status, &answer.json()["username"]), (200, &json!("ann")), "{}", answer.text);
    let body = r#"[{"user": "a", "channel": "a", "type": "presence", "edited": 5, "catchup": {}, "cursor": [],
        "duplicate": 1, "n": 1e400, "__proto__": {}}]"#;
    let answer = target.bytes("POST", "/message", body).await;
    assert_eq!((answer.status, &answer.json()[0]["edited"]), (200, &Value::Null), "{}", answer.text);
    let body = r#"{"user": "ann", "user_state": {"a": 1, "a": {}, "a": 2}}"#;
    let answer = target.bytes("POST", "/user_state", body).await;
    assert_eq!((answer.status, &answer.json()["user_state"]["a"]), (200, &json!(2)), "{}", answer.text);
    target.assert_unharmed().await;
}

#[tokio::test]
async fn a_request_with_one_fault_has_no_effect() {
    let target = Target::start().await;
    let id = target.server.connect("ann", &[]).await;
    for (method, path, body) in [
        ("POST", "/connect", json!({"username": "new", "channels": ["made"], "info": {"include_users": "x"}})),
        ("POST", "/subscribe", json!({"conn_id": id, "channels": ["made", ""]})),
        ("POST", "/channel_config", json!({"made": {}, "other": {"history_size": -1}})),
        ("POST", "/message", json!([{"user": "x", "channel": "bystanders"}, {"channel": "bystanders"}])),
        ("POST", "/user_state", json!({"user": "ann", "user_state": {"a": 1, "b": []}})),
    ] {
        target.refuses(method, path, &body.to_string(), &[422]).await;
    }
    assert_eq!(target.server.channel("made").await, Value::Null);
    assert_eq!(target.server.post("/user_state", json!({"user": "ann"})).await["user_state"], json!({}));
    target.refuses("POST", "/user_state", r#"{"user": "new"}"#, &[422]).await;
    target.assert_unharmed().await;
}

// ---- Sizes ----

#[tokio::test]
async fn names_are_bounded_in_characters() {
    let target = Target::start().await;
    let connect = |user: &str, channel: &str| json!({"username": user, "channels": [channel]}).to_string();
    let (user, channel) = ("😀".repeat(512), "😀".repeat(256));
    let answer = target.bytes("POST", "/connect", connect(&user, &channel)).await;
    assert_eq!((answer.status, &answer.json()["channels"]), (200, &json!([channel])));
    for (body, text) in [
        (connect(&"😀".repeat(513), "a"), "Length must be between 1 and 512."),
        (connect("", "a"), "Length must be between 1 and 512."),
        (connect("a", &"😀".repeat(257)), "Length must be between 1 and 256."),
        (connect("a", &"x".repeat(1_000_000)), "Length must be between 1 and 256."),
    ] {
        let faults = target.refuses("POST", "/connect", &body, &[422]).await;
        assert!(faults.to_string().contains(text), "{faults}");
    }
    for body in [r#"{"": null}"#.to_owned(), json!({"x".repeat(257): {}}).to_string(), r#"{"\u0000": null}"#.to_owned()]
    {
        target.refuses("POST", "/channel_config", &body, &[422]).await;
    }
    target.assert_unharmed().await;
}

#[tokio::test]
async fn lists_of_names_hold_ten_thousand() {
    let target = Target::start().await;
    let id = target.server.connect("ann", &["room"]).await;
    let uuid = id.as_str();
    let body = |path: &str, names: Value| match path {
        "connect" => ("POST", "/connect", json!({"username": "ann", "channels": names})),
        "keys" => ("POST", "/user_state", json!({"user": "ann", "state_public_keys": names})),
        "subscribe" => ("POST", "/subscribe", json!({"conn_id": id, "channels": names})),
        "unsubscribe" => ("POST", "/unsubscribe", json!({"conn_id": id, "channels": names})),
        "only" => ("POST", "/message", json!([{"user": "x", "channel": "room", "pm_users": names}])),
        "except" => ("POST", "/message", json!([{"user": "x", "channel": "room", "exclude_users": names}])),
        "edit" => ("PATCH", "/message", json!([{"uuid": uuid, "pm_users": names}])),
        "delete" => ("DELETE", "/message", json!([{"uuid": uuid, "pm_users": names}])),
        "info" => ("POST", "/info", json!({"info": {"channels": names}})),
        _ => ("POST", "/info", json!({"info": {"exclude_channels": names}})),
    };
    let names = |count: usize| (0..count).map(|n| n.to_string()).collect::<Value>();
    let lists = ["connect", "keys", "subscribe", "unsubscribe", "only", "except", "edit", "delete", "info", "exclude"];
    for path in lists {
        let (method, path, body) = body(path, names(10_001));
        target.refuses(method, path, &body.to_string(), &[422]).await;
    }
    // Those that create nothing; the others would take their time here.
    for path in ["keys", "unsubscribe", "only", "except", "edit", "delete", "info", "exclude"] {
        let (method, path, body) = body(path, names(10_000));
        let answer = target.bytes(method, path, body.to_string()).await;
        assert_eq!(answer.status, 200, "{method} {path}");
    }
    let state: serde_json::Map<String, Value> = (0..10_001).map(|n| (n.to_string(), json!(1))).collect();
    let change = json!({"user": "ann", "user_state": state}).to_string();
    target.refuses("POST", "/user_state", &change, &[422]).await;
    let large = json!({"user": "ann", "user_state": {"a": "x".repeat(2 << 20)}}).to_string();
    target.refuses("POST", "/user_state", &large, &[422]).await;
    target.assert_unharmed().await;
}

#[tokio::test]
async fn a_refusal_is_not_much_larger_than_what_it_refuses() {
    let target = Target::start().await;
    let body = format!("[{}]", vec!["{}"; 100_000].join(","));
    for method in ["POST", "PATCH", "DELETE"] {
        let answer = target.bytes(method, "/message", body.clone()).await;
        assert_eq!(answer.status, 422);
        let (asked, told) = (body.len(), answer.text.len());
        assert!(told <= 2 * asked, "{method}: {told} bytes tell what is wrong with {asked}");
    }
    target.assert_unharmed().await;
}

/// A body of one JSON string, so many bytes in all.
fn padded(bytes: usize) -> String {
    let (start, end) = (r#"{"username": "ann", "x": ""#, r#""}"#);
    format!("{start}{}{end}", "x".repeat(bytes - start.len() - end.len()))
}

#[tokio::test]
async fn a_body_may_have_eight_mebibytes_and_not_one_byte_more() {
    const MOST: usize = 8 << 20;
    let target = Target::start().await;
    assert_eq!(target.bytes("POST", "/connect", padded(MOST)).await.status, 200);

    let body = padded(MOST + 1);
    let told = json!({"request": ["The body is larger than 8388608 bytes."]});
    for path in ["/connect", "/message", "/info"] {
        let answer = target.bytes("POST", path, body.clone()).await;
        assert_eq!(answer.refusal(), (413, told.clone()), "{path}");
    }
    for path in ["/disconnect", "/admin/sign_in"] {
        let answer = send(target.server.request("POST", path).body(body.clone())).await;
        assert_eq!(answer.status, 413, "{path}");
        refusal(&answer);
    }

    // The same without saying how much will come, and by a client that asks first.
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let chunked = format!("Transfer-Encoding: chunked\r\n\r\n{}{}0\r\n\r\n", chunk(&body), chunk("x"));
    let asking = format!("Content-Length: {}\r\nExpect: 100-continue\r\n\r\n{body}", body.len());
    for rest in [chunked, asking] {
        let answers = raw(&target.server, &request(&target.server, "POST /connect HTTP/1.1", &rest), 1).await;
        let [answer] = &answers[..] else { panic!("{answers:?}") };
        assert_eq!((answer.status, serde_json::from_slice(&answer.body).ok()), (413, Some(told.clone())));
    }
    target.assert_unharmed().await;
}

#[tokio::test]
async fn a_refusal_before_the_body_is_read_can_be_read_as_well() {
    let target = Target::start().await;
    let body = padded(8 << 20);
    for (line, secret, status) in [
        ("POST /connect", "", 403),
        ("POST /connect", "x-channelstream-secret: wrong\r\n", 401),
        ("POST /nope", "", 404),
        ("DELETE /connect", "", 404),
    ] {
        let text = format!("{line} HTTP/1.1\r\nHost: x\r\n{secret}Content-Length: {}\r\n\r\n{body}", body.len());
        let answers = raw(&target.server, text.as_bytes(), 1).await;
        assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [status], "{line}");
    }
    target.assert_unharmed().await;
}

// ---- Time ----

#[tokio::test]
async fn who_does_not_finish_a_request_is_let_go() {
    let target = Target::with(|config| config.request_timeout = Duration::from_millis(500)).await;
    let (head, whole) = ("POST /connect HTTP/1.1", r#"{"username": "ann"}"#);
    let body = |length: usize, sent: &str| format!("Content-Length: {length}\r\n\r\n{sent}");
    let half_sent: [(Vec<u8>, &[u16]); 8] = [
        (Vec::new(), &[]),
        (b"G".to_vec(), &[408]),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n".to_vec(), &[408]),
        (request(&target.server, head, "X-Long: "), &[408]),
        (request(&target.server, head, &body(whole.len(), "")), &[408]),
        (request(&target.server, head, &body(whole.len() + 1, whole)), &[408]),
        (request(&target.server, head, "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"use"), &[408]),
        (request(&target.server, head, &body(usize::MAX / 4, whole)), &[408, 413]),
    ];
    let mut clients = JoinSet::new();
    for (bytes, statuses) in half_sent {
        let client = target.server.client();
        clients.spawn(async move {
            let started = Instant::now();
            let answers = raw(&client, &bytes, 2).await;
            let sent = String::from_utf8_lossy(&bytes).into_owned();
            assert!(started.elapsed() < Duration::from_secs(5), "{:?} for {sent}", started.elapsed());
            assert!(answers.len() <= 1, "{answers:?}");
            assert!(answers.iter().all(|answer| statuses.contains(&answer.status)), "{answers:?} for {sent}");
        });
    }
    clients.join_all().await;
    target.assert_unharmed().await;
}

#[tokio::test]
async fn who_does_not_finish_a_second_request_is_let_go_as_well() {
    let target = Target::with(|config| config.request_timeout = Duration::from_millis(500)).await;
    let (whole, half) = (&b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"[..], &b"GET /healthz HTTP/1.1\r\nHo"[..]);
    let mut tcp = TcpStream::connect(target.server.address()).await.expect("a connection");
    tcp.write_all(whole).await.expect("a connection that is open");
    let mut read = vec![0; 4096];
    assert_ne!(in_time("an answer", tcp.read(&mut read)).await.expect("an answer"), 0);
    // Half a request that came in one packet with the one before looks like an idle connection,
    // and is let go as one.
    tcp.write_all(half).await.expect("a connection that is open");
    let ended = tokio::time::timeout(Duration::from_secs(4), tcp.read_to_end(&mut read)).await;
    assert!(ended.is_ok(), "half a request is still waited for");
    target.assert_unharmed().await;
}

#[tokio::test]
async fn who_sends_byte_by_byte_is_let_go() {
    let target = Target::with(|config| config.request_timeout = Duration::from_millis(500)).await;
    for rest in ["", "Content-Length: 1000\r\n\r\n"] {
        let mut tcp = TcpStream::connect(target.server.address()).await.expect("a connection");
        let start = if rest.is_empty() {
            b"GET /healthz HTTP/1.1\r\nX: ".to_vec()
        } else {
            request(&target.server, "POST /connect HTTP/1.1", rest)
        };
        tcp.write_all(&start).await.expect("a connection that is open");
        let started = Instant::now();
        let (mut reader, mut writer) = tcp.into_split();
        let dripping = tokio::spawn(async move {
            while writer.write_all(b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let mut answer = Vec::new();
        let _ = in_time("the end of the connection", reader.read_to_end(&mut answer)).await;
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        dripping.abort();
    }
    target.assert_unharmed().await;
}

#[tokio::test]
async fn idle_connections_keep_nobody_out() {
    let target = Target::start().await;
    let mut idle = Vec::new();
    for n in 0..300 {
        let mut tcp = TcpStream::connect(target.server.address()).await.expect("a connection");
        if n % 2 == 0 {
            tcp.write_all(b"POST /connect HTTP/1.1\r\nContent-Length: 8388608\r\n").await.expect("an open connection");
        }
        idle.push(tcp);
    }
    target.assert_unharmed().await;
}

// ---- Heads ----

#[tokio::test]
async fn paths_and_queries_that_make_no_sense_are_4xx() {
    let target = Target::start().await;
    for (path, status) in [
        ("/%ff", 400),
        ("/%c3%28", 400),
        ("/a/%ed%a0%80", 400),
        ("/nope?a=%ff", 400),
        ("/listen?conn_id=%ff", 400),
        ("/ws?conn_id=%ff", 400),
        ("/admin/admin.json?%ff", 400),
        ("/%", 404),
        ("/%zz", 404),
        ("/%2", 404),
        ("/connect%00", 404),
        ("/connect%0d%0aX:%20y", 404),
        ("/%2563onnect", 404),
        ("/CONNECT", 404),
        ("/connect/", 404),
        ("//connect", 404),
        ("/.", 404),
        ("/..", 404),
        ("/static/..%2f..%2fCargo.toml", 404),
        ("/static/%2e%2e/%2e%2e/Cargo.toml", 404),
        ("/static//etc/passwd", 404),
        ("/static/", 404),
        ("/static/%00", 404),
        ("/listen?conn_id=%zz", 422),
        ("/listen?conn_id=%00", 422),
        ("/listen?&&=&=&conn_id", 422),
        ("/disconnect?conn_id=%zz", 422),
    ] {
        let text = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n\r\n");
        let answers = raw(&target.server, text.as_bytes(), 1).await;
        let [answer] = &answers[..] else { panic!("{path}: {answers:?}") };
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
        assert!(serde_json::from_slice::<Value>(&answer.body).is_ok(), "{path}: {answer:?}");
    }
    assert_eq!(target.bytes("POST", "/%63onnect", r#"{"username": "ann"}"#).await.status, 200);
    target.assert_unharmed().await;
}

#[tokio::test]
async fn an_error_page_shows_a_path_as_text() {
    let target = Target::start().await;
    for accept in ["text/html", "*/*", "text/html,application/xhtml+xml"] {
        let path = "/%3Cscript%3Ealert(1)%3C%2Fscript%3E%22'&";
        let answer = send(target.server.request("GET", path).header("accept", accept)).await;
        assert_eq!(answer.status, 404);
        assert!(!answer.text.contains("<script"), "{}", answer.text);
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
    target.assert_unharmed().await;
}

#[tokio::test]
async fn heads_that_are_no_heads_are_refused_or_hung_up_on() {
    let target = Target::with(|config| config.request_timeout = Duration::from_millis(500)).await;
    let line = |line: &str| format!("{line}\r\nHost: x\r\n\r\n").into_bytes();
    let header = |header: &str| format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n").into_bytes();
    let body = |rest: &str| request(&target.server, "POST /connect HTTP/1.1", rest);
    let many: String = (0..2000).map(|n| format!("X-{n}: y\r\n")).collect();
    let refused = [
        line("GET"),
        line("GET /healthz"),
        line("GET  /healthz HTTP/1.1"),
        line("GET /heal thz HTTP/1.1"),
        line("GET healthz HTTP/1.1"),
        line("GET /healthz HTTP/1.9"),
        line("GET /healthz HTTP/3.0"),
        line("GET /healthz HTTP/11"),
        line("G\0T /healthz HTTP/1.1"),
        line("GET /\u{1}healthz HTTP/1.1"),
        line(&format!("GET /{} HTTP/1.1", "a".repeat(200_000))),
        line(&format!("{} / HTTP/1.1", "A".repeat(200_000))),
        header(&format!("X: {}", "a".repeat(200_000))),
        header(&format!("{}: a", "X".repeat(200_000))),
        header(&many),
        header("no colon"),
        header(": no name"),
        header("X : blank"),
        header("X: a\0b"),
        header("X: a\rb"),
        header("X(y): z"),
        header(" folded: yes"),
        b"\r\n\r\n\r\nnonsense\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(20),
        b"\xff\xff\xff\xff\r\n\r\n".to_vec(),
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"<policy-file-request/>\0".to_vec(),
        body("Content-Length: -1\r\n\r\n{}"),
        body("Content-Length: x\r\n\r\n{}"),
        body("Content-Length: 18446744073709551616\r\n\r\n{}"),
        body("Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"),
        body("Transfer-Encoding: nonsense\r\n\r\n{}"),
        body("Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"),
        body("Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n"),
        body("Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}"),
        body("Transfer-Encoding: chunked\r\n\r\n2\r\n{}xx0\r\n\r\n"),
    ];
    let mut clients = JoinSet::new();
    for bytes in refused {
        let client = target.server.client();
        clients.spawn(async move {
            let answers = raw(&client, &bytes, 1).await;
            let sent: String = String::from_utf8_lossy(&bytes).chars().take(100).collect();
            assert!(answers.iter().all(|answer| (400..500).contains(&answer.status)), "{sent}: {answers:?}");
        });
    }
    clients.join_all().await;
    target.assert_unharmed().await;
}

#[tokio::test]
async fn unusual_heads_are_understood() {
    let target = Target::start().await;
    let token = target.server.token();
    let length = r#"{"username": "ann"}"#.len();
    for (text, status) in [
        ("GET /healthz HTTP/1.0\r\n\r\n".to_owned(), 200),
        ("GET /healthz HTTP/1.1\r\n\r\n".to_owned(), 200),
        ("GET http://example.com/healthz HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 200),
        ("GET http://example.com HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 404),
        ("GET https://user:pass@[::1]:99/nope?a#b HTTP/1.1\r\n\r\n".to_owned(), 404),
        ("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 200),
        ("OPTIONS /anything HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 200),
        ("CONNECT example.com:80 HTTP/1.1\r\nHost: example.com\r\n\r\n".to_owned(), 404),
        ("TRACE /healthz HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 404),
        ("FOO /connect HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 404),
        ("get /healthz HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 404),
        ("GET /healthz HTTP/1.1\r\nHost: \r\nHost: a b\r\n\r\n".to_owned(), 200),
        ("GET /healthz HTTP/1.1\nHost: x\n\n".to_owned(), 200),
        ("\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 200),
        ("GET /ws HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n".to_owned(), 426),
        (
            format!(
                "POST /%63onnect HTTP/1.0\r\nX-CHANNELSTREAM-SECRET: {token}\r\nContent-Type: a/b\r\n\
                 Content-Length: {length}\r\n\r\n{{\"username\": \"ann\"}}"
            ),
            200,
        ),
    ] {
        let answers = raw(&target.server, text.as_bytes(), 1).await;
        assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [status], "{text}");
    }
    target.assert_unharmed().await;
}

#[tokio::test]
async fn requests_may_be_sent_ahead() {
    let target = Target::start().await;
    let body = r#"{"username": "ann"}"#;
    let connect = format!("Content-Length: {}\r\n\r\n{body}", body.len());
    let mut bytes = Vec::new();
    for _ in 0..20 {
        bytes.extend(request(&target.server, "POST /connect HTTP/1.1", &connect));
        bytes.extend(b"GET /nope HTTP/1.1\r\n\r\n");
        bytes.extend(b"GET /healthz HTTP/1.1\r\n\r\n");
    }
    let answers = raw(&target.server, &bytes, 60).await;
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 404, 200].repeat(20));

    // What follows a body that is cut short is not taken for a request.
    let smuggled = format!(
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n",
        body.len()
    );
    let answers = raw(&target.server, &request(&target.server, "POST /connect HTTP/1.1", &smuggled), 2).await;
    assert!(answers.iter().skip(1).all(|answer| answer.status == 200), "{answers:?}");
    target.assert_unharmed().await;
}

#[tokio::test]
async fn headers_of_a_proxy_inject_nothing() {
    let target = Target::start().await;
    let long = format!("/{}", "a".repeat(30_000));
    let values: [&[u8]; 14] = [
        b"",
        b"/",
        b"//evil.example",
        b"/pfx",
        b"/pfx/",
        b"pfx",
        b"/pfx%0d%0aevil: yes",
        b"/\tpfx",
        b"/\xff\xfe",
        "/żółw".as_bytes(),
        b"javascript:alert(1)//",
        b"<script>",
        b"@evil.example",
        long.as_bytes(),
    ];
    for name in ["X-Script-Name", "X-Url-Scheme", "X-Scheme", "Host", "X-Forwarded-Proto", "X-Forwarded-Host"] {
        for value in values {
            let mut bytes = format!("GET /admin HTTP/1.1\r\n{name}: ").into_bytes();
            bytes.extend(value);
            bytes.extend(b"\r\n\r\n");
            let answers = raw(&target.server, &bytes, 1).await;
            let shown = String::from_utf8_lossy(value);
            let [answer] = &answers[..] else { panic!("{name}: {shown}: {answers:?}") };
            assert_eq!(answer.status, 302, "{name}: {shown}");
            let location = answer.header("location").expect("a location");
            assert!(location.ends_with("/admin/sign_in"), "{name}: {location}");
            let host = if name == "Host" { "" } else { "localhost/" };
            let schemes = ["http://", "https://"].map(|scheme| format!("{scheme}{host}"));
            assert!(schemes.iter().any(|start| location.starts_with(start)), "{name}: {location}");
            assert_eq!(answer.header("evil"), None, "{name}: {shown}");
        }
    }
    target.assert_unharmed().await;
}

#[tokio::test]
async fn a_prefix_cannot_make_a_path_of_another_kind() {
    let target = Target::start().await;
    for (prefix, path, status) in [
        ("/pfx", "/pfx/healthz", 200),
        ("/pfx", "/healthz", 200),
        ("/pfx", "/pfxhealthz", 404),
        ("/pfx", "/pfx/ws", 404),
        ("/pfx", "/pfx", 404),
        ("/pfx", "/pfx//healthz", 404),
        ("/", "/healthz", 200),
        ("/healthz", "/healthz", 200),
        ("/a b", "/a%20b/healthz", 200),
        ("/pfx?x=", "/pfx%3Fx=/healthz", 200),
        ("http://evil", "/healthz", 200),
    ] {
        let answer = send(target.server.request("GET", path).header("x-script-name", prefix)).await;
        assert_eq!(answer.status, status, "{prefix} {path}");
    }
    target.assert_unharmed().await;
}

#[tokio::test]
async fn bad_signatures_are_401_wherever_they_are() {
    let target = Target::start().await;
    let good = target.server.token();
    let (signed, mac) = good.rsplit_once('.').expect("a token");
    let long = "a.".repeat(10_000);
    let tokens: [&[u8]; 18] = [
        b"a",
        b".",
        b"..",
        b"...",
        b"a.b.c",
        b" a",
        mac.as_bytes(),
        signed.as_bytes(),
        &good.as_bytes()[1..],
        &good.as_bytes()[..good.len() - 1],
        b"channelstream.AAAA.UB9ITnnv9UITu0ka92WJCn1VFsQ",
        b"channelstream..zsZARI-P3SDL-NFIwVlNZ0CK1Ro",
        b"channelstream.AAAAAAAAAAAAAAAA.UB9ITnnv9UITu0ka92WJCn1VFsQ",
        b"\xff\xfe",
        "ż.ó.ł".as_bytes(),
        b"a.b.====",
        b"a.b.!!!!",
        long.as_bytes(),
    ];
    let told = json!({"request": "Bad Signature"});
    for token in tokens {
        for (method, path) in [
            ("POST", "/connect"),
            ("GET", "/info"),
            ("GET", "/listen"),
            ("GET", "/nope"),
            ("OPTIONS", "/connect"),
            ("GET", "/admin"),
            ("GET", "/openapi.json"),
            ("GET", "/healthz"),
            ("DELETE", "/connect"),
        ] {
            let header = reqwest::header::HeaderValue::from_bytes(token).expect("a header");
            let answer = send(target.server.request(method, path).header("x-channelstream-secret", header)).await;
            let shown = String::from_utf8_lossy(&token[..token.len().min(60)]);
            assert_eq!(answer.refusal(), (401, told.clone()), "{method} {path} {shown}");
        }
    }
    for query in ["?secret=a.b.c", "?secret=%00", "?secret=a&secret=", "?secret=a%20"] {
        assert_eq!(target.server.get(&format!("/nope{query}")).await.refusal(), (401, told.clone()), "{query}");
    }
    target.assert_unharmed().await;
}

#[tokio::test]
async fn a_cookie_that_we_did_not_make_opens_nothing() {
    let target = Target::start().await;
    let far = "99999999999";
    let long = format!("auth_tkt={}", "a".repeat(30_000));
    let many = vec!["auth_tkt=a"; 3_000].join("; ");
    let signed = format!("auth_tkt={}{far}:admin", "A".repeat(44));
    let plain = format!("auth_tkt={far}:admin");
    let cookies: [&[u8]; 14] = [
        b"",
        b"auth_tkt",
        b"auth_tkt=",
        b"auth_tkt==",
        b"=auth_tkt",
        b";;;",
        b"auth_tkt=%ff%00",
        b"auth_tkt=\xff\xfe",
        b"auth_tkt=\"",
        "auth_tkt=ż".as_bytes(),
        plain.as_bytes(),
        signed.as_bytes(),
        long.as_bytes(),
        many.as_bytes(),
    ];
    for cookie in cookies {
        for path in ["/admin", "/admin/admin.json", "/api-explorer"] {
            let header = reqwest::header::HeaderValue::from_bytes(cookie).expect("a header");
            let answer = no_fault_of_ours(send(target.server.request("GET", path).header("cookie", header)).await);
            assert_eq!(answer.status, 302, "{path} {}", String::from_utf8_lossy(&cookie[..cookie.len().min(60)]));
        }
    }
    let mut guesses = JoinSet::new();
    for form in [
        "",
        "username=admin",
        "username=admin&password=",
        "username=%ff&password=%00",
        "username=admin&password=wrong&password=a+password+of+this+test",
        "username=<script>&password=x",
        "\u{0}",
    ] {
        let client = target.server.client();
        guesses.spawn(async move {
            let answer = send(client.request("POST", "/admin/sign_in").body(form)).await;
            assert_eq!((answer.status, answer.header("set-cookie")), (200, ""), "{form}");
            assert!(!answer.text.contains("<script>"), "{}", answer.text);
        });
    }
    guesses.join_all().await;
    target.assert_unharmed().await;
}

#[tokio::test]
async fn a_callback_is_the_name_of_a_function_or_nothing() {
    let target = Target::start().await;
    let id = target.server.connect("ann", &["room"]).await;
    target.server.say("room", [1]).await;
    for callback in [
        "alert(1)//",
        "<script>",
        "a b",
        "a;b",
        "a\r\nX: y",
        "1a",
        ".a",
        "a.",
        "a..b",
        "a[0]",
        "a'",
        "ż",
        "a\u{2028}",
        "\0",
        &"a".repeat(1000),
    ] {
        let request =
            target.server.request("GET", "/listen").query(&[("conn_id", id.as_str()), ("callback", callback)]);
        let answer = send(request).await;
        assert_eq!(answer.status, 422, "{callback}");
        assert!(refusal(&answer)["callback"].is_array());
        assert!(!answer.text.contains(callback), "{}", answer.text);
    }
    assert_eq!(numbers(&target.server.poll(&id).await), [1], "none of them took what was waiting");
    target.assert_unharmed().await;
}

// ---- Websockets ----

/// A websocket frame as bytes: the first byte as given, masked with zeros or not at all.
fn frame(first: u8, payload: &[u8], masked: bool) -> Vec<u8> {
    let mask = if masked { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match payload.len() {
        short @ ..126 => bytes.push(mask | short as u8),
        long @ ..65_536 => {
            bytes.push(mask | 126);
            bytes.extend((long as u16).to_be_bytes());
        }
        huge => {
            bytes.push(mask | 127);
            bytes.extend((huge as u64).to_be_bytes());
        }
    }
    if masked {
        bytes.extend([0; 4]);
    }
    bytes.extend(payload);
    bytes
}

#[tokio::test]
async fn websocket_garbage_ends_that_socket_and_loses_nothing() {
    let target = Target::start().await;
    let masked = |first, payload: &[u8]| frame(first, payload, true);
    let fragments = [masked(0x01, b"a"), masked(0x00, &vec![b'x'; 1024]).repeat(100)].concat();
    let garbage = [
        ("an unknown opcode", masked(0x83, b"x")),
        ("another", masked(0x8f, b"x")),
        ("a reserved bit", masked(0xc1, b"x")),
        ("all reserved bits", masked(0xf1, b"x")),
        ("a frame without mask", frame(0x81, b"x", false)),
        ("a long ping", masked(0x89, &[b'x'; 126])),
        ("a ping in parts", masked(0x09, b"x")),
        ("a part of nothing", masked(0x80, b"x")),
        ("a text within a text", [masked(0x01, b"x"), masked(0x81, b"x")].concat()),
        ("a text that is not UTF-8", masked(0x81, b"\xff\xfe")),
        ("a message that is too large", masked(0x82, &vec![0; (64 << 10) + 1])),
        ("a message that is too large in parts", fragments),
        ("a length beyond all memory", [&[0x82, 0xff][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat()),
        ("a length of 2^40", [&[0x82, 0xff][..], &(1_u64 << 40).to_be_bytes(), &[0; 4]].concat()),
        ("another protocol", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("zeros", vec![0; 4096]),
        ("ones", vec![0xff; 4096]),
    ];
    for (n, (what, bytes)) in garbage.iter().enumerate() {
        let n = n as i64;
        let id = target.server.connect("ann", &["room"]).await;
        let mut socket = Socket::open(&target.server, &id).await;
        socket.tcp().write_all(bytes).await.expect("a connection that is open");
        let code = in_time(what, socket.rest()).await.1;
        assert!([NO_CLOSE_FRAME, 1002, 1003, 1005, 1007, 1009].contains(&code), "{what}: {code}");
        // It was not the client who ended the connection.
        target.server.listeners(1).await;
        target.server.say("room", [n]).await;
        let mut again = Socket::open(&target.server, &id).await;
        assert_eq!(numbers(&again.take(1).await), [n], "{what}");
        assert_eq!(again.close().await, 1000);
        target.server.listeners(1).await;
    }
    target.assert_unharmed().await;
}

#[tokio::test]
async fn odd_but_lawful_websocket_traffic_is_borne() {
    let target = Target::start().await;
    let mut socket = Socket::open(&target.server, &target.server.connect("ann", &["room"]).await).await;
    let masked = |first, payload: &[u8]| frame(first, payload, true);
    let lawful = [
        masked(0x81, b""),
        masked(0x82, &vec![0; 64 << 10]),
        masked(0x01, b"").repeat(1),
        masked(0x00, b"").repeat(1000),
        masked(0x89, b"in between"),
        masked(0x80, "ż".as_bytes()),
        masked(0x8a, b"unasked").repeat(1000),
        masked(0x81, b"[]").repeat(5000),
    ];
    socket.tcp().write_all(&lawful.concat()).await.expect("a connection that is open");
    assert_eq!(socket.message().await, Ok(Message::Pong(b"in between".to_vec().into())));
    target.server.say("room", [1]).await;
    assert_eq!(numbers(&socket.take(1).await), [1]);
    target.assert_unharmed().await;
}

#[tokio::test]
async fn endless_pings_starve_nobody() {
    let target = Target::start().await;
    let mut flooder = Socket::open(&target.server, &target.server.connect("ann", &["room"]).await).await;
    let pings = frame(0x89, &[b'x'; 125], true).repeat(1000);
    let started = Instant::now();
    let flooding = async {
        // It reads nothing: when the network is full, it stops.
        while started.elapsed() < Duration::from_millis(500) {
            let write = flooder.tcp().write_all(&pings);
            if !matches!(tokio::time::timeout(Duration::from_millis(500), write).await, Ok(Ok(()))) {
                break;
            }
        }
    };
    let talking = async {
        let mut listener = Socket::open(&target.server, &target.server.connect("bob", &["room"]).await).await;
        for n in 0..20 {
            target.server.say("room", [n]).await;
            assert_eq!(numbers(&listener.take(1).await), [n]);
        }
    };
    tokio::join!(flooding, talking);
    target.assert_unharmed().await;
}

#[tokio::test]
async fn strange_closes_are_borne() {
    let target = Target::start().await;
    for payload in [&b""[..], b"\x03", b"\x03\xe8", b"\x00\x00", b"\xff\xff", b"\x03\xe8\xff\xfe", b"\x03\xed"] {
        let mut socket = Socket::open(&target.server, &target.server.connect("ann", &["room"]).await).await;
        let close = frame(0x88, payload, true).repeat(3);
        socket.tcp().write_all(&close).await.expect("a connection that is open");
        in_time("the end", socket.rest()).await;
    }
    target.server.listeners(1).await;
    target.assert_unharmed().await;
}

#[tokio::test]
async fn handshakes_that_make_no_sense_are_refused() {
    let target = Target::start().await;
    let id = target.server.connect("ann", &[]).await;
    let handshake = |headers: &str| format!("GET /ws?conn_id={id} HTTP/1.1\r\nHost: x\r\n{headers}\r\n").into_bytes();
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for headers in [
        String::new(),
        upgrade.to_owned(),
        format!("{upgrade}{key}"),
        format!("{upgrade}{key}Sec-WebSocket-Version: 12\r\n"),
        format!("{upgrade}{key}Sec-WebSocket-Version: x\r\n"),
        format!("{upgrade}Sec-WebSocket-Version: 13\r\n"),
        format!("Connection: Upgrade\r\nUpgrade: h2c\r\n{key}Sec-WebSocket-Version: 13\r\n"),
        format!("Upgrade: websocket\r\n{key}Sec-WebSocket-Version: 13\r\n"),
    ] {
        let answers = raw(&target.server, &handshake(&headers), 1).await;
        let [answer] = &answers[..] else { panic!("{headers}: {answers:?}") };
        assert!([400, 426].contains(&answer.status), "{headers}: {answer:?}");
    }
    // Ended before it is complete: nothing is left behind.
    let tcp = TcpStream::connect(target.server.address()).await.expect("a connection");
    let (_, mut writer) = tcp.into_split();
    let whole = handshake(&format!("{upgrade}{key}Sec-WebSocket-Version: 13\r\n"));
    writer.write_all(&whole).await.expect("a connection that is open");
    drop(writer);
    let started = Instant::now();
    target.server.listeners(1).await;
    assert!(started.elapsed() < PATIENCE);
    target.assert_unharmed().await;
}
