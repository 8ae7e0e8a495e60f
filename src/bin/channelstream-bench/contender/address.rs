//! How listeners and publishers talk to a contender.

use std::io::Write as _;

use serde_json::json;
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::http::{Client, Target};
use crate::websocket;

/// The requests that a contender understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Ours, and the original's: a connection is made first, then a socket for it; many messages a POST.
    Channelstream,
    /// Paths with the channel's name; one message a POST.
    Nchan,
    /// One channel only; one message a POST, which is shown as it is.
    Bare,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Address {
    /// Where it is.
    pub target: Target,
    /// What it understands.
    pub dialect: Dialect,
}

impl Address {
    /// A contender that is there.
    pub fn new(target: Target, dialect: Dialect) -> Self {
        Self { target, dialect }
    }

    /// Lets a user in to a channel, by a request on `client` if the contender wants one: gives the path
    /// of the user's websocket, and the answer. `shown`: the newest messages are to be shown, in the
    /// answer or else over the websocket.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn admit(
        &self,
        client: &mut Client,
        channel: &str,
        user: &str,
        shown: bool,
    ) -> anyhow::Result<(String, Vec<u8>)> {
        match self.dialect {
            Dialect::Channelstream => {
                let connection = Uuid::new_v4();
                let body = json!({
                    "username": user, "conn_id": connection, "channels": [channel],
                    // Without it each answer lists all who came before.
                    "info": { "include_users": false, "include_history": shown },
                });
                let answer = client.post("/connect", body.to_string().as_bytes()).await?.to_vec();
                Ok((format!("/ws?conn_id={connection}"), answer))
            }
            Dialect::Nchan if shown => Ok((format!("/history?channel={channel}"), Vec::new())),
            Dialect::Nchan => Ok((format!("/listen?channel={channel}"), Vec::new())),
            Dialect::Bare => Ok(("/listen".to_owned(), Vec::new())),
        }
    }

    /// Opens the websocket of a listener of one channel, a user of its own: gives its TCP connection, and
    /// what came after the handshake. `client` makes requests that go before.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn subscribe(
        &self,
        client: &mut Client,
        channel: &str,
        user: &str,
    ) -> anyhow::Result<(TcpStream, Vec<u8>)> {
        let (path, _) = self.admit(client, channel, user, false).await?;
        websocket::open_path(&self.target, &path).await
    }
}

/// Posts messages to a contender, on one connection.
#[derive(Debug)]
pub struct Poster {
    client: Client,
    dialect: Dialect,
    /// Answers to wait for.
    posts: usize,
    body: Vec<u8>,
}

impl Poster {
    /// Connects.
    ///
    /// # Errors
    /// If that fails.
    pub async fn connect(address: &Address) -> anyhow::Result<Self> {
        let client = Client::connect(&address.target).await?;
        Ok(Self { client, dialect: address.dialect, posts: 0, body: Vec::new() })
    }

    /// Adds a message to those that are sent next; `write` writes its JSON.
    ///
    /// # Errors
    /// If the request cannot be signed.
    pub fn add(&mut self, channel: &str, write: impl FnOnce(&mut Vec<u8>)) -> anyhow::Result<()> {
        if self.dialect == Dialect::Channelstream {
            self.body.push(if self.body.is_empty() { b'[' } else { b',' });
            write!(self.body, r#"{{"user":"publisher","channel":"{channel}","message":"#)?;
            write(&mut self.body);
            self.body.push(b'}');
            return Ok(());
        }
        self.body.clear();
        write(&mut self.body);
        self.posts += 1;
        match self.dialect {
            Dialect::Nchan => self.client.add("POST", &format!("/post?channel={channel}"), &self.body),
            _ => self.client.add("POST", "/post", &self.body),
        }
    }

    /// Sends all that was added, in one POST if the contender understands that, else in as many POSTs as
    /// there are messages, one behind the other; and waits until all are taken.
    ///
    /// # Errors
    /// If one is refused.
    pub async fn send(&mut self) -> anyhow::Result<()> {
        if self.dialect == Dialect::Channelstream {
            self.body.push(b']');
            self.client.add("POST", "/message", &self.body)?;
            self.posts = 1;
        }
        self.body.clear();
        self.client.send(std::mem::take(&mut self.posts)).await
    }
}
