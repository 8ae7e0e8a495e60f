//! Expiring floors: users that were away from a channel for longer than the resume window.

use super::contract::Operation;
use crate::domain::draft::{Draft, Undecided};
use crate::domain::event::Event;
use crate::domain::router::{Needs, Router};
use crate::domain::timestamp::Moment;

/// The floors of users that left long ago end; the server asks for it now and then.
#[derive(Debug)]
pub struct ExpireFloors;

impl Operation for ExpireFloors {
    type Outcome = ();

    fn needs(&self, _router: &Router, _needs: &mut Needs) {}

    fn decide(&mut self, router: &Router, draft: &mut Draft) -> Result<(), Undecided> {
        let left_before = draft.moment().utc - router.resume_window();
        draft.add(Event::FloorsExpired { left_before });
        Ok(())
    }

    fn outcome(self, _router: &Router, _moment: Moment) {}
}
