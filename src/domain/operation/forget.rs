//! Forgetting users that were away for long.

use chrono::NaiveDateTime;

use super::contract::Operation;
use crate::domain::draft::{Draft, Key, Touch, Undecided};
use crate::domain::event::Event;
use crate::domain::names::Username;
use crate::domain::router::{Needs, Router};
use crate::domain::timestamp::Moment;

/// Users go, with state and inbox, unless they have a connection or came back meanwhile.
#[derive(Debug)]
pub struct ForgetIdleUsers {
    /// Users that the store calls idle.
    pub users: Vec<Username>,
    /// Who was active after this stays.
    pub idle_since: NaiveDateTime,
    /// How many went; counted while deciding.
    pub forgotten: usize,
}

impl Operation for ForgetIdleUsers {
    type Outcome = usize;

    fn needs(&self, _router: &Router, needs: &mut Needs) {
        needs.users.extend(self.users.iter().cloned());
    }

    fn decide(&mut self, router: &Router, draft: &mut Draft) -> Result<(), Undecided> {
        self.forgotten = 0;
        for name in &self.users {
            let Some(user) = router.user(name) else { continue };
            if user.connections.is_empty() && user.last_active <= self.idle_since {
                draft.touch(Key::User(name.clone()), Touch::Exclusive)?;
                draft.add(Event::UserForgotten { name: name.clone() });
                self.forgotten += 1;
            }
        }
        Ok(())
    }

    fn outcome(self, _router: &Router, _moment: Moment) -> usize {
        self.forgotten
    }
}
