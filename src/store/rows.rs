//! The rows that a batch of events leads to, grouped by kind of write, the same for all engines.
//!
//! Operations that depend on one another never share a batch, so the groups may be written one after
//! the other, in the order of the fields below.

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDateTime;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::contract::Batch;
use crate::domain::channel::Retained;
use crate::domain::event::Event;
use crate::domain::message::Message;
use crate::domain::names::{ChannelName, ConnectionId, Username};
use crate::domain::position::Position;
use crate::domain::settings::ChannelSettings;
use crate::domain::state::Profile;
use crate::json;

/// What kind of log entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A message.
    Message = 0,
    /// An edit; the message's entry has the content.
    Edit = 1,
    /// A deletion; the message's entry is gone.
    Deletion = 2,
}

/// A new log entry.
#[derive(Debug)]
pub struct Entry<'a> {
    pub position: Position,
    pub channel: Option<&'a ChannelName>,
    pub kind: Kind,
    pub uuid: Uuid,
    /// The message that an edit or deletion is about.
    pub about: Option<Position>,
    /// Who may see a deletion; a message has it in its content, and an edit is seen like its message.
    pub audience: Option<String>,
    pub content: Option<Content<'a>>,
}

/// What a message's entry says.
#[derive(Debug)]
pub struct Content<'a> {
    pub edit: Option<Position>,
    pub sender: &'a str,
    pub timestamp: String,
    pub edited: Option<String>,
    pub audience: Option<String>,
    pub body: Option<&'a str>,
}

impl<'a> Content<'a> {
    fn of(message: &'a Message, edit: Option<Position>) -> Self {
        Self {
            edit,
            sender: message.sender.as_str(),
            timestamp: message.timestamp.to_string(),
            edited: message.edited.map(|edited| edited.to_string()),
            audience: json::audience_text(&message.audience),
            body: message.body.as_deref().map(RawValue::get),
        }
    }
}

/// All rows of a batch.
#[derive(Debug, Default)]
pub struct Rows<'a> {
    pub channels: Vec<(&'a ChannelName, Uuid, &'a ChannelSettings)>,
    pub users: Vec<(&'a Username, Uuid, &'a Profile)>,
    pub opened: Vec<(ConnectionId, &'a Username)>,
    pub floors_ended: Vec<(&'a Username, &'a ChannelName)>,
    /// With the head at that moment: the user's floor, if it has none and none is set below.
    pub subscribed: Vec<(ConnectionId, &'a ChannelName, Position)>,
    pub floors_set: Vec<(&'a Username, &'a ChannelName, Position)>,
    pub unsubscribed: Vec<(ConnectionId, &'a ChannelName)>,
    pub ended: Vec<ConnectionId>,
    /// New inbox rows, for private messages.
    pub inbox: Vec<(&'a Username, Position)>,
    /// New inbox rows like those of an earlier entry, for edits and deletions: from, to.
    pub inbox_copies: Vec<(Position, Position)>,
    /// Log entries that go, with their inbox rows.
    pub gone: BTreeSet<Position>,
    /// Log entries of messages that changed.
    pub changed: BTreeMap<Position, Content<'a>>,
    pub entries: Vec<Entry<'a>>,
    /// The newest entries to keep, of channels that are trimmed.
    pub trimmed_channels: Vec<(&'a ChannelName, Retained)>,
    /// The newest entries to keep, of inboxes that are trimmed.
    pub trimmed_inboxes: Vec<(&'a Username, Retained)>,
    /// Up to which commit time entries go, of channels that keep them only so long.
    pub expired_channels: Vec<(&'a ChannelName, i64)>,
    pub forgotten: Vec<&'a Username>,
    /// With the head at that moment.
    pub forgotten_channels: Vec<(&'a ChannelName, Position)>,
    pub floors_expired: Option<NaiveDateTime>,
}

impl<'a> Rows<'a> {
    /// Sorts the events of a batch.
    pub fn of(batch: &'a Batch) -> Self {
        let mut rows = Self::default();
        let mut head = batch.before;
        for event in &batch.events {
            head = event.position().unwrap_or(head);
            rows.add(event, head);
        }
        // What came and went within the batch was never there.
        let gone = &rows.gone;
        rows.entries.retain(|entry| !gone.contains(&entry.position));
        rows
    }

    /// Whether there is nothing but new log entries, and inbox rows for them.
    pub fn only_appends(&self) -> bool {
        let Self {
            entries: _,
            inbox: _,
            channels,
            users,
            opened,
            floors_ended,
            subscribed,
            floors_set,
            unsubscribed,
            ended,
            inbox_copies,
            gone,
            changed,
            trimmed_channels,
            trimmed_inboxes,
            expired_channels,
            forgotten,
            forgotten_channels,
            floors_expired,
        } = self;
        channels.is_empty()
            && users.is_empty()
            && opened.is_empty()
            && floors_ended.is_empty()
            && subscribed.is_empty()
            && floors_set.is_empty()
            && unsubscribed.is_empty()
            && ended.is_empty()
            && inbox_copies.is_empty()
            && gone.is_empty()
            && changed.is_empty()
            && trimmed_channels.is_empty()
            && trimmed_inboxes.is_empty()
            && expired_channels.is_empty()
            && forgotten.is_empty()
            && forgotten_channels.is_empty()
            && floors_expired.is_none()
    }

    fn add(&mut self, event: &'a Event, head: Position) {
        match event {
            Event::ChannelKept { name, uuid, settings } => self.channels.push((name, *uuid, settings)),
            Event::UserKept { name, uuid, profile } => self.users.push((name, *uuid, profile)),
            Event::UserForgotten { name } => self.forgotten.push(name),
            Event::ChannelForgotten { name } => self.forgotten_channels.push((name, head)),
            Event::StateChanged { .. } => {}
            Event::ConnectionOpened { id, user } => self.opened.push((*id, user)),
            Event::ConnectionEnded { id } => self.ended.push(*id),
            Event::Subscribed { id, channel } => self.subscribed.push((*id, channel, head)),
            Event::FloorSet { user, channel, position } => self.floors_set.push((user, channel, *position)),
            Event::FloorEnded { user, channel } => self.floors_ended.push((user, channel)),
            Event::FloorsExpired { left_before } => self.floors_expired = Some(*left_before),
            Event::Unsubscribed { id, channel } => self.unsubscribed.push((*id, channel)),
            Event::ChannelTrimmed { channel, keep } => self.trimmed_channels.push((channel, *keep)),
            Event::ChannelExpired { channel, through } => self.expired_channels.push((channel, *through)),
            Event::InboxTrimmed { user, keep } => self.trimmed_inboxes.push((user, *keep)),
            Event::Posted { position: Some(position), message, inboxes } => {
                self.inbox.extend(inboxes.iter().map(|user| (user, *position)));
                self.entries.push(Entry {
                    position: *position,
                    channel: message.channel.as_ref(),
                    kind: Kind::Message,
                    uuid: message.uuid,
                    about: None,
                    audience: None,
                    content: Some(Content::of(message, None)),
                });
            }
            Event::Edited {
                position: Some(position), edit, original: Some(original), message: Some(message), ..
            } => {
                self.gone.extend(original.edit);
                self.changed.insert(original.position, Content::of(message, Some(*position)));
                self.copy_inbox(edit.channel.as_ref(), original.position, *position);
                self.entries.push(Entry {
                    position: *position,
                    channel: edit.channel.as_ref(),
                    kind: Kind::Edit,
                    uuid: edit.uuid,
                    about: Some(original.position),
                    audience: None,
                    content: None,
                });
            }
            Event::Deleted { position: Some(position), deletion, audience, original, about } => {
                if let Some(original) = original {
                    self.gone.extend([Some(original.position), original.edit].into_iter().flatten());
                    self.copy_inbox(deletion.channel.as_ref(), original.position, *position);
                }
                self.entries.push(Entry {
                    position: *position,
                    channel: deletion.channel.as_ref(),
                    kind: Kind::Deletion,
                    uuid: deletion.uuid,
                    about: *about,
                    audience: json::audience_text(audience),
                    content: None,
                });
            }
            Event::Posted { .. } | Event::Edited { .. } | Event::Deleted { .. } => {}
        }
    }

    /// A private message's edit or deletion goes to the inboxes that have the message.
    fn copy_inbox(&mut self, channel: Option<&ChannelName>, from: Position, to: Position) {
        if channel.is_none() {
            // What was copied within this batch has no rows to be copied yet.
            let source = self.inbox_copies.iter().find(|(_, copy)| *copy == from).map_or(from, |(source, _)| *source);
            self.inbox_copies.push((source, to));
        }
    }
}
