//! Values as every engine keeps them, and back.

use serde_json::value::RawValue;
use uuid::Uuid;

use crate::domain::draft::Held;
use crate::domain::history::Logged;
use crate::domain::message::{Audience, Message};
use crate::domain::names::{ChannelName, Username};
use crate::domain::position::{Epoch, Position};
use crate::domain::settings::ChannelSettings;
use crate::domain::tail::{Entry, Said};
use crate::domain::timestamp::Timestamp;
use crate::json;

pub(super) fn corrupt(what: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("the store holds an unreadable {what}").into())
}

pub(super) fn epoch_of(text: &str) -> sqlx::Result<Epoch> {
    Epoch::parse(text).map_err(|_| corrupt("epoch"))
}

pub(super) fn channel_name(text: &str) -> sqlx::Result<ChannelName> {
    ChannelName::parse(text).map_err(|_| corrupt("channel name"))
}

pub(super) fn username(text: &str) -> sqlx::Result<Username> {
    Username::parse(text).map_err(|_| corrupt("user name"))
}

/// Settings from the flags in the order of their columns, and the sizes.
pub(super) fn settings_of(
    flags: [bool; 5],
    history_size: i64,
    replay_size: i64,
    history_ttl: Option<i64>,
) -> ChannelSettings {
    let [notify_presence, store_history, user_lists, notify_state, store_frames] = flags;
    ChannelSettings {
        notify_presence,
        store_history,
        history_size: history_size as u32,
        broadcast_presence_with_user_lists: user_lists,
        notify_state,
        store_frames,
        replay_size: replay_size as u32,
        history_ttl: history_ttl.map(|seconds| seconds as u32),
    }
}

/// A log entry as it was read; that of an edit may have the content of its message.
pub(super) struct EntryRow {
    pub(super) position: i64,
    pub(super) kind: i64,
    pub(super) about: Option<i64>,
    pub(super) edit: Option<i64>,
    pub(super) uuid: Uuid,
    pub(super) channel: Option<String>,
    pub(super) sender: Option<String>,
    pub(super) timestamp: Option<String>,
    pub(super) edited: Option<String>,
    pub(super) audience: Option<String>,
    pub(super) body: Option<String>,
    pub(super) committed: i64,
    /// When the message was committed.
    pub(super) posted: i64,
}

impl EntryRow {
    pub(super) fn channel(&self) -> sqlx::Result<Option<ChannelName>> {
        self.channel.as_deref().map(channel_name).transpose()
    }

    fn audience(&self) -> sqlx::Result<Audience> {
        json::audience_from_text(self.audience.as_deref()).ok_or_else(|| corrupt("audience"))
    }

    /// The message that the entry of one holds.
    pub(super) fn logged(self) -> sqlx::Result<Logged> {
        let time = |text: &str| Timestamp::parse(text).ok_or_else(|| corrupt("timestamp"));
        let (channel, audience) = (self.channel()?, self.audience()?);
        let body = self.body.map(RawValue::from_string).transpose().map_err(|_| corrupt("body"))?;
        let message = Message {
            uuid: self.uuid,
            channel,
            sender: username(self.sender.as_deref().unwrap_or_default())?,
            body: body.map(Into::into),
            timestamp: time(self.timestamp.as_deref().unwrap_or_default())?,
            edited: self.edited.as_deref().map(time).transpose()?,
            audience,
            no_history: false,
        };
        Ok(Logged {
            position: Position(self.position as u64),
            edit: self.edit.map(|edit| Position(edit as u64)),
            committed: self.committed,
            message: message.into(),
        })
    }

    /// The message or deletion that is known by its uuid.
    pub(super) fn held(self) -> sqlx::Result<Held> {
        if self.kind == 0 {
            return self.logged().map(Held::Message);
        }
        let about = self.about.map(|about| Position(about as u64));
        let audience = self.audience()?.into();
        Ok(Held::Deletion { position: Position(self.position as u64), about, audience })
    }

    /// The entry, and its channel.
    pub(super) fn entry(self) -> sqlx::Result<(Option<ChannelName>, Entry)> {
        let channel = self.channel()?;
        let (position, committed, posted) = (Position(self.position as u64), self.committed, self.posted);
        let about = self.about.map(|about| Position(about as u64));
        let said = match (self.kind, about) {
            (2, about) => Said::Deletion { uuid: self.uuid, about, audience: self.audience()?.into() },
            (1, Some(about)) => Said::Edit { about, posted, message: self.logged()?.message },
            _ => Said::Message(self.logged()?.message),
        };
        Ok((channel, Entry { position, committed, said }))
    }
}
