//! Frames: what is put before a listener, and the recent ones that memory still holds.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};

use chrono::NaiveDateTime;
use uuid::Uuid;

use super::message::{Audience, Body, Deletion, Edit, Message};
use super::names::{ChannelName, Username};
use super::position::Position;
use super::state::{Change, Profile};

/// The place of a frame in the order in which this process showed things; 0 is before all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(pub u64);

/// One thing put before a listener. A clone shares the contents.
#[derive(Debug, Clone)]
pub enum Frame {
    /// Something was said.
    Message {
        /// Where it is logged, if it is.
        position: Option<Position>,
        /// What was said.
        message: Arc<Message>,
    },
    /// A message changed.
    Edit {
        /// Where the edit is logged, if it is.
        position: Option<Position>,
        /// What changed.
        edit: Arc<Edit>,
        /// Who may see it: the message's audience where that is known.
        audience: Arc<Audience>,
    },
    /// A message is gone.
    Deletion {
        /// Where the deletion is logged, if it is.
        position: Option<Position>,
        /// Which message.
        deletion: Arc<Deletion>,
        /// Who may see it: the message's audience where that is known.
        audience: Arc<Audience>,
    },
    /// A user came or went.
    Presence(Arc<Presence>),
    /// A user's public state changed.
    StateChange(Arc<StateChange>),
}

/// A user came into a channel or left it; every member but that user is told.
#[derive(Debug)]
pub struct Presence {
    /// The frame's identity.
    pub uuid: Uuid,
    /// Where.
    pub channel: ChannelName,
    /// Who.
    pub user: Username,
    /// The public state of who joined; none for who parted.
    pub joined: Option<Profile>,
    /// All members afterwards, where the channel's settings ask for them.
    pub members: Vec<(Username, Profile)>,
    /// When.
    pub time: NaiveDateTime,
}

/// Public keys of a user's state changed; the members of a channel are told.
#[derive(Debug)]
pub struct StateChange {
    /// The frame's identity.
    pub uuid: Uuid,
    /// Where it is told.
    pub channel: ChannelName,
    /// Whose state.
    pub user: Username,
    /// The state afterwards.
    pub profile: Profile,
    /// The public keys that changed.
    pub changed: Arc<[Change]>,
    /// When.
    pub time: NaiveDateTime,
}

impl Frame {
    /// An edit as it is shown late: all that the message says now.
    pub fn late_edit(position: Position, message: &Message) -> Self {
        let edit = Edit {
            uuid: message.uuid,
            channel: message.channel.clone(),
            sender: Some(message.sender.clone()),
            body: message.body.clone(),
            timestamp: Some(message.timestamp),
            edited: message.edited.unwrap_or(message.timestamp),
            audience: Audience::default(),
            no_history: false,
        };
        Self::Edit { position: Some(position), edit: edit.into(), audience: message.audience.clone().into() }
    }

    /// Where it is shown; none: to users.
    pub fn channel(&self) -> Option<&ChannelName> {
        match self {
            Self::Message { message, .. } => message.channel.as_ref(),
            Self::Edit { edit, .. } => edit.channel.as_ref(),
            Self::Deletion { deletion, .. } => deletion.channel.as_ref(),
            Self::Presence(presence) => Some(&presence.channel),
            Self::StateChange(change) => Some(&change.channel),
        }
    }

    /// Where it is logged, if it is.
    pub fn position(&self) -> Option<Position> {
        match self {
            Self::Message { position, .. } | Self::Edit { position, .. } | Self::Deletion { position, .. } => *position,
            Self::Presence(_) | Self::StateChange(_) => None,
        }
    }

    /// Whether nobody among the members is left out.
    pub fn is_for_everyone(&self) -> bool {
        !matches!(self, Self::Presence(_)) && self.audience().is_everyone()
    }

    /// Whether `user`, a member, may see it.
    pub fn admits(&self, user: &Username) -> bool {
        match self {
            Self::Presence(presence) => presence.user != *user,
            _ => self.audience().admits(user),
        }
    }

    /// Who may see it, of the members or of the users it is meant for.
    pub fn audience(&self) -> &Audience {
        static EVERYONE: LazyLock<Audience> = LazyLock::new(Audience::default);
        match self {
            Self::Message { message, .. } => &message.audience,
            Self::Edit { audience, .. } | Self::Deletion { audience, .. } => audience,
            Self::Presence(_) | Self::StateChange(_) => &EVERYONE,
        }
    }

    /// The message that it shows or changes, if any.
    fn content_of(&self) -> Option<Uuid> {
        match self {
            Self::Message { message, .. } => Some(message.uuid),
            Self::Edit { edit, .. } => Some(edit.uuid),
            Self::Deletion { .. } | Self::Presence(_) | Self::StateChange(_) => None,
        }
    }

    /// About how many bytes it keeps alive.
    fn weight(&self) -> usize {
        /// What each frame and each name in a list takes besides its text.
        const FIXED: usize = 256;
        const NAME: usize = 64;
        let body = |body: Option<&Body>| body.map_or(0, |body| body.get().len());
        let names = (self.audience().only.len() + self.audience().except.len()) * NAME;
        let content = match self {
            Self::Message { message, .. } => body(message.body.as_ref()),
            Self::Edit { edit, .. } => body(edit.body.as_ref()),
            Self::Deletion { .. } => 0,
            Self::Presence(presence) => {
                presence.members.iter().map(|(_, profile)| NAME + profile.public_bytes()).sum::<usize>()
            }
            Self::StateChange(change) => change.profile.public_bytes(),
        };
        FIXED + names + content
    }
}

/// Most bytes of frames that memory holds for one channel or user; the newest frame always stays.
const MAX_BYTES: usize = 256 * 1024;

/// A frame that memory holds.
#[derive(Debug)]
struct Recent {
    tick: Tick,
    /// When it was shown, in microseconds since 1970.
    at: i64,
    /// See [`Frame::weight`]: whoever counts need not look at what it shares with others.
    weight: usize,
    frame: Frame,
}

/// The newest frames of a channel or of a user's inbox, for listeners that come back: bounded in
/// count and bytes, oldest first.
#[derive(Debug)]
pub struct RecentFrames {
    frames: VecDeque<Recent>,
    bytes: usize,
    max_count: usize,
}

impl RecentFrames {
    /// Holds at most `max_count` frames.
    pub fn new(max_count: usize) -> Self {
        Self { frames: VecDeque::new(), bytes: 0, max_count }
    }

    /// Adds the newest frame, shown at a time (microseconds since 1970); the oldest go where a limit is passed.
    pub fn push(&mut self, tick: Tick, at: i64, frame: Frame) {
        let weight = frame.weight();
        self.bytes += weight;
        self.frames.push_back(Recent { tick, at, weight, frame });
        while self.frames.len() > self.max_count || self.bytes > MAX_BYTES && self.frames.len() > 1 {
            if let Some(oldest) = self.frames.pop_front() {
                self.bytes -= oldest.weight;
            }
        }
    }

    /// Frames later than `seen`, oldest first.
    pub fn after(&self, seen: Tick) -> impl Iterator<Item = &Frame> {
        let start = self.frames.partition_point(|recent| recent.tick <= seen);
        self.frames.range(start..).map(|recent| &recent.frame)
    }

    /// The message of that uuid, if its frame is still held.
    pub fn message(&self, uuid: Uuid) -> Option<&Arc<Message>> {
        self.frames.iter().rev().find_map(|recent| match &recent.frame {
            Frame::Message { message, .. } if message.uuid == uuid => Some(message),
            _ => None,
        })
    }

    /// Shows the message as it is now to whoever comes back.
    pub fn replace(&mut self, changed: &Arc<Message>) {
        for recent in &mut self.frames {
            if let Frame::Message { message, .. } = &mut recent.frame
                && message.uuid == changed.uuid
            {
                *message = changed.clone();
                let before = std::mem::replace(&mut recent.weight, recent.frame.weight());
                self.bytes = self.bytes + recent.weight - before;
            }
        }
    }

    /// Takes the message back, with its edits.
    pub fn remove(&mut self, uuid: Uuid) {
        self.retain(|recent| recent.frame.content_of() != Some(uuid));
    }

    /// Forgets messages and edits that were shown up to a time (microseconds since 1970).
    pub fn expire(&mut self, through: i64) {
        self.retain(|recent| recent.at > through || recent.frame.content_of().is_none());
    }

    fn retain(&mut self, stays: impl Fn(&Recent) -> bool) {
        let bytes = &mut self.bytes;
        self.frames.retain(|recent| {
            let stays = stays(recent);
            if !stays {
                *bytes -= recent.weight;
            }
            stays
        });
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.frames.clear();
        self.bytes = 0;
    }
}
