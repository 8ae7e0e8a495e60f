//! The bare programs that show what the machine can do: everybody listens to one channel, a POST's body
//! becomes a websocket message, and nothing is checked, kept or signed. One thread.
//!
//! Plain: a POST is answered when its message was written to every listener, one write each. Queued: a
//! POST is answered at once; listeners are visited in turn, and each gets all that waits in one write.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Write as _};
use std::net::Ipv4Addr;
use std::rc::Rc;

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::LocalSet;

/// Listeners that are visited before requests are looked at again.
const VISITS: usize = 16;
/// Bytes of messages that everybody has which are kept before they are thrown away.
const KEPT: usize = 1 << 20;
/// Answers a handshake together with a client's key (RFC 6455, 1.3).
const HANDSHAKE: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Serves as a bare program that other contenders are compared with
#[derive(Debug, Args)]
pub struct Options {
    /// Where on 127.0.0.1
    #[arg(long)]
    port: u16,
    /// Answer first, and write all that waits for a listener at once
    #[arg(long)]
    queued: bool,
}

struct Limit {
    queued: bool,
    /// Frames; the first byte is `begin` bytes after that of the first frame ever.
    log: RefCell<Vec<u8>>,
    begin: Cell<usize>,
    listeners: RefCell<Vec<Listener>>,
    /// There is something to write.
    work: Notify,
}

struct Listener {
    socket: std::net::TcpStream,
    /// Bytes of all frames ever that it has.
    has: usize,
}

/// Serves until it is killed.
///
/// # Errors
/// If the port cannot be had.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).await.context("the port cannot be had")?;
    let limit = Rc::new(Limit {
        queued: options.queued,
        log: RefCell::default(),
        begin: Cell::new(0),
        listeners: RefCell::default(),
        work: Notify::new(),
    });
    LocalSet::new()
        .run_until(async {
            tokio::task::spawn_local(limit.clone().visit_in_turn());
            loop {
                let (stream, _) = socket.accept().await?;
                stream.set_nodelay(true)?;
                let limit = limit.clone();
                // Whoever goes away or sends what is no request is of no interest.
                tokio::task::spawn_local(async move { limit.serve(stream).await });
            }
        })
        .await
}

impl Limit {
    async fn serve(&self, mut stream: TcpStream) -> anyhow::Result<()> {
        let (mut received, mut answers) = (Vec::with_capacity(16 << 10), Vec::new());
        loop {
            let mut used = 0;
            while let Some(request) = Request::parse(&received[used..]) {
                used += request.bytes;
                if let Some(key) = request.key {
                    let accept = STANDARD.encode(Sha1::digest(format!("{key}{HANDSHAKE}")));
                    let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade";
                    stream.write_all(format!("{head}\r\nSec-WebSocket-Accept: {accept}\r\n\r\n").as_bytes()).await?;
                    let has = self.begin.get() + self.log.borrow().len();
                    // While a listener does not read, the system may join what was written: the quickest.
                    stream.set_nodelay(false)?;
                    self.listeners.borrow_mut().push(Listener { socket: stream.into_std()?, has });
                    return Ok(());
                }
                if !request.body.is_empty() {
                    self.post(request.body);
                }
                answers.extend_from_slice(ANSWER);
            }
            received.drain(..used);
            stream.write_all(&answers).await?;
            answers.clear();
            if stream.read_buf(&mut received).await? == 0 {
                return Ok(());
            }
        }
    }

    fn post(&self, body: &[u8]) {
        let mut log = self.log.borrow_mut();
        match body.len() {
            length @ 0..126 => log.extend_from_slice(&[0x81, length as u8]),
            length @ 126..0x1_0000 => log.extend_from_slice(&[0x81, 126, (length >> 8) as u8, length as u8]),
            length => {
                log.extend_from_slice(&[0x81, 127]);
                log.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        log.extend_from_slice(body);
        // Nobody is left out because somebody before cannot take more.
        let behind =
            || self.listeners.borrow_mut().iter_mut().filter_map(|each| each.write(&log, self.begin.get())).count();
        if !self.queued && behind() == 0 {
            self.begin.set(self.begin.get() + log.len());
            log.clear();
        } else {
            self.work.notify_one();
        }
    }

    /// Goes round as long as somebody lacks something; requests are looked at in between.
    async fn visit_in_turn(self: Rc<Self>) {
        loop {
            self.work.notified().await;
            let mut next = Some(0);
            while let Some(first) = next {
                next = self.visit(first);
                tokio::task::yield_now().await;
            }
        }
    }

    /// Visits some listeners; says who is next, if anybody lacks anything.
    fn visit(&self, first: usize) -> Option<usize> {
        let mut listeners = self.listeners.borrow_mut();
        let mut log = self.log.borrow_mut();
        for listener in listeners.iter_mut().skip(first).take(VISITS) {
            listener.write(&log, self.begin.get());
        }
        if first + VISITS < listeners.len() {
            return Some(first + VISITS);
        }
        let end = self.begin.get() + log.len();
        let least = listeners.iter().map(|listener| listener.has).min().unwrap_or(end);
        if least == end || least - self.begin.get() > KEPT {
            log.drain(..least - self.begin.get());
            self.begin.set(least);
        }
        (least < end).then_some(0)
    }
}

impl Listener {
    /// Writes all that it lacks; says how many bytes it still lacks, if any.
    fn write(&mut self, log: &[u8], begin: usize) -> Option<usize> {
        let waits = &log[self.has - begin..];
        if waits.is_empty() {
            return None;
        }
        match self.socket.write(waits) {
            Ok(written) => self.has += written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // It has gone.
            Err(_) => self.has = begin + log.len(),
        }
        Some(begin + log.len() - self.has).filter(|lacks| *lacks > 0)
    }
}

struct Request<'a> {
    bytes: usize,
    key: Option<&'a str>,
    body: &'a [u8],
}

impl<'a> Request<'a> {
    /// Reads a request; none: it has not come as a whole.
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        let header = |wanted: &str| {
            head.lines()
                .filter_map(|line| line.split_once(": "))
                .find_map(|(name, value)| name.eq_ignore_ascii_case(wanted).then_some(value))
        };
        let length = header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        let body = bytes.get(end..end + length)?;
        Some(Self { bytes: end + length, key: header("sec-websocket-key"), body })
    }
}
