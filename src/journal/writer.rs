//! The task: takes requests in the order in which they came, decides them, has what lasts committed,
//! applies and answers.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use tracing::error;
use uuid::Uuid;

use super::health::Health;
use super::request::{Failure, OwnTrim, Pending};
use crate::clock::Clock;
use crate::domain::channel::Channel;
use crate::domain::draft::{Draft, Found, Undecided};
use crate::domain::event::Event;
use crate::domain::names::ChannelName;
use crate::domain::timestamp::Moment;
use crate::live::Live;
use crate::lock::{Guard, Lock, Purpose, SLICE};
use crate::metrics::Metrics;
use crate::store::{Batch, Store};

/// Most requests in one batch: bounds how long one holds the store.
const MAX_BATCH: usize = 1_024;
/// Most bytes of request bodies in one batch, but for a single larger one.
const MAX_BATCH_BYTES: usize = 512 << 10;
/// Most events that are applied in any case before others get their turn.
const TOGETHER: usize = 256;
/// How often the store is looked at while there is nothing to commit.
const CHECK: Duration = Duration::from_secs(1);

/// Requests that were decided, each with the range of its events.
type Decided = Vec<(Box<dyn Pending>, Range<usize>)>;

/// The store was taken by another server: nothing may be written any more.
pub(super) struct Lost;

pub(super) struct Writer {
    pub(super) live: Arc<Lock<Live>>,
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<Clock>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) health: Arc<Health>,
    pub(super) inbox: mpsc::Receiver<Box<dyn Pending>>,
    pub(super) waiting: VecDeque<Box<dyn Pending>>,
    /// Requests of a batch that was refused: they go first, one by one, to find the guilty one.
    pub(super) suspects: VecDeque<Box<dyn Pending>>,
}

impl Writer {
    pub(super) async fn run(mut self, stop: Arc<Notify>, nudge: Arc<Notify>) {
        if let Err(Lost) = self.work(stop, nudge).await {
            error!("the store was taken by another server: this one writes no more");
            self.health.set_lost();
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

    async fn one_batch(&mut self) -> Result<(), Lost> {
        // A suspect stands alone.
        let may_trim = self.suspects.is_empty();
        let mut requests = self.next_requests();
        let needs = self.needs(&requests);
        let found = self.load(&needs, &mut requests).await;
        let moment = self.clock.now();
        let (decided, events, reloads) = self.decide(&mut requests, &found, moment, may_trim);
        while let Some(later) = requests.pop_back() {
            self.waiting.push_front(later);
        }
        let events = if events.iter().any(Event::is_durable) {
            let before = self.live.lock(Purpose::Glance).router.head();
            let head = events.iter().rev().find_map(Event::position).unwrap_or(before);
            let batch = Batch { id: Uuid::new_v4(), before, head, at: moment.utc, events };
            self.metrics.batch_requests.observe(decided.len() as f64);
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

    /// As many requests as one batch takes, but for those whose sender has given up.
    fn next_requests(&mut self) -> VecDeque<Box<dyn Pending>> {
        if let Some(suspect) = self.suspects.pop_front() {
            return VecDeque::from([suspect]);
        }
        let mut requests = VecDeque::new();
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

    /// Decides requests until one depends on another of this batch; that one and all after it
    /// stay in `requests`. Trimming comes last where it is due.
    fn decide(
        &mut self,
        requests: &mut VecDeque<Box<dyn Pending>>,
        found: &Found,
        moment: Moment,
        may_trim: bool,
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
        if may_trim && live.router.has_overfull() {
            let mut trim = OwnTrim(live.depart(Vec::new()));
            let start = draft.event_count();
            draft.begin();
            trim.decide(&live.router, &mut draft).expect("trimming waits for nobody");
            decided.push((Box::new(trim), start..draft.event_count()));
        }
        let (events, reloads) = draft.finish();
        for (request, refusal) in refused {
            live.arrive(request.ticket());
            request.failed(refusal.into());
        }
        (decided, events, reloads)
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
        // Those that come meanwhile are shown by whoever posts them.
        let before = live.next_parked();
        while live.show_parked(before, moment, Instant::now() + SLICE) {
            live = self.give_way(live, Purpose::Apply);
        }
        live
    }

    /// Lets others have the lock if it was held for long enough.
    pub(super) fn give_way<'a>(&'a self, mut live: Guard<'a, Live>, purpose: Purpose) -> Guard<'a, Live> {
        if live.held() < SLICE {
            return live;
        }
        let wake = live.hand_out();
        drop(live);
        wake.wake();
        self.live.lock(purpose)
    }

    pub(super) fn fail(&self, requests: impl Iterator<Item = Box<dyn Pending>>, failure: Failure) {
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
