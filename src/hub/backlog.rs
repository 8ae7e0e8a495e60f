//! What a listener is shown before its mail: what it missed, from memory or from the log, and for
//! one that keeps a cursor the marker that says up to where.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::core::Hub;
use crate::domain::frame::{Frame, Tick};
use crate::domain::names::{ChannelName, ConnectionId};
use crate::domain::position::{Cursor, Epoch, Position};
use crate::domain::replay::{Doubt, Gaps, Missed, Plan, ReplayPage, Since, note_gap};
use crate::lock::Purpose;
use crate::mailbox::{Closing, Mailbox};
use crate::piece::{Piece, PieceDraft};
use crate::store::ReplayQuery;
use crate::wire::frame;

/// Log entries read in one go.
const PAGE: u32 = 100;
/// Bytes of bodies after which a page ends: it is held until a slow socket has taken it.
const PAGE_BYTES: u32 = 512 << 10;

/// A piece of what was missed.
struct Part {
    piece: Arc<Piece>,
    /// How many logged events it has.
    logged: u64,
}

/// Why what was missed is not told to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupted {
    /// The store cannot be read.
    Store,
    /// The listener was closed.
    Closed(Closing),
}

impl Interrupted {
    /// The connection of a mailbox is over.
    fn by(mailbox: &Mailbox) -> Self {
        Self::Closed(mailbox.closing().unwrap_or(Closing::Unknown))
    }
}

/// What is shown before all mail, part by part.
pub struct Backlog {
    hub: Arc<Hub>,
    mailbox: Arc<Mailbox>,
    /// The reading of the log, for a listener that keeps a cursor.
    reading: Option<Reading>,
    /// Frames of memory, shown after those of the log.
    missed: Vec<Frame>,
    /// What is ready.
    ready: VecDeque<Part>,
    tick: Tick,
}

struct Reading {
    id: ConnectionId,
    since: Since,
    plan: Plan,
    mailbox: Arc<Mailbox>,
    /// Everything up to here was read.
    after: Position,
    /// Everything up to here was given out, and so many events.
    told: Position,
    count: u64,
    gaps: Gaps,
    asked_store: bool,
    is_done: bool,
}

impl Backlog {
    pub(super) fn new(
        hub: Arc<Hub>,
        id: ConnectionId,
        mailbox: Arc<Mailbox>,
        plan: Option<(Since, Plan)>,
        missed: Vec<Frame>,
        tick: Tick,
    ) -> Self {
        let reading = plan.map(|(since, plan)| Reading {
            id,
            since,
            plan,
            mailbox: mailbox.clone(),
            after: Position(0),
            told: Position(0),
            count: 0,
            gaps: Gaps::new(),
            asked_store: false,
            is_done: false,
        });
        Self { hub, mailbox, reading, missed, ready: VecDeque::new(), tick }
    }

    /// Up to where the listener has seen everything once all of it was sent.
    pub fn tick(&self) -> Tick {
        self.tick
    }

    /// Whether there was anything to tell, as far as it was taken.
    pub fn told_something(&self) -> bool {
        self.reading.as_ref().is_some_and(|reading| reading.count > 0 || !reading.gaps.is_empty())
    }

    /// The next piece.
    ///
    /// # Errors
    /// If it cannot be told to its end; the listener may come back with its cursor.
    pub async fn next(&mut self) -> Result<Option<Arc<Piece>>, Interrupted> {
        loop {
            if let Some(closing) = self.mailbox.closing() {
                return Err(Interrupted::Closed(closing));
            }
            if let Some(part) = self.ready.pop_front() {
                if let Some(reading) = &mut self.reading {
                    reading.told = part.piece.position.unwrap_or(reading.told);
                    reading.count += part.logged;
                    self.hub.metrics.replayed_events.inc_by(part.logged);
                }
                return Ok(Some(part.piece));
            }
            match &mut self.reading {
                Some(reading) if !reading.is_done => {
                    let frames = reading.read(&self.hub).await?;
                    self.ready = parts(&frames, self.hub.epoch());
                }
                _ if self.missed.is_empty() => return Ok(None),
                _ => self.ready = parts(&std::mem::take(&mut self.missed), self.hub.epoch()),
            }
        }
    }

    /// The marker for a listener that keeps a cursor: everything up to it was shown, but for the
    /// gaps; none as long as nothing was. `live`: the newest position of what was shown since.
    pub fn marker(&self, live: Option<Position>) -> Option<Arc<Piece>> {
        let reading = self.reading.as_ref()?;
        let is_whole = reading.is_done && self.ready.iter().all(|part| part.logged == 0);
        if !is_whole && reading.count == 0 {
            return None;
        }
        let told = if is_whole { reading.plan.head } else { reading.told };
        let position = live.map_or(told, |live| live.max(told));
        let cursor = Cursor { epoch: self.hub.epoch().clone(), position };
        let text = frame::replay_marker(cursor, reading.count, &reading.gaps, &reading.plan.user);
        Some(Piece::new(&text, self.tick, Some(position)))
    }
}

impl Reading {
    /// Reads the next page; notes gaps. The last page may be empty.
    async fn read(&mut self, hub: &Hub) -> Result<Vec<Frame>, Interrupted> {
        let (page, doubts) = match self.recall(hub).await? {
            Missed::Page(page, doubts) => (page, doubts),
            Missed::Wanting(places) if !hub.journal.is_stuck() => {
                let wanted = {
                    let mut live = hub.live.lock(Purpose::Replay);
                    places.into_iter().map(|place| live.want_tail(place)).collect()
                };
                hub.journal.read_tails(wanted).await;
                match self.recall(hub).await? {
                    Missed::Page(page, doubts) => (page, doubts),
                    Missed::Wanting(_) | Missed::Unknown => self.ask_store(hub).await?,
                }
            }
            Missed::Wanting(_) | Missed::Unknown => self.ask_store(hub).await?,
        };
        let plan = &self.plan;
        // Before the first frame: a reader that goes on from a frame's cursor is not told again.
        for doubt in doubts {
            note_gap(&mut self.gaps, doubt.channel, doubt.reason);
        }
        for (place, trimmed) in page.trimmed {
            let scope = place.as_ref().map_or(Some(&plan.inbox), |name| plan.channels.get(name));
            let Some(scope) = scope else { continue };
            let (from, reason) = plan.gap_after(scope);
            let from = from.max(self.after);
            // What is trimmed after the end comes live.
            if trimmed > from && from < plan.head {
                note_gap(&mut self.gaps, place, reason);
            }
        }
        let is_last = page.is_last;
        self.after = page.frames.last().and_then(Frame::position).unwrap_or(self.after);
        let frames = page.frames.into_iter().filter(|frame| frame.admits(&plan.user)).collect();
        if is_last {
            self.finish(hub);
        }
        Ok(frames)
    }

    /// The next page as far as memory knows, after looking anew at what is to be read.
    ///
    /// # Errors
    /// If the connection is over, or is another user's by now.
    async fn recall(&mut self, hub: &Hub) -> Result<Missed, Interrupted> {
        // It is never closed.
        let _turn = hub.turns.acquire().await;
        let moment = hub.now();
        let mut live = hub.live.lock(Purpose::Replay);
        let now = live.router.plan_replay(self.id, &self.since, moment);
        let now = now.filter(|now| now.user == self.plan.user).ok_or_else(|| Interrupted::by(&self.mailbox))?;
        self.plan.renew(now, &self.since);
        Ok(live.router.missed_logged(&self.plan, self.after, PAGE as usize, moment))
    }

    /// The next page by the store's word.
    async fn ask_store(&mut self, hub: &Hub) -> Result<(ReplayPage, Vec<Doubt>), Interrupted> {
        // It is never closed.
        let _turn = hub.store_turns.acquire().await;
        self.asked_store = true;
        let plan = &self.plan;
        let doubts = plan.doubts(self.after);
        let found = if doubts.is_empty() {
            Vec::new()
        } else {
            hub.metrics.replay_reads.inc();
            hub.store.holding(&plan.user, &doubts).await.map_err(|_| Interrupted::Store)?
        };
        let kept: BTreeMap<&ChannelName, Position> = plan.reads().collect();
        // Of the others only how far they are trimmed.
        let from = |name| kept.get(name).copied().unwrap_or(plan.head);
        let query = ReplayQuery {
            user: &plan.user,
            channels: plan.channels.keys().map(|name| (name, from(name))).collect(),
            inbox: if plan.is_known { plan.inbox.from() } else { plan.head },
            after: self.after,
            through: plan.head,
            at: hub.now().utc,
            limit: PAGE,
            max_bytes: PAGE_BYTES,
        };
        hub.metrics.replay_reads.inc();
        let page = hub.store.replay(&query).await.map_err(|_| Interrupted::Store)?;
        Ok((page, found))
    }

    /// The log was read up to the end of the plan: reads on if the mailbox could not hold what
    /// came meanwhile.
    fn finish(&mut self, hub: &Hub) {
        let live = hub.live.lock(Purpose::Glance);
        let head = live.router.head();
        if self.mailbox.catch_up(head) {
            drop(live);
            self.is_done = true;
            hub.metrics.replays.of(if self.asked_store { "store" } else { "memory" }).inc();
            for reason in self.gaps.values() {
                hub.metrics.gaps.of(frame::gap_reason(*reason)).inc();
            }
        } else {
            self.after = self.plan.head;
            self.plan.head = head;
        }
    }
}

/// Frames as pieces.
fn parts(frames: &[Frame], epoch: &Epoch) -> VecDeque<Part> {
    let mut parts = VecDeque::new();
    let is_logged = |frame: &Frame| u64::from(frame.position().is_some());
    let Some((first, others)) = frames.split_first() else { return parts };
    let (mut draft, mut logged) = (PieceDraft::new(first, true, epoch), is_logged(first));
    for frame in others {
        if let Some(full) = draft.add(frame, true, epoch) {
            let logged = std::mem::take(&mut logged);
            parts.push_back(Part { piece: full.finish(Tick::default()), logged });
        }
        logged += is_logged(frame);
    }
    parts.push_back(Part { piece: draft.finish(Tick::default()), logged });
    parts
}
