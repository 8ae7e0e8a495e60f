//! `PATCH /message`: changes messages.

use std::sync::Arc;

use super::contract::Operation;
use super::post::shown_in;
use crate::domain::draft::{Draft, Held, Key, Touch, Undecided};
use crate::domain::event::Event;
use crate::domain::message::{Audience, Edit, Message};
use crate::domain::names::{ChannelName, Username};
use crate::domain::position::Position;
use crate::domain::router::{Needs, Router};
use crate::domain::timestamp::Moment;
use uuid::Uuid;

/// Messages change, in the order given.
#[derive(Debug)]
pub struct EditMessages {
    /// The edits.
    pub edits: Vec<Arc<Edit>>,
    /// Where each is logged; filled while deciding.
    pub positions: Vec<Option<Position>>,
}

/// Where what was asked for is logged, if it is; one per element of the request.
pub type Receipt = Option<Position>;

impl Operation for EditMessages {
    type Outcome = Vec<(Arc<Edit>, Receipt)>;

    fn needs(&self, router: &Router, needs: &mut Needs) {
        for edit in &self.edits {
            need_original(edit.channel.as_ref(), &edit.audience, edit.uuid, router, needs);
        }
    }

    fn shows_in(&self) -> Vec<Key> {
        let places = self.edits.iter().map(|one| (one.channel.as_ref(), &one.audience));
        places.flat_map(|(channel, audience)| shown_in(channel, audience)).collect()
    }

    fn decide(&mut self, router: &Router, draft: &mut Draft) -> Result<(), Undecided> {
        self.positions.truncate(draft.done());
        for edit in &self.edits[draft.done()..] {
            self.positions.push(decide_one(edit, router, draft)?);
            draft.next_element()?;
        }
        Ok(())
    }

    fn outcome(self, _router: &Router, _moment: Moment) -> Self::Outcome {
        self.edits.into_iter().zip(self.positions).collect()
    }
}

fn decide_one(edit: &Arc<Edit>, router: &Router, draft: &mut Draft) -> Result<Receipt, Undecided> {
    if !has_target(edit.channel.as_ref(), &edit.audience) {
        return Ok(None);
    }
    touch(edit.channel.as_ref(), &edit.audience, edit.uuid, draft)?;
    let event = match draft.held(router, edit.channel.as_ref(), edit.uuid) {
        Some(Held::Message(mut logged)) => {
            touch_holders(edit.channel.as_ref(), &logged.message.audience, draft)?;
            let position = draft.next_position();
            let original = logged.clone();
            let message = Arc::new(edit.applied_to(&logged.message));
            logged.message = message.clone();
            logged.edit = Some(position);
            draft.hold(edit.channel.as_ref(), edit.uuid, Held::Message(logged));
            Event::Edited {
                position: Some(position),
                edit: edit.clone(),
                audience: Arc::new(message.audience.clone()),
                original: Some(original),
                message: Some(message),
            }
        }
        Some(Held::Deletion { .. }) | None => {
            let recent = draft
                .recent(edit.channel.as_ref(), edit.uuid)
                .cloned()
                .or_else(|| recent_message(edit.channel.as_ref(), &edit.audience, edit.uuid, router).cloned());
            let message = recent.map(|message| Arc::new(edit.applied_to(&message)));
            if let Some(message) = &message {
                draft.hold_recent(message.clone());
            }
            let audience = message.as_ref().map_or(&edit.audience, |message| &message.audience).clone();
            Event::Edited { position: None, edit: edit.clone(), audience: Arc::new(audience), original: None, message }
        }
    };
    let position = event.position();
    draft.add(event);
    Ok(position)
}

/// Whether a request about a message says where it is.
pub(super) fn has_target(channel: Option<&ChannelName>, audience: &Audience) -> bool {
    channel.is_some() || !audience.only.is_empty()
}

/// Adds what a request about a message needs: where it is, and the message if memory lacks it.
pub(super) fn need_original(
    channel: Option<&ChannelName>,
    audience: &Audience,
    uuid: Uuid,
    router: &Router,
    needs: &mut Needs,
) {
    match channel {
        Some(name) => {
            needs.channels.insert(name.clone());
            if router.logged(name, uuid).is_none() {
                needs.uuids.insert(uuid);
            }
        }
        None => {
            needs.users.extend(audience.only.iter().cloned());
            needs.uuids.insert(uuid);
        }
    }
}

/// Keeps apart what must not meet in one batch.
pub(super) fn touch(
    channel: Option<&ChannelName>,
    audience: &Audience,
    uuid: Uuid,
    draft: &mut Draft,
) -> Result<(), Undecided> {
    draft.touch(Key::Message(uuid), Touch::Exclusive)?;
    match channel {
        Some(name) => draft.touch(Key::Channel(name.clone()), Touch::Shared),
        None => audience.only.iter().try_for_each(|name| draft.touch(Key::User(name.clone()), Touch::Shared)),
    }
}

/// Keeps apart what changes the inboxes that hold a private message, whomever the request names.
pub(super) fn touch_holders(
    channel: Option<&ChannelName>,
    audience: &Audience,
    draft: &mut Draft,
) -> Result<(), Undecided> {
    let users = if channel.is_none() { audience.named() } else { Vec::new() };
    users.into_iter().try_for_each(|name| draft.touch(Key::User(name), Touch::Shared))
}

/// A message that is not logged but still among the recent frames.
pub(super) fn recent_message<'a>(
    channel: Option<&ChannelName>,
    audience: &Audience,
    uuid: Uuid,
    router: &'a Router,
) -> Option<&'a Arc<Message>> {
    match channel {
        Some(name) => router.channel(name)?.recent.message(uuid),
        None => {
            let of_user = |name: &Username| router.user(name)?.recent.message(uuid);
            audience.only.iter().find_map(of_user)
        }
    }
}
