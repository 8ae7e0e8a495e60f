//! Looking at things: what memory holds from there, the rest from the store.

use hashbrown::{HashMap, HashSet};

use super::core::Hub;
use crate::domain::names::{ChannelName, ConnectionId, Username};
use crate::domain::position::Cursor;
use crate::domain::tail::Place;
use crate::domain::view::{ChannelView, ChannelsView, ConnectedUser, HistoryOptions, HistoryView, InfoOptions, Report};
use crate::journal::Failure;
use crate::lock::Purpose;
use crate::store::HistoryQuery;

/// Channels looked at under the lock, or read from the store, in one go.
const PAGE: usize = 500;
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

impl Hub {
    /// Looks at channels and who is in them.
    ///
    /// # Errors
    /// If channels that are not in memory cannot be read.
    pub async fn info(&self, options: &InfoOptions) -> Result<ChannelsView, Failure> {
        let mut view = ChannelsView { public_state_only: options.return_public_state, ..ChannelsView::default() };
        let mut users = HashSet::new();
        if let Some(names) = &options.channels {
            let mut seen = HashSet::new();
            let names: Vec<ChannelName> = names.iter().filter(|name| seen.insert(*name)).cloned().collect();
            for page in names.chunks(PAGE) {
                self.look_at(page, options, &mut view, &mut users).await?;
            }
            return Ok(view);
        }
        let mut after = 0;
        loop {
            let page = self.store.channel_names(after, PAGE as u32).await.map_err(|_| Failure::Unavailable)?;
            let Some((last, _)) = page.last() else { return Ok(view) };
            after = *last;
            let names: Vec<ChannelName> = page.into_iter().map(|(_, name)| name).collect();
            self.look_at(&names, options, &mut view, &mut users).await?;
        }
    }

    /// Adds a page of channels to a view.
    async fn look_at(
        &self,
        names: &[ChannelName],
        options: &InfoOptions,
        view: &mut ChannelsView,
        users: &mut HashSet<Username>,
    ) -> Result<(), Failure> {
        let moment = self.clock.now();
        let (in_memory, missing) = {
            let live = self.live.lock(Purpose::Look);
            let missing: HashSet<ChannelName> = names
                .iter()
                .filter(|name| !live.router.knows_channel(name) && !options.exclude_channels.contains(*name))
                .cloned()
                .collect();
            (live.router.view(names, options, None, moment), missing)
        };
        let stored = self.store.channels(&missing).await.map_err(|_| Failure::Unavailable)?;
        view.users.extend(in_memory.users.into_iter().filter(|(user, _)| users.insert(user.clone())));
        let mut found: HashMap<ChannelName, ChannelView> =
            in_memory.channels.into_iter().map(|channel| (channel.name.clone(), channel)).collect();
        for (name, channel) in &stored {
            found.entry_ref(name).or_insert_with(|| ChannelView::of(name, channel, options, None, moment));
        }
        view.channels.extend(names.iter().filter_map(|name| found.remove(name)));
        Ok(())
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

    /// Everything that the admin panel shows.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn report(&self) -> Result<Report, Failure> {
        let view = self.info(&InfoOptions::default()).await?;
        let stored = self.store.totals().await.map_err(|_| Failure::Unavailable)?;
        let live = self.live.lock(Purpose::Look);
        let connected = live.router.connected_users().map(|(name, user)| ConnectedUser {
            name: name.clone(),
            uuid: user.uuid,
            profile: user.profile.clone(),
            connections: user.connections.clone(),
        });
        Ok(Report {
            users: stored.users,
            channels: stored.channels,
            connections: live.router.connection_count(),
            totals: live.router.totals(),
            connected: connected.collect(),
            view,
            uptime: self.clock.now().elapsed,
        })
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
