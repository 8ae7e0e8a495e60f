//! How listeners come and go: a connection's open socket or poll, what it missed, and when a
//! connection is over.

use std::time::Duration;

use super::connection::Connection;
use super::frame::{Frame, Tick};
use super::names::{ConnectionId, ListenerId, Username};
use super::position::Position;
use super::router::Router;
use super::timestamp::Moment;

/// How a listener went away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// The client closed its socket: the connection is over at the next sweep.
    Closed,
    /// The socket was lost, the poll ended, or the server closed it: the connection may be opened
    /// again during the grace time.
    Lost,
}

impl Router {
    /// The open listener of a connection.
    pub fn listener_of(&self, id: ConnectionId) -> Option<ListenerId> {
        self.connections.get(&id)?.listener
    }

    /// Counts an opening of a connection; false if there were `rate` within a second already. A
    /// connection that is not known may be opened: that is told otherwise.
    pub fn may_attach(&mut self, id: ConnectionId, rate: u32, moment: Moment) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else { return true };
        let (since, count) = &mut connection.opened;
        if moment.elapsed.saturating_sub(*since) >= Duration::from_secs(1) {
            (*since, *count) = (moment.elapsed, 0);
        }
        *count += 1;
        *count <= rate
    }

    /// The frames that a connection missed, that memory still holds, and that are not logged.
    pub fn missed_unlogged(&self, id: ConnectionId) -> Vec<Frame> {
        let Some(connection) = self.connections.get(&id) else { return Vec::new() };
        let channels = connection.channels.iter().filter_map(|name| self.channels.get(name));
        let in_channels = channels.flat_map(|channel| channel.recent.after(connection.seen));
        let private = self.users.get(&connection.user).into_iter().flat_map(|user| user.recent.after(connection.seen));
        let mine = in_channels.filter(|frame| frame.admits(&connection.user)).chain(private);
        mine.filter(|frame| frame.position().is_none()).cloned().collect()
    }

    /// A connection begins to listen; it must have no other listener. Gives the frames that it
    /// missed and memory still holds: channel by channel in name order, then private ones. None
    /// if there is no such connection.
    pub fn attach(&mut self, id: ConnectionId, listener: ListenerId, moment: Moment) -> Option<Vec<Frame>> {
        let connection = self.connections.get_mut(&id)?;
        connection.listener = Some(listener);
        if !connection.dismissed
            && let Some(expires) = connection.expires.take()
        {
            self.expiring.remove(&(expires, id));
        }
        let mut missed = Vec::new();
        for name in &connection.channels {
            let Some(channel) = self.channels.get_mut(name) else { continue };
            channel.members.attach(listener);
            if channel.settings.history_ttl.is_some() {
                channel.recent.expire(channel.settings.over_by(moment.micros()));
            }
            let frames = channel.recent.after(connection.seen);
            missed.extend(frames.filter(|frame| frame.admits(&connection.user)).cloned());
        }
        if let Some(user) = self.users.get(&connection.user) {
            missed.extend(user.recent.after(connection.seen).cloned());
        }
        Some(missed)
    }

    /// A connection listens no more; it was sent everything up to `seen`.
    pub fn detach(&mut self, id: ConnectionId, listener: ListenerId, seen: Tick, how: Departure, moment: Moment) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.listener != Some(listener) {
            return;
        }
        connection.listener = None;
        connection.seen = seen;
        for name in &connection.channels {
            if let Some(channel) = self.channels.get_mut(name) {
                channel.members.detach(listener);
            }
        }
        let expires = match how {
            Departure::Closed => moment.elapsed,
            Departure::Lost => moment.elapsed + self.grace,
        };
        self.expire(id, expires);
    }

    /// The client is done with a connection: it is over at the next sweep, whoever listens on it
    /// meanwhile. False if there is none.
    pub fn dismiss(&mut self, id: ConnectionId, moment: Moment) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        connection.dismissed = true;
        self.expire(id, moment.elapsed);
        true
    }

    /// The application let a known connection in again: its grace time begins anew.
    pub(super) fn renew(&mut self, id: ConnectionId, moment: Moment) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.dismissed = false;
        if let Some(expires) = connection.expires.take() {
            self.expiring.remove(&(expires, id));
        }
        if connection.listener.is_none() {
            self.expire(id, moment.elapsed + self.grace);
        }
    }

    /// A connection is over at that time, or at the one already set if that is sooner.
    fn expire(&mut self, id: ConnectionId, at: Duration) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let at = match connection.expires {
            Some(sooner) if sooner <= at => return,
            Some(later) => {
                self.expiring.remove(&(later, id));
                at
            }
            None => at,
        };
        connection.expires = Some(at);
        self.expiring.insert((at, id));
    }

    /// After a restart: takes logged frames into memory for listeners that keep no cursor, each
    /// with the user whose inbox has it, if it is private, and notes what connections have seen.
    pub fn recall(
        &mut self,
        mut frames: Vec<(Frame, Option<Username>)>,
        heads: &[(ConnectionId, Position)],
        moment: Moment,
    ) {
        frames.sort_by_key(|(frame, _)| frame.position());
        let start = self.tick;
        let positions: Vec<Position> = frames.iter().filter_map(|(frame, _)| frame.position()).collect();
        for (frame, inbox) in frames {
            self.tick.0 += 1;
            if let Some(user) = inbox {
                if let Some(user) = self.users.get_mut(&user) {
                    user.recent.push(self.tick, moment.micros(), frame);
                }
            } else if let Some(channel) = frame.channel().and_then(|name| self.channels.get_mut(name))
                && channel.settings.store_frames
            {
                channel.recent.push(self.tick, moment.micros(), frame);
            }
        }
        for (id, head) in heads {
            if let Some(connection) = self.connections.get_mut(id) {
                let seen = positions.partition_point(|position| position <= head);
                connection.seen = Tick(start.0 + seen as u64);
            }
        }
    }

    /// Up to where each connection has seen the log.
    pub fn seen_positions(&self) -> Vec<(ConnectionId, Position)> {
        let first_unseen = |connection: &Connection| {
            let channels = connection.channels.iter().filter_map(|name| self.channels.get(name));
            let in_channels = channels.map(|channel| &channel.recent);
            let recent = in_channels.chain(self.users.get(&connection.user).map(|user| &user.recent));
            recent.filter_map(|recent| recent.after(connection.seen).find_map(Frame::position)).min()
        };
        let seen = |connection| first_unseen(connection).map_or(self.head, |next| Position(next.0 - 1));
        self.connections.iter().map(|(id, connection)| (*id, seen(connection))).collect()
    }

    /// Connections that are over by now, at most `limit`.
    pub fn expired(&self, moment: Moment, limit: usize) -> Vec<ConnectionId> {
        let due = self.expiring.iter().take_while(|(at, _)| *at <= moment.elapsed);
        due.take(limit).map(|(_, id)| *id).collect()
    }
}
