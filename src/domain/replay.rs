//! Replay: what a listener that comes back with a cursor has missed, where to read it, and what of
//! it cannot be told any more.

use std::collections::BTreeMap;

use super::names::{ChannelName, ConnectionId, Username};
use super::position::{Cursor, Position};
use super::router::Router;
use super::timestamp::Moment;

/// Where a listener wants to continue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Since {
    /// From as far back as it may go.
    Floors,
    /// After this.
    Cursor(Cursor),
}

/// What is to be read of one channel, or of an inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    /// What the listener has seen.
    pub since: Position,
    /// Nothing at or before this may be shown.
    pub floor: Position,
    /// Whether the channel keeps frames for replay.
    pub is_kept: bool,
}

impl Scope {
    /// Everything after this is read.
    pub fn from(self) -> Position {
        self.since.max(self.floor)
    }
}

/// What is to be read for one listener.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Whose inbox.
    pub user: Username,
    /// Up to here; what comes later, the listener gets live.
    pub head: Position,
    /// Whether the cursor can be trusted; if not, nothing is read.
    pub is_known: bool,
    /// The channels, by name.
    pub channels: BTreeMap<ChannelName, Scope>,
    /// The inbox.
    pub inbox: Scope,
}

/// Why logged events cannot be replayed, in the order in which one is told if several fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GapReason {
    /// The cursor cannot be trusted.
    UnknownCursor,
    /// The channel keeps nothing for replay.
    NotKept,
    /// Some lie at or below the floor.
    Floor,
    /// Retention dropped some.
    Trimmed,
}

/// Logged events of a channel, or of the inbox (no channel), that cannot be replayed.
pub type Gaps = BTreeMap<Option<ChannelName>, GapReason>;

/// A stretch of a channel, or of the inbox (no channel): if the log holds anything there, or did
/// before it was trimmed, that is a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt {
    /// Where.
    pub channel: Option<ChannelName>,
    /// After this.
    pub after: Position,
    /// Up to this.
    pub through: Position,
    /// What it would mean.
    pub reason: GapReason,
}

impl Plan {
    /// The channels to read, each with the position to begin after.
    pub fn reads(&self) -> impl Iterator<Item = (&ChannelName, Position)> {
        let kept = self.channels.iter().filter(|(_, scope)| self.is_known && scope.is_kept);
        kept.map(|(name, scope)| (name, scope.from()))
    }

    /// Where gaps may be, besides those that retention makes.
    pub fn doubts(&self) -> Vec<Doubt> {
        let inbox = std::iter::once((None, &self.inbox));
        let channels = self.channels.iter().map(|(name, scope)| (Some(name.clone()), scope));
        let places = channels.chain(inbox);
        places
            .filter_map(|(channel, scope)| {
                let (after, through, reason) = if !self.is_known {
                    (Position(0), self.head, GapReason::UnknownCursor)
                } else if !scope.is_kept {
                    (scope.since, self.head, GapReason::NotKept)
                } else {
                    (scope.since, scope.floor, GapReason::Floor)
                };
                (after < through).then_some(Doubt { channel, after, through, reason })
            })
            .collect()
    }
}

/// Notes a gap; of several reasons for one place the first in order stays.
pub fn note_gap(gaps: &mut Gaps, place: Option<ChannelName>, reason: GapReason) {
    let known = gaps.entry(place).or_insert(reason);
    *known = reason.min(*known);
}

impl Router {
    /// What the listener of a connection has missed that was logged up to now.
    pub fn plan_replay(&self, id: ConnectionId, since: &Since, moment: Moment) -> Option<Plan> {
        let connection = self.connections.get(&id)?;
        let user = self.users.get(&connection.user)?;
        let resolved = match since {
            Since::Floors => Some(Position(0)),
            Since::Cursor(cursor) => self.resolve(cursor, self.head),
        };
        let from_floors = *since == Since::Floors;
        let scope = |floor: Position, is_kept: bool| {
            let since = if from_floors { floor } else { resolved.unwrap_or_default() };
            Scope { since, floor, is_kept }
        };
        let channels = connection.channels.iter().filter_map(|name| {
            let floor = self.floor(&connection.user, name, moment.utc)?;
            let channel = self.channels.get(name)?;
            Some((name.clone(), scope(floor.position, channel.settings.store_frames)))
        });
        Some(Plan {
            user: connection.user.clone(),
            head: self.head,
            is_known: resolved.is_some(),
            channels: channels.collect(),
            inbox: scope(user.created, true),
        })
    }
}
