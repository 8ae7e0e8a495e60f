//! A proxy between a server and its database, which can stall, cut and swallow what passes.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What becomes of what passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It passes.
    Open,
    /// Nothing passes, and nobody is told: connections stay, new ones are accepted.
    Stalled,
    /// Requests pass; instead of the first answer the connection is cut.
    AnswersCut,
    /// Every connection is cut.
    Closed,
}

/// See the module.
pub struct Proxy {
    address: SocketAddr,
    way: watch::Sender<Way>,
    cuts: Arc<Mutex<u64>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// In front of a port of this machine.
    pub async fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (way, watched) = watch::channel(Way::Open);
        let cuts = Arc::new(Mutex::new(0));
        let counted = cuts.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, port, watched.clone(), counted.clone()));
            }
        });
        Self { address, way, cuts, accepting }
    }

    /// The same address of a database, by way of the proxy.
    pub fn through(&self, url: &str, port: u16) -> String {
        url.replace(&format!(":{port}/"), &format!(":{}/", self.address.port()))
    }

    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// How often an answer was swallowed.
    pub fn cuts(&self) -> u64 {
        *self.cuts.lock()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass(client: TcpStream, port: u16, mut way: watch::Receiver<Way>, cuts: Arc<Mutex<u64>>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = copy(from_client, to_server, way.clone(), None) => {}
        () = copy(from_server, to_client, way.clone(), Some(cuts)) => {}
        _ = way.wait_for(|way| *way == Way::Closed) => {}
    }
}

/// Passes one direction on; with `cuts`, that of answers.
async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut way: watch::Receiver<Way>,
    cuts: Option<Arc<Mutex<u64>>>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if way.wait_for(|way| *way != Way::Stalled).await.is_err() {
            return;
        }
        if let Some(cuts) = &cuts
            && *way.borrow() == Way::AnswersCut
        {
            *cuts.lock() += 1;
            return;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
