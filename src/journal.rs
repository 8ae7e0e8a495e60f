//! The journal: one task that takes requests in the order in which they came, decides them against
//! the live state, commits what lasts in one transaction, applies it and answers. A batch is all
//! that came while the one before it was written. Nothing that lasts is decided anywhere else.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use crate::clock::Clock;
use crate::domain::channel::Channel;
use crate::domain::draft::{Draft, Found, Refusal, Undecided};
use crate::domain::event::Event;
use crate::domain::names::ChannelName;
use crate::domain::operation::{Operation, Trim};
use crate::domain::position::Position;
use crate::domain::router::{Needs, Router};
use crate::domain::tail::Place;
use crate::domain::timestamp::Moment;
use crate::live::Live;
use crate::lock::{Guard, Lock, Purpose, SLICE};
use crate::order::Ticket;
use crate::store::{Batch, Store, StoreError};

/// Most requests that wait; more are told that the server is too busy.
const MAX_WAITING: usize = 8_192;
/// Most bytes of request bodies that wait.
const MAX_WAITING_BYTES: usize = 64 << 20;
/// Most requests in one batch: bounds how long one holds the store.
const MAX_BATCH: usize = 1_024;
/// Most bytes of request bodies in one batch, but for a single larger one.
const MAX_BATCH_BYTES: usize = 512 << 10;
/// Most events that are applied in any case before others get their turn.
const TOGETHER: usize = 256;
/// How often the store is looked at while there is nothing to commit.
const CHECK: Duration = Duration::from_secs(1);
/// Most entries of one tail that are read at a time.
const TAIL_ENTRIES: u32 = 1_000;
/// Most bytes of bodies in one tail that are read at a time: no tail has room for more.
const TAIL_BYTES: u32 = 256 << 10;
/// Log entries that are read for tails between two batches, about: what comes waits meanwhile.
const TAILS_STEP: usize = 2_000;
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

/// A request that waits to be decided, of whatever kind.
trait Pending: Send + Sync {
    fn needs(&self, router: &Router, needs: &mut Needs);
    fn decide(&mut self, router: &Router, draft: &mut Draft<'_>) -> Result<(), Undecided>;
    /// Its events were applied: it can be answered.
    fn applied(self: Box<Self>, router: &Router, moment: Moment) -> Box<dyn Answer>;
    fn failed(self: Box<Self>, failure: Failure);
    /// Whoever sent it has been told that it failed.
    fn is_expired(&self) -> bool;
    fn bytes(&self) -> usize;
    fn ticket(&self) -> Ticket;
}

/// What a request is answered with.
trait Answer {
    /// Looks at some of what it shows; true if there is more.
    fn look(&mut self, router: &Router, moment: Moment) -> bool;
    fn send(self: Box<Self>);
}

struct Outcome<O: Operation> {
    outcome: O::Outcome,
    answer: oneshot::Sender<Result<O::Outcome, Failure>>,
}

impl<O: Operation> Answer for Outcome<O> {
    fn look(&mut self, router: &Router, moment: Moment) -> bool {
        O::look(&mut self.outcome, router, moment)
    }

    fn send(self: Box<Self>) {
        // Nobody listening to the answer is no reason not to have done it.
        let _ = self.answer.send(Ok(self.outcome));
    }
}

/// Nobody waits for an answer.
struct NoAnswer;

impl Answer for NoAnswer {
    fn look(&mut self, _router: &Router, _moment: Moment) -> bool {
        false
    }

    fn send(self: Box<Self>) {}
}

struct Request<O: Operation> {
    operation: O,
    answer: oneshot::Sender<Result<O::Outcome, Failure>>,
    deadline: Instant,
    ticket: Ticket,
    room: OwnedSemaphorePermit,
}

impl<O: Operation> Pending for Request<O> {
    fn needs(&self, router: &Router, needs: &mut Needs) {
        self.operation.needs(router, needs);
    }

    fn decide(&mut self, router: &Router, draft: &mut Draft<'_>) -> Result<(), Undecided> {
        self.operation.decide(router, draft)
    }

    fn applied(self: Box<Self>, router: &Router, moment: Moment) -> Box<dyn Answer> {
        Box::new(Outcome::<O> { outcome: self.operation.outcome(router, moment), answer: self.answer })
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

    fn ticket(&self) -> Ticket {
        self.ticket
    }
}

/// Trimming, which the journal asks of itself.
struct OwnTrim(Ticket);

impl Pending for OwnTrim {
    fn needs(&self, _router: &Router, _needs: &mut Needs) {}

    fn decide(&mut self, router: &Router, draft: &mut Draft<'_>) -> Result<(), Undecided> {
        Trim.decide(router, draft)
    }

    fn applied(self: Box<Self>, _router: &Router, _moment: Moment) -> Box<dyn Answer> {
        Box::new(NoAnswer)
    }

    fn failed(self: Box<Self>, _failure: Failure) {}

    fn is_expired(&self) -> bool {
        false
    }

    fn bytes(&self) -> usize {
        0
    }

    fn ticket(&self) -> Ticket {
        self.0
    }
}

/// How the store does, as the journal sees it.
#[derive(Debug, Default)]
struct Health {
    /// The last thing that it was asked for failed.
    failed: AtomicBool,
    /// Since when an answer is awaited.
    asked: Mutex<Option<Instant>>,
    /// Another server has taken it.
    lost: AtomicBool,
}

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
        patience: Duration,
    ) -> (Self, JoinHandle<()>) {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        let stop = Arc::new(Notify::new());
        let health = Arc::new(Health::default());
        let writer = Writer {
            live: live.clone(),
            store,
            clock,
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
        let silent = self.health.asked.lock().is_some_and(|asked| asked.elapsed() > self.patience);
        silent || self.health.failed.load(Ordering::Relaxed)
    }

    /// Waits until no more requests are taken: before [`Journal::stop`] only if the store was taken
    /// by another server, or the task failed.
    pub async fn ended(&self) {
        self.inbox.closed().await;
    }

    /// Whether another server took the store.
    pub fn is_lost(&self) -> bool {
        self.health.lost.load(Ordering::Relaxed)
    }

    /// Takes no more requests; those handed in are still done.
    pub fn stop(&self) {
        self.stop.notify_one();
    }
}

struct Asked(Arc<Health>);

impl Drop for Asked {
    fn drop(&mut self) {
        *self.0.asked.lock() = None;
    }
}

/// Requests that were decided, each with the range of its events.
type Decided = Vec<(Box<dyn Pending>, Range<usize>)>;

/// The store was taken by another server: nothing may be written any more.
struct Lost;

struct Writer {
    live: Arc<Lock<Live>>,
    store: Arc<dyn Store>,
    clock: Arc<Clock>,
    health: Arc<Health>,
    inbox: mpsc::Receiver<Box<dyn Pending>>,
    waiting: VecDeque<Box<dyn Pending>>,
    /// Requests of a batch that was refused: they go first, one by one, to find the guilty one.
    suspects: VecDeque<Box<dyn Pending>>,
}

impl Writer {
    async fn run(mut self, stop: Arc<Notify>, nudge: Arc<Notify>) {
        if let Err(Lost) = self.work(stop, nudge).await {
            error!("the store was taken by another server: this one writes no more");
            self.health.lost.store(true, Ordering::Relaxed);
        }
    }

    async fn work(&mut self, stop: Arc<Notify>, nudge: Arc<Notify>) -> Result<(), Lost> {
        loop {
            self.read_tails().await;
            if self.waiting.is_empty() && self.suspects.is_empty() && !self.live.lock(Purpose::Glance).wants_tails() {
                let next = tokio::select! {
                    next = self.inbox.recv() => next,
                    () = nudge.notified() => continue,
                    () = stop.notified() => {
                        self.inbox.close();
                        continue;
                    }
                    () = tokio::time::sleep(CHECK) => {
                        self.check().await?;
                        continue;
                    }
                };
                match next {
                    Some(request) => self.waiting.push_back(request),
                    None => return Ok(()),
                }
            }
            while self.waiting.len() < MAX_BATCH
                && let Ok(request) = self.inbox.try_recv()
            {
                self.waiting.push_back(request);
            }
            if self.waiting.is_empty() && self.suspects.is_empty() {
                continue;
            }
            self.one_batch().await?;
        }
    }

    /// Notices that the store is gone, or back, when nothing is asked of it.
    async fn check(&self) -> Result<(), Lost> {
        let asked = self.ask();
        let checked = self.store.check().await;
        drop(asked);
        match checked {
            Ok(()) if self.health.failed.load(Ordering::Relaxed) => {
                info!("the store is available again");
                self.set_failed(false);
            }
            Ok(()) => {}
            Err(StoreError::NotOurs) => return Err(Lost),
            Err(error) => {
                warn!(%error, "the store is unavailable");
                self.set_failed(true);
            }
        }
        Ok(())
    }

    async fn one_batch(&mut self) -> Result<(), Lost> {
        let mut requests = self.next_requests();
        let needs = self.needs(&requests);
        let found = self.load(&needs, &mut requests).await;
        let moment = self.clock.now();
        let (decided, events, reloads) = self.decide(&mut requests, &found, moment);
        while let Some(later) = requests.pop_back() {
            self.waiting.push_front(later);
        }
        let events = if events.iter().any(Event::is_durable) {
            let before = self.live.lock(Purpose::Glance).router.head();
            let head = events.iter().rev().find_map(Event::position).unwrap_or(before);
            let batch = Batch { id: Uuid::new_v4(), before, head, at: moment.utc, events };
            match self.commit(&batch).await? {
                Ok(()) => batch.events,
                Err(Failure::Rejected) if decided.len() > 1 => {
                    self.suspects.extend(decided.into_iter().map(|(request, _)| request));
                    return Ok(());
                }
                Err(failure) => {
                    self.fail(decided.into_iter().map(|(request, _)| request), failure);
                    return Ok(());
                }
            }
        } else {
            events
        };
        let reloaded = self.reload(reloads).await;
        self.apply(decided, &events, reloaded, moment);
        Ok(())
    }

    /// Lets some tails reach further back that listeners wait for. Nothing is being committed
    /// meanwhile, so that what is read stands exactly at the head.
    async fn read_tails(&self) {
        let wanted = self.live.lock(Purpose::Tails).next_tails(TAILS_STEP, TAIL_ENTRIES as usize);
        if wanted.is_empty() {
            return;
        }
        let places: Vec<(Place, Position)> = wanted.iter().map(|one| (one.place.clone(), one.before)).collect();
        let asked = self.ask();
        let read = self.store.tails(&places, TAIL_ENTRIES, TAIL_BYTES).await;
        drop(asked);
        let mut live = self.live.lock(Purpose::Tails);
        live.count_replay_read();
        match read {
            Ok(parts) => {
                for ((place, before), part) in places.into_iter().zip(parts) {
                    live.router.extend_tail(&place, before, part);
                }
            }
            // They ask the store themselves, and say so if they cannot.
            Err(error) => debug!(%error, "tails cannot be read from the store"),
        }
    }

    /// As many requests as one batch takes, but for those whose sender has given up. Trimming
    /// comes first where it is due.
    fn next_requests(&mut self) -> VecDeque<Box<dyn Pending>> {
        if let Some(suspect) = self.suspects.pop_front() {
            return VecDeque::from([suspect]);
        }
        let mut requests = VecDeque::new();
        {
            let mut live = self.live.lock(Purpose::Glance);
            if live.router.has_overfull() {
                let ticket = live.depart(Vec::new());
                requests.push_back(Box::new(OwnTrim(ticket)) as Box<dyn Pending>);
            }
        }
        let mut bytes = 0;
        let mut expired = Vec::new();
        while requests.len() < MAX_BATCH
            && let Some(request) = self.waiting.pop_front()
        {
            if request.is_expired() {
                expired.push(request);
                continue;
            }
            bytes += request.bytes();
            if bytes > MAX_BATCH_BYTES && bytes > request.bytes() {
                self.waiting.push_front(request);
                break;
            }
            requests.push_back(request);
        }
        self.fail(expired.into_iter(), Failure::Unavailable);
        requests
    }

    /// What requests need and memory does not hold.
    fn needs<'a>(&self, requests: impl IntoIterator<Item = &'a Box<dyn Pending>>) -> Needs {
        let mut needs = Needs::default();
        let mut live = self.live.lock(Purpose::Need);
        for request in requests {
            live = self.give_way(live, Purpose::Need);
            request.needs(&live.router, &mut needs);
        }
        live = self.give_way(live, Purpose::Need);
        live.router.retain_missing(&mut needs, self.clock.now());
        needs
    }

    /// Brings into memory what is needed. Nothing is being committed meanwhile, so what is read
    /// stands exactly at the head. If the store cannot be read, the requests that need something
    /// fail.
    async fn load(&self, needs: &Needs, requests: &mut VecDeque<Box<dyn Pending>>) -> Found {
        if needs.is_empty() {
            return Found::default();
        }
        let asked = self.ask();
        let read = self.read(needs).await;
        drop(asked);
        read.unwrap_or_else(|error| {
            self.set_failed(true);
            warn!(%error, "nothing can be read from the store");
            let (able, unable): (VecDeque<_>, VecDeque<_>) =
                requests.drain(..).partition(|request| self.needs([request]).is_empty());
            *requests = able;
            self.fail(unable.into_iter(), Failure::Unavailable);
            Found::default()
        })
    }

    async fn read(&self, needs: &Needs) -> Result<Found, StoreError> {
        let (mut channels, mut users, held, positions) = tokio::try_join!(
            self.store.channels(&needs.channels),
            self.store.users(&needs.users),
            self.store.held(&needs.uuids),
            self.store.positions_at(&needs.times),
        )?;
        let moment = self.clock.now();
        let mut live = self.live.lock(Purpose::Load);
        for name in &needs.channels {
            live = self.give_way(live, Purpose::Load);
            live.router.load_channel(name, channels.remove(name), moment);
        }
        for name in &needs.users {
            live = self.give_way(live, Purpose::Load);
            live.router.load_user(name, users.remove(name), moment);
        }
        Ok(Found { held, positions })
    }

    /// Decides requests until one depends on another of this batch; that one and all after it
    /// stay in `requests`.
    fn decide(
        &mut self,
        requests: &mut VecDeque<Box<dyn Pending>>,
        found: &Found,
        moment: Moment,
    ) -> (Decided, Vec<Event>, Vec<ChannelName>) {
        let mut live = self.live.lock(Purpose::Decide);
        let mut draft = Draft::new(&live.router, moment, found);
        let mut decided = Decided::new();
        let mut refused = Vec::new();
        while let Some(mut request) = requests.pop_front() {
            draft.begin();
            let start = draft.event_count();
            let mut result = request.decide(&live.router, &mut draft);
            while result == Err(Undecided::More) {
                live = self.give_way(live, Purpose::Decide);
                result = request.decide(&live.router, &mut draft);
            }
            match result {
                Ok(()) => decided.push((request, start..draft.event_count())),
                Err(Undecided::Later | Undecided::More) => {
                    draft.take_back();
                    requests.push_front(request);
                    break;
                }
                Err(Undecided::Refused(refusal)) => {
                    draft.take_back();
                    refused.push((request, refusal));
                }
            }
            // What is decided on changes nowhere but here.
            live = self.give_way(live, Purpose::Decide);
        }
        let (events, reloads) = draft.finish();
        for (request, refusal) in refused {
            live.arrive(request.ticket());
            request.failed(refusal.into());
        }
        (decided, events, reloads)
    }

    /// Commits, and finds out what happened if that is not clear: the journal stands still until
    /// it knows, so that nothing can overtake the batch. There is no time limit: whoever waits has
    /// one of its own, and giving up on a commit would only make it unclear.
    async fn commit(&mut self, batch: &Batch) -> Result<Result<(), Failure>, Lost> {
        let asked = self.ask();
        let committed = self.store.commit(batch).await;
        drop(asked);
        match committed {
            Ok(()) => {
                self.set_failed(false);
                return Ok(Ok(()));
            }
            Err(StoreError::Refused(error)) => {
                error!(%error, "the store refuses a batch");
                return Ok(Err(Failure::Rejected));
            }
            Err(StoreError::NotOurs) => return Err(Lost),
            Err(error) => error!(%error, "a commit failed or is unclear"),
        }
        self.set_failed(true);
        let mut pause = SETTLE_PAUSE.0;
        loop {
            match self.store.settle(batch.id).await {
                Ok(committed) => {
                    info!(committed, "the commit is settled");
                    self.set_failed(false);
                    return Ok(if committed { Ok(()) } else { Err(Failure::Unavailable) });
                }
                Err(StoreError::NotOurs) => return Err(Lost),
                Err(error) => {
                    warn!(%error, "the store is still unavailable");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(SETTLE_PAUSE.1);
                }
            }
        }
    }

    /// The store is asked for something, until the guard is dropped.
    fn ask(&self) -> Asked {
        *self.health.asked.lock() = Some(Instant::now());
        Asked(self.health.clone())
    }

    fn set_failed(&self, failed: bool) {
        self.health.failed.store(failed, Ordering::Relaxed);
    }

    /// Reads histories anew that may show older messages again after this batch.
    async fn reload(&self, names: Vec<ChannelName>) -> Vec<(ChannelName, Channel)> {
        if names.is_empty() {
            return Vec::new();
        }
        match self.store.channels(&names.into_iter().collect()).await {
            Ok(channels) => channels.into_iter().collect(),
            Err(error) => {
                warn!(%error, "a history could not be read again: it is shorter than it could be for now");
                Vec::new()
            }
        }
    }

    /// Applies what was decided, in its order, and answers; others get the lock in between.
    fn apply(&self, decided: Decided, events: &[Event], reloaded: Vec<(ChannelName, Channel)>, moment: Moment) {
        let mut live = self.live.lock(Purpose::Apply);
        let mut together = 0;
        for (request, range) in decided {
            // Who comes back in between would see a floor that is about to be lowered.
            let is_whole = events[range.clone()].iter().any(|event| matches!(event, Event::FloorSet { .. }));
            for event in &events[range] {
                together += 1;
                // What becomes one piece is not taken apart, unless it is much.
                if !is_whole && (together > TOGETHER || !live.is_collecting_for(event)) {
                    live = self.give_way(live, Purpose::Apply);
                    together = 0;
                }
                live.apply(std::slice::from_ref(event), moment);
            }
            live.arrive(request.ticket());
            let mut answer = request.applied(&live.router, moment);
            while answer.look(&live.router, moment) {
                live = self.give_way(live, Purpose::Apply);
            }
            answer.send();
        }
        for (name, channel) in reloaded {
            live = self.give_way(live, Purpose::Apply);
            live.router.reload_history(&name, channel);
        }
        let mut live = self.show_parked(live, moment);
        live.router.unload_idle(moment);
        let (wake, garbage) = (live.hand_out(), live.router.take_garbage());
        drop(live);
        wake.wake();
        drop(garbage);
    }

    fn show_parked<'a>(&'a self, mut live: Guard<'a, Live>, moment: Moment) -> Guard<'a, Live> {
        while live.show_parked(moment, Instant::now() + SLICE) {
            live = self.give_way(live, Purpose::Apply);
        }
        live
    }

    /// Lets others have the lock if it was held for long enough.
    fn give_way<'a>(&'a self, mut live: Guard<'a, Live>, purpose: Purpose) -> Guard<'a, Live> {
        if live.held() < SLICE {
            return live;
        }
        let wake = live.hand_out();
        drop(live);
        wake.wake();
        self.live.lock(purpose)
    }

    fn fail(&self, requests: impl Iterator<Item = Box<dyn Pending>>, failure: Failure) {
        let mut live = self.live.lock(Purpose::Fail);
        for request in requests {
            live.arrive(request.ticket());
            request.failed(failure);
        }
        let mut live = self.show_parked(live, self.clock.now());
        let wake = live.hand_out();
        drop(live);
        wake.wake();
    }
}
