//! The tail of a place: the newest part of what the log holds of one channel or one inbox, so that
//! those who come back at the same time need no store. It mirrors what the store does to the log;
//! where it cannot know exactly what that is, it reaches less far back.

use std::collections::VecDeque;
use std::sync::Arc;

use uuid::Uuid;

use super::event::Original;
use super::frame::Frame;
use super::history::{Logged, Retained};
use super::message::{Audience, Deletion, Message};
use super::names::{ChannelName, Username};
use super::position::Position;

/// What has a tail.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// A channel.
    Channel(ChannelName),
    /// A user's inbox.
    Inbox(Username),
}

/// What an entry of the log says.
#[derive(Debug, Clone)]
pub enum Said {
    /// A message, with its present content.
    Message(Arc<Message>),
    /// A message changed.
    Edit {
        /// Where the message is.
        about: Position,
        /// When the message was committed, in microseconds since 1970.
        posted: i64,
        /// Its present content.
        message: Arc<Message>,
    },
    /// A message is gone.
    Deletion {
        /// Which.
        uuid: Uuid,
        /// Where it was, if it ever was in the log.
        about: Option<Position>,
        /// Who may see that it is gone.
        audience: Arc<Audience>,
    },
}

/// An entry of the log.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Where it is.
    pub position: Position,
    /// When it was committed, in microseconds since 1970.
    pub committed: i64,
    /// What it says.
    pub said: Said,
}

impl Entry {
    /// As it is shown to someone who comes back. `channel`: where; none: in an inbox.
    pub fn frame(&self, channel: Option<&ChannelName>) -> Frame {
        let position = Some(self.position);
        match &self.said {
            Said::Message(message) => Frame::Message { position, message: message.clone() },
            Said::Edit { message, .. } => Frame::late_edit(self.position, message),
            Said::Deletion { uuid, audience, .. } => {
                let channel = channel.cloned();
                let deletion = Deletion { uuid: *uuid, channel, audience: Audience::default(), no_history: false };
                Frame::Deletion { position, deletion: deletion.into(), audience: audience.clone() }
            }
        }
    }

    /// Where the message was that it changes, if the log ever held it.
    fn about(&self) -> Option<Position> {
        match &self.said {
            Said::Message(_) => None,
            Said::Edit { about, .. } => Some(*about),
            Said::Deletion { about, .. } => *about,
        }
    }

    /// Whether retention drops it together with all that was posted up to a position.
    fn goes_with(&self, all: Position) -> bool {
        self.position <= all || matches!(self.said, Said::Edit { about, .. } if about <= all)
    }

    /// Whether it goes once what was committed up to a time does.
    fn is_over(&self, through: i64) -> bool {
        self.committed <= through || matches!(self.said, Said::Edit { posted, .. } if posted <= through)
    }

    /// About how many bytes it keeps alive.
    fn weight(&self) -> usize {
        /// What each entry and each name in a list takes besides the body.
        const FIXED: usize = 256;
        const NAME: usize = 64;
        let (audience, body) = match &self.said {
            Said::Message(message) | Said::Edit { message, .. } => (&message.audience, message.body.as_ref()),
            Said::Deletion { audience, .. } => (&**audience, None),
        };
        let names = audience.only.len() + audience.except.len();
        FIXED + names * NAME + body.map_or(0, |body| body.get().len())
    }
}

/// How far back a tail reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// It has all that the log holds of its place.
    Whole {
        /// The highest position there that is gone by retention or deletion of the place.
        trimmed: Position,
    },
    /// It has all that the log holds after this, and nothing after this was trimmed.
    After(Position),
}

/// See the module.
#[derive(Debug)]
pub struct Tail {
    /// In the order of the log.
    entries: VecDeque<Entry>,
    reach: Reach,
    bytes: usize,
    messages: usize,
    deletions: usize,
    /// There is no room for what lies before it.
    is_full: bool,
    /// It was used since this was last looked at.
    pub(super) is_used: bool,
    /// It is among those that may have to go.
    pub(super) is_listed: bool,
}

impl Default for Tail {
    /// A tail of a place of which nothing is known.
    fn default() -> Self {
        Self::of(Reach::After(Position(u64::MAX)))
    }
}

/// The newest part of what the log holds of a place up to some position, as the store reads it.
#[derive(Debug, Default, Clone)]
pub struct TailPart {
    /// Entries in the order of the log.
    pub entries: Vec<Entry>,
    /// Whether the log holds older ones.
    pub has_older: bool,
    /// The highest position that retention dropped there.
    pub trimmed: Position,
}

impl Tail {
    /// A tail of a place of which the log holds nothing. `trimmed`: the highest position that
    /// retention dropped there.
    pub fn whole(trimmed: Position) -> Self {
        Self::of(Reach::Whole { trimmed })
    }

    fn of(reach: Reach) -> Self {
        Self {
            entries: VecDeque::new(),
            reach,
            bytes: 0,
            messages: 0,
            deletions: 0,
            is_full: false,
            is_used: false,
            is_listed: false,
        }
    }

    /// The log ends here: whatever comes will be pushed.
    pub fn begin(&mut self, head: Position) {
        if let Reach::After(from) = &mut self.reach {
            *from = head.min(*from);
        }
    }

    // What it can answer.

    /// Whether it has all that the log holds after a position, and knows what was trimmed after it.
    pub fn covers(&self, position: Position) -> bool {
        match self.reach {
            Reach::Whole { .. } => true,
            Reach::After(from) => from <= position,
        }
    }

    /// Up to where entries are wanted that the log may hold before it; none: it has all, or no room.
    pub fn wants(&self) -> Option<Position> {
        match self.reach {
            Reach::After(from) if !self.is_full => Some(from),
            Reach::After(_) | Reach::Whole { .. } => None,
        }
    }

    /// The highest position that was trimmed; 0 if it is somewhere before what it covers.
    pub fn trimmed(&self) -> Position {
        match self.reach {
            Reach::Whole { trimmed } => trimmed,
            Reach::After(_) => Position(0),
        }
    }

    /// Whether the log holds anything of a stretch, or did before it was trimmed; none: not known.
    pub fn holds(&self, after: Position, through: Position) -> Option<bool> {
        let next = self.entries.get(self.index_after(after));
        if next.is_some_and(|entry| entry.position <= through) {
            return Some(true);
        }
        match self.reach {
            Reach::Whole { trimmed } => Some(trimmed > after && trimmed <= through),
            Reach::After(from) => (from <= after).then_some(false),
        }
    }

    /// What it has after `after`, for someone who has seen everything up to `seen`: edits and
    /// deletions of what that one has not seen are left out.
    pub fn after(&self, seen: Position, after: Position) -> impl Iterator<Item = &Entry> {
        let later = self.entries.range(self.index_after(after.max(seen))..);
        later.filter(move |entry| entry.about().is_none_or(|about| about <= seen))
    }

    /// Whether the log holds something at a position; none: not known.
    pub fn has(&self, position: Position) -> Option<bool> {
        if self.index(position).is_some() {
            return Some(true);
        }
        match self.reach {
            Reach::Whole { .. } => Some(false),
            Reach::After(from) => (from < position).then_some(false),
        }
    }

    /// About how many bytes it keeps alive.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it has no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    // What happens to the log.

    /// Something was said.
    pub fn post(&mut self, position: Position, committed: i64, message: Arc<Message>) {
        self.push_back(Entry { position, committed, said: Said::Message(message) });
    }

    /// A message has another content. `original`: as the log held it.
    pub fn edit(&mut self, position: Position, committed: i64, original: &Logged, message: &Arc<Message>) {
        if let Some(earlier) = original.edit {
            self.remove(earlier);
        }
        let Logged { position: about, committed: posted, .. } = *original;
        if let Some(index) = self.index(about) {
            let entry = &mut self.entries[index];
            self.bytes -= entry.weight();
            entry.said = Said::Message(message.clone());
            self.bytes += entry.weight();
        }
        self.push_back(Entry { position, committed, said: Said::Edit { about, posted, message: message.clone() } });
    }

    /// A message is gone. `original`: what the log held of it; `entry`: that it is gone.
    pub fn delete(&mut self, original: Option<&Original>, entry: Entry) {
        let is_over = original.is_some_and(|original| self.has(original.position) == Some(false));
        if let Some(original) = original {
            self.remove(original.position);
            original.edit.into_iter().for_each(|edit| self.remove(edit));
        }
        let position = entry.position;
        self.push_back(entry);
        if is_over {
            // What was past its time counted as trimmed, and is only deleted now.
            self.raise(position);
        }
    }

    /// The log keeps only so many of the newest entries.
    pub fn trim(&mut self, keep: Retained) {
        let messages = self.nth_oldest(self.messages.saturating_sub(keep.messages as usize), Entry::is_message);
        let deletions = self.nth_oldest(self.deletions.saturating_sub(keep.deletions as usize), Entry::is_deletion);
        let goes = |entry: &Entry, all: Position| {
            entry.goes_with(all) || entry.is_deletion() && Some(entry.position) <= deletions
        };
        match (self.reach, messages) {
            // All that is left is after that message, so that it is here.
            (Reach::After(_), Some(all)) => {
                let trimmed = self.drop_all(|entry| goes(entry, all)).unwrap_or(all);
                self.reach = Reach::Whole { trimmed };
            }
            (Reach::Whole { trimmed }, all) => {
                let gone = self.drop_all(|entry| goes(entry, all.unwrap_or_default()));
                self.reach = Reach::Whole { trimmed: trimmed.max(gone.unwrap_or_default()) };
            }
            // Of the messages before it, and with them their edits, any may go.
            (Reach::After(from), None) => {
                let gone = self.entries.iter().rev().find(|entry| goes(entry, from)).map(|entry| entry.position);
                self.raise(gone.unwrap_or_default());
            }
        }
    }

    /// What was committed up to a time (microseconds since 1970) is gone, or counts as gone.
    pub fn expire(&mut self, through: i64) {
        let has_edits = self.entries.len() > self.messages + self.deletions;
        if !has_edits && self.entries.front().is_none_or(|oldest| oldest.committed > through) {
            return;
        }
        let Some(gone) = self.drop_all(|entry| entry.is_over(through)) else { return };
        match &mut self.reach {
            Reach::Whole { trimmed } => *trimmed = gone.max(*trimmed),
            Reach::After(_) => self.raise(gone),
        }
    }

    /// It is not known any more what the log holds up to a position.
    pub fn raise(&mut self, to: Position) {
        let from = match self.reach {
            Reach::Whole { trimmed } => trimmed.max(to),
            Reach::After(from) if to <= from => return,
            Reach::After(_) => to,
        };
        self.reach = Reach::After(from);
        self.is_full = false;
        self.drop_through(from);
    }

    /// The oldest entries go until it is no larger than this.
    pub fn cut(&mut self, bytes: usize) {
        while self.bytes > bytes
            && let Some(oldest) = self.entries.front()
        {
            self.raise(oldest.position);
            self.is_full = true;
        }
    }

    /// Takes in what the log holds before it, if it still begins where that ends. `known`: the
    /// message at a position, where memory holds it anyway.
    pub fn extend(&mut self, before: Position, part: TailPart, known: impl Fn(Position) -> Option<Arc<Message>>) {
        if self.reach != Reach::After(before) {
            return;
        }
        let TailPart { entries, has_older, trimmed } = part;
        self.reach = match entries.first() {
            _ if !has_older => Reach::Whole { trimmed },
            Some(oldest) => Reach::After(trimmed.max(Position(oldest.position.0.saturating_sub(1)))),
            None => Reach::After(before),
        };
        self.is_full = has_older;
        for mut entry in entries.into_iter().rev() {
            if let (Said::Message(message), Some(known)) = (&mut entry.said, known(entry.position)) {
                *message = known;
            }
            self.count(&entry, true);
            self.entries.push_front(entry);
        }
        if let Reach::After(from) = self.reach {
            self.drop_through(from);
        }
        self.share();
    }

    /// Edits show the content that their messages hold.
    fn share(&mut self) {
        for index in 0..self.entries.len() {
            if let Said::Edit { about, .. } = self.entries[index].said
                && let Some(Said::Message(shared)) = self.index(about).map(|at| self.entries[at].said.clone())
                && let Said::Edit { message, .. } = &mut self.entries[index].said
            {
                *message = shared;
            }
        }
    }

    fn push_back(&mut self, entry: Entry) {
        self.count(&entry, true);
        self.entries.push_back(entry);
    }

    fn remove(&mut self, position: Position) {
        if let Some(entry) = self.index(position).and_then(|index| self.entries.remove(index)) {
            self.count(&entry, false);
        }
    }

    /// Drops entries; says where the last of them was.
    fn drop_all(&mut self, goes: impl Fn(&Entry) -> bool) -> Option<Position> {
        let last = self.entries.iter().rev().find(|entry| goes(entry))?.position;
        for entry in std::mem::take(&mut self.entries) {
            if goes(&entry) {
                self.count(&entry, false);
            } else {
                self.entries.push_back(entry);
            }
        }
        Some(last)
    }

    fn drop_through(&mut self, position: Position) {
        while self.entries.front().is_some_and(|oldest| oldest.position <= position)
            && let Some(oldest) = self.entries.pop_front()
        {
            self.count(&oldest, false);
        }
    }

    fn count(&mut self, entry: &Entry, comes: bool) {
        let change = |count: &mut usize, by| *count = if comes { *count + by } else { *count - by };
        change(&mut self.bytes, entry.weight());
        change(&mut self.messages, usize::from(entry.is_message()));
        change(&mut self.deletions, usize::from(entry.is_deletion()));
    }

    /// Where the entry of a kind is that so many, with itself, are not newer than.
    fn nth_oldest(&self, count: usize, is_of_kind: fn(&Entry) -> bool) -> Option<Position> {
        let before = count.checked_sub(1)?;
        self.entries.iter().filter(|entry| is_of_kind(entry)).nth(before).map(|entry| entry.position)
    }

    fn index(&self, position: Position) -> Option<usize> {
        self.entries.binary_search_by_key(&position, |entry| entry.position).ok()
    }

    fn index_after(&self, position: Position) -> usize {
        self.entries.partition_point(|entry| entry.position <= position)
    }
}

impl Entry {
    fn is_message(&self) -> bool {
        matches!(self.said, Said::Message(_))
    }

    fn is_deletion(&self) -> bool {
        matches!(self.said, Said::Deletion { .. })
    }
}
