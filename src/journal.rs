//! The journal: one task that takes requests in the order in which they came, decides them against
//! the live state, commits what lasts in one transaction, applies it and answers. A batch is all
//! that came while the one before it was written. Nothing that lasts is decided anywhere else.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{NaiveDateTime, Utc};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::{error, warn};
use uuid::Uuid;

use crate::domain::channel::Channel;
use crate::domain::draft::{Draft, HeldByUuid, Key, Refusal, Undecided};
use crate::domain::event::Event;
use crate::domain::names::ChannelName;
use crate::domain::operation::Operation;
use crate::domain::router::{Needs, Router};
use crate::domain::timestamp::Moment;
use crate::live::Live;
use crate::store::{Batch, Store, StoreError};

/// Most requests that wait; more are told that the server is too busy.
const MAX_WAITING: usize = 8_192;
/// Most bytes of request bodies that wait.
const MAX_WAITING_BYTES: usize = 64 << 20;
/// Most requests in one batch: bounds how long one holds the lock and the store.
const MAX_BATCH: usize = 1_024;
/// Most bytes of request bodies in one batch, but for a single larger one.
const MAX_BATCH_BYTES: usize = 512 << 10;
/// Pauses between attempts to settle an unclear commit: the first, and the longest.
const SETTLE_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Why a request had no effect, or is not known to have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It asks for something that cannot be.
    Refused(Refusal),
    /// The store takes everything but this.
    Rejected,
    /// The store cannot be reached or is stuck.
    Unavailable,
    /// Too much is waiting.
    Busy,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The time, as the server tells it: never going back.
#[derive(Debug)]
pub struct Clock {
    started: Instant,
    latest: Mutex<NaiveDateTime>,
}

impl Clock {
    /// Starts now.
    pub fn start() -> Self {
        Self { started: Instant::now(), latest: Mutex::new(Utc::now().naive_utc()) }
    }

    /// Now.
    pub fn now(&self) -> Moment {
        let mut latest = self.latest.lock();
        *latest = Utc::now().naive_utc().max(*latest);
        Moment { utc: *latest, elapsed: self.started.elapsed() }
    }
}

/// A request that waits to be decided, of whatever kind.
trait Pending: Send {
    fn needs(&self, router: &Router, needs: &mut Needs);
    fn decide(&mut self, router: &Router, draft: &mut Draft<'_>) -> Result<(), Undecided>;
    /// Its events were applied: answers.
    fn applied(self: Box<Self>, router: &Router, moment: Moment);
    fn failed(self: Box<Self>, failure: Failure);
    /// Whoever sent it has been told that it failed.
    fn is_expired(&self) -> bool;
    fn bytes(&self) -> usize;
    fn keys(&self) -> &[Key];
}

struct Request<O: Operation> {
    operation: O,
    answer: oneshot::Sender<Result<O::Outcome, Failure>>,
    deadline: Instant,
    keys: Vec<Key>,
    room: OwnedSemaphorePermit,
}

impl<O: Operation> Pending for Request<O> {
    fn needs(&self, router: &Router, needs: &mut Needs) {
        self.operation.needs(router, needs);
    }

    fn decide(&mut self, router: &Router, draft: &mut Draft<'_>) -> Result<(), Undecided> {
        self.operation.decide(router, draft)
    }

    fn applied(self: Box<Self>, router: &Router, moment: Moment) {
        // Nobody listening to the answer is no reason not to have done it.
        let _ = self.answer.send(Ok(self.operation.outcome(router, moment)));
    }

    fn failed(self: Box<Self>, failure: Failure) {
        let _ = self.answer.send(Err(failure));
    }

    fn is_expired(&self) -> bool {
        self.deadline <= Instant::now()
    }

    fn bytes(&self) -> usize {
        self.room.num_permits()
    }

    fn keys(&self) -> &[Key] {
        &self.keys
    }
}

/// Where requests are handed in.
pub struct Journal {
    inbox: mpsc::Sender<Box<dyn Pending>>,
    room: Arc<Semaphore>,
    stop: Arc<Notify>,
    patience: Duration,
    live: Arc<Mutex<Live>>,
}

impl Journal {
    /// Starts the task. `patience`: how long a request may wait for its commit.
    pub fn start(
        live: Arc<Mutex<Live>>,
        store: Arc<dyn Store>,
        clock: Arc<Clock>,
        patience: Duration,
    ) -> (Self, JoinHandle<()>) {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        let stop = Arc::new(Notify::new());
        let writer = Writer { live: live.clone(), store, clock, patience, inbox: receiver, alone: 0 };
        let task = tokio::spawn(writer.run(stop.clone()));
        let room = Arc::new(Semaphore::new(MAX_WAITING_BYTES));
        (Self { inbox: sender, room, stop, patience, live }, task)
    }

    /// Hands a request in and waits for what comes of it. `bytes`: the size of its body; `keys`:
    /// what later requests that need no store have to wait behind, already held.
    ///
    /// # Errors
    /// [`Failure::Unavailable`] also when nothing came of it in time: it may then still happen.
    pub async fn submit<O: Operation>(
        &self,
        operation: O,
        bytes: usize,
        keys: Vec<Key>,
    ) -> Result<O::Outcome, Failure> {
        let bytes = u32::try_from(bytes.clamp(1, MAX_WAITING_BYTES)).unwrap_or(u32::MAX);
        let (answer, answered) = oneshot::channel();
        let place = match (self.room.clone().try_acquire_many_owned(bytes), self.inbox.try_reserve()) {
            (Ok(room), Ok(place)) => Ok((room, place)),
            (_, Err(mpsc::error::TrySendError::Closed(()))) => Err(Failure::Unavailable),
            _ => Err(Failure::Busy),
        };
        let (room, place) = match place {
            Ok(place) => place,
            Err(failure) => {
                self.live.lock().release(&keys);
                return Err(failure);
            }
        };
        let deadline = Instant::now() + self.patience;
        place.send(Box::new(Request { operation, answer, deadline, keys, room }));
        match tokio::time::timeout_at(deadline.into(), answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(Failure::Unavailable),
        }
    }

    /// Waits until no more requests are taken: before [`Journal::stop`] only if the task failed.
    pub async fn ended(&self) {
        self.inbox.closed().await;
    }

    /// Takes no more requests; those handed in are still done.
    pub fn stop(&self) {
        self.stop.notify_one();
    }
}

/// Requests that were decided, each with the range of its events.
type Decided = Vec<(Box<dyn Pending>, Range<usize>)>;

struct Writer {
    live: Arc<Mutex<Live>>,
    store: Arc<dyn Store>,
    clock: Arc<Clock>,
    patience: Duration,
    inbox: mpsc::Receiver<Box<dyn Pending>>,
    /// So many of the next requests are committed one by one, to find the one that is refused.
    alone: usize,
}

impl Writer {
    async fn run(mut self, stop: Arc<Notify>) {
        let mut waiting = VecDeque::new();
        loop {
            if waiting.is_empty() {
                let next = tokio::select! {
                    next = self.inbox.recv() => next,
                    () = stop.notified() => {
                        self.inbox.close();
                        continue;
                    }
                };
                match next {
                    Some(request) => waiting.push_back(request),
                    None => return,
                }
            }
            while waiting.len() < MAX_WAITING
                && let Ok(request) = self.inbox.try_recv()
            {
                waiting.push_back(request);
            }
            self.one_batch(&mut waiting).await;
        }
    }

    async fn one_batch(&mut self, waiting: &mut VecDeque<Box<dyn Pending>>) {
        let mut requests = self.next_requests(waiting);
        let needs = self.needs(&requests);
        let held = match self.load(needs).await {
            Ok(held) => held,
            Err(error) => {
                warn!(%error, "nothing can be read from the store");
                return self.fail(requests.into_iter(), Failure::Unavailable);
            }
        };
        let moment = self.clock.now();
        let before = self.live.lock().router.head();
        let (decided, events, reloads) = self.decide(&mut requests, &held, moment);
        while let Some(later) = requests.pop_back() {
            waiting.push_front(later);
        }
        let events = if events.iter().any(Event::is_durable) {
            let head = events.iter().rev().find_map(Event::position).unwrap_or(before);
            let batch = Batch { id: Uuid::new_v4(), before, head, at: moment.utc, events };
            match self.commit(&batch).await {
                Ok(()) => batch.events,
                Err(Failure::Rejected) if decided.len() > 1 => {
                    self.alone = decided.len();
                    for (request, _) in decided.into_iter().rev() {
                        waiting.push_front(request);
                    }
                    return;
                }
                Err(failure) => return self.fail(decided.into_iter().map(|(request, _)| request), failure),
            }
        } else {
            events
        };
        let reloaded = self.reload(reloads).await;
        self.apply(decided, &events, reloaded, moment);
    }

    /// As many requests as one batch takes, but for those whose sender has given up.
    fn next_requests(&mut self, waiting: &mut VecDeque<Box<dyn Pending>>) -> VecDeque<Box<dyn Pending>> {
        let most = if self.alone > 0 { 1 } else { MAX_BATCH };
        let mut requests = VecDeque::new();
        let mut bytes = 0;
        while requests.len() < most
            && let Some(request) = waiting.pop_front()
        {
            if request.is_expired() {
                self.alone = self.alone.saturating_sub(1);
                self.fail(std::iter::once(request), Failure::Unavailable);
                continue;
            }
            bytes += request.bytes();
            if bytes > MAX_BATCH_BYTES && !requests.is_empty() {
                waiting.push_front(request);
                break;
            }
            requests.push_back(request);
        }
        requests
    }

    /// What the requests need and memory does not hold.
    fn needs(&self, requests: &VecDeque<Box<dyn Pending>>) -> Needs {
        let mut needs = Needs::default();
        let mut live = self.live.lock();
        for request in requests {
            request.needs(&live.router, &mut needs);
        }
        live.router.retain_missing(&mut needs, self.clock.now());
        needs
    }

    /// Brings it into memory. Nothing is being committed meanwhile, so what is read stands
    /// exactly at the head.
    async fn load(&self, needs: Needs) -> Result<HeldByUuid, StoreError> {
        if needs.is_empty() {
            return Ok(HeldByUuid::new());
        }
        let (mut channels, mut users, held) = tokio::try_join!(
            async {
                if needs.channels.is_empty() {
                    Ok(Default::default())
                } else {
                    self.store.channels(&needs.channels).await
                }
            },
            async {
                if needs.users.is_empty() { Ok(Default::default()) } else { self.store.users(&needs.users).await }
            },
            async { if needs.uuids.is_empty() { Ok(Default::default()) } else { self.store.held(&needs.uuids).await } },
        )?;
        let moment = self.clock.now();
        let mut live = self.live.lock();
        for name in &needs.channels {
            live.router.load_channel(name, channels.remove(name), moment);
        }
        for name in &needs.users {
            live.router.load_user(name, users.remove(name), moment);
        }
        Ok(held)
    }

    /// Decides requests until one depends on another of this batch; that one and all after it
    /// stay in `requests`.
    fn decide(
        &mut self,
        requests: &mut VecDeque<Box<dyn Pending>>,
        held: &HeldByUuid,
        moment: Moment,
    ) -> (Decided, Vec<Event>, Vec<ChannelName>) {
        let mut live = self.live.lock();
        let mut draft = Draft::new(&live.router, moment, held);
        if self.alone == 0 {
            draft.trim(&live.router);
        }
        let mut decided = Decided::new();
        let mut refused = Vec::new();
        while let Some(mut request) = requests.pop_front() {
            draft.begin();
            let start = draft.len();
            match request.decide(&live.router, &mut draft) {
                Ok(()) => decided.push((request, start..draft.len())),
                Err(Undecided::Later) => {
                    draft.take_back();
                    requests.push_front(request);
                    break;
                }
                Err(Undecided::Refused(refusal)) => {
                    draft.take_back();
                    refused.push((request, refusal));
                }
            }
        }
        let (events, reloads) = draft.finish();
        self.alone = self.alone.saturating_sub(refused.len());
        for (request, refusal) in refused {
            live.release(request.keys());
            request.failed(refusal.into());
        }
        (decided, events, reloads)
    }

    /// Commits, and finds out what happened if that is not clear: the journal stands still until
    /// it knows, so that nothing can overtake the batch.
    async fn commit(&mut self, batch: &Batch) -> Result<(), Failure> {
        let result = tokio::time::timeout(self.patience, self.store.commit(batch)).await;
        let error = match result {
            Ok(Ok(())) => {
                self.alone = self.alone.saturating_sub(1);
                return Ok(());
            }
            Ok(Err(StoreError::Refused(error))) => {
                if self.alone > 0 {
                    self.alone -= 1;
                }
                error!(%error, "the store refuses a batch");
                return Err(Failure::Rejected);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {:?}", self.patience),
        };
        error!(%error, "a commit failed or is unclear");
        let mut pause = SETTLE_PAUSE.0;
        loop {
            match self.store.settle(batch.id).await {
                Ok(true) => return Ok(()),
                Ok(false) => return Err(Failure::Unavailable),
                Err(error) => {
                    warn!(%error, "the store is still unavailable");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(SETTLE_PAUSE.1);
                }
            }
        }
    }

    /// Reads histories anew that may show older messages again after this batch.
    async fn reload(&self, names: Vec<ChannelName>) -> Vec<(ChannelName, Channel)> {
        if names.is_empty() {
            return Vec::new();
        }
        match self.store.channels(&names.into_iter().collect()).await {
            Ok(channels) => channels.into_iter().collect(),
            Err(error) => {
                warn!(%error, "a history could not be read again: it is shorter than it could be until then");
                Vec::new()
            }
        }
    }

    fn apply(&self, decided: Decided, events: &[Event], reloaded: Vec<(ChannelName, Channel)>, moment: Moment) {
        let mut live = self.live.lock();
        let own = decided.first().map_or(events.len(), |(_, range)| range.start);
        live.apply(&events[..own], moment);
        for (request, range) in decided {
            live.apply(&events[range], moment);
            live.release(request.keys());
            request.applied(&live.router, moment);
        }
        for (name, channel) in reloaded {
            live.router.reload_history(&name, channel);
        }
        live.router.unload_idle(moment);
        let wake = live.hand_out();
        drop(live);
        wake.wake();
    }

    fn fail(&self, requests: impl Iterator<Item = Box<dyn Pending>>, failure: Failure) {
        for request in requests {
            self.live.lock().release(request.keys());
            request.failed(failure);
        }
    }
}
