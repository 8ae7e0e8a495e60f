//! Bringing the connections that were alive at the stop back into memory, with all they refer to.

use std::collections::BTreeMap;

use hashbrown::HashSet;

use crate::clock::Clock;
use crate::domain::frame::Frame;
use crate::domain::names::{ChannelName, Username};
use crate::domain::position::Position;
use crate::domain::router::Router;
use crate::store::{ReplayQuery, Store, StoreError, StoredConnection};

/// Connections restored in one go.
const PAGE: usize = 500;

/// Channels read in one go, with their histories.
const CHANNELS: usize = 100;

/// Reads all connections from the store.
///
/// # Errors
/// If it cannot be read.
pub async fn restore(router: &mut Router, store: &dyn Store, clock: &Clock) -> Result<(), StoreError> {
    let connections = store.connections().await?;
    for page in connections.chunks(PAGE) {
        let users: HashSet<Username> =
            page.iter().map(|connection| connection.user.clone()).filter(|user| !router.knows_user(user)).collect();
        let channels: HashSet<ChannelName> = page
            .iter()
            .flat_map(|connection| connection.channels.iter().cloned())
            .filter(|channel| !router.knows_channel(channel))
            .collect();
        let mut stored = store.users(&users).await?;
        let moment = clock.now();
        for name in &users {
            router.load_user(name, stored.remove(name), moment);
        }
        let channels: Vec<ChannelName> = channels.into_iter().collect();
        for names in channels.chunks(CHANNELS) {
            let mut stored = store.channels(&names.iter().cloned().collect()).await?;
            for name in names {
                router.load_channel(name, stored.remove(name), moment);
            }
        }
        for connection in page {
            router.restore(connection.id, &connection.user, &connection.channels, moment);
        }
    }
    recall(router, store, clock, &connections).await
}

/// Reads what listeners without a cursor may have missed.
async fn recall(
    router: &mut Router,
    store: &dyn Store,
    clock: &Clock,
    connections: &[StoredConnection],
) -> Result<(), StoreError> {
    let mut channels: BTreeMap<&ChannelName, Position> = BTreeMap::new();
    let mut inboxes: BTreeMap<&Username, Position> = BTreeMap::new();
    for connection in connections {
        let earliest = |from: &mut Position| *from = connection.head.min(*from);
        for name in &connection.channels {
            if router.channel(name).is_some_and(|channel| !channel.retained.is_empty()) {
                earliest(channels.entry(name).or_insert(connection.head));
            }
        }
        if router.user(&connection.user).is_some_and(|user| !user.retained.is_empty()) {
            earliest(inboxes.entry(&connection.user).or_insert(connection.head));
        }
    }
    let mut frames = Vec::new();
    let channels: Vec<(&ChannelName, Position)> = channels.into_iter().collect();
    if let Some(anybody) = connections.first() {
        for page in channels.chunks(PAGE) {
            let found = read(store, clock, router.head(), &anybody.user, page.to_vec(), LAST).await?;
            frames.extend(found.into_iter().map(|frame| (frame, None)));
        }
    }
    for (user, from) in inboxes {
        let found = read(store, clock, router.head(), user, Vec::new(), from).await?;
        frames.extend(found.into_iter().map(|frame| (frame, Some(user.clone()))));
    }
    let heads: Vec<_> = connections.iter().map(|connection| (connection.id, connection.head)).collect();
    router.recall(frames, &heads, clock.now());
    Ok(())
}

/// After every position that there can be.
const LAST: Position = Position(i64::MAX as u64);
/// Entries read in one go.
const ENTRIES: u32 = 1_000;

async fn read(
    store: &dyn Store,
    clock: &Clock,
    head: Position,
    user: &Username,
    channels: Vec<(&ChannelName, Position)>,
    inbox: Position,
) -> Result<Vec<Frame>, StoreError> {
    let at = clock.now().utc;
    let mut frames: Vec<Frame> = Vec::new();
    loop {
        let after = frames.last().and_then(Frame::position).unwrap_or_default();
        let channels = channels.clone();
        let query =
            ReplayQuery { user, channels, inbox, after, through: head, at, limit: ENTRIES, max_bytes: u32::MAX };
        let page = store.replay(&query).await?;
        frames.extend(page.frames);
        if page.is_last {
            return Ok(frames);
        }
    }
}
