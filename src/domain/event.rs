//! Events: what was decided. The one vocabulary between deciding, keeping and showing: operations
//! decide events, the store keeps those that last, the router applies them all.

use std::sync::Arc;

use chrono::NaiveDateTime;
use uuid::Uuid;

use super::history::{Logged, Retained};
use super::message::{Audience, Deletion, Edit, Message};
use super::names::{ChannelName, ConnectionId, Username};
use super::position::Position;
use super::settings::ChannelSettings;
use super::state::{Change, Profile};

/// One fact. Those with a position are *logged*; [`Event::StateChanged`], and the others without
/// one, are *ephemeral*; all else is *kept*.
#[derive(Debug, Clone)]
pub enum Event {
    /// A channel is there, with these settings; new or changed.
    ChannelKept {
        /// Its name.
        name: ChannelName,
        /// Its identity.
        uuid: Uuid,
        /// All of its settings.
        settings: ChannelSettings,
    },
    /// A user is there, with this state; new or changed.
    UserKept {
        /// Its name.
        name: Username,
        /// Its identity.
        uuid: Uuid,
        /// All of its state.
        profile: Profile,
    },
    /// Public keys of a user's state changed; its channels may be told.
    StateChanged {
        /// Whose state.
        user: Username,
        /// The public keys that changed.
        changed: Arc<[Change]>,
    },
    /// The application let a listener in, for the first time or again.
    ConnectionOpened {
        /// The connection's id.
        id: ConnectionId,
        /// Whose it is.
        user: Username,
    },
    /// A connection is over, with all its subscriptions.
    ConnectionEnded {
        /// Which.
        id: ConnectionId,
    },
    /// A connection became a member of a channel.
    Subscribed {
        /// Which connection.
        id: ConnectionId,
        /// Which channel.
        channel: ChannelName,
    },
    /// A connection is no member any more.
    Unsubscribed {
        /// Which connection.
        id: ConnectionId,
        /// Which channel.
        channel: ChannelName,
    },
    /// A user's floor in a channel is put somewhere by the application.
    FloorSet {
        /// Whose.
        user: Username,
        /// In which channel.
        channel: ChannelName,
        /// Where.
        position: Position,
    },
    /// A user was away from a channel for too long.
    FloorEnded {
        /// Whose.
        user: Username,
        /// In which channel.
        channel: ChannelName,
    },
    /// All floors end that were left before a time.
    FloorsExpired {
        /// When.
        left_before: NaiveDateTime,
    },
    /// Something was said.
    Posted {
        /// Where it is logged, if it is.
        position: Option<Position>,
        /// What was said.
        message: Arc<Message>,
        /// The known users it is meant for, if it is private.
        inboxes: Vec<Username>,
    },
    /// A message changed.
    Edited {
        /// Where the edit is logged, if it is.
        position: Option<Position>,
        /// What was asked for.
        edit: Arc<Edit>,
        /// Who may see it.
        audience: Arc<Audience>,
        /// The message that changed as the log held it, if it did.
        original: Option<Logged>,
        /// The message afterwards, if it is known.
        message: Option<Arc<Message>>,
    },
    /// A message is gone.
    Deleted {
        /// Where the deletion is logged, if it is.
        position: Option<Position>,
        /// What was asked for.
        deletion: Arc<Deletion>,
        /// Who may see it.
        audience: Arc<Audience>,
        /// What goes from the log, if it holds anything: the message, or its earlier deletion.
        original: Option<Original>,
        /// Where the message was logged, if it ever was.
        about: Option<Position>,
    },
    /// The log keeps only the newest entries of a channel.
    ChannelTrimmed {
        /// Which channel.
        channel: ChannelName,
        /// How many stay at most.
        keep: Retained,
    },
    /// What a channel's log has from before a time is over.
    ChannelExpired {
        /// Which channel.
        channel: ChannelName,
        /// Entries committed at or before this, in microseconds since 1970.
        through: i64,
    },
    /// The log keeps only the newest private messages of a user.
    InboxTrimmed {
        /// Whose.
        user: Username,
        /// How many stay at most.
        keep: Retained,
    },
    /// A user is no more: no state, no inbox, no floors. Its connections have ended.
    UserForgotten {
        /// Who.
        name: Username,
    },
    /// A channel is no more: no settings, no log, no members, no floors.
    ChannelForgotten {
        /// Which.
        name: ChannelName,
    },
}

/// Where the log holds what a deletion is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Original {
    /// The message, or its earlier deletion.
    pub position: Position,
    /// The message's latest edit.
    pub edit: Option<Position>,
}

impl Event {
    /// Where it is logged, if it is.
    pub fn position(&self) -> Option<Position> {
        match self {
            Self::Posted { position, .. } | Self::Edited { position, .. } | Self::Deleted { position, .. } => *position,
            _ => None,
        }
    }

    /// Whether the store has anything to do with it.
    pub fn is_durable(&self) -> bool {
        match self {
            Self::Posted { position, .. } | Self::Edited { position, .. } | Self::Deleted { position, .. } => {
                position.is_some()
            }
            Self::StateChanged { .. } => false,
            _ => true,
        }
    }
}
