//! The ground for tests over real sockets: a server inside the test, the real program as a process
//! that can be killed, a back end that signs its requests, and listeners on both transports.
//!
//! Whatever a test waits for is an event; [`PATIENCE`] only bounds how long a failure takes.

#![allow(dead_code)] // each test file is a crate of its own and uses its part of this

use std::collections::VecDeque;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::ops::Deref;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use channelstream::app::Server;
use channelstream::config::{Config, Secret};
use channelstream::hub::Hub;
use channelstream::signature::Signer;
use futures_util::{SinkExt, StreamExt};
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, redirect};
use serde_json::{Value, json};
use sqlx::postgres::PgConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use tempfile::TempDir;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

/// How long anything may take that a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How often something is looked at that sends no event.
const GLANCE: Duration = Duration::from_millis(2);

/// Waits for a future that must be ready some time.
pub async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

/// Waits until something is so.
pub async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let look = async {
        while !is_so().await {
            tokio::time::sleep(GLANCE).await;
        }
    };
    in_time(what, look).await;
}

/// The numbers in messages like `{"n": 5}`, of frames, history entries or answers.
pub fn numbers(messages: &[Value]) -> Vec<i64> {
    messages.iter().map(|message| message["message"]["n"].as_i64().expect("a number")).collect()
}

/// The texts under one key.
pub fn texts<'a>(items: &'a [Value], key: &str) -> Vec<&'a str> {
    items.iter().map(|item| item[key].as_str().expect("a text")).collect()
}

/// A JSON list as a vector.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).expect("a list")
}

/// The same with all lists of users and their states sorted, since they come in no order.
pub fn in_order(mut value: Value) -> Value {
    match &mut value {
        Value::Array(items) => {
            for item in items.iter_mut() {
                *item = in_order(item.take());
            }
            if items.iter().all(|item| item["user"].is_string() && item.get("state").is_some()) {
                items.sort_by_key(|item| item["user"].to_string());
            }
        }
        Value::Object(fields) => {
            for field in fields.values_mut() {
                *field = in_order(field.take());
            }
        }
        _ => {}
    }
    value
}

/// The same without some keys, at every level.
pub fn without(mut value: Value, keys: &[&str]) -> Value {
    match &mut value {
        Value::Array(items) => items.iter_mut().for_each(|item| *item = without(item.take(), keys)),
        Value::Object(fields) => {
            fields.retain(|key, _| !keys.contains(&key.as_str()));
            fields.values_mut().for_each(|field| *field = without(field.take(), keys));
        }
        _ => {}
    }
    value
}

// ---- Engines ----

#[path = "postgres.rs"]
pub mod postgres;

/// What the stores of a test run are kept in: `TEST_ENGINE=postgres` runs the same tests on Postgres.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

impl Engine {
    pub fn of_this_run() -> Self {
        match std::env::var("TEST_ENGINE").as_deref() {
            Err(_) | Ok("" | "sqlite") => Self::Sqlite,
            Ok("postgres") => Self::Postgres,
            Ok(other) => panic!("TEST_ENGINE is sqlite or postgres, not {other}"),
        }
    }
}

/// The address of a new, empty store; a SQLite file lies in a folder.
pub fn new_store(folder: &Path) -> String {
    match Engine::of_this_run() {
        Engine::Sqlite => format!("sqlite://{}/store.db", folder.display()),
        Engine::Postgres => postgres::shared().database(),
    }
}

/// A connection to look into a store with.
pub enum Looking {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Looking {
    pub async fn at(url: &str) -> Self {
        if url.starts_with("postgres") {
            return Self::Postgres(postgres::connect(url).await);
        }
        let options: SqliteConnectOptions = url.parse().expect("a URL");
        let options = options.read_only(true).busy_timeout(PATIENCE).disable_statement_logging();
        Self::Sqlite(options.connect().await.expect("a file that can be read"))
    }

    /// The rows, of one column of text, of a query that both engines understand.
    pub async fn rows(&mut self, sql: &'static str) -> Vec<String> {
        match self {
            Self::Sqlite(connection) => sqlx::query_scalar(sql).fetch_all(connection).await,
            Self::Postgres(connection) => sqlx::query_scalar(sql).fetch_all(connection).await,
        }
        .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Ends before the store is opened again.
    pub async fn close(self) {
        match self {
            Self::Sqlite(connection) => connection.close().await,
            Self::Postgres(connection) => connection.close().await,
        }
        .expect("a connection that closes");
    }
}

// ---- A server in the test ----

/// A server that runs; dereferences to a [`Client`] of it.
pub struct TestServer {
    config: Config,
    running: Option<Server>,
    client: Client,
    _directory: TempDir,
}

impl TestServer {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// Starts with a configuration that differs from the defaults; values may be outside of what
    /// a file may say, to make time short.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().expect("a temporary folder");
        let database = new_store(directory.path());
        let mut config = Config {
            host: "127.0.0.1".to_owned(),
            port: 0,
            secret: Secret::new("a secret of this test"),
            admin_secret: Secret::new("a password of this test"),
            database_url: database.parse().expect("an address of a store"),
            drain_seconds: std::time::Duration::ZERO,
            ..Config::default()
        };
        change(&mut config);
        let running = Server::start(config.clone()).await.expect("a server that starts");
        let client = Client::new(running.address(), config.secret.expose());
        Self { config, running: Some(running), client, _directory: directory }
    }

    /// The server itself.
    pub fn server(&self) -> &Server {
        self.running.as_ref().expect("a server that runs")
    }

    /// Where its store is.
    pub fn database_url(&self) -> String {
        self.config.database_url.as_str().to_owned()
    }

    /// What is behind its edge.
    pub fn hub(&self) -> Arc<Hub> {
        self.server().hub().expect("the owner of its store")
    }

    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Stops in good order.
    pub async fn stop(&mut self) {
        let server = self.running.take().expect("a server that runs");
        server.stop().await.expect("a server that stops");
    }

    /// Stops in good order and starts on the same store, at another port.
    pub async fn restart(&mut self) {
        self.restart_with(|_| {}).await;
    }

    /// The same with another configuration.
    pub async fn restart_with(&mut self, change: impl FnOnce(&mut Config)) {
        if self.running.is_some() {
            self.stop().await;
        }
        change(&mut self.config);
        let server = Server::start(self.config.clone()).await.expect("a server that starts again");
        self.client = Client::new(server.address(), self.config.secret.expose());
        self.running = Some(server);
    }

    /// Waits until so many listen.
    pub async fn listeners(&self, count: usize) {
        until(&format!("{count} listeners"), async || self.hub().listener_count() == count).await;
    }
}

impl Deref for TestServer {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

// ---- A process ----

/// Ports that the system gives to nobody by itself, so that one stays free while its server is down.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// The program with a clean environment, in a folder.
pub fn binary(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_channelstream"));
    command.current_dir(directory);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CHANNELSTREAM_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
}

/// A port at which nobody listens.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let count = PORTS.end - PORTS.start;
    // Test programs that run at the same time begin at different places.
    let first = (std::process::id() % 200) as u16 * (count / 200);
    for _ in 0..count {
        let port = PORTS.start + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % count;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

/// A process that serves; dereferences to a [`Client`] of it.
pub struct Process {
    directory: TempDir,
    settings: Vec<(String, String)>,
    port: u16,
    child: Option<Child>,
    client: Client,
}

impl Process {
    /// Starts the program; `settings` are keys of its configuration.
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        let mut process = Self::new(settings);
        process.restart().await;
        process
    }

    /// Does not start it yet.
    pub fn new(settings: &[(&str, &str)]) -> Self {
        let secret = "a secret of this test";
        let directory = tempfile::tempdir().expect("a temporary folder");
        // Short where it can be: some tests look for it in what the process says.
        let database = match Engine::of_this_run() {
            Engine::Sqlite => "sqlite://store.db".to_owned(),
            Engine::Postgres => new_store(directory.path()),
        };
        let mut all = vec![
            ("host", "127.0.0.1"),
            ("secret", secret),
            ("admin_secret", "a password of this test"),
            ("database_url", &database),
            ("drain_seconds", "0"),
        ];
        all.extend(settings);
        let port = free_port();
        Self {
            directory,
            settings: all.iter().map(|(key, value)| (key.to_uppercase(), (*value).to_owned())).collect(),
            port,
            child: None,
            client: Client::new(SocketAddr::from(([127, 0, 0, 1], port)), secret),
        }
    }

    /// Starts on what the last run left, at the same port, and waits until it is ready.
    pub async fn restart(&mut self) {
        self.restart_with(&[]).await;
    }

    /// The same with some more settings, for this run only.
    pub async fn restart_with(&mut self, settings: &[(&str, &str)]) {
        self.spawn(settings);
        let client = self.client.clone();
        let ready = async || {
            let answer = try_send(client.request("GET", "/readyz")).await;
            answer.is_ok_and(|answer| answer.status == 200)
        };
        until("the process to be ready", ready).await;
    }

    /// Starts and does not wait.
    pub fn spawn(&mut self, settings: &[(&str, &str)]) {
        if self.child.is_some() {
            self.kill();
        }
        let log = File::options().create(true).append(true).open(self.directory.path().join("log"));
        let mut command = binary(self.directory.path());
        command.env("CHANNELSTREAM_PORT", self.port.to_string()).stderr(log.expect("a log"));
        for (key, value) in &self.settings {
            command.env(format!("CHANNELSTREAM_{key}"), value);
        }
        for (key, value) in settings {
            command.env(format!("CHANNELSTREAM_{}", key.to_uppercase()), value);
        }
        self.child = Some(command.spawn().expect("a process"));
        // Connections to the process before this one are of no use.
        self.client = self.client.fresh();
    }

    /// SIGKILL: the process has no say in it.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("a process that runs");
        child.kill().expect("a signal");
        child.wait().expect("an end");
    }

    /// SIGTERM: tells the process to stop in good order.
    pub fn tell_to_stop(&self) {
        let child = self.child.as_ref().expect("a process that runs");
        let sent = Command::new("kill").arg(child.id().to_string()).status().expect("kill");
        assert!(sent.success());
    }

    /// Tells the process to stop and waits until it has.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.tell_to_stop();
        let child = self.child.take().expect("a process that runs");
        let waited = tokio::task::spawn_blocking(move || {
            let mut child = child;
            child.wait().expect("an end")
        });
        in_time("the process to end", waited).await.expect("a status")
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// What all runs have logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Deref for Process {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
        if std::thread::panicking() {
            eprintln!("the log of the process:\n{}", self.log());
        }
    }
}

// ---- Requests ----

/// The header that carries a signature.
pub const SECRET_HEADER: &str = "x-channelstream-secret";

/// Speaks to one server; a clone shares its connections.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    address: SocketAddr,
    signer: Signer,
}

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Client {
    pub fn new(address: SocketAddr, secret: &str) -> Self {
        let http = reqwest::Client::builder().no_proxy().redirect(redirect::Policy::none()).timeout(PATIENCE);
        Self { http: http.build().expect("a client"), address, signer: Signer::new(secret) }
    }

    /// The same without the connections that are open.
    pub fn fresh(&self) -> Self {
        let Self { address, signer, .. } = self.clone();
        Self { signer, ..Self::new(address, "") }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A signature of now.
    pub fn token(&self) -> String {
        self.token_aged(0)
    }

    /// A signature of so many seconds ago.
    pub fn token_aged(&self, seconds: u64) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
        self.signer.sign("channelstream", now.as_secs() - seconds)
    }

    /// A request without signature.
    pub fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        self.http.request(method, format!("http://{}{path}", self.address))
    }

    /// A request with signature.
    pub fn signed(&self, method: &str, path: &str) -> RequestBuilder {
        self.request(method, path).header(SECRET_HEADER, self.token())
    }

    pub async fn get(&self, path: &str) -> Answer {
        send(self.request("GET", path)).await
    }

    /// Signs and sends any text as a body.
    pub async fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        send(self.signed(method, path).body(body.to_owned())).await
    }

    /// Signs and sends; it must succeed.
    pub async fn ask(&self, method: &str, path: &str, body: Value) -> Value {
        let answer = self.send(method, path, &body.to_string()).await;
        assert_eq!(answer.status, 200, "{method} {path} {body}: {}", answer.text);
        answer.json()
    }

    pub async fn post(&self, path: &str, body: Value) -> Value {
        self.ask("POST", path, body).await
    }

    /// Lets a user into channels; gives the connection id.
    pub async fn connect(&self, user: &str, channels: &[&str]) -> String {
        let answer = self.post("/connect", json!({"username": user, "channels": channels})).await;
        answer["conn_id"].as_str().expect("a connection id").to_owned()
    }

    pub async fn configure(&self, channel: &str, settings: Value) {
        self.post("/channel_config", json!({channel: settings})).await;
    }

    /// Posts messages `{"n": …}` to a channel in one request.
    pub async fn say(&self, channel: &str, numbers: impl IntoIterator<Item = i64>) -> Value {
        let message = |n| json!({"user": "speaker", "channel": channel, "message": {"n": n}});
        self.post("/message", numbers.into_iter().map(message).collect()).await
    }

    /// What `/info` tells of one channel.
    pub async fn channel(&self, name: &str) -> Value {
        let info = self.post("/info", json!({"info": {"channels": [name]}})).await;
        info["channels"][name].clone()
    }

    /// The numbers in a channel's history.
    pub async fn history(&self, name: &str) -> Vec<i64> {
        numbers(list(&self.channel(name).await["history"]))
    }

    /// One long poll.
    pub async fn poll(&self, id: &str) -> Vec<Value> {
        let answer = self.get(&format!("/listen?conn_id={id}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        serde_json::from_str(&answer.text).expect("a list of frames")
    }

    /// Asks for a websocket as a browser does, to see the answer when it is refused.
    pub fn handshake(&self, path: &str) -> RequestBuilder {
        self.request("GET", path)
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
    }
}

/// Sends a request of any kind.
pub async fn send(request: RequestBuilder) -> Answer {
    try_send(request).await.expect("an answer")
}

/// The same, where the server may vanish meanwhile.
pub async fn try_send(request: RequestBuilder) -> reqwest::Result<Answer> {
    let response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    // The handshake of a websocket has no end.
    let text = if status == 101 { String::new() } else { response.text().await? };
    Ok(Answer { status, headers, text })
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error} in {}: {}", self.status, self.text))
    }

    /// A header's text; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a text"))
    }

    /// Status and body, for comparing refusals.
    pub fn refusal(&self) -> (u16, Value) {
        (self.status, self.json())
    }
}

// ---- Listeners ----

/// How a listener listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    WebSocket,
    LongPoll,
}

/// The code that a websocket's end without a close frame has.
pub const NO_CLOSE_FRAME: u16 = 1006;

/// A websocket that listens.
pub struct Socket {
    stream: WebSocketStream<TcpStream>,
    frames: VecDeque<Value>,
}

impl Socket {
    /// Opens a connection's websocket.
    pub async fn open(client: &Client, id: &str) -> Self {
        match Self::try_open(client, &format!("/ws?conn_id={id}")).await {
            Ok(socket) => socket,
            Err(status) => panic!("{id} cannot be opened: {status}"),
        }
    }

    /// Opens a websocket, or tells the status that the handshake was answered with; 0: none.
    pub async fn try_open(client: &Client, path: &str) -> Result<Self, u16> {
        Self::on(TcpSocket::new_v4().expect("a socket"), client, path).await
    }

    /// Opens a websocket over a socket whose options are set.
    pub async fn on(socket: TcpSocket, client: &Client, path: &str) -> Result<Self, u16> {
        let opened = async {
            let Ok(tcp) = socket.connect(client.address()).await else { return Err(0) };
            match client_async(format!("ws://{}{path}", client.address()), tcp).await {
                Ok((stream, _)) => Ok(Self { stream, frames: VecDeque::new() }),
                Err(Error::Http(response)) => Err(response.status().as_u16()),
                Err(_) => Err(0),
            }
        };
        in_time("an answer to the handshake", opened).await
    }

    /// The next frame; heartbeats are passed over.
    pub async fn next(&mut self) -> Value {
        match self.next_or_closed().await {
            Ok(frame) => frame,
            Err(code) => panic!("closed with {code}"),
        }
    }

    /// The next frame, or the code of the close.
    pub async fn next_or_closed(&mut self) -> Result<Value, u16> {
        // Heartbeats do not make the wait longer.
        in_time("a frame", async {
            while self.frames.is_empty() {
                let frames = self.array().await?;
                self.frames.extend(frames);
            }
            Ok::<(), u16>(())
        })
        .await?;
        Ok(self.frames.pop_front().expect("a frame"))
    }

    /// The next frames, however they are packed.
    pub async fn take(&mut self, count: usize) -> Vec<Value> {
        let mut frames = Vec::with_capacity(count);
        while frames.len() < count {
            frames.push(self.next().await);
        }
        frames
    }

    /// All frames from here to the close, and its code.
    pub async fn rest(&mut self) -> (Vec<Value>, u16) {
        let mut frames = Vec::new();
        loop {
            match self.next_or_closed().await {
                Ok(frame) => frames.push(frame),
                Err(code) => return (frames, code),
            }
        }
    }

    /// The code of the close, which must be all that comes.
    pub async fn closed(&mut self) -> u16 {
        let (frames, code) = self.rest().await;
        assert_eq!(frames, Vec::<Value>::new(), "frames before the close");
        code
    }

    /// The array in the next websocket message, empty for a heartbeat; or the code of the close.
    pub async fn array(&mut self) -> Result<Vec<Value>, u16> {
        loop {
            match self.message().await? {
                Message::Text(text) => {
                    return Ok(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")));
                }
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("unexpected: {other}"),
            }
        }
    }

    /// The next websocket message, or the code of the close.
    pub async fn message(&mut self) -> Result<Message, u16> {
        match in_time("a websocket message", self.stream.next()).await {
            Some(Ok(Message::Close(close))) => Err(close.map_or(1005, |close| close.code.into())),
            Some(Ok(message)) => Ok(message),
            Some(Err(_)) | None => Err(NO_CLOSE_FRAME),
        }
    }

    pub async fn send(&mut self, message: Message) {
        self.try_send(message).await.expect("a socket that is open");
    }

    pub async fn try_send(&mut self, message: Message) -> Result<(), Error> {
        in_time("a message to be sent", self.stream.send(message)).await
    }

    /// Closes as a browser does that leaves the page; gives the code that comes back.
    pub async fn close(mut self) -> u16 {
        let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        self.send(Message::Close(Some(close))).await;
        self.rest().await.1
    }

    /// Ends without a word, as a lost network does.
    pub fn lose(self) {}

    /// The TCP connection below.
    pub fn tcp(&mut self) -> &mut TcpStream {
        self.stream.get_mut()
    }
}

/// A stream of server-sent events.
pub struct Events {
    response: reqwest::Response,
    buffer: Vec<u8>,
    /// The last `id:` that came, as a browser remembers it.
    pub last_id: Option<String>,
}

impl Events {
    /// Asks for a stream, or tells how it was refused.
    pub async fn try_open(request: RequestBuilder) -> Result<Self, Answer> {
        // A stream has no end; each wait is bounded on its own.
        let sent = request.timeout(PATIENCE * 30).send();
        let response = in_time("an answer", sent).await.expect("an answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        if status != 200 {
            return Err(Answer { status, headers, text: response.text().await.expect("a body") });
        }
        Ok(Self { response, buffer: Vec::new(), last_id: None })
    }

    /// The lines of the next block; none at the end.
    pub async fn block(&mut self) -> Option<Vec<String>> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
                let text = String::from_utf8(block).expect("a text");
                return Some(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect());
            }
            match in_time("a part of the stream", self.response.chunk()).await {
                Ok(Some(chunk)) => self.buffer.extend(chunk),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// The array in the next event; none at the end. What is no event is passed over.
    pub async fn array(&mut self) -> Option<Vec<Value>> {
        loop {
            let block = self.block().await?;
            let field = |name: &str| block.iter().find_map(|line| line.strip_prefix(name));
            if let Some(id) = field("id: ") {
                self.last_id = Some(id.to_owned());
            }
            if let Some(data) = field("data: ") {
                return Some(serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}")));
            }
        }
    }
}

/// Polls one after the other.
pub struct Polls {
    client: Client,
    id: String,
    frames: VecDeque<Value>,
}

impl Polls {
    /// The next frame.
    pub async fn next(&mut self) -> Value {
        in_time("a frame", async {
            while self.frames.is_empty() {
                self.frames.extend(self.client.poll(&self.id).await);
            }
        })
        .await;
        self.frames.pop_front().expect("a frame")
    }
}

/// Someone who listens, whatever the transport.
pub enum Listener {
    Socket(Box<Socket>),
    Polls(Box<Polls>),
}

impl Listener {
    pub async fn open(transport: Transport, client: &Client, id: &str) -> Self {
        match transport {
            Transport::WebSocket => Self::Socket(Box::new(Socket::open(client, id).await)),
            Transport::LongPoll => {
                let (client, id) = (client.clone(), id.to_owned());
                Self::Polls(Box::new(Polls { client, id, frames: VecDeque::new() }))
            }
        }
    }

    /// Comes as a user who joins channels, and listens.
    pub async fn connect(transport: Transport, client: &Client, user: &str, channels: &[&str]) -> Self {
        let id = client.connect(user, channels).await;
        Self::open(transport, client, &id).await
    }

    /// The next frame.
    pub async fn next(&mut self) -> Value {
        match self {
            Self::Socket(socket) => socket.next().await,
            Self::Polls(polls) => polls.next().await,
        }
    }

    /// The next frames, without saying whether they were missed: that depends on the transport.
    pub async fn take(&mut self, count: usize) -> Vec<Value> {
        let mut frames = Vec::with_capacity(count);
        while frames.len() < count {
            frames.push(without(self.next().await, &["catchup"]));
        }
        frames
    }
}

// ---- Chance ----

/// Numbers that look random and are the same for the same seed.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A seed that is new each time; the test should print it.
    pub fn new_seed() -> u64 {
        uuid::Uuid::new_v4().as_u64_pair().0
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}
