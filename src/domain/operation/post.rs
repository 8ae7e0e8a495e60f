//! `POST /message`: says something in channels or to users.

use std::sync::Arc;

use super::contract::Operation;
use super::expire_messages::expire;
use crate::domain::draft::{Draft, Held, Key, Touch, Undecided};
use crate::domain::event::Event;
use crate::domain::message::{Audience, Message};
use crate::domain::names::{ChannelName, Username};
use crate::domain::position::Position;
use crate::domain::router::{Needs, Router};
use crate::domain::timestamp::Moment;

/// One message to post.
#[derive(Debug)]
pub struct PostOne {
    /// The message.
    pub message: Arc<Message>,
    /// Whether the back end chose its uuid, which then is an idempotency key.
    pub uuid_given: bool,
}

/// Messages are posted, in their order.
#[derive(Debug)]
pub struct Post {
    /// The messages.
    pub messages: Vec<PostOne>,
    /// What became of each; filled while deciding.
    pub posted: Vec<Posted>,
}

/// What became of one message.
#[derive(Debug, Clone)]
pub struct Posted {
    /// As it was accepted, or as it is stored already.
    pub message: Arc<Message>,
    /// Where it is logged, if it is.
    pub position: Option<Position>,
    /// Whether the log held that uuid already, so that nothing was added.
    pub duplicate: bool,
}

impl Operation for Post {
    type Outcome = Vec<Posted>;

    fn needs(&self, _router: &Router, needs: &mut Needs) {
        for PostOne { message, uuid_given } in &self.messages {
            match &message.channel {
                Some(channel) => needs.channels.extend([channel.clone()]),
                None => needs.users.extend(message.audience.only.iter().cloned()),
            }
            if *uuid_given {
                needs.uuids.insert(message.uuid);
            }
        }
    }

    fn shows_in(&self) -> Vec<Key> {
        let places = self.messages.iter().map(|one| (one.message.channel.as_ref(), &one.message.audience));
        places.flat_map(|(channel, audience)| shown_in(channel, audience)).collect()
    }

    fn decide(&mut self, router: &Router, draft: &mut Draft) -> Result<(), Undecided> {
        if draft.done() == 0 {
            self.posted.clear();
        }
        for one in &self.messages[draft.done()..] {
            if let Some(posted) = decide_one(one, router, draft)? {
                self.posted.push(posted);
            }
            draft.next_element()?;
        }
        Ok(())
    }

    fn outcome(self, _router: &Router, _moment: Moment) -> Vec<Posted> {
        self.posted
    }
}

/// None: the message has no target and is dropped.
fn decide_one(one: &PostOne, router: &Router, draft: &mut Draft) -> Result<Option<Posted>, Undecided> {
    let message = &one.message;
    let (logs, inboxes) = match &message.channel {
        Some(name) => {
            draft.touch(Key::Channel(name.clone()), Touch::Shared)?;
            (router.channel(name).is_some_and(|channel| channel.settings.logs()), Vec::new())
        }
        None if message.audience.only.is_empty() => return Ok(None),
        None => {
            let named = message.audience.named();
            for name in &named {
                draft.touch(Key::User(name.clone()), Touch::Shared)?;
            }
            let inboxes: Vec<Username> = named.into_iter().filter(|name| router.user(name).is_some()).collect();
            (!inboxes.is_empty(), inboxes)
        }
    };
    if one.uuid_given {
        draft.touch(Key::Message(message.uuid), Touch::Exclusive)?;
    }
    // What the log holds is not said again, stored or not.
    if one.uuid_given {
        match draft.held(router, message.channel.as_ref(), message.uuid) {
            Some(Held::Message(logged)) => {
                let position = Some(logged.position);
                return Ok(Some(Posted { message: logged.message, position, duplicate: true }));
            }
            Some(Held::Deletion { position, .. }) => {
                return Ok(Some(Posted { message: message.clone(), position: Some(position), duplicate: true }));
            }
            None => {}
        }
    }
    if !logs || message.no_history {
        draft.add(Event::Posted { position: None, message: message.clone(), inboxes });
        return Ok(Some(Posted { message: message.clone(), position: None, duplicate: false }));
    }
    if let (true, Some(name)) = (one.uuid_given, &message.channel)
        && let Some(Held::Message(_)) = draft.still_held(router, Some(name), message.uuid)
        && let Some(channel) = router.channel(name)
    {
        // It was said before, but its time is over: the log has each uuid once.
        expire(name, channel, draft)?;
    }
    let position = draft.next_position();
    if one.uuid_given {
        draft.hold_message(position, message.clone());
    }
    draft.add(Event::Posted { position: Some(position), message: message.clone(), inboxes });
    Ok(Some(Posted { message: message.clone(), position: Some(position), duplicate: false }))
}

/// What something about a message is shown in: its channel, or the users it is meant for.
pub(super) fn shown_in(channel: Option<&ChannelName>, audience: &Audience) -> Vec<Key> {
    match channel {
        Some(name) => vec![Key::Channel(name.clone())],
        None => audience.only.iter().cloned().map(Key::User).collect(),
    }
}

impl Post {
    /// Whether nothing of messages is logged and all that they need is in memory, so that no store is
    /// asked and nothing but memory changes.
    pub fn is_ephemeral(messages: &[PostOne], router: &Router) -> bool {
        messages.iter().all(|one| match &one.message.channel {
            Some(name) => match router.channel(name) {
                // A uuid may be a repetition of what the log holds.
                Some(channel) if one.uuid_given && !channel.retained.is_empty() => false,
                Some(channel) => one.message.no_history || !channel.settings.logs(),
                None => router.knows_channel(name),
            },
            None if one.uuid_given => false,
            None => {
                let mut users = one.message.audience.only.iter();
                users.clone().all(|name| router.knows_user(name))
                    && (one.message.no_history || !users.any(|name| router.user(name).is_some()))
            }
        })
    }
}
