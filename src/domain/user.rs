//! A user in memory: state, connections, recent private frames.

use std::time::Duration;

use chrono::NaiveDateTime;
use hashbrown::HashMap;
use uuid::Uuid;

use super::connection::Connections;
use super::frame::RecentFrames;
use super::history::Retained;
use super::names::ChannelName;
use super::position::{Cursor, Position};
use super::state::Profile;
use super::tail::Tail;

/// Private messages kept per user, in memory and in the log. Source: the stock server.
pub const INBOX_SIZE: u32 = 50;

/// How far back a user may replay a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    /// Nothing at or before this position.
    pub position: Position,
    /// When the user's last connection left the channel; none: one is there.
    pub left: Option<NaiveDateTime>,
}

/// Where the application puts floors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FloorAt {
    /// Before everything.
    Earliest,
    /// After what a cursor covers.
    Cursor(Cursor),
    /// After what was committed by a time, in UTC.
    Time(NaiveDateTime),
}

/// A user that is in memory.
#[derive(Debug)]
pub struct User {
    /// Its identity.
    pub uuid: Uuid,
    /// Its state and which of it is public.
    pub profile: Profile,
    /// All of its connections.
    pub connections: Connections,
    /// Recent private frames, for listeners that come back.
    pub recent: RecentFrames,
    /// What the log holds for it.
    pub retained: Retained,
    /// The newest part of that.
    pub tail: Tail,
    /// Its floors, by channel: those it is in, and those it left not long ago; also some in channels
    /// that were forgotten since its floors were looked through.
    pub floors: HashMap<ChannelName, Floor>,
    /// How many channels had been forgotten when its floors were last looked through.
    pub looked_through: u64,
    /// The head when it was created: the floor of its inbox.
    pub created: Position,
    /// When it was last active.
    pub last_active: NaiveDateTime,
    /// When it was last needed, for leaving memory.
    pub used: Duration,
}

impl User {
    /// A user without connections.
    pub fn new(uuid: Uuid, profile: Profile, last_active: NaiveDateTime) -> Self {
        Self {
            uuid,
            profile,
            connections: Connections::new(),
            recent: RecentFrames::new(INBOX_SIZE as usize),
            retained: Retained::default(),
            tail: Tail::default(),
            floors: HashMap::new(),
            looked_through: 0,
            created: Position::default(),
            last_active,
            used: Duration::ZERO,
        }
    }

    /// Whether its inbox is worth trimming.
    pub fn is_overfull(&self) -> bool {
        self.retained.exceeds(INBOX_SIZE)
    }
}
