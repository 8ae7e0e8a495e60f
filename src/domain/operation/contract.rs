//! What every operation does.

use crate::domain::draft::{Draft, Key, Undecided};
use crate::domain::router::{Needs, Router};
use crate::domain::timestamp::Moment;

/// One request that changes something: all of it happens, or nothing.
pub trait Operation: Send + Sync + 'static {
    /// What the back end is told.
    type Outcome: Send + 'static;

    /// Adds what must be in memory before this can be decided.
    fn needs(&self, router: &Router, needs: &mut Needs);

    /// What it shows something in: later requests of which nothing is stored, and which touch the
    /// same, are shown after it.
    fn shows_in(&self) -> Vec<Key> {
        Vec::new()
    }

    /// Adds the events that this leads to, as things stand in `router`. Is asked again to go on after
    /// [`Undecided::More`], and may be asked again from the beginning after [`Undecided::Later`].
    fn decide(&mut self, router: &Router, draft: &mut Draft) -> Result<(), Undecided>;

    /// What came of it, right after its events were applied.
    fn outcome(self, router: &Router, moment: Moment) -> Self::Outcome;

    /// Adds to that some of what it shows of many things; true if there is more to add. What it shows
    /// does not change meanwhile, though others have their turn.
    fn look(_outcome: &mut Self::Outcome, _router: &Router, _moment: Moment) -> bool {
        false
    }
}
