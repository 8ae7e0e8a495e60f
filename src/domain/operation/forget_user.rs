//! `DELETE /user`: forgets a user.

use super::contract::Operation;
use crate::domain::draft::{Draft, Key, Touch, Undecided};
use crate::domain::event::Event;
use crate::domain::names::Username;
use crate::domain::router::{Needs, Router};
use crate::domain::timestamp::Moment;

/// A user goes, with state, inbox and floors; its connections end.
#[derive(Debug)]
pub struct ForgetUser {
    /// Who.
    pub user: Username,
    /// Whether there is such a user; filled while deciding.
    pub found: bool,
}

impl Operation for ForgetUser {
    /// Whether there was such a user.
    type Outcome = bool;

    fn needs(&self, _router: &Router, needs: &mut Needs) {
        needs.users.insert(self.user.clone());
    }

    fn shows_in(&self) -> Vec<Key> {
        vec![Key::User(self.user.clone())]
    }

    fn decide(&mut self, router: &Router, draft: &mut Draft) -> Result<(), Undecided> {
        draft.touch(Key::User(self.user.clone()), Touch::Exclusive)?;
        let user = router.user(&self.user);
        self.found = user.is_some();
        let Some(user) = user else { return Ok(()) };
        for id in user.connections.iter().skip(draft.done()) {
            draft.touch(Key::Connection(*id), Touch::Exclusive)?;
            draft.add(Event::ConnectionEnded { id: *id });
            draft.next_element()?;
        }
        draft.add(Event::UserForgotten { name: self.user.clone() });
        Ok(())
    }

    fn outcome(self, _router: &Router, _moment: Moment) -> bool {
        self.found
    }
}
