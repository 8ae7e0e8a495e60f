//! The hub itself: what is asked of it, by back ends, by listeners, and by time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::restore::restore;
use crate::clock::Clock;
use crate::domain::listen::Departure;
use crate::domain::names::{ConnectionId, ListenerId};
use crate::domain::operation::{ExpireFloors, ExpireMessages, ForgetIdleUsers, Operation, Post, Posted, Sweep};
use crate::domain::position::{Epoch, Position};
use crate::domain::replay::Since;
use crate::domain::router::Router;
use crate::domain::tails::TailLimits;
use crate::domain::timestamp::Moment;
use crate::journal::{Failure, Journal};
use crate::live::{Attached, Live, Posting};
use crate::lock::{Lock, LockTimes, Purpose, SLICE};
use crate::mailbox::{Closing, Mailbox};
use crate::metrics::Metrics;
use crate::order::Unparked;
use crate::store::{Measured, Start, Store, StoreError};

/// Channels whose messages expire in one go.
const EXPIRE_PAGE: u32 = 20;
/// Users forgotten in one go: each takes some statements.
const FORGET_PAGE: u32 = 20;

/// Mailboxes that are collected in one go.
const MAILBOXES: usize = 1_000;
/// Most messages of one request that are shown in one hold of the lock.
const SHOWN: usize = 256;

/// Listeners that read from memory at the same time. It takes no time that anybody waits for, so that
/// thousands would all be ready to run, and whoever is to be shown something live would come after them.
const READING: usize = 2;

/// What the hub is told by the configuration.
#[derive(Debug, Clone)]
pub struct HubOptions {
    /// How long a connection lasts without a listener.
    pub grace: Duration,
    /// How long a floor lasts after the user's last connection left.
    pub resume_window: Duration,
    /// How long a request may wait for its commit.
    pub commit_timeout: Duration,
    /// Bytes that may wait for one listener.
    pub max_queue_bytes: usize,
    /// How much memory log tails may take.
    pub tails: TailLimits,
    /// Most listeners at a time.
    pub max_listeners: Option<usize>,
    /// Openings of one connection's websocket a second.
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
    pub(super) live: Arc<Lock<Live>>,
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<Clock>,
    pub(super) journal: Journal,
    pub(super) metrics: Arc<Metrics>,
    /// Those who come back read from memory in turns.
    pub(super) turns: Semaphore,
    /// Those whom memory cannot serve read from the store in turns: others need its readers, too.
    pub(super) store_turns: Semaphore,
    journal_task: Mutex<Option<JoinHandle<()>>>,
    epoch: Epoch,
    options: HubOptions,
}

impl Hub {
    /// Takes over a store: connections that were alive when the server stopped are there again.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn start(store: Arc<dyn Store>, start: Start, options: HubOptions) -> Result<Arc<Self>, StoreError> {
        let metrics = Arc::new(Metrics::default());
        let store: Arc<dyn Store> = Arc::new(Measured::new(store, metrics.clone()));
        let clock = Arc::new(Clock::start(start.latest));
        let mut router = Router::new(start.head, options.grace, Uuid::new_v4);
        router.set_resume_window(options.resume_window);
        router.set_numbering(start.numbering);
        router.set_tail_limits(options.tails);
        restore(&mut router, &*store, &clock).await?;
        let live = Live::new(router, start.epoch.clone(), options.max_queue_bytes);
        let live = Arc::new(Lock::new(live));
        let (journal, task) =
            Journal::start(live.clone(), store.clone(), clock.clone(), metrics.clone(), options.commit_timeout);
        let journal_task = Mutex::new(Some(task));
        let (turns, store_turns) = (Semaphore::new(READING), Semaphore::new(READING));
        let epoch = start.epoch;
        Ok(Arc::new(Self { live, store, clock, journal, metrics, turns, store_turns, journal_task, epoch, options }))
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
        self.journal.submit(operation, bytes).await
    }

    /// Posts messages: straight to the listeners where nothing is stored, and otherwise through
    /// the journal.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn post(&self, post: Post, bytes: usize) -> Result<Vec<Posted>, Failure> {
        let posting = if post.messages.len() <= SHOWN { self.post_few(post) } else { self.post_many(post) };
        if let Posting::Parked { number, is_free: true, .. } = posting {
            self.show_parked(number);
        }
        match posting {
            Posting::Shown(posted) => Ok(posted),
            Posting::ForTheJournal(post) => self.journal.submit(post, bytes).await,
            Posting::Refused => Err(Failure::Busy),
            Posting::Parked { number, answer, .. } => match self.unparked(number, answer).await? {
                Unparked::Shown(posted) => Ok(posted),
                Unparked::ForTheJournal { mut shown, rest } => {
                    shown.extend(self.journal.submit(rest, bytes).await?);
                    Ok(shown)
                }
            },
        }
    }

    fn post_few(&self, post: Post) -> Posting {
        let (posting, wake) = {
            let mut live = self.live.lock(Purpose::Post);
            let posting = live.post(post, self.clock.now());
            (posting, live.hand_out())
        };
        wake.wake();
        posting
    }

    /// Others get the lock in between, but nothing is shown before it is clear that all can be, and then
    /// all is, whether or not whoever sent it waits for that.
    fn post_many(&self, post: Post) -> Posting {
        let is_ephemeral = |some| Post::is_ephemeral(some, &self.live.lock(Purpose::Post).router);
        if !post.messages.chunks(SHOWN).all(is_ephemeral) {
            return Posting::ForTheJournal(post);
        }
        let places = post.shows_in();
        self.live.lock(Purpose::Post).post_many(post, places)
    }

    /// Shows messages that were parked, after all others that were before them and are free as well.
    fn show_parked(&self, number: u64) {
        let mut more = true;
        while more {
            let wake = {
                let mut live = self.live.lock(Purpose::Post);
                more = live.show_parked(number + 1, self.clock.now(), Instant::now() + SLICE);
                live.hand_out()
            };
            wake.wake();
        }
    }

    /// Waits until messages may be shown, or for as long as a request may wait for the store.
    async fn unparked(&self, number: u64, mut answer: oneshot::Receiver<Unparked>) -> Result<Unparked, Failure> {
        match tokio::time::timeout(self.options.commit_timeout, &mut answer).await {
            Ok(unparked) => unparked.map_err(|_| Failure::Unavailable),
            Err(_) => {
                // The store is stuck: what it holds up must not hold up what it never sees.
                self.live.lock(Purpose::Post).free_parked(number);
                self.show_parked(number);
                answer.await.map_err(|_| Failure::Unavailable)
            }
        }
    }

    // What listeners ask for.

    /// Begins to listen on a connection; whoever listened on it before is closed. `limited`:
    /// whether openings are counted.
    ///
    /// # Errors
    /// See [`CannotListen`].
    pub(super) fn attach(
        &self,
        id: ConnectionId,
        since: Option<&Since>,
        limited: bool,
    ) -> Result<Attached, CannotListen> {
        let moment = self.clock.now();
        let mut live = self.live.lock(Purpose::Attach);
        let replaces = live.router.listener_of(id).is_some();
        if !replaces && self.options.max_listeners.is_some_and(|most| live.listener_count() >= most) {
            return Err(CannotListen::Full);
        }
        let rate = self.options.attach_rate.filter(|_| limited);
        if rate.is_some_and(|rate| !live.router.may_attach(id, rate, moment)) {
            return Err(CannotListen::TooOften);
        }
        live.attach(id, since, moment).ok_or(CannotListen::Unknown)
    }

    /// A listener is no more.
    pub(super) fn detach(&self, id: ConnectionId, listener: ListenerId, how: Departure) {
        let mut live = self.live.lock(Purpose::Detach);
        live.detach(id, listener, how, self.clock.now());
        live.remove(listener);
    }

    /// The client is done with a connection; false if there is none.
    pub fn dismiss(&self, id: ConnectionId) -> bool {
        self.live.lock(Purpose::Glance).router.dismiss(id, self.clock.now())
    }

    // What time asks for.

    /// A heartbeat is due for one of so many parts of those whose connections stay open.
    pub fn beat(&self, part: usize, of: usize) {
        let wake = self.live.lock(Purpose::Glance).beat(part, of);
        wake.wake();
    }

    /// Ends all connections whose time is over, and lets idle things leave memory.
    pub async fn sweep(&self) {
        let is_anything_due = || {
            let live = self.live.lock(Purpose::Glance);
            live.router.is_anything_due(self.clock.now()) || live.router.is_clearing()
        };
        while is_anything_due() {
            // A store that is down is reported by the journal; the next sweep tries again.
            if self.perform(Sweep, 0).await.is_err() {
                return;
            }
        }
    }

    /// Drops messages that are past their time.
    pub async fn expire_messages(&self) {
        loop {
            let channels = match self.store.expired_channels(self.clock.now().utc, EXPIRE_PAGE).await {
                Ok(channels) if !channels.is_empty() => channels,
                _ => return,
            };
            if self.perform(ExpireMessages { channels }, 0).await.is_err() {
                return;
            }
        }
    }

    /// Ends the floors of users that were away for too long.
    pub async fn expire_floors(&self) {
        // If the store is down, the next time will do.
        let _ = self.perform(ExpireFloors, 0).await;
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
            match self.perform(ForgetIdleUsers { users, idle_since, forgotten: 0 }, 0).await {
                // Those that came back meanwhile are looked at again the next time.
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    // What operators ask for.

    /// Whether the store takes commits, as far as the last one could tell.
    pub fn is_store_stuck(&self) -> bool {
        self.journal.is_stuck()
    }

    /// Waits until nothing can be kept any more, because the store is not ours any more, or the
    /// journal failed.
    pub async fn journal_ended(&self) {
        self.journal.ended().await;
    }

    /// Whether another server took the store.
    pub fn is_lost(&self) -> bool {
        self.journal.is_lost()
    }

    /// Up to where the log was applied.
    pub fn head(&self) -> Position {
        self.live.lock(Purpose::Glance).router.head()
    }

    /// How often the store was asked for what listeners have missed.
    pub fn replay_reads(&self) -> u64 {
        self.metrics.replay_reads.get()
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// How long the router's lock was held so far, and what for.
    pub fn lock_times(&self) -> LockTimes {
        self.live.times()
    }

    /// The same, and counts from zero again: for measuring one thing.
    pub fn take_lock_times(&self) -> LockTimes {
        self.live.take_times()
    }

    /// How many listen.
    pub fn listener_count(&self) -> usize {
        self.live.lock(Purpose::Glance).listener_count()
    }

    /// The mailboxes of all who listen, some at a time.
    pub(super) fn mailboxes(&self) -> impl Iterator<Item = Vec<Arc<Mailbox>>> {
        let some = |start| self.live.lock(Purpose::Look).mailboxes(start..start + MAILBOXES);
        (0..).step_by(MAILBOXES).map_while(some)
    }

    /// Sends all listeners away, spread over `during`.
    pub async fn send_away(&self, during: Duration) {
        self.live.lock(Purpose::Glance).stop_serving();
        let mailboxes: Vec<_> = self.mailboxes().flatten().collect();
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
        let seen = self.live.lock(Purpose::Look).router.seen_positions();
        self.store.note_seen(&seen).await?;
        self.store.close().await
    }
}
