//! Trimming: takes from the log what is past retention, a bounded piece at a time.

use super::contract::Operation;
use crate::domain::draft::{Draft, Key, Touch, Undecided};
use crate::domain::event::Event;
use crate::domain::router::{Needs, Router};
use crate::domain::timestamp::Moment;
use crate::domain::user::INBOX_SIZE;

/// Entries of channels, and of inboxes, that go in one go at least, about, where so many are past retention.
const STEP: usize = 256;

/// Some of the channels and inboxes that hold more than they should are trimmed; the journal asks
/// for it itself, at the end of its batches, until none is left. What the batch has added is there
/// then, and twice as much may go. It makes nobody wait: what others change is left for the next time.
#[derive(Debug)]
pub struct Trim;

impl Operation for Trim {
    type Outcome = ();

    fn needs(&self, _router: &Router, _needs: &mut Needs) {}

    fn decide(&mut self, router: &Router, draft: &mut Draft) -> Result<(), Undecided> {
        let most = STEP.max(2 * draft.event_count());
        let (channels, users) = router.overfull();
        let mut going = 0;
        for name in channels {
            if going >= most {
                break;
            }
            let Some(channel) = router.channel(name) else { continue };
            if draft.touch(Key::Channel(name.clone()), Touch::Shared).is_ok() {
                let keep = channel.retained.trimmed(channel.settings.kept());
                going += channel.retained.without(keep);
                draft.add(Event::ChannelTrimmed { channel: name.clone(), keep });
            }
        }
        let mut going = 0;
        for name in users {
            if going >= most {
                break;
            }
            let Some(user) = router.user(name) else { continue };
            if draft.touch(Key::User(name.clone()), Touch::Shared).is_ok() {
                let keep = user.retained.trimmed(INBOX_SIZE);
                going += user.retained.without(keep);
                draft.add(Event::InboxTrimmed { user: name.clone(), keep });
            }
        }
        Ok(())
    }

    fn outcome(self, _router: &Router, _moment: Moment) {}
}
