//! Looking at things: what memory holds from there, the rest from the store.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use super::core::Hub;
use crate::domain::names::{ChannelName, ConnectionId, Username};
use crate::domain::position::Cursor;
use crate::domain::router::PARTS;
use crate::domain::state::Profile;
use crate::domain::tail::Place;
use crate::domain::view::{ChannelView, ConnectedUser, HistoryOptions, HistoryView, InfoOptions, Report};
use crate::journal::Failure;
use crate::lock::Purpose;
use crate::store::HistoryQuery;

/// Channels read from the store, or users looked at under the lock, in one go.
const PAGE: usize = 500;
/// Most channels, messages and pieces of member lists that are looked at under the lock in one go.
const SEEN: usize = 2_000;
/// Most bytes of bodies in a page of history: as large as the largest request by default.
const MAX_HISTORY_BYTES: u64 = 8 << 20;

/// Why there is no history to be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoHistory {
    /// There is no such channel.
    UnknownChannel,
    /// There is no such user.
    UnknownUser,
    /// The cursor to end before cannot be trusted.
    UnknownBefore,
    /// The cursor to begin after cannot be trusted.
    UnknownAfter,
    /// The store cannot be read.
    Unavailable,
}

/// A look at channels and who is in them, some at a time: nothing is held in between, and no more is
/// read than is asked for.
pub struct Look {
    hub: Arc<Hub>,
    options: InfoOptions,
    names: Names,
    /// Channels that are looked at next.
    waiting: Vec<ChannelName>,
    /// Members that were found.
    members: HashSet<Username>,
    /// With their states, as far as they were not taken.
    people: VecDeque<(Username, Profile)>,
}

/// Which channels are to be looked at.
enum Names {
    /// These.
    These(std::vec::IntoIter<ChannelName>),
    /// All that the store has after one that it knows by number.
    AllAfter(i64),
}

impl Look {
    /// What is asked for.
    pub fn options(&self) -> &InfoOptions {
        &self.options
    }

    /// Some more channels; none: that was all.
    ///
    /// # Errors
    /// If channels that are not in memory cannot be read.
    pub async fn channels(&mut self) -> Result<Option<Vec<ChannelView>>, Failure> {
        if self.waiting.is_empty() {
            self.waiting = self.next_names().await?;
        }
        if self.waiting.is_empty() {
            return Ok(None);
        }
        let moment = self.hub.clock.now();
        let glance = self.hub.live.lock(Purpose::Look).router.glance(&self.waiting, &self.options, None, SEEN, moment);
        let names: Vec<ChannelName> = self.waiting.drain(..glance.count).collect();
        let members = glance.channels.iter().flat_map(|channel| channel.users.iter());
        let new: Vec<Username> = members.filter(|user| self.members.insert((*user).clone())).cloned().collect();
        self.people.extend(self.hub.people(new));
        if glance.unknown.is_empty() {
            return Ok(Some(glance.channels));
        }
        let store = &self.hub.store;
        let stored = match self.options.include_history {
            true => store.channels(&glance.unknown).await,
            false => store.bare_channels(&glance.unknown).await,
        };
        let stored = stored.map_err(|_| Failure::Unavailable)?;
        let mut found: HashMap<ChannelName, ChannelView> =
            glance.channels.into_iter().map(|channel| (channel.name.clone(), channel)).collect();
        for (name, channel) in &stored {
            found.entry_ref(name).or_insert_with(|| ChannelView::of(name, channel, &self.options, None, moment));
        }
        Ok(Some(names.iter().filter_map(|name| found.remove(name)).collect()))
    }

    async fn next_names(&mut self) -> Result<Vec<ChannelName>, Failure> {
        match &mut self.names {
            Names::These(names) => Ok(names.take(PAGE).collect()),
            Names::AllAfter(last) => {
                let page = self.hub.store.channel_names(*last, PAGE as u32).await;
                let page = page.map_err(|_| Failure::Unavailable)?;
                *last = page.last().map_or(*last, |(number, _)| *number);
                Ok(page.into_iter().map(|(_, name)| name).collect())
            }
        }
    }

    /// Some more of the members of all these channels, each once; none: that was all of those that
    /// were looked at so far.
    pub fn people(&mut self) -> Option<Vec<(Username, Profile)>> {
        let some: Vec<_> = self.people.drain(..self.people.len().min(PAGE)).collect();
        (!some.is_empty()).then_some(some)
    }
}

impl Hub {
    /// Looks at channels and who is in them.
    pub fn look(self: &Arc<Self>, mut options: InfoOptions) -> Look {
        let names = match options.channels.take() {
            Some(mut names) => {
                let mut seen = HashSet::new();
                names.retain(|name| seen.insert(name.clone()));
                Names::These(names.into_iter())
            }
            None => Names::AllAfter(0),
        };
        let (waiting, members, people) = (Vec::new(), HashSet::new(), VecDeque::new());
        Look { hub: self.clone(), options, names, waiting, members, people }
    }

    /// Users with their states at this moment, or a little later.
    pub fn people(&self, users: Vec<Username>) -> Vec<(Username, Profile)> {
        let mut people = Vec::with_capacity(users.len());
        for page in users.chunks(PAGE) {
            let live = self.live.lock(Purpose::Look);
            people.extend(page.iter().map(|user| (user.clone(), live.router.profile(user))));
        }
        people
    }

    /// Reads messages that the log holds, up to the head of this moment.
    ///
    /// # Errors
    /// See [`NoHistory`].
    pub async fn history(&self, options: HistoryOptions) -> Result<HistoryView, NoHistory> {
        let (head, before, after) = {
            let live = self.live.lock(Purpose::Glance);
            let head = live.router.head();
            let resolve = |cursor: &Option<Cursor>, unknown: NoHistory| {
                cursor.as_ref().map(|cursor| live.router.resolve(cursor, head).ok_or(unknown)).transpose()
            };
            let before = resolve(&options.before, NoHistory::UnknownBefore)?;
            (head, before, resolve(&options.after, NoHistory::UnknownAfter)?)
        };
        let query = HistoryQuery {
            place: &options.place,
            after,
            before,
            through: head,
            at: self.clock.now().utc,
            limit: options.limit,
            max_bytes: MAX_HISTORY_BYTES,
        };
        match self.store.history(&query).await {
            Ok(Some(page)) => {
                Ok(HistoryView { place: options.place, messages: page.messages, head, has_more: page.has_more })
            }
            Ok(None) => Err(match options.place {
                Place::Channel(_) => NoHistory::UnknownChannel,
                Place::Inbox(_) => NoHistory::UnknownUser,
            }),
            Err(_) => Err(NoHistory::Unavailable),
        }
    }

    /// What the admin panel shows besides channels.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn report(&self) -> Result<Report, Failure> {
        let stored = self.store.totals().await.map_err(|_| Failure::Unavailable)?;
        let mut connected = Vec::new();
        for part in 0..PARTS {
            let live = self.live.lock(Purpose::Look);
            connected.extend(live.router.connected_users(part).map(|(name, _)| name.clone()));
        }
        let live = self.live.lock(Purpose::Glance);
        Ok(Report {
            users: stored.users,
            channels: stored.channels,
            connections: live.router.connection_count(),
            totals: live.router.totals(),
            connected,
            uptime: self.clock.now().elapsed,
        })
    }

    /// Those of some users that have connections now.
    pub fn connected(&self, users: &[Username]) -> Vec<ConnectedUser> {
        let live = self.live.lock(Purpose::Look);
        let known = users.iter().filter_map(|name| Some((name, live.router.user(name)?)));
        let connected = known.filter(|(_, user)| !user.connections.is_empty()).map(|(name, user)| ConnectedUser {
            name: name.clone(),
            uuid: user.uuid,
            profile: user.profile.clone(),
            connections: user.connections.iter().copied().collect(),
        });
        connected.collect()
    }

    /// Whether there is such a connection.
    pub fn knows_connection(&self, id: ConnectionId) -> bool {
        self.live.lock(Purpose::Glance).router.connection(id).is_some()
    }

    /// Whether there is such a user; asks the store if memory cannot tell.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn knows_user(&self, name: &Username) -> Result<bool, Failure> {
        {
            let live = self.live.lock(Purpose::Glance);
            if live.router.knows_user(name) {
                return Ok(live.router.user(name).is_some());
            }
        }
        let names = HashSet::from_iter([name.clone()]);
        let users = self.store.users(&names).await.map_err(|_| Failure::Unavailable)?;
        Ok(users.contains_key(name))
    }
}
