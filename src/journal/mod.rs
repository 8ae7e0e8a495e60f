//! The journal: one task that takes requests in the order in which they came, decides them against
//! the live state, commits what lasts in one transaction, applies it and answers. A batch is all
//! that came while the one before it was written. Nothing that lasts is decided anywhere else.

mod health;
mod read;
mod request;
mod settle;
mod writer;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use self::health::Health;
pub use self::request::Failure;
use self::request::{Pending, Request};
use self::writer::Writer;
use crate::clock::Clock;
use crate::domain::operation::Operation;
use crate::live::Live;
use crate::lock::{Lock, Purpose};
use crate::metrics::Metrics;
use crate::store::Store;

/// Most requests that wait; more are told that the server is too busy.
const MAX_WAITING: usize = 8_192;
/// Most bytes of request bodies that wait.
const MAX_WAITING_BYTES: usize = 64 << 20;

/// Where requests are handed in.
pub struct Journal {
    inbox: mpsc::Sender<Box<dyn Pending>>,
    room: Arc<Semaphore>,
    stop: Arc<Notify>,
    /// Tails are waited for.
    nudge: Arc<Notify>,
    health: Arc<Health>,
    patience: Duration,
    live: Arc<Lock<Live>>,
}

impl Journal {
    /// Starts the task. `patience`: how long a request may wait for its commit.
    pub fn start(
        live: Arc<Lock<Live>>,
        store: Arc<dyn Store>,
        clock: Arc<Clock>,
        metrics: Arc<Metrics>,
        patience: Duration,
    ) -> (Self, JoinHandle<()>) {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        let stop = Arc::new(Notify::new());
        let health = Arc::new(Health::default());
        let writer = Writer {
            live: live.clone(),
            store,
            clock,
            metrics,
            health: health.clone(),
            inbox: receiver,
            waiting: VecDeque::new(),
            suspects: VecDeque::new(),
        };
        let nudge = Arc::new(Notify::new());
        let task = tokio::spawn(writer.run(stop.clone(), nudge.clone()));
        let room = Arc::new(Semaphore::new(MAX_WAITING_BYTES));
        (Self { inbox: sender, room, stop, nudge, health, patience, live }, task)
    }

    /// Hands a request in and waits for what comes of it. `bytes`: the size of its body.
    ///
    /// # Errors
    /// [`Failure::Unavailable`] also when nothing came of it in time: it may then still happen.
    pub async fn submit<O: Operation>(&self, operation: O, bytes: usize) -> Result<O::Outcome, Failure> {
        let bytes = u32::try_from(bytes.clamp(1, MAX_WAITING_BYTES)).unwrap_or(u32::MAX);
        let room = self.room.clone().try_acquire_many_owned(bytes).map_err(|_| Failure::Busy)?;
        let place = self.inbox.try_reserve().map_err(|error| match error {
            mpsc::error::TrySendError::Full(()) => Failure::Busy,
            mpsc::error::TrySendError::Closed(()) => Failure::Unavailable,
        })?;
        let (answer, answered) = oneshot::channel();
        let deadline = Instant::now() + self.patience;
        {
            let places = operation.shows_in();
            // Tickets are handed in in their order.
            let mut live = self.live.lock(Purpose::Depart);
            let ticket = live.depart(places);
            place.send(Box::new(Request { operation, answer, deadline, ticket, room }));
        }
        match tokio::time::timeout_at(deadline.into(), answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(Failure::Unavailable),
        }
    }

    /// Waits until tails that were asked for by [`Live::want_tail`] were read, or could not be, or
    /// for as long as a request may wait. All who want the same tail wait for one reading.
    pub async fn read_tails(&self, wanted: Vec<oneshot::Receiver<()>>) {
        self.nudge.notify_one();
        let read = async {
            for one in wanted {
                // That nobody will read it any more is an answer, too.
                let _ = one.await;
            }
        };
        let _ = tokio::time::timeout(self.patience, read).await;
    }

    /// Whether a commit is unclear, the store cannot be read, or it has not answered for longer
    /// than a request may wait.
    pub fn is_stuck(&self) -> bool {
        self.health.is_silent_for(self.patience) || self.health.has_failed()
    }

    /// How many requests were not taken yet, and how many bytes have those that were not answered yet.
    pub fn waiting(&self) -> (usize, usize) {
        let requests = self.inbox.max_capacity() - self.inbox.capacity();
        (requests, MAX_WAITING_BYTES - self.room.available_permits())
    }

    /// Waits until no more requests are taken: before [`Journal::stop`] only if the store was taken
    /// by another server, or the task failed.
    pub async fn ended(&self) {
        self.inbox.closed().await;
    }

    /// Whether another server took the store.
    pub fn is_lost(&self) -> bool {
        self.health.is_lost()
    }

    /// Takes no more requests; those handed in are still done.
    pub fn stop(&self) {
        self.stop.notify_one();
    }
}
