//! Replay: what a listener that comes back with a cursor has missed, where to read it, and what of
//! it cannot be told any more.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::frame::Frame;
use super::names::{ChannelName, ConnectionId, Username};
use super::position::{Cursor, Position};
use super::router::Router;
use super::tail::{Entry, Place};
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

/// One page of what a listener has missed.
#[derive(Debug, Default)]
pub struct ReplayPage {
    /// Net effect, in order of position, for whatever audience.
    pub frames: Vec<Frame>,
    /// Whether there is nothing after it.
    pub is_last: bool,
    /// How far retention has gone in each place (no channel: the inbox), in the same snapshot.
    pub trimmed: Vec<(Option<ChannelName>, Position)>,
}

/// What memory says about a page of a plan.
#[derive(Debug)]
pub enum Missed {
    /// The page, and the doubts that are well founded.
    Page(ReplayPage, Vec<Doubt>),
    /// It would know if it had more of these.
    Wanting(Vec<Place>),
    /// Only the store knows.
    Unknown,
}

impl Plan {
    /// The channels to read, each with the position to begin after.
    pub fn reads(&self) -> impl Iterator<Item = (&ChannelName, Position)> {
        let kept = self.channels.iter().filter(|(_, scope)| self.is_known && scope.is_kept);
        kept.map(|(name, scope)| (name, scope.from()))
    }

    /// All places, channels before the inbox, with their scopes.
    pub fn places(&self) -> impl Iterator<Item = (Option<&ChannelName>, &Scope)> {
        let channels = self.channels.iter().map(|(name, scope)| (Some(name), scope));
        channels.chain([(None, &self.inbox)])
    }

    /// Whether anything is read there.
    pub fn reads_from(&self, scope: &Scope) -> bool {
        self.is_known && scope.is_kept
    }

    /// Whatever lies after this and is not read is a gap; and why.
    pub fn gap_after(&self, scope: &Scope) -> (Position, GapReason) {
        match scope {
            _ if !self.is_known => (Position(0), GapReason::UnknownCursor),
            Scope { is_kept: false, since, .. } => (*since, GapReason::NotKept),
            scope => (scope.from(), GapReason::Trimmed),
        }
    }

    /// Where gaps may be, besides those that retention makes. Everything up to `read` was read.
    pub fn doubts(&self, read: Position) -> Vec<Doubt> {
        self.places().filter_map(|(channel, scope)| self.doubt(channel, scope, read)).collect()
    }

    fn doubt(&self, channel: Option<&ChannelName>, scope: &Scope, read: Position) -> Option<Doubt> {
        let (after, through, reason) = match self.gap_after(scope) {
            // A floor may have risen over what was shown already.
            (_, GapReason::Trimmed) => (scope.since.max(read), scope.floor, GapReason::Floor),
            (after, reason) => (after, self.head, reason),
        };
        (after < through).then(|| Doubt { channel: channel.cloned(), after, through, reason })
    }
}

impl Plan {
    /// Looks anew at where it is to be read: the user may have been taken out of channels, or into
    /// more, and floors may be others. Where reading began at a floor, that stays the begin.
    pub fn renew(&mut self, now: Self, since: &Since) {
        let before = std::mem::replace(&mut self.channels, now.channels);
        if *since == Since::Floors {
            for (name, scope) in &mut self.channels {
                scope.since = before.get(name).map_or(scope.since, |before| before.since);
            }
        }
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
            let floor = self.floor_of(user, name, moment.utc)?;
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

    /// The next page of a plan of which everything up to `after` was read, if tails reach back far
    /// enough: what the store would answer at the head.
    pub fn missed_logged(&mut self, plan: &Plan, after: Position, limit: usize, moment: Moment) -> Missed {
        self.use_tails(plan, moment);
        let mut page = ReplayPage::default();
        let mut founded = Vec::new();
        let mut sources = Vec::new();
        let mut wanting = Vec::new();
        for (channel, scope) in plan.places() {
            let place = channel.map_or_else(|| Place::Inbox(plan.user.clone()), |name| Place::Channel(name.clone()));
            let Some(tail) = self.tail(&place) else { return Missed::Unknown };
            let doubt = plan.doubt(channel, scope, after);
            let is_founded = doubt.as_ref().map_or(Some(false), |doubt| tail.holds(doubt.after, doubt.through));
            let is_read = plan.reads_from(scope);
            let (start, _) = plan.gap_after(scope);
            // Where nothing is read, one reason for the gap is enough.
            let reaches = tail.covers(start.max(after)) || !is_read && is_founded == Some(true);
            let (true, Some(is_founded)) = (reaches, is_founded) else {
                if self.tail_wants(&place).is_none() {
                    return Missed::Unknown;
                }
                wanting.push(place);
                continue;
            };
            founded.extend(doubt.filter(|_| is_founded));
            page.trimmed.push((channel.cloned(), tail.trimmed()));
            if is_read {
                let entries = tail.after(start, after).take_while(|entry| entry.position <= plan.head);
                sources.push((channel, entries.peekable()));
            }
        }
        if !wanting.is_empty() {
            return Missed::Wanting(wanting);
        }
        page.frames = merge(sources, limit);
        page.is_last = page.frames.len() < limit;
        Missed::Page(page, founded)
    }

    /// The tails of a plan are used; what is over by now goes from them.
    fn use_tails(&mut self, plan: &Plan, moment: Moment) {
        for name in plan.channels.keys() {
            let Some(channel) = self.channels.get_mut(name) else { continue };
            channel.tail.is_used = true;
            if channel.settings.history_ttl.is_some() {
                let over = channel.settings.over_by(moment.micros());
                self.tails.change(&mut channel.tail, || Place::Channel(name.clone()), |tail| tail.expire(over));
            }
        }
        if let Some(user) = self.users.get_mut(&plan.user) {
            user.tail.is_used = true;
        }
    }
}

/// The first entries of several places, as they are shown, in the order of the log.
fn merge<'a>(
    mut sources: Vec<(Option<&ChannelName>, std::iter::Peekable<impl Iterator<Item = &'a Entry>>)>,
    limit: usize,
) -> Vec<Frame> {
    let mut frames = Vec::new();
    let first = |(index, (_, entries)): (usize, &mut (_, std::iter::Peekable<_>))| {
        entries.peek().map(|entry: &&Entry| Reverse((entry.position, index)))
    };
    let mut next: BinaryHeap<Reverse<(Position, usize)>> = sources.iter_mut().enumerate().filter_map(first).collect();
    while frames.len() < limit
        && let Some(Reverse((_, index))) = next.pop()
    {
        let (channel, entries) = &mut sources[index];
        frames.extend(entries.next().map(|entry| entry.frame(*channel)));
        next.extend(entries.peek().map(|entry| Reverse((entry.position, index))));
    }
    frames
}
