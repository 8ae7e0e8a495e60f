//! Requests that wait to be decided, and how they are answered.

use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::domain::draft::{Draft, Refusal, Undecided};
use crate::domain::operation::{Operation, Trim};
use crate::domain::router::{Needs, Router};
use crate::domain::timestamp::Moment;
use crate::order::Ticket;

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

impl Failure {
    /// Its name in figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Rejected => "rejected",
            Self::Unavailable => "unavailable",
            Self::Busy => "busy",
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A request that waits to be decided, of whatever kind.
pub(super) trait Pending: Send + Sync {
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
pub(super) trait Answer {
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

pub(super) struct Request<O: Operation> {
    pub(super) operation: O,
    pub(super) answer: oneshot::Sender<Result<O::Outcome, Failure>>,
    pub(super) deadline: Instant,
    pub(super) ticket: Ticket,
    pub(super) room: OwnedSemaphorePermit,
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
pub(super) struct OwnTrim(pub(super) Ticket);

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
