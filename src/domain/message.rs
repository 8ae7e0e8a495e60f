//! Messages, their edits and deletions, and who may see them.

use std::sync::Arc;

use serde_json::value::RawValue;
use uuid::Uuid;

use super::names::{ChannelName, Username};
use super::timestamp::Timestamp;

/// What a message says: the JSON text that came, passed on as it is.
pub type Body = Arc<RawValue>;

/// Who may see something: everyone, only these, all but these; exclusion wins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audience {
    /// If not empty, only these users (`pm_users`).
    pub only: Box<[Username]>,
    /// Never these users (`exclude_users`).
    pub except: Box<[Username]>,
}

impl Audience {
    /// Whether nobody is left out.
    pub fn is_everyone(&self) -> bool {
        self.only.is_empty() && self.except.is_empty()
    }

    /// Whether `user` may see it.
    pub fn admits(&self, user: &Username) -> bool {
        !self.except.contains(user) && (self.only.is_empty() || self.only.contains(user))
    }

    /// The users named, each once, without the excluded ones.
    pub fn named(&self) -> Vec<Username> {
        let excluded: std::collections::HashSet<&Username> = self.except.iter().collect();
        let mut seen = std::collections::HashSet::new();
        self.only.iter().filter(|user| !excluded.contains(user) && seen.insert(*user)).cloned().collect()
    }
}

/// What someone said.
#[derive(Debug, Clone)]
pub struct Message {
    /// Its identity, and its idempotency key.
    pub uuid: Uuid,
    /// The channel it was said in; none for a private message.
    pub channel: Option<ChannelName>,
    /// Who said it; need not be a known user.
    pub sender: Username,
    /// What was said; may be absent.
    pub body: Option<Body>,
    /// When, by the back end's word or else by our clock.
    pub timestamp: Timestamp,
    /// When it was last edited.
    pub edited: Option<Timestamp>,
    /// Who may see it.
    pub audience: Audience,
    /// Whether it must never be stored.
    pub no_history: bool,
}

/// A change of a message; what is absent stays.
#[derive(Debug, Clone)]
pub struct Edit {
    /// The message that changes.
    pub uuid: Uuid,
    /// The channel it was said in; none for a private message.
    pub channel: Option<ChannelName>,
    /// The new sender.
    pub sender: Option<Username>,
    /// The new body, replaced as a whole.
    pub body: Option<Body>,
    /// The new time.
    pub timestamp: Option<Timestamp>,
    /// When it was edited.
    pub edited: Timestamp,
    /// As the request named it.
    pub audience: Audience,
    /// Echoed; without effect.
    pub no_history: bool,
}

impl Edit {
    /// The message as it is after this edit; its audience stays.
    pub fn applied_to(&self, message: &Message) -> Message {
        Message {
            sender: self.sender.clone().unwrap_or_else(|| message.sender.clone()),
            body: self.body.clone().or_else(|| message.body.clone()),
            timestamp: self.timestamp.unwrap_or(message.timestamp),
            edited: Some(self.edited),
            ..message.clone()
        }
    }
}

/// The removal of a message.
#[derive(Debug, Clone)]
pub struct Deletion {
    /// The message that goes.
    pub uuid: Uuid,
    /// The channel it was said in; none for a private message.
    pub channel: Option<ChannelName>,
    /// As the request named it.
    pub audience: Audience,
    /// Echoed; without effect.
    pub no_history: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(names: &[&str]) -> Vec<Username> {
        names.iter().map(|name| Username::parse(name).unwrap()).collect()
    }

    #[test]
    fn exclusion_beats_naming_and_each_name_counts_once() {
        let audience = Audience { only: users(&["ann", "bob", "ann"]).into(), except: users(&["bob"]).into() };
        assert_eq!(audience.named(), users(&["ann"]));
        let admitted = |name| audience.admits(&Username::parse(name).unwrap());
        assert_eq!((admitted("ann"), admitted("bob"), admitted("eve")), (true, false, false));
        assert!(Audience::default().admits(&Username::parse("eve").unwrap()));
    }
}
