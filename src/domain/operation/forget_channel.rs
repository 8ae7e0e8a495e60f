//! `DELETE /channel`: forgets a channel.

use super::contract::Operation;
use crate::domain::draft::{Draft, Key, Touch, Undecided};
use crate::domain::event::Event;
use crate::domain::names::ChannelName;
use crate::domain::router::{Needs, Router};
use crate::domain::timestamp::Moment;

/// A channel goes, with settings, messages and floors; its members' connections stay.
#[derive(Debug)]
pub struct ForgetChannel {
    /// Which.
    pub channel: ChannelName,
    /// Whether there is such a channel; filled while deciding.
    pub found: bool,
}

impl Operation for ForgetChannel {
    /// Whether there was such a channel.
    type Outcome = bool;

    fn needs(&self, _router: &Router, needs: &mut Needs) {
        needs.channels.insert(self.channel.clone());
    }

    fn shows_in(&self) -> Vec<Key> {
        vec![Key::Channel(self.channel.clone())]
    }

    fn decide(&mut self, router: &Router, draft: &mut Draft) -> Result<(), Undecided> {
        draft.touch(Key::Channel(self.channel.clone()), Touch::Exclusive)?;
        self.found = router.channel(&self.channel).is_some();
        if self.found {
            draft.add(Event::ChannelForgotten { name: self.channel.clone() });
        }
        Ok(())
    }

    fn outcome(self, _router: &Router, _moment: Moment) -> bool {
        self.found
    }
}
