//! The sweep: ends connections whose time is over.

use super::contract::Operation;
use crate::domain::draft::{Draft, Undecided};
use crate::domain::router::{Needs, Router};
use crate::domain::timestamp::Moment;

/// Connections that nobody listens on any more end; the server asks for it every second.
#[derive(Debug)]
pub struct Sweep;

impl Operation for Sweep {
    type Outcome = ();

    fn needs(&self, _router: &Router, _needs: &mut Needs) {}

    fn decide(&mut self, router: &Router, draft: &mut Draft) -> Result<(), Undecided> {
        draft.sweep(router)
    }

    fn outcome(self, _router: &Router, _moment: Moment) {}
}
