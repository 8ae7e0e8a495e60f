//! The fake store: what a database would hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use channelstream::domain::channel::{Channel, Logged, Retained};
use channelstream::domain::draft::{Held, HeldByUuid};
use channelstream::domain::event::Event;
use channelstream::domain::message::Audience;
use channelstream::domain::names::{ChannelName, ConnectionId, Username};
use channelstream::domain::position::Position;
use channelstream::domain::router::Needs;
use channelstream::domain::settings::ChannelSettings;
use channelstream::domain::state::Profile;
use channelstream::domain::timestamp::Moment;
use channelstream::domain::user::{Floor, User};
use chrono::NaiveDateTime;
use hashbrown::HashMap;
use uuid::Uuid;

use super::text::clock;

/// Durable memory. Like the real ones it writes a batch kind by kind, not event by event, since
/// operations that depend on one another never share a batch; and it complains about events that
/// make no sense.
#[derive(Debug, Default)]
pub struct Store {
    pub head: Position,
    channels: BTreeMap<ChannelName, (Uuid, ChannelSettings)>,
    users: BTreeMap<Username, KeptUser>,
    pub connections: Vec<(ConnectionId, Username, BTreeSet<ChannelName>)>,
    log: Vec<Entry>,
}

#[derive(Debug)]
struct KeptUser {
    uuid: Uuid,
    profile: Profile,
    active: NaiveDateTime,
    created: Position,
    floors: BTreeMap<ChannelName, Floor>,
}

#[derive(Debug)]
struct Entry {
    position: Position,
    uuid: Uuid,
    channel: Option<ChannelName>,
    /// Whose inboxes hold it, if it is private.
    inboxes: BTreeSet<Username>,
    /// In microseconds since 1970.
    committed: i64,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Message(Logged),
    Edit,
    /// `about`: where the message was.
    Deletion {
        about: Option<Position>,
        audience: Arc<Audience>,
    },
}

impl Entry {
    fn message(&self) -> Option<&Logged> {
        match &self.kind {
            Kind::Message(logged) => Some(logged),
            Kind::Edit | Kind::Deletion { .. } => None,
        }
    }

    fn is_deletion(&self) -> bool {
        matches!(self.kind, Kind::Deletion { .. })
    }
}

/// When its kind is written.
fn turn(event: &Event) -> usize {
    match event {
        Event::ChannelExpired { .. } => 0,
        Event::ChannelKept { .. } => 1,
        Event::UserKept { .. } => 2,
        Event::ConnectionOpened { .. } => 3,
        Event::FloorEnded { .. } => 4,
        Event::Subscribed { .. } => 5,
        Event::FloorSet { .. } => 6,
        Event::Unsubscribed { .. } => 7,
        Event::ConnectionEnded { .. } => 8,
        Event::Posted { .. } | Event::Edited { .. } | Event::Deleted { .. } => 9,
        Event::ChannelTrimmed { .. } | Event::InboxTrimmed { .. } => 10,
        Event::UserForgotten { .. }
        | Event::ChannelForgotten { .. }
        | Event::FloorsExpired { .. }
        | Event::StateChanged { .. } => 11,
    }
}

impl Store {
    pub fn commit(&mut self, events: &[Event], moment: Moment) {
        let mut rows = Vec::new();
        for event in events.iter().filter(|event| event.is_durable()) {
            if let Some(position) = event.position() {
                assert_eq!(position, self.head.next(), "positions rise by one: {event:?}");
                self.head = position;
            }
            rows.push((self.head, event));
        }
        rows.sort_by_key(|(_, event)| turn(event));
        rows.into_iter().for_each(|(head, event)| self.keep(event, head, moment));
    }

    /// `head`: as it was when the event was decided.
    fn keep(&mut self, event: &Event, head: Position, moment: Moment) {
        let committed = moment.micros();
        match event {
            Event::ChannelKept { name, uuid, settings } => {
                let known = self.channels.insert(name.clone(), (*uuid, settings.clone()));
                assert!(known.is_none_or(|(known, _)| known == *uuid), "{name} changes its identity");
            }
            Event::UserKept { name, uuid, profile } => {
                let (uuid, floors) = (*uuid, BTreeMap::new());
                let new = KeptUser { uuid, profile: profile.clone(), active: moment.utc, created: head, floors };
                let known = self.users.entry(name.clone()).or_insert(new);
                assert_eq!(known.uuid, uuid, "{name} changes its identity");
                (known.profile, known.active) = (profile.clone(), moment.utc);
            }
            Event::ConnectionOpened { id, user } => {
                self.user_mut(user).active = moment.utc;
                match self.connections.iter().find(|(known, ..)| known == id) {
                    Some((_, owner, _)) => assert_eq!(owner, user, "a connection keeps its user"),
                    None => self.connections.push((*id, user.clone(), BTreeSet::new())),
                }
            }
            Event::ConnectionEnded { id } => {
                let index = self.connections.iter().position(|(known, ..)| known == id).expect("it did not end yet");
                let (_, user, channels) = self.connections.remove(index);
                self.user_mut(&user).active = moment.utc;
                for channel in channels.iter().filter(|channel| !self.is_in(&user, channel)).collect::<Vec<_>>() {
                    let floor = self.user_mut(&user).floors.get_mut(channel);
                    floor.expect("who is somewhere has a floor").left = Some(moment.utc);
                }
            }
            Event::Subscribed { id, channel } => {
                assert!(self.channels.contains_key(channel), "there is such a channel");
                let (user, channels) = self.connection_mut(*id);
                assert!(channels.insert(channel.clone()), "subscribed once");
                let floor = Floor { position: head, left: None };
                self.user_mut(&user).floors.entry(channel.clone()).or_insert(floor).left = None;
            }
            Event::Unsubscribed { id, channel } => {
                let (user, channels) = self.connection_mut(*id);
                assert!(channels.remove(channel), "it was subscribed");
                if !self.is_in(&user, channel) {
                    self.user_mut(&user).floors.remove(channel);
                }
            }
            Event::FloorSet { user, channel, position } => {
                let floor = Floor { position: *position, left: None };
                self.user_mut(user).floors.insert(channel.clone(), floor);
            }
            Event::FloorEnded { user, channel } => _ = self.user_mut(user).floors.remove(channel),
            Event::FloorsExpired { left_before } => {
                let is_over = |floor: &Floor| floor.left.is_some_and(|left| left <= *left_before);
                self.users.values_mut().for_each(|user| user.floors.retain(|_, floor| !is_over(floor)));
            }
            Event::Posted { position, message, inboxes } => {
                let Some(position) = *position else { return };
                let kind = Kind::Message(Logged { position, edit: None, committed, message: message.clone() });
                let (uuid, channel) = (message.uuid, message.channel.clone());
                assert!(self.find(uuid, channel.as_ref()).is_none(), "a uuid is logged once: {message:?}");
                assert!(channel.as_ref().is_none_or(|name| self.channels.contains_key(name)), "an unknown channel");
                let inboxes: BTreeSet<Username> = inboxes.iter().cloned().collect();
                assert!(inboxes.iter().all(|name| self.users.contains_key(name)), "an unknown user's inbox");
                self.log.push(Entry { position, uuid, channel, inboxes, committed, kind });
            }
            Event::Edited { position, edit, original, message, .. } => {
                let Some(position) = *position else { return };
                let original = original.as_ref().expect("what is logged is about something");
                let message = message.clone().expect("what is logged is about something");
                let about = self.original(original.position).expect("the log holds what is edited");
                let Kind::Message(logged) = &mut about.kind else { panic!("a message is edited, not {about:?}") };
                assert_eq!(logged.edit, original.edit, "the latest edit is known");
                (logged.edit, logged.message) = (Some(position), message);
                let inboxes = about.inboxes.clone();
                self.log.retain(|entry| Some(entry.position) != original.edit);
                let (uuid, channel) = (edit.uuid, edit.channel.clone());
                self.log.push(Entry { position, uuid, channel, inboxes, committed, kind: Kind::Edit });
            }
            Event::Deleted { position, deletion, original, about, audience } => {
                let Some(position) = *position else { return };
                let mut inboxes = BTreeSet::new();
                if let Some(original) = *original {
                    inboxes = self.original(original.position).expect("the log holds what is deleted").inboxes.clone();
                    let gone =
                        |entry: &Entry| entry.position == original.position || Some(entry.position) == original.edit;
                    self.log.retain(|entry| !gone(entry));
                }
                let (uuid, channel) = (deletion.uuid, deletion.channel.clone());
                assert!(self.find(uuid, channel.as_ref()).is_none(), "a deletion leaves nothing: {deletion:?}");
                let kind = Kind::Deletion { about: *about, audience: audience.clone() };
                self.log.push(Entry { position, uuid, channel, inboxes, committed, kind });
            }
            Event::ChannelExpired { channel, through } => {
                let is_over = |entry: &Entry| entry.channel.as_ref() == Some(channel) && entry.committed <= *through;
                let over = self.log.iter().filter(|entry| is_over(entry));
                let edits: Vec<Position> = over.filter_map(|entry| entry.message()?.edit).collect();
                self.log.retain(|entry| !is_over(entry) && !edits.contains(&entry.position));
            }
            Event::ChannelTrimmed { channel, keep } => {
                for position in self.past(*keep, |entry| entry.channel.as_ref() == Some(channel)) {
                    self.log.retain(|entry| entry.position != position);
                }
            }
            Event::InboxTrimmed { user, keep } => {
                let past = self.past(*keep, |entry| entry.inboxes.contains(user));
                self.leave_inbox(user, |entry| past.contains(&entry.position));
            }
            Event::UserForgotten { name } => {
                self.users.remove(name).expect("there is such a user");
                assert!(self.connections.iter().all(|(_, user, _)| user != name), "a connected user is forgotten");
                self.leave_inbox(name, |_| true);
            }
            Event::ChannelForgotten { name } => {
                self.channels.remove(name).expect("there is such a channel");
                self.log.retain(|entry| entry.channel.as_ref() != Some(name));
                self.connections.iter_mut().for_each(|(.., channels)| _ = channels.remove(name));
                self.users.values_mut().for_each(|user| _ = user.floors.remove(name));
            }
            Event::StateChanged { .. } => {}
        }
    }

    fn user_mut(&mut self, name: &Username) -> &mut KeptUser {
        self.users.get_mut(name).expect("there is such a user")
    }

    /// Whose a connection is, and its channels.
    fn connection_mut(&mut self, id: ConnectionId) -> (Username, &mut BTreeSet<ChannelName>) {
        let connection = self.connections.iter_mut().find(|(known, ..)| *known == id);
        let (_, user, channels) = connection.expect("there is such a connection");
        (user.clone(), channels)
    }

    fn is_in(&self, user: &Username, channel: &ChannelName) -> bool {
        self.connections.iter().any(|(_, known, channels)| known == user && channels.contains(channel))
    }

    fn original(&mut self, position: Position) -> Option<&mut Entry> {
        self.log.iter_mut().find(|entry| entry.position == position)
    }

    fn find(&self, uuid: Uuid, channel: Option<&ChannelName>) -> Option<&Entry> {
        let here = |entry: &&Entry| entry.uuid == uuid && entry.channel.as_ref() == channel;
        self.log.iter().filter(here).rfind(|entry| !matches!(entry.kind, Kind::Edit))
    }

    /// Channels that hold something that is past its time.
    pub fn expired_channels(&self, moment: Moment) -> Vec<ChannelName> {
        let is_over = |(name, (_, settings)): &(&ChannelName, &(Uuid, ChannelSettings))| {
            let over = settings.over_by(moment.micros());
            self.log.iter().any(|entry| entry.channel.as_ref() == Some(name) && entry.committed <= over)
        };
        self.channels.iter().filter(is_over).map(|(name, _)| name.clone()).collect()
    }

    /// All that is older than the newest messages to keep, with the edits of these, and deletions
    /// that are older than those to keep.
    fn past(&self, keep: Retained, mine: impl Fn(&Entry) -> bool) -> Vec<Position> {
        let newest_gone = |keep: u32, is_such: fn(&Entry) -> bool| {
            let newest_first = self.log.iter().rev().filter(|entry| mine(entry) && is_such(entry));
            newest_first.map(|entry| entry.position).nth(keep as usize).unwrap_or_default()
        };
        let all = newest_gone(keep.messages, |entry| entry.message().is_some());
        let deletions = newest_gone(keep.deletions, Entry::is_deletion);
        let mine = || self.log.iter().filter(|entry| mine(entry));
        let is_gone = |entry: &&Entry| entry.position <= all || entry.is_deletion() && entry.position <= deletions;
        let edits = mine().filter(is_gone).filter_map(|entry| entry.message()?.edit);
        mine().filter(is_gone).map(|entry| entry.position).chain(edits).collect()
    }

    fn count(&self, mine: impl Fn(&Entry) -> bool) -> Retained {
        let count = |is_such: fn(&Entry) -> bool| self.log.iter().filter(|entry| mine(entry) && is_such(entry)).count();
        Retained {
            messages: count(|entry| entry.message().is_some()) as u32,
            deletions: count(Entry::is_deletion) as u32,
        }
    }

    /// What the log holds of a channel.
    pub fn retained(&self, name: &ChannelName) -> Retained {
        self.count(|entry| entry.channel.as_ref() == Some(name))
    }

    /// What nobody's inbox holds any more goes.
    fn leave_inbox(&mut self, name: &Username, leaves: impl Fn(&Entry) -> bool) {
        self.log.retain_mut(|entry| !(leaves(entry) && entry.inboxes.remove(name) && entry.inboxes.is_empty()));
    }

    pub fn channel(&self, name: &ChannelName) -> Option<Channel> {
        let (uuid, settings) = self.channels.get(name)?.clone();
        let mut channel = Channel::new(uuid, settings, clock());
        let here = self.log.iter().filter(|entry| entry.channel.as_ref() == Some(name));
        here.filter_map(Entry::message).for_each(|logged| channel.log(logged.clone()));
        channel.retained = self.retained(name);
        Some(channel)
    }

    pub fn user(&self, name: &Username) -> Option<User> {
        let known = self.users.get(name)?;
        let mut user = User::new(known.uuid, known.profile.clone(), known.active);
        user.created = known.created;
        user.floors = known.floors.iter().map(|(channel, floor)| (channel.clone(), *floor)).collect();
        user.retained = self.count(|entry| entry.inboxes.contains(name));
        Some(user)
    }

    pub fn positions_at(&self, needs: &Needs) -> HashMap<NaiveDateTime, Position> {
        let newest = |time: NaiveDateTime| {
            let by_then = self.log.iter().filter(|entry| entry.committed <= time.and_utc().timestamp_micros());
            by_then.map(|entry| entry.position).max().unwrap_or_default()
        };
        needs.times.iter().map(|time| (*time, newest(*time))).collect()
    }

    pub fn held(&self, needs: &Needs) -> HeldByUuid {
        let asked = self.log.iter().filter(|entry| needs.uuids.contains(&entry.uuid));
        let held = asked.filter_map(|entry| {
            let held = match &entry.kind {
                Kind::Message(logged) => Held::Message(logged.clone()),
                Kind::Deletion { about, audience } => {
                    Held::Deletion { position: entry.position, about: *about, audience: audience.clone() }
                }
                Kind::Edit => return None,
            };
            Some(((entry.uuid, entry.channel.clone()), held))
        });
        held.collect()
    }
}
