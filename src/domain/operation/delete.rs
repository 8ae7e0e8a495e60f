//! `DELETE /message`: takes messages back.

use std::sync::Arc;

use super::contract::Operation;
use super::edit::{Receipt, has_target, need_original, recent_message, touch, touch_holders};
use super::post::shown_in;
use crate::domain::draft::{Draft, Held, Key, Touch, Undecided};
use crate::domain::event::{Event, Original};
use crate::domain::message::{Audience, Deletion};
use crate::domain::position::Position;
use crate::domain::router::{Needs, Router};
use crate::domain::timestamp::Moment;

/// One message to delete.
pub type DeleteOne = Arc<Deletion>;

/// Messages go, in the order given.
#[derive(Debug)]
pub struct Delete {
    /// The deletions.
    pub deletions: Vec<DeleteOne>,
    /// Where each is logged; filled while deciding.
    pub positions: Vec<Option<Position>>,
}

impl Operation for Delete {
    type Outcome = Vec<(DeleteOne, Receipt)>;

    fn needs(&self, router: &Router, needs: &mut Needs) {
        for deletion in &self.deletions {
            need_original(deletion.channel.as_ref(), &deletion.audience, deletion.uuid, router, needs);
        }
    }

    fn shows_in(&self) -> Vec<Key> {
        let places = self.deletions.iter().map(|one| (one.channel.as_ref(), &one.audience));
        places.flat_map(|(channel, audience)| shown_in(channel, audience)).collect()
    }

    fn decide(&mut self, router: &Router, draft: &mut Draft) -> Result<(), Undecided> {
        self.positions.truncate(draft.done());
        for deletion in &self.deletions[draft.done()..] {
            self.positions.push(decide_one(deletion, router, draft)?);
            draft.next_element()?;
        }
        Ok(())
    }

    fn outcome(self, _router: &Router, _moment: Moment) -> Self::Outcome {
        self.deletions.into_iter().zip(self.positions).collect()
    }
}

fn decide_one(deletion: &DeleteOne, router: &Router, draft: &mut Draft) -> Result<Receipt, Undecided> {
    let channel = deletion.channel.as_ref();
    if !has_target(channel, &deletion.audience) {
        return Ok(None);
    }
    touch(channel, &deletion.audience, deletion.uuid, draft)?;
    let held = draft.still_held(router, channel, deletion.uuid);
    let logs = channel.is_some_and(|name| router.channel(name).is_some_and(|channel| channel.settings.logs()));
    let position = (logs || held.is_some()).then(|| draft.next_position());
    let (original, about, audience) = match &held {
        Some(Held::Message(logged)) => {
            touch_holders(channel, &logged.message.audience, draft)?;
            let original = Original { position: logged.position, edit: logged.edit };
            (Some(original), Some(logged.position), logged.message.audience.clone())
        }
        Some(Held::Deletion { position, about, audience }) => {
            touch_holders(channel, audience, draft)?;
            (Some(Original { position: *position, edit: None }), *about, Audience::clone(audience))
        }
        None => {
            let recent = recent_message(channel, &deletion.audience, deletion.uuid, router);
            (None, None, recent.map_or(&deletion.audience, |message| &message.audience).clone())
        }
    };
    if let (Some(name), Some(Held::Message(_))) = (channel, &held) {
        // Older messages may come back into the history: nobody may look at it in between.
        draft.touch(Key::Channel(name.clone()), Touch::Exclusive)?;
        if router.channel(name).is_some_and(|channel| channel.has_older()) {
            draft.reload(name);
        }
    }
    let audience = Arc::new(audience);
    if let Some(position) = position {
        draft.hold(channel, deletion.uuid, Held::Deletion { position, about, audience: audience.clone() });
    }
    draft.add(Event::Deleted { position, deletion: deletion.clone(), audience, original, about });
    Ok(position)
}
