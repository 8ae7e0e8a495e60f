//! How events change the router, and what is shown then: one arm an event, in the order of the log.

use std::sync::Arc;

use super::channel::{Channel, Logged};
use super::connection::Connection;
use super::event::Event;
use super::frame::{Frame, Presence, StateChange};
use super::message::Audience;
use super::names::{ChannelName, ConnectionId, ListenerId, Username};
use super::position::Position;
use super::router::{Effect, Recipients, Router};
use super::state::{Change, Profile};
use super::tail::{Entry, Place, Said, Tail};
use super::timestamp::Moment;
use super::user::{Floor, User};

/// Most users of a channel that is forgotten who hear of one another: each hears of all others,
/// which is a million frames at a thousand.
const MAX_TOLD: usize = 500;

impl Router {
    /// Takes a decided, and where it is durable committed, event into the live state; adds to
    /// `effects` what has to be done about it.
    pub fn apply(&mut self, event: &Event, moment: Moment, effects: &mut Vec<Effect>) {
        if let Some(position) = event.position() {
            self.head = position;
        }
        match event {
            Event::ChannelKept { name, uuid, settings } => match self.channels.get_mut(name) {
                Some(channel) => {
                    if channel.settings.history_ttl != settings.history_ttl {
                        // What was over may not be any more.
                        let place = || Place::Channel(name.clone());
                        self.tails.change(&mut channel.tail, place, |tail| tail.raise(self.head));
                    }
                    channel.settings = settings.clone();
                    channel.last_active = moment.utc;
                    channel.cut_history();
                    if !settings.store_frames {
                        channel.recent.clear();
                    }
                    if channel.is_overfull() {
                        self.overfull_channels.insert(name.clone());
                    }
                }
                None => {
                    let mut channel = Channel::new(*uuid, settings.clone(), moment.utc);
                    channel.used = moment.elapsed;
                    self.add_channel(name.clone(), channel);
                }
            },
            Event::UserKept { name, uuid, profile } => match self.users.get_mut(name) {
                Some(user) => {
                    user.profile = profile.clone();
                    user.last_active = moment.utc;
                }
                None => {
                    let mut user = User::new(*uuid, profile.clone(), moment.utc);
                    user.created = self.head;
                    user.used = moment.elapsed;
                    self.add_user(name.clone(), user);
                }
            },
            Event::StateChanged { user, changed } => self.show_state_change(user, changed, moment, effects),
            Event::ConnectionOpened { id, user } => self.open_connection(*id, user, moment),
            Event::ConnectionEnded { id } => self.end_connection(*id, moment, effects),
            Event::Subscribed { id, channel } => {
                if let Some((user, first)) = self.join(*id, channel) {
                    self.touch_channel(channel, moment);
                    self.hold_floor(&user, channel);
                    if first {
                        self.show_presence(channel, user, true, moment, effects);
                    }
                }
            }
            Event::Unsubscribed { id, channel } => {
                let Some(connection) = self.connections.get_mut(id) else { return };
                if connection.channels.remove(channel) {
                    let (user, listener) = (connection.user.clone(), connection.listener);
                    if self.leave(*id, user.clone(), listener, channel, moment, effects) {
                        self.end_floor(&user, channel);
                    }
                }
            }
            Event::FloorSet { user, channel, position } => {
                if let Some(user) = self.with_floors(user) {
                    user.floors.insert(channel.clone(), Floor { position: *position, left: None });
                }
            }
            Event::FloorEnded { user, channel } => self.end_floor(user, channel),
            // In memory they end when they are looked at.
            Event::FloorsExpired { .. } => {}
            Event::Posted { position, message, inboxes } => {
                self.totals.posted += 1;
                let frame = Frame::Message { position: *position, message: message.clone() };
                match &message.channel {
                    Some(name) => {
                        let Some(channel) = self.channels.get_mut(name) else { return };
                        channel.used = moment.elapsed;
                        if let Some(position) = *position {
                            let committed = moment.micros();
                            channel.log(Logged { position, edit: None, committed, message: message.clone() });
                            let place = || Place::Channel(name.clone());
                            let post = |tail: &mut Tail| tail.post(position, committed, message.clone());
                            self.tails.change(&mut channel.tail, place, post);
                            if channel.is_overfull() {
                                self.overfull_channels.insert(name.clone());
                            }
                        }
                        self.show_in_channel(name, frame, true, moment, effects);
                    }
                    None => {
                        for name in inboxes {
                            let Some(user) = self.users.get_mut(name) else { continue };
                            if let Some(position) = *position {
                                user.retained.messages += 1;
                                let place = || Place::Inbox(name.clone());
                                let post = |tail: &mut Tail| tail.post(position, moment.micros(), message.clone());
                                self.tails.change(&mut user.tail, place, post);
                                if user.is_overfull() {
                                    self.overfull_users.insert(name.clone());
                                }
                            }
                        }
                        self.show_to_users(inboxes, frame, true, moment, effects);
                    }
                }
            }
            Event::Edited { position, edit, audience, original, message } => {
                let frame = Frame::Edit { position: *position, edit: edit.clone(), audience: audience.clone() };
                match &edit.channel {
                    Some(name) => {
                        let Some(channel) = self.channels.get_mut(name) else { return };
                        if let Some(message) = message {
                            channel.recent.replace(message);
                            if let Some(original) = original {
                                channel.history.replace(original.position, message.clone(), *position);
                            }
                        }
                        if let (Some(position), Some(original), Some(message)) = (*position, original, message) {
                            let place = || Place::Channel(name.clone());
                            let edit = |tail: &mut Tail| tail.edit(position, moment.micros(), original, message);
                            self.tails.change(&mut channel.tail, place, edit);
                        }
                        self.show_in_channel(name, frame, false, moment, effects);
                    }
                    None => {
                        let users = self.known(audience);
                        if let Some(message) = message {
                            self.each_user(&users, |user| user.recent.replace(message));
                        }
                        if let (Some(position), Some(original), Some(message)) = (*position, original, message) {
                            let edit = |tail: &mut Tail| tail.edit(position, moment.micros(), original, message);
                            users.iter().for_each(|name| self.follow(name, original.position, position, edit));
                        }
                        self.show_to_users(&users, frame, false, moment, effects);
                    }
                }
            }
            Event::Deleted { position, deletion, audience, original, about } => {
                // Of an earlier deletion there is one entry still.
                let adds = position.is_some() && original.map(|original| original.position) == *about;
                let frame =
                    Frame::Deletion { position: *position, deletion: deletion.clone(), audience: audience.clone() };
                match &deletion.channel {
                    Some(name) => {
                        let Some(channel) = self.channels.get_mut(name) else { return };
                        channel.recent.remove(deletion.uuid);
                        if let Some(original) = original
                            && channel.history.remove(original.position)
                        {
                            channel.retained.messages -= 1;
                        }
                        if adds {
                            channel.retained.deletions += 1;
                            if channel.is_overfull() {
                                self.overfull_channels.insert(name.clone());
                            }
                        }
                        if let Some(position) = *position {
                            let said =
                                Said::Deletion { uuid: deletion.uuid, about: *about, audience: audience.clone() };
                            let entry = Entry { position, committed: moment.micros(), said };
                            let place = || Place::Channel(name.clone());
                            let delete = |tail: &mut Tail| tail.delete(original.as_ref(), entry);
                            self.tails.change(&mut channel.tail, place, delete);
                        }
                        self.show_in_channel(name, frame, false, moment, effects);
                    }
                    None => {
                        let users = self.known(audience);
                        self.each_user(&users, |user| {
                            user.recent.remove(deletion.uuid);
                            user.retained.deletions += u32::from(adds);
                        });
                        if let (Some(position), Some(original)) = (*position, original) {
                            let said =
                                Said::Deletion { uuid: deletion.uuid, about: *about, audience: audience.clone() };
                            let entry = Entry { position, committed: moment.micros(), said };
                            let delete = |tail: &mut Tail| tail.delete(Some(original), entry.clone());
                            users.iter().for_each(|name| self.follow(name, original.position, position, delete));
                        }
                        self.show_to_users(&users, frame, false, moment, effects);
                    }
                }
            }
            Event::ChannelTrimmed { channel: name, keep } => {
                self.overfull_channels.remove(name);
                let Some(channel) = self.channels.get_mut(name) else { return };
                self.tails.change(&mut channel.tail, || Place::Channel(name.clone()), |tail| tail.trim(*keep));
                channel.retained = channel.retained.at_most(*keep);
                if channel.is_overfull() {
                    self.overfull_channels.insert(name.clone());
                }
            }
            Event::ChannelExpired { channel: name, through } => {
                if let Some(channel) = self.channels.get_mut(name) {
                    channel.recent.expire(*through);
                    self.tails.change(&mut channel.tail, || Place::Channel(name.clone()), |tail| tail.expire(*through));
                }
            }
            Event::InboxTrimmed { user: name, keep } => {
                self.overfull_users.remove(name);
                let Some(user) = self.users.get_mut(name) else { return };
                self.tails.change(&mut user.tail, || Place::Inbox(name.clone()), |tail| tail.trim(*keep));
                user.retained = user.retained.at_most(*keep);
                if user.is_overfull() {
                    self.overfull_users.insert(name.clone());
                }
            }
            Event::UserForgotten { name } => self.remove_user(name),
            Event::ChannelForgotten { name } => self.forget_channel(name, moment, effects),
        }
        self.shed_tails();
    }

    /// The entry at `original`, which is private, is changed by one at `position`, in an inbox if
    /// that holds it.
    fn follow(&mut self, name: &Username, original: Position, position: Position, change: impl FnOnce(&mut Tail)) {
        let Some(user) = self.users.get_mut(name) else { return };
        self.tails.change(
            &mut user.tail,
            || Place::Inbox(name.clone()),
            |tail| match tail.has(original) {
                Some(true) => change(tail),
                Some(false) => {}
                None => tail.raise(position),
            },
        );
    }

    /// Takes in a connection that was alive when the server stopped; nobody is told, since for
    /// the members it never went. Its user and channels must be in memory.
    pub fn restore(&mut self, id: ConnectionId, user: &Username, channels: &[ChannelName], moment: Moment) {
        self.open_connection(id, user, moment);
        for channel in channels {
            self.join(id, channel);
        }
    }

    /// A user is in a channel: its floor is the head, unless it has one.
    fn hold_floor(&mut self, user: &Username, channel: &ChannelName) {
        let head = self.head;
        if let Some(user) = self.with_floors(user) {
            user.floors.entry_ref(channel).or_insert(Floor { position: head, left: None }).left = None;
        }
    }

    fn end_floor(&mut self, user: &Username, channel: &ChannelName) {
        if let Some(user) = self.with_floors(user) {
            user.floors.remove(channel);
        }
    }

    fn open_connection(&mut self, id: ConnectionId, name: &Username, moment: Moment) {
        let Some(user) = self.users.get_mut(name) else { return };
        user.last_active = moment.utc;
        if self.connections.contains_key(&id) {
            return self.renew(id, moment);
        }
        user.connections.push(id);
        let expires = moment.elapsed + self.grace;
        self.expiring.insert((expires, id));
        self.connections.insert(
            id,
            Connection {
                user: name.clone(),
                channels: Default::default(),
                listener: None,
                seen: self.tick,
                expires: Some(expires),
                dismissed: false,
                opened: (moment.elapsed, 0),
            },
        );
    }

    fn end_connection(&mut self, id: ConnectionId, moment: Moment, effects: &mut Vec<Effect>) {
        let Some(connection) = self.connections.remove(&id) else { return };
        if let Some(expires) = connection.expires {
            self.expiring.remove(&(expires, id));
        }
        for channel in &connection.channels {
            let last = self.leave(id, connection.user.clone(), connection.listener, channel, moment, effects);
            if last
                && let Some(user) = self.with_floors(&connection.user)
                && let Some(floor) = user.floors.get_mut(channel)
            {
                floor.left = Some(moment.utc);
            }
        }
        if let Some(user) = self.users.get_mut(&connection.user) {
            // They end in their order, mostly: there it is found at once.
            if let Some(index) = user.connections.iter().position(|other| *other == id) {
                user.connections.remove(index);
            }
            user.last_active = moment.utc;
            user.used = moment.elapsed;
            if user.connections.is_empty() {
                self.user_is_idle(&connection.user, moment.elapsed);
            }
        }
        let dismissed = connection.dismissed;
        effects.extend(connection.listener.map(|listener| Effect::End { listener, dismissed }));
    }

    /// Makes a connection a member; says whose it is and whether that user is new there.
    fn join(&mut self, id: ConnectionId, name: &ChannelName) -> Option<(Username, bool)> {
        let connection = self.connections.get_mut(&id)?;
        let channel = self.channels.get_mut(name)?;
        if !connection.channels.insert(name.clone()) {
            return None;
        }
        if let Some(listener) = connection.listener {
            channel.members.attach(listener);
        }
        let first = channel.members.join(&connection.user, id);
        Some((connection.user.clone(), first))
    }

    fn touch_channel(&mut self, name: &ChannelName, moment: Moment) {
        if let Some(channel) = self.channels.get_mut(name) {
            channel.last_active = moment.utc;
        }
    }

    /// Takes a connection out of a channel; true if it was the user's last there.
    fn leave(
        &mut self,
        id: ConnectionId,
        user: Username,
        listener: Option<ListenerId>,
        name: &ChannelName,
        moment: Moment,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(channel) = self.channels.get_mut(name) else { return false };
        if let Some(listener) = listener {
            channel.members.detach(listener);
        }
        let last = channel.members.leave(&user, id);
        channel.last_active = moment.utc;
        if channel.members.is_empty() {
            channel.used = moment.elapsed;
            self.channel_is_idle(name, moment.elapsed);
        }
        if last {
            self.show_presence(name, user, false, moment, effects);
        }
        last
    }

    /// A channel is no more: each of its members hears that the others are gone.
    fn forget_channel(&mut self, name: &ChannelName, moment: Moment, effects: &mut Vec<Effect>) {
        let Some(channel) = self.remove_channel(name) else { return };
        let is_told = channel.settings.notify_presence && channel.members.user_count() <= MAX_TOLD;
        let mut listeners = Vec::new();
        for (user, connections) in channel.members.iter() {
            for id in connections {
                let Some(connection) = self.connections.get_mut(id) else { continue };
                connection.channels.remove(name);
                listeners.extend(connection.listener.filter(|_| is_told).map(|listener| (user, listener)));
            }
        }
        if is_told {
            for user in channel.members.roster().iter() {
                let others = listeners.iter().filter(|(other, _)| *other != user).map(|(_, listener)| *listener);
                let presence = Presence {
                    uuid: (self.new_uuid)(),
                    channel: name.clone(),
                    joined: None,
                    user: user.clone(),
                    members: Vec::new(),
                    time: moment.utc,
                };
                self.tick.0 += 1;
                let (frame, to) = (Frame::Presence(Arc::new(presence)), Recipients::Only(others.collect()));
                effects.push(Effect::Show { tick: self.tick, frame, to });
            }
        }
        self.forgotten.add(name.clone());
        self.throw_away(channel);
    }

    fn show_presence(
        &mut self,
        name: &ChannelName,
        user: Username,
        joined: bool,
        moment: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let Some(channel) = self.channels.get(name) else { return };
        if !channel.settings.notify_presence {
            return;
        }
        let members = if channel.settings.broadcast_presence_with_user_lists {
            channel.members.users().map(|member| (member.clone(), self.profile(member))).collect()
        } else {
            Vec::new()
        };
        let presence = Presence {
            uuid: (self.new_uuid)(),
            channel: name.clone(),
            joined: joined.then(|| self.profile(&user)),
            user,
            members,
            time: moment.utc,
        };
        self.show_in_channel(name, Frame::Presence(Arc::new(presence)), false, moment, effects);
    }

    fn show_state_change(
        &mut self,
        user: &Username,
        changed: &Arc<[Change]>,
        moment: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let Some(known) = self.users.get(user) else { return };
        let profile: Profile = known.profile.clone();
        let of_user = known.connections.iter().filter_map(|id| self.connections.get(id));
        let is_told =
            |name: &&ChannelName| self.channels.get(*name).is_some_and(|channel| channel.settings.notify_state);
        let mut channels: Vec<ChannelName> =
            of_user.flat_map(|connection| connection.channels.iter()).filter(is_told).cloned().collect();
        channels.sort_unstable();
        channels.dedup();
        for name in channels {
            let change = StateChange {
                uuid: (self.new_uuid)(),
                channel: name.clone(),
                user: user.clone(),
                profile: profile.clone(),
                changed: changed.clone(),
                time: moment.utc,
            };
            self.show_in_channel(&name, Frame::StateChange(Arc::new(change)), false, moment, effects);
        }
    }

    /// Puts a frame before the members of a channel that may see it.
    fn show_in_channel(
        &mut self,
        name: &ChannelName,
        frame: Frame,
        counts: bool,
        moment: Moment,
        effects: &mut Vec<Effect>,
    ) {
        self.tick.0 += 1;
        let Some(channel) = self.channels.get_mut(name) else { return };
        channel.last_active = moment.utc;
        if channel.settings.store_frames {
            channel.recent.push(self.tick, moment.micros(), frame.clone());
        }
        let members = &channel.members;
        let (to, connections) = if frame.is_for_everyone() {
            (Recipients::Members { channel: name.clone(), except: Vec::new() }, members.connection_count())
        } else {
            let connections_of = |user: &Username| members.connections_of(user).iter();
            let listener_of = |id: &ConnectionId| self.connections.get(id)?.listener;
            match &frame {
                Frame::Presence(presence) => {
                    let own = connections_of(&presence.user);
                    let count = members.connection_count() - own.len();
                    let mut except: Vec<_> = own.filter_map(listener_of).collect();
                    except.sort_unstable();
                    (Recipients::Members { channel: name.clone(), except }, count)
                }
                Frame::Message { .. } | Frame::Edit { .. } | Frame::Deletion { .. } | Frame::StateChange(_) => {
                    let audience = frame.audience();
                    let ids: Vec<&ConnectionId> = if audience.only.is_empty() {
                        let excluded: hashbrown::HashSet<&Username> = audience.except.iter().collect();
                        members.users().filter(|user| !excluded.contains(user)).flat_map(connections_of).collect()
                    } else {
                        let named = audience.named();
                        named.iter().flat_map(connections_of).collect()
                    };
                    let count = ids.len();
                    (Recipients::Only(ids.into_iter().filter_map(listener_of).collect()), count)
                }
            }
        };
        if counts {
            self.totals.delivered += connections as u64;
        }
        effects.push(Effect::Show { tick: self.tick, frame, to });
    }

    /// Puts a private frame before all connections of each user.
    fn show_to_users(
        &mut self,
        users: &[Username],
        frame: Frame,
        counts: bool,
        moment: Moment,
        effects: &mut Vec<Effect>,
    ) {
        self.tick.0 += 1;
        let mut listeners = Vec::new();
        for name in users {
            let Some(user) = self.users.get_mut(name) else { continue };
            user.recent.push(self.tick, moment.micros(), frame.clone());
            if counts {
                self.totals.delivered += user.connections.len() as u64;
            }
            listeners.extend(user.connections.iter().filter_map(|id| self.connections.get(id)?.listener));
        }
        effects.push(Effect::Show { tick: self.tick, frame, to: Recipients::Only(listeners) });
    }

    /// The users of a private message's audience that are in memory.
    fn known(&self, audience: &Audience) -> Vec<Username> {
        audience.named().into_iter().filter(|name| self.users.contains_key(name)).collect()
    }

    fn each_user(&mut self, names: &[Username], mut change: impl FnMut(&mut User)) {
        for name in names {
            if let Some(user) = self.users.get_mut(name) {
                change(user);
            }
        }
    }
}
