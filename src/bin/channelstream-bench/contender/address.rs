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
        match self.dialect {
            Dialect::Channelstream => {
                let connection = Uuid::new_v4();
                let body = json!({
                    "username": user, "conn_id": connection, "channels": [channel],
                    // Without it each answer lists all who came before.
                    "info": { "include_users": false, "include_history": false },
                });
                client.post("/connect", body.to_string().as_bytes()).await?;
                websocket::open(&self.target, connection, None).await
            }
            Dialect::Nchan => websocket::open_path(&self.target, &format!("/listen?channel={channel}")).await,
            Dialect::Bare => websocket::open_path(&self.target, "/listen").await,
        }
    }
}

/// Posts messages to a contender, on one connection.
#[derive(Debug)]
pub struct Poster {
    client: Client,
    dialect: Dialect,
    body: Vec<u8>,
}

impl Poster {
    /// Connects.
    ///
    /// # Errors
    /// If that fails.
    pub async fn connect(address: &Address) -> anyhow::Result<Self> {
        Ok(Self { client: Client::connect(&address.target).await?, dialect: address.dialect, body: Vec::new() })
    }

    /// Posts `count` messages to a channel, and waits until all are taken: with one POST, or with as many
    /// POSTs in one write where a POST has one message. `write` writes the JSON of the next message.
    ///
    /// # Errors
    /// If one is refused.
    pub async fn post(&mut self, channel: &str, count: u64, mut write: impl FnMut(&mut Vec<u8>)) -> anyhow::Result<()> {
        let path = match self.dialect {
            Dialect::Channelstream => "/message".to_owned(),
            Dialect::Nchan => format!("/post?channel={channel}"),
            Dialect::Bare => "/post".to_owned(),
        };
        self.body.clear();
        if self.dialect == Dialect::Channelstream {
            for index in 0..count {
                self.body.push(if index == 0 { b'[' } else { b',' });
                write!(self.body, r#"{{"user":"publisher","channel":"{channel}","message":"#)?;
                write(&mut self.body);
                self.body.push(b'}');
            }
            self.body.push(b']');
            self.client.add("POST", &path, &self.body)?;
            return self.client.send(1).await;
        }
        for _ in 0..count {
            self.body.clear();
            write(&mut self.body);
            self.client.add("POST", &path, &self.body)?;
        }
        self.client.send(count as usize).await
    }
}
