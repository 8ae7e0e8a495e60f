//! The least HTTP that drives a server: requests on one connection, one after the other or several in
//! one write, signed for those who want that. Far cheaper than a general client, so that its cost is
//! not taken for the server's.

use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use channelstream::signature::Signer;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a signature is used; the server takes it for a minute.
const SIGN_AGAIN: Duration = Duration::from_secs(20);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Largest head of an answer.
const MAX_HEAD: usize = 64 << 10;

/// A server to talk to.
#[derive(Debug, Clone)]
pub struct Target {
    /// Host and port.
    pub authority: String,
    /// Signs with the secret that the server knows; none: it wants no signatures.
    pub signer: Option<Signer>,
    /// Whether what it sends is acknowledged at once: for servers that write the head of an answer, then
    /// the rest, and let the system hold the rest back until the head has been acknowledged.
    pub acknowledge: bool,
}

impl Target {
    /// A server on this machine.
    pub fn local(port: u16, secret: Option<&str>) -> Self {
        Self { authority: format!("127.0.0.1:{port}"), signer: secret.map(Signer::new), acknowledge: false }
    }

    /// Takes a URL such as `http://127.0.0.1:8000`.
    pub fn parse(url: &str, secret: &str) -> anyhow::Result<Self> {
        let authority = url.strip_prefix("http://").map(|rest| rest.strip_suffix('/').unwrap_or(rest));
        let Some(authority) = authority.filter(|text| !text.is_empty() && !text.contains('/')) else {
            bail!("{url} is not like http://127.0.0.1:8000");
        };
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let authority = if has_port { authority.to_owned() } else { format!("{authority}:80") };
        Ok(Self { authority, signer: Some(Signer::new(secret)), acknowledge: false })
    }

    /// Opens a TCP connection that sends at once.
    pub async fn open(&self) -> anyhow::Result<TcpStream> {
        let stream = TcpStream::connect(&self.authority)
            .await
            .with_context(|| format!("no connection to {} (is the limit of open files too low?)", self.authority))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    target: Target,
    stream: TcpStream,
    token: String,
    signed: Option<Instant>,
    sent: Vec<u8>,
    received: Vec<u8>,
}

impl Client {
    /// Connects.
    pub async fn connect(target: &Target) -> anyhow::Result<Self> {
        let stream = target.open().await?;
        let (token, sent, received) = (String::new(), Vec::new(), Vec::new());
        Ok(Self { target: target.clone(), stream, token, signed: None, sent, received })
    }

    /// Sends a JSON body and gives the answer's; anything but 200 is an error.
    pub async fn post(&mut self, path: &str, body: &[u8]) -> anyhow::Result<&[u8]> {
        let (status, body) = self.request("POST", path, body).await.with_context(|| format!("POST {path}"))?;
        if status != 200 {
            bail!("POST {path} was answered with {status}: {}", String::from_utf8_lossy(body));
        }
        Ok(body)
    }

    /// Asks for a page; gives status and body.
    pub async fn get(&mut self, path: &str) -> anyhow::Result<(u16, &[u8])> {
        self.request("GET", path, b"").await.with_context(|| format!("GET {path}"))
    }

    async fn request(&mut self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<(u16, &[u8])> {
        self.add(method, path, body)?;
        tokio::time::timeout(PATIENCE, self.exchange())
            .await
            .with_context(|| format!("no answer after {PATIENCE:?}"))?
            .map(|head| (head.status, &self.received[head.bytes..]))
    }

    /// Adds a request to those that [`Client::send`] sends.
    ///
    /// # Errors
    /// If it cannot be signed.
    pub fn add(&mut self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<()> {
        self.sign()?;
        write!(self.sent, "{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.target.authority)?;
        if self.target.signer.is_some() {
            write!(self.sent, "x-channelstream-secret: {}\r\n", self.token)?;
        }
        write!(self.sent, "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len())?;
        self.sent.extend_from_slice(body);
        Ok(())
    }

    /// Sends what was added, in one write, and waits until all of it is answered.
    ///
    /// # Errors
    /// If an answer says anything but that all is well.
    pub async fn send(&mut self, answers: usize) -> anyhow::Result<()> {
        tokio::time::timeout(PATIENCE, self.exchange_all(answers))
            .await
            .with_context(|| format!("no answer after {PATIENCE:?}"))?
    }

    fn sign(&mut self) -> anyhow::Result<()> {
        let Some(signer) = &self.target.signer else { return Ok(()) };
        if self.signed.is_none_or(|at| at.elapsed() > SIGN_AGAIN) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
            self.token = signer.sign("channelstream", now.as_secs());
            self.signed = Some(Instant::now());
        }
        Ok(())
    }

    async fn exchange_all(&mut self, answers: usize) -> anyhow::Result<()> {
        self.write().await?;
        for _ in 0..answers {
            let head = self.answer().await?;
            let end = head.bytes + head.length.unwrap_or(0);
            if !(200..300).contains(&head.status) {
                let body = String::from_utf8_lossy(&self.received[head.bytes..end]);
                bail!("a request was answered with {}: {body}", head.status);
            }
            self.received.drain(..end);
        }
        Ok(())
    }

    /// Sends what is to be sent and receives one answer as a whole.
    async fn exchange(&mut self) -> anyhow::Result<Head> {
        self.write().await?;
        self.answer().await
    }

    async fn write(&mut self) -> anyhow::Result<()> {
        self.received.clear();
        self.stream.write_all(&self.sent).await?;
        self.sent.clear();
        if self.target.acknowledge {
            // The system forgets it again and again.
            SockRef::from(&self.stream).set_tcp_quickack(true)?;
        }
        Ok(())
    }

    /// Receives the next answer as a whole, at the start of what was received.
    async fn answer(&mut self) -> anyhow::Result<Head> {
        let head = loop {
            if let Some(head) = Head::parse(&self.received)? {
                break head;
            }
            if self.received.len() > MAX_HEAD {
                bail!("the head of the answer does not end");
            }
            self.read().await?;
        };
        let length = head.length.context("the answer does not say how long it is")?;
        while self.received.len() < head.bytes + length {
            self.read().await?;
        }
        Ok(head)
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        if self.stream.read_buf(&mut self.received).await? == 0 {
            bail!("the server ended the connection instead of answering");
        }
        Ok(())
    }
}

/// The head of an answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    /// How long it is.
    pub bytes: usize,
    /// Its status.
    pub status: u16,
    /// The length of the body, if it says so.
    pub length: Option<usize>,
}

impl Head {
    /// Reads a head; none: it has not come as a whole.
    pub fn parse(bytes: &[u8]) -> anyhow::Result<Option<Self>> {
        const END: &[u8] = b"\r\n\r\n";
        let Some(end) = bytes.windows(END.len()).position(|window| window == END) else { return Ok(None) };
        let text = std::str::from_utf8(&bytes[..end]).context("the head of the answer is no text")?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).context("no HTTP answer")?;
        let length = lines.find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
        });
        Ok(Some(Self { bytes: end + END.len(), status, length }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_when_they_are_there() {
        let answer = b"HTTP/1.1 200 OK\r\nX: y\r\ncontent-length: 2\r\n\r\n[]";
        let head = Head { bytes: answer.len() - 2, status: 200, length: Some(2) };
        assert_eq!(Head::parse(answer).unwrap(), Some(head));
        assert_eq!(Head::parse(&answer[..40]).unwrap(), None);
        assert!(Head::parse(b"what\r\n\r\n").is_err());
    }

    #[test]
    fn targets_are_plain_http() {
        assert_eq!(Target::parse("http://[::1]:8000/", "s").unwrap().authority, "[::1]:8000");
        assert_eq!(Target::parse("http://example", "s").unwrap().authority, "example:80");
        assert!(Target::parse("https://example", "s").is_err());
    }
}
