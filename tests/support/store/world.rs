//! What a store must give back: a naive model in memory that turns operations into events, as the
//! router would decide them, and remembers what they leave behind. It knows no engine, and it is
//! meant to be obviously right rather than fast.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use channelstream::domain::channel::{Channel, Logged, Retained};
use channelstream::domain::draft::Held;
use channelstream::domain::event::{Event, Original};
use channelstream::domain::message::{Audience, Deletion, Edit, Message};
use channelstream::domain::names::{ChannelName, ConnectionId, Username};
use channelstream::domain::position::Position;
use channelstream::domain::settings::ChannelSettings;
use channelstream::domain::state::Profile;
use channelstream::domain::tail::{self, Place, Said, TailPart};
use channelstream::domain::timestamp::from_micros;
use channelstream::domain::user::User;
use channelstream::store::{HistoryQuery, StoreTotals, StoredConnection};
use chrono::NaiveDateTime;
use uuid::Uuid;

/// When batch number `batch` is decided: seconds apart, and with a microsecond that must not get lost.
pub fn clock(batch: i64) -> NaiveDateTime {
    from_micros(1_600_000_000_000_001) + Duration::from_secs(batch as u64)
}

pub fn micros(time: NaiveDateTime) -> i64 {
    time.and_utc().timestamp_micros()
}

/// All that is stored.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// Position of the newest logged event.
    pub head: Position,
    /// The head that the batch that is being built stands on.
    before: Position,
    /// How many batches there were.
    pub batches: i64,
    /// In the order of creation.
    pub channels: Vec<(ChannelName, KeptChannel)>,
    pub users: BTreeMap<Username, KeptUser>,
    pub connections: BTreeMap<ConnectionId, (Username, BTreeSet<ChannelName>)>,
    /// When each connection was last let in, and where the log stood.
    pub opened: BTreeMap<ConnectionId, (NaiveDateTime, Position)>,
    /// How far back each user may replay each channel, and when its last connection left.
    pub floors: BTreeMap<(Username, ChannelName), (Position, Option<NaiveDateTime>)>,
    pub log: BTreeMap<Position, Entry>,
    /// All names of channels in the order in which they first came up.
    pub names: Vec<ChannelName>,
    /// Channels that are no more: how far retention went, and the head then.
    pub forgotten_channels: BTreeMap<ChannelName, (Position, Position)>,
    /// Users that are no more and had private messages: how far retention went.
    pub forgotten_users: BTreeMap<Username, Position>,
    /// What the batch that is being built trims, once all else of it is done.
    trims: Vec<Trim>,
    /// Every uuid that was ever named.
    pub uuids: BTreeSet<Uuid>,
    identities: u128,
}

#[derive(Debug, Clone)]
pub struct KeptChannel {
    pub uuid: Uuid,
    pub settings: ChannelSettings,
    pub last_active: NaiveDateTime,
    pub trimmed: Position,
}

#[derive(Debug, Clone)]
pub struct KeptUser {
    pub uuid: Uuid,
    pub profile: Profile,
    pub last_active: NaiveDateTime,
    pub trimmed: Position,
}

#[derive(Debug, Clone)]
enum Trim {
    Channel(ChannelName, Retained),
    Inbox(Username, Retained),
}

#[derive(Debug, Clone)]
pub struct Entry {
    pub channel: Option<ChannelName>,
    pub committed: NaiveDateTime,
    pub uuid: Uuid,
    pub kind: Kind,
    /// Who holds it, if it is private.
    pub inboxes: BTreeSet<Username>,
}

#[derive(Debug, Clone)]
pub enum Kind {
    Message(Logged),
    Edit {
        about: Position,
    },
    /// Where the message was, if it ever was, and who may see that it is gone.
    Deletion {
        about: Option<Position>,
        audience: Audience,
    },
}

impl Entry {
    /// The message, as it is now.
    pub fn message(&self) -> Option<&Logged> {
        match &self.kind {
            Kind::Message(logged) => Some(logged),
            Kind::Edit { .. } | Kind::Deletion { .. } => None,
        }
    }

    fn is_deletion(&self) -> bool {
        matches!(self.kind, Kind::Deletion { .. })
    }
}

// What happens.
impl World {
    pub fn keep_channel(&mut self, name: &ChannelName, settings: ChannelSettings) -> Event {
        let last_active = self.now();
        let uuid = match self.channels.iter_mut().find(|(known, _)| known == name) {
            Some((_, channel)) => {
                channel.settings = settings.clone();
                channel.last_active = last_active;
                channel.uuid
            }
            None => {
                let uuid = self.new_identity();
                let trimmed = self.forgotten_channels.remove(name).unwrap_or_default().0;
                let kept = KeptChannel { uuid, settings: settings.clone(), last_active, trimmed };
                self.channels.push((name.clone(), kept));
                if !self.names.contains(name) {
                    self.names.push(name.clone());
                }
                let place = |name: &ChannelName| self.names.iter().position(|known| known == name);
                self.channels.sort_by_key(|(name, _)| place(name));
                uuid
            }
        };
        Event::ChannelKept { name: name.clone(), uuid, settings }
    }

    pub fn keep_user(&mut self, name: &Username, profile: Profile) -> Event {
        let uuid = self.users.get(name).map(|user| user.uuid).unwrap_or_else(|| self.new_identity());
        let before = self.forgotten_users.remove(name).unwrap_or_default();
        let trimmed = self.users.get(name).map_or(before, |user| user.trimmed);
        let kept = KeptUser { uuid, profile: profile.clone(), last_active: self.now(), trimmed };
        self.users.insert(name.clone(), kept);
        Event::UserKept { name: name.clone(), uuid, profile }
    }

    pub fn open_connection(&mut self, id: ConnectionId, user: &Username) -> Event {
        self.connections.entry(id).or_insert((user.clone(), BTreeSet::new()));
        self.opened.insert(id, (self.now(), self.before));
        self.touch_user(user);
        Event::ConnectionOpened { id, user: user.clone() }
    }

    pub fn end_connection(&mut self, id: ConnectionId) -> Event {
        self.opened.remove(&id);
        if let Some((user, channels)) = self.connections.remove(&id) {
            self.touch_user(&user);
            channels.iter().for_each(|channel| self.touch_channel(channel));
            for channel in channels.into_iter().filter(|channel| !self.is_in(&user, channel)).collect::<Vec<_>>() {
                let left = Some(self.now());
                self.floors.get_mut(&(user.clone(), channel)).expect("who is somewhere has a floor").1 = left;
            }
        }
        Event::ConnectionEnded { id }
    }

    pub fn subscribe(&mut self, id: ConnectionId, channel: &ChannelName) -> Event {
        let (user, channels) = self.connections.get_mut(&id).expect("a known connection");
        channels.insert(channel.clone());
        self.floors.entry((user.clone(), channel.clone())).or_insert((self.head, None)).1 = None;
        self.touch_channel(channel);
        Event::Subscribed { id, channel: channel.clone() }
    }

    pub fn unsubscribe(&mut self, id: ConnectionId, channel: &ChannelName) -> Event {
        let (user, channels) = self.connections.get_mut(&id).expect("a known connection");
        channels.remove(channel);
        let user = user.clone();
        if !self.is_in(&user, channel) {
            self.floors.remove(&(user, channel.clone()));
        }
        self.touch_channel(channel);
        Event::Unsubscribed { id, channel: channel.clone() }
    }

    pub fn set_floor(&mut self, user: &Username, channel: &ChannelName, position: Position) -> Event {
        self.floors.insert((user.clone(), channel.clone()), (position, None));
        Event::FloorSet { user: user.clone(), channel: channel.clone(), position }
    }

    pub fn end_floor(&mut self, user: &Username, channel: &ChannelName) -> Event {
        self.floors.remove(&(user.clone(), channel.clone()));
        Event::FloorEnded { user: user.clone(), channel: channel.clone() }
    }

    pub fn post(&mut self, message: Message) -> Event {
        let message = Arc::new(message);
        let named = if message.channel.is_none() { message.audience.named() } else { Vec::new() };
        let inboxes: Vec<Username> = named.into_iter().filter(|user| self.users.contains_key(user)).collect();
        let position = self.next_position();
        let logged = Logged { position, edit: None, committed: micros(self.now()), message: message.clone() };
        let holders = inboxes.iter().cloned().collect();
        self.log(position, message.channel.clone(), message.uuid, Kind::Message(logged), holders);
        Event::Posted { position: Some(position), message, inboxes }
    }

    pub fn edit(&mut self, edit: Edit) -> Event {
        let edit = Arc::new(edit);
        let Some(Held::Message(old)) = self.held(edit.uuid, edit.channel.as_ref()) else {
            let audience = Arc::new(edit.audience.clone());
            return Event::Edited { position: None, edit, audience, original: None, message: None };
        };
        let position = self.next_position();
        let message = Arc::new(edit.applied_to(&old.message));
        if let Some(earlier) = old.edit {
            self.log.remove(&earlier);
        }
        let entry = self.log.get_mut(&old.position).expect("the log holds the message");
        entry.kind = Kind::Message(Logged { edit: Some(position), message: message.clone(), ..old.clone() });
        let (channel, inboxes) = (entry.channel.clone(), entry.inboxes.clone());
        self.log(position, channel, edit.uuid, Kind::Edit { about: old.position }, inboxes);
        Event::Edited {
            position: Some(position),
            audience: Arc::new(message.audience.clone()),
            original: Some(old),
            message: Some(message),
            edit,
        }
    }

    pub fn delete(&mut self, deletion: Deletion) -> Event {
        let held = self.held(deletion.uuid, deletion.channel.as_ref());
        self.uuids.insert(deletion.uuid);
        let (original, about, audience) = match held {
            Some(Held::Message(old)) => {
                let original = Original { position: old.position, edit: old.edit };
                (Some(original), Some(old.position), old.message.audience.clone())
            }
            Some(Held::Deletion { position, about, audience }) => {
                (Some(Original { position, edit: None }), about, Audience::clone(&audience))
            }
            None => (None, None, deletion.audience.clone()),
        };
        let gone = original.into_iter().flat_map(|original| [Some(original.position), original.edit]);
        let gone: Vec<Entry> = gone.flatten().filter_map(|position| self.log.remove(&position)).collect();
        let position = (original.is_some() || deletion.channel.is_some()).then(|| self.next_position());
        if let Some(position) = position {
            let inboxes = gone.first().map(|message| message.inboxes.clone()).unwrap_or_default();
            let kind = Kind::Deletion { about, audience: audience.clone() };
            self.log(position, deletion.channel.clone(), deletion.uuid, kind, inboxes);
        }
        Event::Deleted { position, deletion: Arc::new(deletion), audience: Arc::new(audience), original, about }
    }

    pub fn trim_channel(&mut self, name: &ChannelName, keep: Retained) -> Event {
        self.trims.push(Trim::Channel(name.clone(), keep));
        Event::ChannelTrimmed { channel: name.clone(), keep }
    }

    pub fn trim_inbox(&mut self, name: &Username, keep: Retained) -> Event {
        self.trims.push(Trim::Inbox(name.clone(), keep));
        Event::InboxTrimmed { user: name.clone(), keep }
    }

    /// The batch is complete: what it trims goes now, wherever in the batch that stands.
    pub fn end_batch(&mut self) {
        for trim in std::mem::take(&mut self.trims) {
            match trim {
                Trim::Channel(name, keep) => {
                    let of_channel = |entry: &Entry| entry.channel.as_ref() == Some(&name);
                    let trimmed = self.not_kept(keep, of_channel);
                    self.log.retain(|position, entry| !(of_channel(entry) && trimmed.contains(position)));
                    if let Some(channel) = self.channel_mut(&name) {
                        channel.trimmed = channel.trimmed.max(trimmed.last().copied().unwrap_or_default());
                    }
                }
                Trim::Inbox(name, keep) => {
                    let trimmed = self.not_kept(keep, |entry| entry.inboxes.contains(&name));
                    self.leave_inbox(&name, &trimmed);
                    // Who is forgotten in the same batch has no inbox any more.
                    if let Some(user) = self.users.get_mut(&name) {
                        user.trimmed = user.trimmed.max(trimmed.last().copied().unwrap_or_default());
                    }
                }
            }
        }
        self.batches += 1;
        self.before = self.head;
    }

    pub fn forget_user(&mut self, name: &Username) -> Event {
        let all = self.log.keys().copied().collect();
        let mine = self.log.iter().filter(|(_, entry)| entry.inboxes.contains(name));
        let last = mine.map(|(position, _)| *position).next_back().unwrap_or_default();
        self.leave_inbox(name, &all);
        let trimmed = self.users.remove(name).expect("a known user").trimmed.max(last);
        if trimmed > Position(0) {
            self.forgotten_users.insert(name.clone(), trimmed);
        }
        self.floors.retain(|(user, _), _| user != name);
        Event::UserForgotten { name: name.clone() }
    }

    pub fn forget_channel(&mut self, name: &ChannelName) -> Event {
        let mine = self.log.iter().filter(|(_, entry)| entry.channel.as_ref() == Some(name));
        let last = mine.map(|(position, _)| *position).next_back().unwrap_or_default();
        self.log.retain(|_, entry| entry.channel.as_ref() != Some(name));
        let trimmed = self.channel(name).expect("a known channel").trimmed.max(last);
        self.forgotten_channels.insert(name.clone(), (trimmed, self.head));
        self.channels.retain(|(known, _)| known != name);
        self.connections.values_mut().for_each(|(_, channels)| _ = channels.remove(name));
        self.floors.retain(|(_, channel), _| channel != name);
        Event::ChannelForgotten { name: name.clone() }
    }

    /// All up to the newest message that is not kept goes, with the edits of what goes; and so do
    /// all deletions up to the newest one that is not kept.
    fn not_kept(&self, keep: Retained, mine: impl Fn(&Entry) -> bool) -> BTreeSet<Position> {
        let newest_gone = |keep: u32, is_of_kind: fn(&Entry) -> bool| {
            let of_kind = self.log.iter().rev().filter(|(_, entry)| mine(entry) && is_of_kind(entry));
            of_kind.map(|(position, _)| *position).nth(keep as usize)
        };
        let through = newest_gone(keep.messages, |entry| entry.message().is_some());
        let deletions_through = newest_gone(keep.deletions, Entry::is_deletion);
        let mut gone = BTreeSet::new();
        for (position, entry) in self.log.iter().filter(|(_, entry)| mine(entry)) {
            if Some(*position) <= through {
                gone.insert(*position);
                gone.extend(entry.message().and_then(|message| message.edit));
            }
            if entry.is_deletion() && Some(*position) <= deletions_through {
                gone.insert(*position);
            }
        }
        gone
    }

    fn leave_inbox(&mut self, name: &Username, positions: &BTreeSet<Position>) {
        self.log.retain(|position, entry| {
            let left = positions.contains(position) && entry.inboxes.remove(name);
            !(left && entry.inboxes.is_empty())
        });
    }

    fn log(
        &mut self,
        position: Position,
        channel: Option<ChannelName>,
        uuid: Uuid,
        kind: Kind,
        inboxes: BTreeSet<Username>,
    ) {
        if let Some(name) = &channel {
            self.touch_channel(name);
        }
        self.uuids.insert(uuid);
        self.log.insert(position, Entry { channel, committed: self.now(), uuid, kind, inboxes });
    }

    fn next_position(&mut self) -> Position {
        self.head = self.head.next();
        self.head
    }

    fn new_identity(&mut self) -> Uuid {
        self.identities += 1;
        Uuid::from_u128(1000 + self.identities)
    }

    fn touch_channel(&mut self, name: &ChannelName) {
        let now = self.now();
        self.channel_mut(name).expect("a known channel").last_active = now;
    }

    fn touch_user(&mut self, name: &Username) {
        let now = self.now();
        self.users.get_mut(name).expect("a known user").last_active = now;
    }

    fn channel_mut(&mut self, name: &ChannelName) -> Option<&mut KeptChannel> {
        self.channels.iter_mut().find(|(known, _)| known == name).map(|(_, channel)| channel)
    }
}

// What is to be read back.
impl World {
    /// When the batch that is being built is decided.
    pub fn now(&self) -> NaiveDateTime {
        clock(self.batches + 1)
    }

    pub fn channel(&self, name: &ChannelName) -> Option<&KeptChannel> {
        self.channels.iter().find(|(known, _)| known == name).map(|(_, channel)| channel)
    }

    /// When the newest entry of the log was committed.
    pub fn latest(&self) -> NaiveDateTime {
        self.log.values().next_back().map_or(from_micros(0), |entry| entry.committed)
    }

    /// What the log holds of a channel or of an inbox.
    fn retained(&self, mine: impl Fn(&Entry) -> bool) -> Retained {
        let count = |is_of_kind: fn(&Entry) -> bool| {
            self.log.values().filter(|entry| mine(entry) && is_of_kind(entry)).count() as u32
        };
        Retained { messages: count(|entry| entry.message().is_some()), deletions: count(Entry::is_deletion) }
    }

    /// The channel as it is loaded: the newest messages, and how much the log holds.
    pub fn loaded_channel(&self, name: &ChannelName) -> Option<Channel> {
        let kept = self.channel(name)?;
        let mut channel = Channel::new(kept.uuid, kept.settings.clone(), kept.last_active);
        let entries = self.log.values().filter(|entry| entry.channel.as_ref() == Some(name));
        entries.filter_map(Entry::message).for_each(|message| channel.history.push(message.clone()));
        channel.cut_history();
        channel.retained = self.retained(|entry| entry.channel.as_ref() == Some(name));
        Some(channel)
    }

    pub fn loaded_user(&self, name: &Username) -> Option<User> {
        let kept = self.users.get(name)?;
        let mut user = User::new(kept.uuid, kept.profile.clone(), kept.last_active);
        user.retained = self.retained(|entry| entry.inboxes.contains(name));
        Some(user)
    }

    pub fn held(&self, uuid: Uuid, channel: Option<&ChannelName>) -> Option<Held> {
        let mut entries = self.log.iter().filter(|(_, entry)| entry.uuid == uuid && entry.channel.as_ref() == channel);
        entries.find_map(|(position, entry)| match &entry.kind {
            Kind::Message(logged) => Some(Held::Message(logged.clone())),
            Kind::Deletion { about, audience } => {
                let audience = audience.clone().into();
                Some(Held::Deletion { position: *position, about: *about, audience })
            }
            Kind::Edit { .. } => None,
        })
    }

    pub fn stored_connections(&self) -> Vec<StoredConnection> {
        let stored = |(id, (user, channels)): (&ConnectionId, &(Username, BTreeSet<ChannelName>))| StoredConnection {
            id: *id,
            user: user.clone(),
            channels: channels.iter().cloned().collect(),
            head: self.opened[id].1,
        };
        self.connections.iter().map(stored).collect()
    }

    /// The newest entries of a place up to a position, oldest first, and whether there are older ones.
    pub fn tail(&self, place: &Place, before: Position, limit: usize, bytes: usize) -> TailPart {
        let is_there = |entry: &Entry| match place {
            Place::Channel(name) => entry.channel.as_ref() == Some(name),
            Place::Inbox(name) => entry.inboxes.contains(name),
        };
        let of_place = self.log.iter().rev().filter(|(position, entry)| **position <= before && is_there(entry));
        let mut part = TailPart { trimmed: self.trimmed(place), ..TailPart::default() };
        let mut size = 0;
        for (position, entry) in of_place {
            let message = |position: &Position| {
                let message = self.log[position].message().expect("a message");
                (message.committed, message.message.clone())
            };
            let said = match &entry.kind {
                Kind::Message(logged) => Said::Message(logged.message.clone()),
                Kind::Edit { about } => {
                    let (posted, message) = message(about);
                    Said::Edit { about: *about, posted, message }
                }
                Kind::Deletion { about, audience } => {
                    Said::Deletion { uuid: entry.uuid, about: *about, audience: audience.clone().into() }
                }
            };
            if let Said::Message(message) | Said::Edit { message, .. } = &said {
                size += message.body.as_ref().map_or(0, |body| body.get().len());
            }
            if part.entries.len() == limit || size > bytes {
                part.has_older = true;
                break;
            }
            part.entries.push(tail::Entry { position: *position, committed: micros(entry.committed), said });
        }
        part.entries.reverse();
        part
    }

    fn trimmed(&self, place: &Place) -> Position {
        match place {
            Place::Channel(name) => self.channel(name).map(|channel| channel.trimmed),
            Place::Inbox(name) => self.users.get(name).map(|user| user.trimmed),
        }
        .unwrap_or_default()
    }

    pub fn is_connected(&self, name: &Username) -> bool {
        self.connections.values().any(|(user, _)| user == name)
    }

    fn is_in(&self, user: &Username, channel: &ChannelName) -> bool {
        self.connections.values().any(|(known, channels)| known == user && channels.contains(channel))
    }

    /// The newest entry that was committed by a time.
    pub fn position_at(&self, time: NaiveDateTime) -> Position {
        let by_then = self.log.iter().filter(|(_, entry)| entry.committed <= time);
        by_then.map(|(position, _)| *position).next_back().unwrap_or_default()
    }

    /// A page of messages, oldest first, and whether there are more.
    pub fn history(&self, asked: &HistoryQuery<'_>) -> Option<(Vec<&Logged>, bool)> {
        let ttl = match asked.place {
            Place::Channel(name) => self.channel(name)?.settings.history_ttl,
            Place::Inbox(name) => self.users.get(name).map(|_| None)?,
        };
        let is_there = |entry: &Entry| match asked.place {
            Place::Channel(name) => entry.channel.as_ref() == Some(name),
            Place::Inbox(name) => entry.inboxes.contains(name),
        };
        let is_over = |entry: &Entry| {
            ttl.is_some_and(|seconds| entry.committed + Duration::from_secs(seconds.into()) <= asked.at)
        };
        let fits = |position: &Position| {
            *position <= asked.through
                && asked.after.is_none_or(|after| *position > after)
                && asked.before.is_none_or(|before| *position < before)
        };
        let all = self.log.iter().filter(|(position, entry)| fits(position) && is_there(entry) && !is_over(entry));
        let mut messages: Vec<&Logged> = all.filter_map(|(_, entry)| entry.message()).collect();
        let excess = messages.len().saturating_sub(asked.limit as usize);
        match asked.after {
            Some(_) => messages.truncate(asked.limit as usize),
            None => _ = messages.drain(..excess),
        }
        Some((messages, excess > 0))
    }

    pub fn totals(&self) -> StoreTotals {
        StoreTotals { channels: self.channels.len() as u64, users: self.users.len() as u64 }
    }
}
