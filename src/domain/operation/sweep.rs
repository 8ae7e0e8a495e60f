//! The sweep: ends connections whose time is over.

use super::contract::Operation;
use crate::domain::draft::{Draft, Key, Touch, Undecided};
use crate::domain::event::Event;
use crate::domain::router::{Needs, Router};
use crate::domain::timestamp::Moment;

/// Most connections that end in one go.
const STEP: usize = 500;

/// Some of the connections that nobody listens on any more end; the server asks for it every
/// second, until none is left.
#[derive(Debug)]
pub struct Sweep;

impl Operation for Sweep {
    type Outcome = ();

    fn needs(&self, _router: &Router, _needs: &mut Needs) {}

    fn decide(&mut self, router: &Router, draft: &mut Draft) -> Result<(), Undecided> {
        for id in router.expired(draft.moment(), STEP) {
            draft.touch(Key::Connection(id), Touch::Exclusive)?;
            if let Some(connection) = router.connection(id) {
                // Whether a floor is left depends on all of the user's connections.
                draft.touch(Key::User(connection.user.clone()), Touch::Exclusive)?;
            }
            draft.add(Event::ConnectionEnded { id });
        }
        Ok(())
    }

    fn outcome(self, _router: &Router, _moment: Moment) {}
}
