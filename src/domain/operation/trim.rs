//! Trimming: takes from the log what is past retention, a bounded piece at a time.

use super::contract::Operation;
use crate::domain::draft::{Draft, Key, Touch, Undecided};
use crate::domain::event::Event;
use crate::domain::router::{Needs, Router};
use crate::domain::timestamp::Moment;
use crate::domain::user::INBOX_SIZE;

/// Most channels, and most inboxes, that are trimmed in one go.
const STEP: usize = 8;

/// Some of the channels and inboxes that hold more than they should are trimmed; the journal asks
/// for it itself, until none is left.
#[derive(Debug)]
pub struct Trim;

impl Operation for Trim {
    type Outcome = ();

    fn needs(&self, _router: &Router, _needs: &mut Needs) {}

    fn decide(&mut self, router: &Router, draft: &mut Draft) -> Result<(), Undecided> {
        let (channels, users) = router.overfull();
        for name in channels.take(STEP) {
            let Some(channel) = router.channel(name) else { continue };
            draft.touch(Key::Channel(name.clone()), Touch::Exclusive)?;
            let keep = channel.retained.trimmed(channel.settings.kept());
            draft.add(Event::ChannelTrimmed { channel: name.clone(), keep });
        }
        for name in users.take(STEP) {
            let Some(user) = router.user(name) else { continue };
            draft.touch(Key::User(name.clone()), Touch::Exclusive)?;
            draft.add(Event::InboxTrimmed { user: name.clone(), keep: user.retained.trimmed(INBOX_SIZE) });
        }
        Ok(())
    }

    fn outcome(self, _router: &Router, _moment: Moment) {}
}
