//! `/user_state`: changes a user's state and says which of it is public.

use std::sync::Arc;

use super::contract::Operation;
use crate::domain::draft::{Draft, Key, Refusal, Touch, Undecided};
use crate::domain::event::Event;
use crate::domain::names::Username;
use crate::domain::router::{Needs, Router};
use crate::domain::state::{Change, Profile, PublicKeys, UserState};
use crate::domain::timestamp::Moment;

/// A user's state changes.
#[derive(Debug)]
pub struct ChangeState {
    /// Whose.
    pub user: Username,
    /// The keys to set.
    pub state: UserState,
    /// The new public keys, in effect before the change is announced; none: as they are.
    pub public_keys: Option<PublicKeys>,
    /// Real changes; filled while deciding.
    pub changed: Vec<Change>,
}

/// The answer to a [`ChangeState`].
#[derive(Debug)]
pub struct StateReport {
    /// The state and public keys afterwards.
    pub profile: Profile,
    /// Real changes.
    pub changed: Vec<Change>,
}

impl Operation for ChangeState {
    type Outcome = StateReport;

    fn needs(&self, _router: &Router, needs: &mut Needs) {
        needs.users.insert(self.user.clone());
    }

    fn decide(&mut self, router: &Router, draft: &mut Draft) -> Result<(), Undecided> {
        draft.touch(Key::User(self.user.clone()), Touch::Exclusive)?;
        let user = router.user(&self.user).ok_or(Refusal::UnknownUser)?;
        let mut state = user.profile.state().clone();
        self.changed = state.merge(&self.state);
        if state.is_too_large() {
            return Err(Refusal::StateTooLarge.into());
        }
        let public_keys = self.public_keys.clone().unwrap_or_else(|| user.profile.public_keys().clone());
        if self.changed.is_empty() && public_keys == *user.profile.public_keys() {
            return Ok(());
        }
        let profile = Profile::new(state, public_keys);
        let is_public = |(key, _): &&Change| profile.public().get(key).is_some();
        let told: Arc<[Change]> = self.changed.iter().filter(is_public).cloned().collect();
        draft.add(Event::UserKept { name: self.user.clone(), uuid: user.uuid, profile });
        if !told.is_empty() {
            draft.add(Event::StateChanged { user: self.user.clone(), changed: told });
        }
        Ok(())
    }

    fn outcome(self, router: &Router, _moment: Moment) -> StateReport {
        let profile = router.user(&self.user).map(|user| user.profile.clone()).unwrap_or_default();
        StateReport { profile, changed: self.changed }
    }
}
