//! The router: all live state. This file holds the state itself, what may be asked of it, and what
//! is in memory at all; `apply` changes it by events, `listen` by listeners that come and go.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use chrono::NaiveDateTime;
use hashbrown::HashSet;
use uuid::Uuid;

use super::channel::{Channel, Logged};
use super::connection::Connection;
use super::forgotten::Forgotten;
use super::frame::{Frame, Tick};
use super::names::{ChannelName, ConnectionId, ListenerId, Username};
pub use super::parted::PARTS;
use super::parted::Parted;
use super::position::{Cursor, Numbering, Position};
use super::state::Profile;
use super::tail::{Place, Tail, TailPart};
use super::tails::{TailLimits, Tails};
use super::timestamp::Moment;
use super::user::{Floor, User};
use super::view::{ChannelView, ChannelsView, Glance, InfoOptions, Showing, Totals};

/// What nobody is in, and nobody asked for during this time, leaves memory.
const IDLE: Duration = Duration::from_secs(60);
/// A laptop that was closed overnight.
const DEFAULT_RESUME_WINDOW: chrono::Duration = chrono::Duration::days(1);
/// Most names that are remembered as not stored, of each kind, about.
const MAX_ABSENT: usize = 100_000;
/// Most channels, messages and pieces of member lists that an answer looks at in one go.
const SHOW_STEP: usize = 500;
/// Most things looked at in one go while unloading.
const UNLOAD_STEP: usize = 100;
/// Most tails that are looked at in one go when some have to go.
const SHED_STEP: usize = 64;

/// What the outside has to do after a change.
#[derive(Debug)]
pub enum Effect {
    /// A frame goes to listeners.
    Show {
        /// Its place in the order in which things are shown.
        tick: Tick,
        /// The frame.
        frame: Frame,
        /// To whom.
        to: Recipients,
    },
    /// A listener's connection is over.
    End {
        /// Who listens.
        listener: ListenerId,
        /// Whether the client asked for it.
        dismissed: bool,
    },
}

/// Who gets a frame.
#[derive(Debug)]
pub enum Recipients {
    /// All who listen in a channel, but for some.
    Members {
        /// Which channel.
        channel: ChannelName,
        /// Who is left out, sorted.
        except: Vec<ListenerId>,
    },
    /// These, once each.
    Only(Vec<ListenerId>),
}

/// What an operation must find in memory before it can be decided.
#[derive(Debug, Default)]
pub struct Needs {
    /// Channels, if they exist.
    pub channels: HashSet<ChannelName>,
    /// Users, if they exist.
    pub users: HashSet<Username>,
    /// Messages and deletions of these uuids that the log holds.
    pub uuids: HashSet<Uuid>,
    /// Up to where the log was committed by these times, in UTC.
    pub times: HashSet<NaiveDateTime>,
}

impl Needs {
    /// Whether nothing is missing.
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.users.is_empty() && self.uuids.is_empty() && self.times.is_empty()
    }
}

/// What left memory. To drop it takes long, if it is large, and should wait until nobody waits.
#[derive(Debug, Default)]
pub struct Garbage {
    channels: Vec<Channel>,
    users: Vec<User>,
}

#[derive(Debug)]
enum Resident {
    Channel(ChannelName),
    User(Username),
}

/// All live state. It names no clock and no socket: moments come in, effects go out.
pub struct Router {
    pub(super) channels: Parted<ChannelName, Channel>,
    pub(super) users: Parted<Username, User>,
    pub(super) connections: Parted<ConnectionId, Connection>,
    /// Connections that are over at a time unless they listen again.
    pub(super) expiring: BTreeSet<(Duration, ConnectionId)>,
    pub(super) overfull_channels: HashSet<ChannelName>,
    pub(super) overfull_users: HashSet<Username>,
    pub(super) head: Position,
    pub(super) tick: Tick,
    pub(super) totals: Totals,
    /// How long a connection lasts without a listener.
    pub(super) grace: Duration,
    /// How long a floor lasts after the user's last connection left.
    pub(super) resume_window: chrono::Duration,
    pub(super) numbering: Numbering,
    pub(super) tails: Tails,
    pub(super) new_uuid: Box<dyn FnMut() -> Uuid + Send>,
    absent_channels: Parted<ChannelName, ()>,
    absent_users: Parted<Username, ()>,
    idle: VecDeque<(Duration, Resident)>,
    idle_channels: Parted<ChannelName, ()>,
    idle_users: Parted<Username, ()>,
    pub(super) forgotten: Forgotten,
    garbage: Garbage,
}

impl Router {
    /// An empty router over a log that ends at `head`. `grace`: how long a connection lasts
    /// without a listener; `new_uuid`: where the uuids of frames come from.
    pub fn new(head: Position, grace: Duration, new_uuid: impl FnMut() -> Uuid + Send + 'static) -> Self {
        Self {
            channels: Parted::default(),
            users: Parted::default(),
            connections: Parted::default(),
            expiring: BTreeSet::new(),
            overfull_channels: HashSet::new(),
            overfull_users: HashSet::new(),
            head,
            tick: Tick::default(),
            totals: Totals::default(),
            grace,
            resume_window: DEFAULT_RESUME_WINDOW,
            numbering: Numbering::new(Vec::new()),
            tails: Tails::default(),
            new_uuid: Box::new(new_uuid),
            absent_channels: Parted::default(),
            absent_users: Parted::default(),
            idle: VecDeque::new(),
            idle_channels: Parted::default(),
            idle_users: Parted::default(),
            forgotten: Forgotten::default(),
            garbage: Garbage::default(),
        }
    }

    /// The epochs of the log, for judging cursors; without them all are unknown.
    pub fn set_numbering(&mut self, numbering: Numbering) {
        self.numbering = numbering;
    }

    /// The position that a cursor names, if it can be trusted while the log ends at `head`.
    pub fn resolve(&self, cursor: &Cursor, head: Position) -> Option<Position> {
        self.numbering.resolve(cursor, head)
    }

    /// How long a floor lasts after the user's last connection left; a day unless this is said.
    pub fn set_resume_window(&mut self, window: Duration) {
        self.resume_window = chrono::Duration::from_std(window).unwrap_or(DEFAULT_RESUME_WINDOW);
    }

    /// How much memory tails may take.
    pub fn set_tail_limits(&mut self, limits: TailLimits) {
        self.tails.set_limits(limits);
    }

    /// How long a floor lasts after the user's last connection left.
    pub fn resume_window(&self) -> chrono::Duration {
        self.resume_window
    }

    /// The floor of a user in a channel at `now`, if it has one.
    pub fn floor(&self, user: &Username, channel: &ChannelName, now: NaiveDateTime) -> Option<Floor> {
        self.floor_of(self.users.get(user)?, channel, now)
    }

    pub(super) fn floor_of(&self, user: &User, channel: &ChannelName, now: NaiveDateTime) -> Option<Floor> {
        let floor = self.kept_floor(user, channel)?;
        let ended = floor.left.is_some_and(|left| left + self.resume_window <= now);
        (!ended).then_some(floor)
    }

    /// A user's floor in a channel, also if it has ended.
    pub fn kept_floor(&self, user: &User, channel: &ChannelName) -> Option<Floor> {
        user.floors.get(channel).filter(|_| !self.forgotten.voids(user, channel)).copied()
    }

    /// A user whose floors are to be changed.
    pub(super) fn with_floors(&mut self, user: &Username) -> Option<&mut User> {
        let user = self.users.get_mut(user)?;
        self.forgotten.clear(user);
        Some(user)
    }

    /// The position of the latest logged event that was applied.
    pub fn head(&self) -> Position {
        self.head
    }

    /// The place of the latest frame.
    pub fn tick(&self) -> Tick {
        self.tick
    }

    /// What happened since the start.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// A channel that is in memory.
    pub fn channel(&self, name: &ChannelName) -> Option<&Channel> {
        self.channels.get(name)
    }

    /// A user that is in memory.
    pub fn user(&self, name: &Username) -> Option<&User> {
        self.users.get(name)
    }

    /// A connection; all that exist are in memory.
    pub fn connection(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections.get(&id)
    }

    /// How many connections there are.
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// Users that have connections, in no order: those in one of the [`PARTS`].
    pub fn connected_users(&self, part: usize) -> impl Iterator<Item = (&Username, &User)> {
        self.users.part(part).filter(|(_, user)| !user.connections.is_empty())
    }

    /// Looks at channels that are to be shown: adds some more of them to a view. True if there are
    /// still more.
    pub fn show(&self, showing: &mut Showing, view: &mut ChannelsView, moment: Moment) -> bool {
        let rest = &showing.names[showing.done..];
        let glance = self.glance(rest, &showing.options, showing.viewer.as_ref(), SHOW_STEP, moment);
        view.public_state_only = showing.options.return_public_state;
        view.channels.extend(glance.channels);
        showing.done += glance.count;
        showing.done < showing.names.len()
    }

    /// Looks at the first of some channels: at so many that they have about `most` messages and
    /// pieces of member lists together, and at one at least. `viewer` sees only messages meant for
    /// them.
    pub fn glance(
        &self,
        names: &[ChannelName],
        options: &InfoOptions,
        viewer: Option<&Username>,
        most: usize,
        moment: Moment,
    ) -> Glance {
        let mut glance = Glance::default();
        let mut seen = 0;
        while seen < most
            && let Some(name) = names.get(glance.count)
        {
            glance.count += 1;
            seen += 1;
            match self.channels.get(name) {
                _ if options.exclude_channels.contains(name) => {}
                Some(channel) => {
                    seen += channel.history.len() + channel.members.roster().pieces();
                    glance.channels.push(ChannelView::of(name, channel, options, viewer, moment));
                }
                None if self.absent_channels.contains_key(name) => {}
                None => {
                    glance.unknown.insert(name.clone());
                }
            }
        }
        glance
    }

    /// A user's state; of one who is gone by now, none.
    pub fn profile(&self, user: &Username) -> Profile {
        self.users.get(user).map(|user| user.profile.clone()).unwrap_or_default()
    }

    // What is in memory.

    /// Keeps of `needs` only what is not known yet and must be read from the store; what is in
    /// memory counts as used now.
    pub fn retain_missing(&mut self, needs: &mut Needs, moment: Moment) {
        needs.channels.retain(|name| match self.channels.get_mut(name) {
            Some(channel) => {
                channel.used = moment.elapsed;
                false
            }
            None => !self.absent_channels.contains_key(name),
        });
        needs.users.retain(|name| match self.users.get_mut(name) {
            Some(user) => {
                user.used = moment.elapsed;
                false
            }
            None => !self.absent_users.contains_key(name),
        });
    }

    /// Whether it is known, without asking the store, if that channel exists.
    pub fn knows_channel(&self, name: &ChannelName) -> bool {
        self.channels.contains_key(name) || self.absent_channels.contains_key(name)
    }

    /// Whether it is known, without asking the store, if that user exists.
    pub fn knows_user(&self, name: &Username) -> bool {
        self.users.contains_key(name) || self.absent_users.contains_key(name)
    }

    /// Takes in a channel as the store has it; none: it has none of that name.
    pub fn load_channel(&mut self, name: &ChannelName, stored: Option<Channel>, moment: Moment) {
        match stored {
            Some(mut channel) if !self.channels.contains_key(name) => {
                channel.used = moment.elapsed;
                self.add_channel(name.clone(), channel);
            }
            Some(_) => {}
            None => remember(&mut self.absent_channels, name),
        }
    }

    /// Takes in a user as the store has it; none: it has none of that name.
    pub fn load_user(&mut self, name: &Username, stored: Option<User>, moment: Moment) {
        match stored {
            Some(mut user) if !self.users.contains_key(name) => {
                user.used = moment.elapsed;
                self.add_user(name.clone(), user);
            }
            Some(_) => {}
            None => remember(&mut self.absent_users, name),
        }
    }

    /// Takes a channel's history anew from the store, after a change that may bring older
    /// messages back.
    pub fn reload_history(&mut self, name: &ChannelName, stored: Channel) {
        if let Some(channel) = self.channels.get_mut(name) {
            channel.history = stored.history;
            channel.retained = stored.retained;
        }
    }

    pub(super) fn add_channel(&mut self, name: ChannelName, mut channel: Channel) {
        self.absent_channels.remove(&name);
        channel.tail.begin(self.head);
        if channel.is_overfull() {
            self.overfull_channels.insert(name.clone());
        }
        let used = channel.used;
        self.channels.insert(name.clone(), channel);
        self.channel_is_idle(&name, used);
    }

    pub(super) fn add_user(&mut self, name: Username, mut user: User) {
        self.absent_users.remove(&name);
        user.tail.begin(self.head);
        user.looked_through = self.forgotten.count();
        if user.is_overfull() {
            self.overfull_users.insert(name.clone());
        }
        let used = user.used;
        self.users.insert(name.clone(), user);
        self.user_is_idle(&name, used);
    }

    pub(super) fn throw_away(&mut self, channel: Channel) {
        self.garbage.channels.push(channel);
    }

    pub(super) fn remove_channel(&mut self, name: &ChannelName) -> Option<Channel> {
        self.overfull_channels.remove(name);
        remember(&mut self.absent_channels, name);
        let channel = self.channels.remove(name)?;
        self.tails.remove(&Place::Channel(name.clone()), &channel.tail);
        Some(channel)
    }

    pub(super) fn remove_user(&mut self, name: &Username) {
        self.drop_user(name);
        self.overfull_users.remove(name);
        remember(&mut self.absent_users, name);
    }

    /// Nobody is in that channel any more: it leaves memory unless it is used again.
    pub(super) fn channel_is_idle(&mut self, name: &ChannelName, since: Duration) {
        if self.idle_channels.insert(name.clone(), ()).is_none() {
            self.idle.push_back((since + IDLE, Resident::Channel(name.clone())));
        }
    }

    /// That user has no connection any more: it leaves memory unless it is used again.
    pub(super) fn user_is_idle(&mut self, name: &Username, since: Duration) {
        if self.idle_users.insert(name.clone(), ()).is_none() {
            self.idle.push_back((since + IDLE, Resident::User(name.clone())));
        }
    }

    /// What left memory since this was asked for.
    pub fn take_garbage(&mut self) -> Garbage {
        std::mem::take(&mut self.garbage)
    }

    /// Drops some channels without members and users without connections that were not needed for a
    /// minute, and some floors in channels that were forgotten. Must not run while anything undecided
    /// counts on them.
    pub fn unload_idle(&mut self, moment: Moment) {
        self.forgotten.clear_some(&mut self.users);
        for _ in 0..UNLOAD_STEP {
            match self.idle.front() {
                Some((due, _)) if *due <= moment.elapsed => {}
                _ => break,
            }
            match self.idle.pop_front() {
                Some((_, Resident::Channel(name))) => self.unload_channel(name, moment),
                Some((_, Resident::User(name))) => self.unload_user(name, moment),
                None => break,
            }
        }
    }

    fn unload_channel(&mut self, name: ChannelName, moment: Moment) {
        self.idle_channels.remove(&name);
        let Some(channel) = self.channels.get(&name) else { return };
        if !channel.members.is_empty() {
            return;
        }
        let used = channel.used;
        if used + IDLE > moment.elapsed {
            self.channel_is_idle(&name, used);
        } else {
            self.overfull_channels.remove(&name);
            if let Some(channel) = self.channels.remove(&name) {
                self.tails.remove(&Place::Channel(name), &channel.tail);
                self.garbage.channels.push(channel);
            }
        }
    }

    fn unload_user(&mut self, name: Username, moment: Moment) {
        self.idle_users.remove(&name);
        let Some(user) = self.users.get(&name) else { return };
        if !user.connections.is_empty() {
            return;
        }
        let used = user.used;
        if used + IDLE > moment.elapsed {
            self.user_is_idle(&name, used);
        } else {
            self.overfull_users.remove(&name);
            self.drop_user(&name);
        }
    }

    fn drop_user(&mut self, name: &Username) {
        if let Some(user) = self.users.remove(name) {
            self.tails.remove(&Place::Inbox(name.clone()), &user.tail);
            self.garbage.users.push(user);
        }
    }

    // Tails.

    /// The tail of a place that is in memory.
    pub fn tail(&self, place: &Place) -> Option<&Tail> {
        match place {
            Place::Channel(name) => self.channels.get(name).map(|channel| &channel.tail),
            Place::Inbox(name) => self.users.get(name).map(|user| &user.tail),
        }
    }

    /// About how many bytes all tails keep alive.
    pub fn tail_bytes(&self) -> usize {
        self.tails.bytes()
    }

    /// Up to where the log should be read to make a tail reach further back; none: it has all, or
    /// there is no room for more.
    pub fn tail_wants(&self, place: &Place) -> Option<Position> {
        self.tail(place).filter(|_| self.tails.is_on()).and_then(Tail::wants)
    }

    /// How many messages and deletions the log holds of a place that is in memory.
    pub fn held(&self, place: &Place) -> usize {
        let retained = match place {
            Place::Channel(name) => self.channels.get(name).map(|channel| channel.retained),
            Place::Inbox(name) => self.users.get(name).map(|user| user.retained),
        };
        retained.map_or(0, |retained| retained.messages as usize + retained.deletions as usize)
    }

    /// Takes in what the log holds of a place up to `before`, as the store has it at the head.
    pub fn extend_tail(&mut self, place: &Place, before: Position, part: TailPart) {
        match place {
            Place::Channel(name) => {
                let Some(channel) = self.channels.get_mut(name) else { return };
                let history = &channel.history;
                let known = |position| history.at(position).map(|logged| logged.message.clone());
                self.tails.change(&mut channel.tail, || place.clone(), |tail| tail.extend(before, part, known));
            }
            Place::Inbox(name) => {
                let Some(user) = self.users.get_mut(name) else { return };
                self.tails.change(&mut user.tail, || place.clone(), |tail| tail.extend(before, part, |_| None));
            }
        }
        self.shed_tails();
    }

    /// Tails go that were not used for longest, until the others have room.
    pub(super) fn shed_tails(&mut self) {
        for _ in 0..SHED_STEP {
            if !self.tails.is_over() {
                return;
            }
            let Some(place) = self.tails.candidate() else { return };
            let tail = match &place {
                Place::Channel(name) => self.channels.get_mut(name).map(|channel| &mut channel.tail),
                Place::Inbox(name) => self.users.get_mut(name).map(|user| &mut user.tail),
            };
            self.tails.pass(tail, |tail| tail.raise(self.head));
        }
    }

    /// Whether anything waits to be trimmed.
    pub fn has_overfull(&self) -> bool {
        !self.overfull_channels.is_empty() || !self.overfull_users.is_empty()
    }

    /// Whether anything has to be ended or unloaded by now.
    pub fn is_anything_due(&self, moment: Moment) -> bool {
        let expired = self.expiring.first().is_some_and(|(at, _)| *at <= moment.elapsed);
        let idle = self.idle.front().is_some_and(|(at, _)| *at <= moment.elapsed);
        expired || idle
    }

    /// Whether users may have floors left in channels that were forgotten.
    pub fn is_clearing(&self) -> bool {
        !self.forgotten.is_empty()
    }

    /// How many channels and users are in memory.
    pub fn resident(&self) -> (usize, usize) {
        (self.channels.len(), self.users.len())
    }

    /// The logged message of that uuid in a channel's history, if memory holds it.
    pub(super) fn logged(&self, channel: &ChannelName, uuid: Uuid) -> Option<&Logged> {
        self.channels.get(channel)?.history.get(uuid)
    }

    /// Channels and inboxes of which the log holds more than it should.
    pub(super) fn overfull(&self) -> (impl Iterator<Item = &ChannelName>, impl Iterator<Item = &Username>) {
        (self.overfull_channels.iter(), self.overfull_users.iter())
    }
}

fn remember<T: Clone + Eq + std::hash::Hash>(absent: &mut Parted<T, ()>, name: &T) {
    absent.empty_part_of(name, MAX_ABSENT / PARTS);
    absent.insert(name.clone(), ());
}
