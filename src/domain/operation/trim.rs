//! Trimming: takes from the log what is past retention, a bounded piece at a time.

use super::contract::Operation;
use crate::domain::draft::{Draft, Key, Touch, Undecided};
use crate::domain::event::Event;
#[cfg(doc)]
use crate::domain::history::Retained;
use crate::domain::router::{Needs, Router};
use crate::domain::timestamp::Moment;
use crate::domain::user::INBOX_SIZE;

/// Entries of channels, and of inboxes, that go in one go at least, about, where so many are past retention.
const STEP: usize = 256;
/// Most inboxes that are trimmed in one go, so that nobody waits for the list of them. Where more wait they
/// grow meanwhile, and more goes with each: up to what [`Retained::trimmed`] takes in one go.
const INBOXES: usize = 1_000;

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
        // A message may reach many users: it counts as often.
        let most = STEP.max(2 * draft.inbox_entries());
        let mut going = 0;
        for name in users.take(INBOXES) {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;
    use crate::domain::draft::Found;
    use crate::domain::message::{Audience, Message};
    use crate::domain::names::Username;
    use crate::domain::position::Position;
    use crate::domain::state::Profile;
    use crate::domain::timestamp::Timestamp;

    const USERS: usize = 200;
    const A_BATCH: u64 = 30;

    fn moment() -> Moment {
        Moment { utc: Timestamp::parse("2026-01-01T00:00").unwrap().in_utc(), elapsed: Duration::ZERO }
    }

    fn names() -> Vec<Username> {
        (0..USERS).map(|number| Username::parse(&format!("u{number}")).unwrap()).collect()
    }

    /// A private message to all.
    fn letter(position: Position) -> Event {
        let message = Message {
            uuid: Uuid::from_u128(position.0.into()),
            channel: None,
            sender: Username::parse("x").unwrap(),
            body: None,
            timestamp: Timestamp::utc(moment().utc),
            edited: None,
            audience: Audience { only: names().into(), ..Audience::default() },
            no_history: false,
        };
        Event::Posted { position: Some(position), message: Arc::new(message), inboxes: names() }
    }

    #[test]
    fn private_messages_to_many_do_not_outgrow_trimming() {
        let mut router = Router::new(Position::default(), Duration::from_secs(60), Uuid::new_v4);
        for name in names() {
            let kept = Event::UserKept { name, uuid: Uuid::new_v4(), profile: Profile::default() };
            router.apply(&kept, moment(), &mut Vec::new());
        }
        let found = Found::default();
        let mut fullest = 0;
        for _ in 0..20 {
            let mut draft = Draft::new(&router, moment(), &found);
            for _ in 0..A_BATCH {
                let position = draft.next_position();
                draft.add(letter(position));
            }
            draft.begin();
            Trim.decide(&router, &mut draft).unwrap();
            for event in draft.finish().0 {
                router.apply(&event, moment(), &mut Vec::new());
            }
            fullest = names().iter().map(|name| router.user(name).unwrap().retained.messages).max().unwrap();
        }
        // What is kept, what trimming waits for, and a batch or two.
        assert!(fullest <= INBOX_SIZE + 16 + 2 * A_BATCH as u32, "{fullest}");
    }
}
