//! What a listener is shown before its mail: what it missed, from memory or from the log, and for
//! one that keeps a cursor the marker that says up to where.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::extract::ws::Utf8Bytes;

use super::core::Hub;
use crate::domain::frame::{Frame, Tick};
use crate::domain::names::ConnectionId;
use crate::domain::position::{Cursor, Position};
use crate::domain::replay::{GapReason, Gaps, Plan, note_gap};
use crate::journal::Failure;
use crate::mailbox::Mailbox;
use crate::store::ReplayQuery;
use crate::wire::frame;

/// Frames are put into arrays of about this size, which a slow client can take in one go.
const MAX_PIECE_BYTES: usize = 256 * 1024;
/// Log entries read in one go.
const PAGE: u32 = 100;

/// An array of frames.
pub struct Part {
    /// The array.
    pub text: Utf8Bytes,
    /// Where the last of its logged events is logged, if it has any.
    pub position: Option<Position>,
    /// How many logged events it has.
    logged: u64,
}

/// What is shown before all mail, part by part.
pub struct Backlog {
    hub: Arc<Hub>,
    /// The reading of the log, for a listener that keeps a cursor.
    reading: Option<Reading>,
    /// Frames of memory, shown after those of the log.
    missed: Vec<Frame>,
    /// Arrays that are ready.
    ready: VecDeque<Part>,
    tick: Tick,
}

struct Reading {
    id: ConnectionId,
    plan: Plan,
    mailbox: Arc<Mailbox>,
    /// Everything up to here was read.
    after: Position,
    /// Everything up to here was given out, and so many events.
    told: Position,
    count: u64,
    gaps: Gaps,
    is_done: bool,
}

impl Backlog {
    pub(super) fn new(
        hub: Arc<Hub>,
        id: ConnectionId,
        mailbox: Arc<Mailbox>,
        plan: Option<Plan>,
        missed: Vec<Frame>,
        tick: Tick,
    ) -> Self {
        let reading = plan.map(|plan| Reading {
            id,
            plan,
            mailbox,
            after: Position(0),
            told: Position(0),
            count: 0,
            gaps: Gaps::new(),
            is_done: false,
        });
        Self { hub, reading, missed, ready: VecDeque::new(), tick }
    }

    /// Up to where the listener has seen everything once all of it was sent.
    pub fn tick(&self) -> Tick {
        self.tick
    }

    /// Whether there was anything to tell, as far as it was taken.
    pub fn told_something(&self) -> bool {
        self.reading.as_ref().is_some_and(|reading| reading.count > 0 || !reading.gaps.is_empty())
    }

    /// The next array of frames.
    ///
    /// # Errors
    /// If the store cannot be read: the listener may come back with its cursor.
    pub async fn next(&mut self) -> Result<Option<Part>, Failure> {
        loop {
            if let Some(part) = self.ready.pop_front() {
                if let Some(reading) = &mut self.reading {
                    reading.told = part.position.unwrap_or(reading.told);
                    reading.count += part.logged;
                }
                return Ok(Some(part));
            }
            match &mut self.reading {
                Some(reading) if !reading.is_done => {
                    let frames = reading.read(&self.hub).await?;
                    self.ready = arrays(&self.hub, frames);
                }
                _ if self.missed.is_empty() => return Ok(None),
                _ => self.ready = arrays(&self.hub, std::mem::take(&mut self.missed)),
            }
        }
    }

    /// The marker for a listener that keeps a cursor: everything up to it was shown, but for the
    /// gaps. `live`: the newest position of what was shown since.
    pub fn marker(&self, live: Option<Position>) -> Option<Part> {
        let reading = self.reading.as_ref()?;
        let is_whole = reading.is_done && self.ready.iter().all(|part| part.logged == 0);
        let told = if is_whole { reading.plan.head } else { reading.told };
        let position = live.map_or(told, |live| live.max(told));
        let cursor = Cursor { epoch: self.hub.epoch().clone(), position };
        let text = frame::replay_marker(cursor, reading.count, &reading.gaps, &reading.plan.user).into();
        Some(Part { text, position: Some(position), logged: 0 })
    }
}

impl Reading {
    /// Reads the next page; notes gaps. The last page may be empty.
    async fn read(&mut self, hub: &Hub) -> Result<Vec<Frame>, Failure> {
        let at = hub.now().utc;
        {
            // What the user was taken out of meanwhile is not for it any more.
            let live = hub.live.lock();
            let channels = live.router.connection(self.id).map(|connection| &connection.channels);
            self.plan.channels.retain(|name, _| channels.is_some_and(|channels| channels.contains(name)));
        }
        if !self.plan.is_known {
            self.finish(hub).await?;
            return Ok(Vec::new());
        }
        let query = ReplayQuery {
            user: &self.plan.user,
            channels: self.plan.reads().collect(),
            inbox: self.plan.inbox.from(),
            after: self.after,
            through: self.plan.head,
            at,
            limit: PAGE,
        };
        let page = hub.store.replay(&query).await.map_err(|_| Failure::Unavailable)?;
        for (place, trimmed) in page.trimmed {
            let scope = match &place {
                Some(name) => self.plan.channels.get(name),
                None => Some(&self.plan.inbox),
            };
            if scope.is_some_and(|scope| trimmed > scope.from().max(self.after)) {
                note_gap(&mut self.gaps, place, GapReason::Trimmed);
            }
        }
        let is_last = page.frames.len() < PAGE as usize;
        self.after = page.frames.last().and_then(Frame::position).unwrap_or(self.after);
        let frames: Vec<Frame> = page.frames.into_iter().filter(|frame| frame.admits(&self.plan.user)).collect();
        if is_last {
            self.finish(hub).await?;
        }
        Ok(frames)
    }

    /// The log was read up to the end of the plan: notes the other gaps, or reads on if the
    /// mailbox could not hold what came meanwhile.
    async fn finish(&mut self, hub: &Hub) -> Result<(), Failure> {
        let doubts = self.plan.doubts();
        let found = hub.store.holding(&self.plan.user, &doubts).await.map_err(|_| Failure::Unavailable)?;
        for doubt in found {
            note_gap(&mut self.gaps, doubt.channel, doubt.reason);
        }
        let live = hub.live.lock();
        let head = live.router.head();
        if self.mailbox.catch_up(head) {
            self.is_done = true;
        } else {
            self.after = self.plan.head;
            self.plan.head = head;
        }
        Ok(())
    }
}

/// Frames as JSON arrays of about a size.
fn arrays(hub: &Hub, frames: Vec<Frame>) -> VecDeque<Part> {
    let mut parts = VecDeque::new();
    let mut frames = frames.into_iter().peekable();
    while frames.peek().is_some() {
        let (mut text, mut position, mut logged) = (vec![b'['], None, 0);
        while text.len() < MAX_PIECE_BYTES
            && let Some(missed) = frames.next()
        {
            if text.len() > 1 {
                text.push(b',');
            }
            frame::write(&missed, true, hub.epoch(), &mut text);
            position = missed.position().or(position);
            logged += u64::from(missed.position().is_some());
        }
        text.push(b']');
        let text = String::from_utf8(text).expect("JSON is UTF-8").into();
        parts.push_back(Part { text, position, logged });
    }
    parts
}
