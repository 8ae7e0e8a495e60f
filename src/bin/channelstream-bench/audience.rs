//! Many listeners of a contender, connected at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::contender::Address;
use crate::http::Client;

/// How long everybody waits at the end: servers of several processes answer a handshake before all of
/// them know the listener.
const SETTLING: Duration = Duration::from_millis(200);
/// Requests that are under way at a time while listeners connect.
const CONNECTING: usize = 32;

/// The websocket of one listener, just opened.
#[derive(Debug)]
pub struct Joined {
    /// Which of all.
    pub index: usize,
    /// Its TCP connection.
    pub stream: TcpStream,
    /// What came after the handshake.
    pub rest: Vec<u8>,
}

/// Connects so many listeners, each a user of its own; `channel` says of which channel each is.
///
/// # Errors
/// If one is refused.
pub async fn connect(
    address: &Address,
    listeners: usize,
    channel: impl Fn(usize) -> String + Clone + Send + 'static,
) -> anyhow::Result<Vec<Joined>> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..CONNECTING.min(listeners) {
        let (address, channel, next) = (address.clone(), channel.clone(), next.clone());
        tasks.spawn(async move {
            let mut client = Client::connect(&address.target).await?;
            let mut joined = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= listeners {
                    return anyhow::Ok(joined);
                }
                let user = format!("listener-{index}");
                let (stream, rest) = address.subscribe(&mut client, &channel(index), &user).await?;
                joined.push(Joined { index, stream, rest });
            }
        });
    }
    let mut all = Vec::with_capacity(listeners);
    while let Some(joined) = tasks.join_next().await {
        all.extend(joined.context("a connecting task failed")??);
    }
    tokio::time::sleep(SETTLING).await;
    Ok(all)
}
