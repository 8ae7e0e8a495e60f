//! Looking at things: what memory holds from there, the rest from the store.

use hashbrown::{HashMap, HashSet};

use super::core::Hub;
use crate::domain::names::{ChannelName, ConnectionId, Username};
use crate::domain::view::{ChannelView, ChannelsView, ConnectedUser, InfoOptions, Report};
use crate::journal::Failure;

/// Channels looked at under the lock, or read from the store, in one go.
const PAGE: usize = 500;

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
            let live = self.live.lock();
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

    /// Everything that the admin panel shows.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn report(&self) -> Result<Report, Failure> {
        let view = self.info(&InfoOptions::default()).await?;
        let stored = self.store.totals().await.map_err(|_| Failure::Unavailable)?;
        let live = self.live.lock();
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
        self.live.lock().router.connection(id).is_some()
    }

    /// Whether there is such a user; asks the store if memory cannot tell.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn knows_user(&self, name: &Username) -> Result<bool, Failure> {
        {
            let live = self.live.lock();
            if live.router.knows_user(name) {
                return Ok(live.router.user(name).is_some());
            }
        }
        let names = HashSet::from_iter([name.clone()]);
        let users = self.store.users(&names).await.map_err(|_| Failure::Unavailable)?;
        Ok(users.contains_key(name))
    }
}
