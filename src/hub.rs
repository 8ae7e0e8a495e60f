//! The hub: the async face of everything behind the edge. Handlers and listeners know it and
//! nothing below it.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::domain::draft::{Draft, HeldByUuid, Key};
use crate::domain::frame::Tick;
use crate::domain::listen::Departure;
use crate::domain::names::{ChannelName, ConnectionId, ListenerId, Username};
use crate::domain::operation::{ForgetIdleUsers, Operation, Post, Posted, Sweep};
use crate::domain::position::Epoch;
use crate::domain::router::Router;
use crate::domain::timestamp::Moment;
use crate::domain::view::{ChannelView, ChannelsView, InfoOptions};
use crate::journal::{Clock, Failure, Journal};
use crate::live::Live;
use crate::mailbox::{Closing, Mail, Mailbox, Piece};
use crate::store::{Start, Store, StoreError};
use crate::wire::reply::{AdminReport, ConnectedUser};

/// Channels looked at under the lock, or read from the store, in one go.
const PAGE: usize = 500;
/// Users forgotten in one go.
const FORGET_PAGE: u32 = 500;

/// What the hub is told by the configuration.
#[derive(Debug, Clone)]
pub struct HubOptions {
    /// How long a connection lasts without a listener.
    pub grace: Duration,
    /// How long a request may wait for its commit.
    pub commit_timeout: Duration,
    /// Bytes that may wait for one listener.
    pub max_queue_bytes: usize,
    /// Most listeners at a time.
    pub max_listeners: Option<usize>,
    /// Openings of one connection a second.
    pub attach_rate: Option<u32>,
}

/// Why a connection cannot be listened on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CannotListen {
    /// There is no such connection.
    Unknown,
    /// It was opened too often within a second.
    TooOften,
    /// As many listen as may.
    Full,
}

/// See the module.
pub struct Hub {
    live: Arc<Mutex<Live>>,
    journal: Journal,
    journal_task: Mutex<Option<JoinHandle<()>>>,
    store: Arc<dyn Store>,
    clock: Arc<Clock>,
    epoch: Epoch,
    options: HubOptions,
}

impl Hub {
    /// Takes over a store: connections that were alive when the server stopped are there again.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn start(store: Arc<dyn Store>, start: Start, options: HubOptions) -> Result<Arc<Self>, StoreError> {
        let clock = Arc::new(Clock::start());
        let mut router = Router::new(start.head, options.grace, Uuid::new_v4);
        restore(&mut router, &*store, &clock).await?;
        let live = Live::new(router, start.epoch.clone(), options.max_queue_bytes);
        let live = Arc::new(Mutex::new(live));
        let (journal, task) = Journal::start(live.clone(), store.clone(), clock.clone(), options.commit_timeout);
        let journal_task = Mutex::new(Some(task));
        Ok(Arc::new(Self { live, journal, journal_task, store, clock, epoch: start.epoch, options }))
    }

    /// The numbering in force.
    pub fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    /// Now.
    pub fn now(&self) -> Moment {
        self.clock.now()
    }

    // What back ends ask for.

    /// Does one thing, all of it or nothing. `bytes`: the size of its request.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn perform<O: Operation>(&self, operation: O, bytes: usize) -> Result<O::Outcome, Failure> {
        self.journal.submit(operation, bytes, Vec::new()).await
    }

    /// Posts messages: straight to the listeners where nothing is stored, and otherwise through
    /// the journal.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn post(&self, mut post: Post, bytes: usize) -> Result<Vec<Posted>, Failure> {
        let keys: Vec<Key> = post.keys().collect();
        let wake = {
            let mut live = self.live.lock();
            let moment = self.clock.now();
            if post.is_ephemeral(&live.router) && !live.is_held(&keys) {
                show_now(&mut live, &mut post, moment)
            } else {
                live.hold(&keys);
                None
            }
        };
        match wake {
            Some(wake) => {
                wake.wake();
                Ok(post.posted)
            }
            None => self.journal.submit(post, bytes, keys).await,
        }
    }

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

    /// Adds a page of channels to a view: what memory holds from there, the rest from the store.
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
        let stored = match missing.is_empty() {
            true => HashMap::new(),
            false => self.store.channels(&missing).await.map_err(|_| Failure::Unavailable)?,
        };
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
    pub async fn report(&self) -> Result<AdminReport, Failure> {
        let view = self.info(&InfoOptions::default()).await?;
        let stored = self.store.totals().await.map_err(|_| Failure::Unavailable)?;
        let live = self.live.lock();
        let connected = live.router.connected_users().map(|(name, user)| ConnectedUser {
            name: name.clone(),
            uuid: user.uuid,
            profile: user.profile.clone(),
            connections: user.connections.clone(),
        });
        Ok(AdminReport {
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

    // What listeners ask for.

    /// Begins to listen on a connection; whoever listened on it before is closed.
    ///
    /// # Errors
    /// See [`CannotListen`].
    pub fn listen(self: &Arc<Self>, id: ConnectionId) -> Result<Listener, CannotListen> {
        let moment = self.clock.now();
        let mut live = self.live.lock();
        if self.options.max_listeners.is_some_and(|most| live.listener_count() >= most) {
            return Err(CannotListen::Full);
        }
        if let Some(rate) = self.options.attach_rate
            && !live.router.may_attach(id, rate, moment)
        {
            return Err(CannotListen::TooOften);
        }
        let (listener, mailbox, missed) = live.attach(id, moment).ok_or(CannotListen::Unknown)?;
        Ok(Listener { hub: self.clone(), id, listener, mailbox, missed, how: Departure::Lost })
    }

    /// The client is done with a connection; false if there is none.
    pub fn dismiss(&self, id: ConnectionId) -> bool {
        self.live.lock().router.dismiss(id, self.clock.now())
    }

    // What time asks for.

    /// Ends connections whose time is over, trims, and lets idle things leave memory.
    pub async fn sweep(&self) {
        let due = self.live.lock().router.is_anything_due(self.clock.now());
        if due {
            // A store that is down is reported by the journal; the next sweep tries again.
            let _ = self.perform(Sweep, 0).await;
        }
    }

    /// Forgets users that were away for longer than `after`.
    pub async fn forget_users(&self, after: Duration) {
        let Ok(after) = chrono::Duration::from_std(after) else { return };
        let Some(idle_since) = self.clock.now().utc.checked_sub_signed(after) else { return };
        loop {
            let users = match self.store.idle_users(idle_since, FORGET_PAGE).await {
                Ok(users) if !users.is_empty() => users,
                _ => return,
            };
            let more = users.len() as u32 == FORGET_PAGE;
            if self.perform(ForgetIdleUsers { users, idle_since }, 0).await.is_err() || !more {
                return;
            }
        }
    }

    /// Whether the store answers.
    ///
    /// # Errors
    /// Says why it does not.
    pub async fn check_store(&self) -> Result<(), String> {
        match tokio::time::timeout(self.options.commit_timeout, self.store.totals()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the store does not answer".to_owned()),
        }
    }

    /// Waits until nothing can be kept any more, because the journal failed.
    pub async fn failed(&self) {
        self.journal.ended().await;
    }

    /// How many listen.
    pub fn listener_count(&self) -> usize {
        self.live.lock().listener_count()
    }

    /// Sends all listeners away, spread over `during`.
    pub async fn send_away(&self, during: Duration) {
        let mailboxes = self.live.lock().stop_serving();
        let count = mailboxes.len();
        let started = tokio::time::Instant::now();
        for (index, mailbox) in mailboxes.into_iter().enumerate() {
            tokio::time::sleep_until(started + during.mul_f64(index as f64 / count as f64)).await;
            mailbox.close(Closing::GoingAway);
        }
    }

    /// Finishes what was handed in and lets the store go.
    ///
    /// # Errors
    /// If the store does not take note of it; nothing that was acknowledged is lost.
    pub async fn stop(&self) -> Result<(), StoreError> {
        self.journal.stop();
        let task = self.journal_task.lock().take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            return Err(StoreError::Unavailable(format!("the journal failed: {error}")));
        }
        self.store.close().await
    }
}

/// Decides and applies messages that nothing stores, without the journal.
fn show_now(live: &mut Live, post: &mut Post, moment: Moment) -> Option<crate::live::Wake> {
    let held = HeldByUuid::new();
    let mut draft = Draft::new(&live.router, moment, &held);
    draft.begin();
    post.decide(&live.router, &mut draft).ok()?;
    let (events, _) = draft.finish();
    live.apply(&events, moment);
    Some(live.hand_out())
}

/// Brings the connections that were alive at the stop back into memory, with all they refer to.
async fn restore(router: &mut Router, store: &dyn Store, clock: &Clock) -> Result<(), StoreError> {
    let connections = store.connections().await?;
    for page in connections.chunks(PAGE) {
        let users: HashSet<Username> =
            page.iter().map(|connection| connection.user.clone()).filter(|user| !router.knows_user(user)).collect();
        let channels: HashSet<ChannelName> = page
            .iter()
            .flat_map(|connection| connection.channels.iter().cloned())
            .filter(|channel| !router.knows_channel(channel))
            .collect();
        let (mut stored_users, mut stored_channels) = tokio::try_join!(store.users(&users), store.channels(&channels))?;
        let moment = clock.now();
        for name in &users {
            router.load_user(name, stored_users.remove(name), moment);
        }
        for name in &channels {
            router.load_channel(name, stored_channels.remove(name), moment);
        }
        for connection in page {
            router.restore(connection.id, &connection.user, &connection.channels, moment);
        }
    }
    Ok(())
}

/// An open listener; dropping it ends it.
pub struct Listener {
    hub: Arc<Hub>,
    id: ConnectionId,
    listener: ListenerId,
    mailbox: Arc<Mailbox>,
    missed: Option<Piece>,
    how: Departure,
}

impl Listener {
    /// The frames that were missed, if any; they come before all mail.
    pub fn take_missed(&mut self) -> Option<Piece> {
        self.missed.take()
    }

    /// Waits for mail; dropping the wait loses nothing.
    pub async fn mail(&self) -> Mail {
        self.mailbox.mail().await
    }

    /// Everything up to `tick` was sent.
    pub fn mark_written(&self, tick: Tick) {
        self.mailbox.mark_written(tick);
    }

    /// The client closed its socket, so that the connection is over.
    pub fn closed_by_client(&mut self) {
        self.how = Departure::Closed;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let moment = self.hub.clock.now();
        let mut live = self.hub.live.lock();
        live.detach(self.id, self.listener, self.how, moment);
        live.remove(self.listener);
    }
}
