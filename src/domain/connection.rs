//! A connection: what the application gave a browser to listen with.

use std::collections::BTreeSet;
use std::time::Duration;

use smallvec::SmallVec;

use super::frame::Tick;
use super::names::{ChannelName, ConnectionId, ListenerId, Username};

/// Connections of one user, in the order in which they came. Nearly everybody has one.
pub type Connections = SmallVec<[ConnectionId; 1]>;

/// A connection that is known.
#[derive(Debug)]
pub struct Connection {
    /// Whose it is.
    pub user: Username,
    /// The channels it is a member of, in name order.
    pub channels: BTreeSet<ChannelName>,
    /// Its open socket or poll, if any.
    pub listener: Option<ListenerId>,
    /// What it was sent, up to the last time it listened.
    pub seen: Tick,
    /// When it is over unless it listens again; none while it listens, unless it was told to go.
    pub expires: Option<Duration>,
    /// Whether the client said that it is done: then listening again does not keep it.
    pub dismissed: bool,
    /// How often it was opened, and since when that is counted.
    pub opened: (Duration, u32),
}
