//! Frames as listeners read them: each becomes one JSON object, once, whoever gets it.

use std::fmt::Display;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::domain::frame::{Frame, Presence, StateChange};
use crate::domain::message::{Deletion, Edit, Message};
use crate::domain::names::{ChannelName, Username};
use crate::domain::position::{Cursor, Epoch, Position};
use crate::domain::replay::{GapReason, Gaps};
use crate::domain::state::Change;
use crate::domain::timestamp::Timestamp;
use crate::json::{Json, PublicState};

/// Writes something as a JSON string of its text.
pub struct Text<T>(pub T);

impl<T: Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Where an event is logged, as it travels.
pub fn cursor(epoch: &Epoch, position: Option<Position>) -> Option<Text<Cursor>> {
    position.map(|position| Text(Cursor { epoch: epoch.clone(), position }))
}

#[derive(Serialize)]
struct MessageFrame<'a> {
    channel: Option<Json<'a, ChannelName>>,
    uuid: Uuid,
    timestamp: Text<&'a dyn Display>,
    user: Json<'a, Username>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a RawValue>,
    edited: Option<Text<&'a dyn Display>>,
    catchup: bool,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<Text<Cursor>>,
}

#[derive(Serialize)]
struct EditFrame<'a> {
    channel: Option<Json<'a, ChannelName>>,
    uuid: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Json<'a, Username>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Text<&'a dyn Display>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a RawValue>,
    edited: Text<&'a dyn Display>,
    r#type: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    catchup: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<Text<Cursor>>,
}

#[derive(Serialize)]
struct DeletionFrame<'a> {
    channel: Option<Json<'a, ChannelName>>,
    uuid: Uuid,
    r#type: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    catchup: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<Text<Cursor>>,
}

#[derive(Serialize)]
struct Member<'a> {
    user: Json<'a, Username>,
    state: PublicState<'a>,
}

#[derive(Serialize)]
struct Action {
    action: &'static str,
}

#[derive(Serialize)]
struct PresenceFrame<'a> {
    uuid: Uuid,
    r#type: &'static str,
    user: Json<'a, Username>,
    users: Vec<Member<'a>>,
    timestamp: Text<&'a dyn Display>,
    channel: Json<'a, ChannelName>,
    message: Action,
    state: Option<PublicState<'a>>,
    catchup: bool,
}

/// One changed key.
#[derive(Serialize)]
pub struct Changed<'a> {
    key: &'a str,
    value: Json<'a, crate::domain::state::StateValue>,
}

/// Changed keys in their order.
pub fn changed(changes: &[Change]) -> Vec<Changed<'_>> {
    changes.iter().map(|(key, value)| Changed { key, value: Json(value) }).collect()
}

#[derive(Serialize)]
struct StateMessage<'a> {
    state: PublicState<'a>,
    changed: Vec<Changed<'a>>,
}

#[derive(Serialize)]
struct StateFrame<'a> {
    uuid: Uuid,
    r#type: &'static str,
    user: Json<'a, Username>,
    timestamp: Text<&'a dyn Display>,
    catchup: bool,
    channel: Json<'a, ChannelName>,
    message: StateMessage<'a>,
}

#[derive(Serialize)]
struct ReplayFrame<'a> {
    r#type: &'static str,
    cursor: Text<Cursor>,
    count: u64,
    gaps: Vec<GapEntry<'a>>,
}

#[derive(Serialize)]
struct GapEntry<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<Json<'a, ChannelName>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Json<'a, Username>>,
    reason: &'static str,
}

#[derive(Serialize)]
struct CursorFrame {
    r#type: &'static str,
    cursor: Text<Cursor>,
}

/// A reason why something cannot be replayed.
pub fn gap_reason(reason: GapReason) -> &'static str {
    match reason {
        GapReason::UnknownCursor => "unknown_cursor",
        GapReason::NotKept => "not_kept",
        GapReason::Floor => "floor",
        GapReason::Trimmed => "trimmed",
    }
}

/// The marker after a replay, as an array: everything up to `cursor` was shown, but for the gaps.
pub fn replay_marker(cursor: Cursor, count: u64, gaps: &Gaps, user: &Username) -> String {
    let gaps = gaps.iter().map(|(place, why)| GapEntry {
        channel: place.as_ref().map(Json),
        user: place.is_none().then_some(Json(user)),
        reason: gap_reason(*why),
    });
    crate::json::to_text(&[ReplayFrame { r#type: "replay", cursor: Text(cursor), count, gaps: gaps.collect() }])
}

/// Tells a listener, as an array, that it has seen everything up to a cursor.
pub fn cursor_frame(cursor: Cursor) -> String {
    crate::json::to_text(&[CursorFrame { r#type: "cursor", cursor: Text(cursor) }])
}

/// Appends a frame as a JSON object; `catchup`: it was missed and is shown late.
pub fn write(frame: &Frame, catchup: bool, epoch: &Epoch, out: &mut Vec<u8>) {
    let written = match frame {
        Frame::Message { position, message } => write_message(message, cursor(epoch, *position), catchup, out),
        Frame::Edit { position, edit, .. } => write_edit(edit, cursor(epoch, *position), catchup, out),
        Frame::Deletion { position, deletion, .. } => write_deletion(deletion, cursor(epoch, *position), catchup, out),
        Frame::Presence(presence) => write_presence(presence, catchup, out),
        Frame::StateChange(change) => write_state_change(change, catchup, out),
    };
    written.expect("writing to memory cannot fail, and all keys are text");
}

type Written = serde_json::Result<()>;

fn write_message(message: &Message, cursor: Option<Text<Cursor>>, catchup: bool, out: &mut Vec<u8>) -> Written {
    let (timestamp, edited) =
        (message.timestamp.for_listeners(), message.edited.as_ref().map(Timestamp::for_listeners));
    let frame = MessageFrame {
        channel: message.channel.as_ref().map(Json),
        uuid: message.uuid,
        timestamp: Text(&timestamp),
        user: Json(&message.sender),
        message: message.body.as_deref(),
        edited: edited.as_ref().map(|edited| Text(edited as &dyn Display)),
        catchup,
        r#type: "message",
        cursor,
    };
    serde_json::to_writer(out, &frame)
}

fn write_edit(edit: &Edit, cursor: Option<Text<Cursor>>, catchup: bool, out: &mut Vec<u8>) -> Written {
    let (timestamp, edited) = (edit.timestamp.as_ref().map(Timestamp::for_listeners), edit.edited.for_listeners());
    let frame = EditFrame {
        channel: edit.channel.as_ref().map(Json),
        uuid: edit.uuid,
        user: edit.sender.as_ref().map(Json),
        timestamp: timestamp.as_ref().map(|timestamp| Text(timestamp as &dyn Display)),
        message: edit.body.as_deref(),
        edited: Text(&edited),
        r#type: "message:edit",
        catchup,
        cursor,
    };
    serde_json::to_writer(out, &frame)
}

fn write_deletion(deletion: &Deletion, cursor: Option<Text<Cursor>>, catchup: bool, out: &mut Vec<u8>) -> Written {
    let channel = deletion.channel.as_ref().map(Json);
    let frame = DeletionFrame { channel, uuid: deletion.uuid, r#type: "message:delete", catchup, cursor };
    serde_json::to_writer(out, &frame)
}

fn write_presence(presence: &Presence, catchup: bool, out: &mut Vec<u8>) -> Written {
    let timestamp = Timestamp::utc(presence.time);
    let frame = PresenceFrame {
        uuid: presence.uuid,
        r#type: "presence",
        user: Json(&presence.user),
        users: presence
            .members
            .iter()
            .map(|(user, profile)| Member { user: Json(user), state: PublicState(profile) })
            .collect(),
        timestamp: Text(&timestamp),
        channel: Json(&presence.channel),
        message: Action { action: if presence.joined.is_some() { "joined" } else { "parted" } },
        state: presence.joined.as_ref().map(PublicState),
        catchup,
    };
    serde_json::to_writer(out, &frame)
}

fn write_state_change(change: &StateChange, catchup: bool, out: &mut Vec<u8>) -> Written {
    let timestamp = Timestamp::utc(change.time);
    let frame = StateFrame {
        uuid: change.uuid,
        r#type: "user_state_change",
        user: Json(&change.user),
        timestamp: Text(&timestamp),
        catchup,
        channel: Json(&change.channel),
        message: StateMessage { state: PublicState(&change.profile), changed: changed(&change.changed) },
    };
    serde_json::to_writer(out, &frame)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use expect_test::{Expect, expect};

    use super::*;
    use crate::domain::message::Audience;
    use crate::domain::state::{Profile, StateValue};
    use crate::domain::timestamp::from_micros;

    fn check(frame: &Frame, catchup: bool, expected: &Expect) {
        let mut out = Vec::new();
        write(frame, catchup, &Epoch::parse("k3f9").unwrap(), &mut out);
        expected.assert_eq(&String::from_utf8(out).unwrap());
    }

    fn user(name: &str) -> Username {
        Username::parse(name).unwrap()
    }

    fn room() -> ChannelName {
        ChannelName::parse("room").unwrap()
    }

    fn profile() -> Profile {
        let mut state = crate::domain::state::UserState::default();
        state.set("color", StateValue::Text("red".into()));
        state.set("secret", StateValue::Number("1".into()));
        Profile::new(state, Arc::from(["color".into()]))
    }

    fn body(text: &str) -> Option<crate::domain::message::Body> {
        Some(RawValue::from_string(text.to_owned()).unwrap().into())
    }

    #[test]
    fn a_message_has_no_delivery_details() {
        let message = Arc::new(Message {
            uuid: Uuid::from_u128(1),
            channel: Some(room()),
            sender: user("al\"ice"),
            body: body(r#"{ "text":"hi","n": 1.0 }"#),
            timestamp: Timestamp::parse("2026-11-24T02:45:32.087618Z").unwrap(),
            edited: None,
            audience: Audience { only: [user("bob")].into(), except: [].into() },
            no_history: true,
        });
        let live = Frame::Message { position: None, message: message.clone() };
        check(
            &live,
            false,
            &expect![[
                r#"{"channel":"room","uuid":"00000000-0000-0000-0000-000000000001","timestamp":"2026-11-24T02:45:32.087618Z","user":"al\"ice","message":{ "text":"hi","n": 1.0 },"edited":null,"catchup":false,"type":"message"}"#
            ]],
        );
        let private =
            Message { channel: None, body: None, edited: Some(message.timestamp), ..Message::clone(&message) };
        let missed = Frame::Message { position: Some(Position(42)), message: Arc::new(private) };
        check(
            &missed,
            true,
            &expect![[
                r#"{"channel":null,"uuid":"00000000-0000-0000-0000-000000000001","timestamp":"2026-11-24T02:45:32.087618Z","user":"al\"ice","edited":"2026-11-24T02:45:32.087618Z","catchup":true,"type":"message","cursor":"k3f9-42"}"#
            ]],
        );
    }

    #[test]
    fn edits_and_deletions_say_catchup_only_when_late() {
        let edit = Edit {
            uuid: Uuid::from_u128(1),
            channel: Some(room()),
            sender: None,
            body: body(r#"{"text": "hello"}"#),
            timestamp: None,
            edited: Timestamp::parse("2026-11-24T02:45:32.292333").unwrap(),
            audience: Audience::default(),
            no_history: false,
        };
        let audience = Arc::new(Audience::default());
        let frame = Frame::Edit { position: Some(Position(7)), edit: Arc::new(edit), audience: audience.clone() };
        check(
            &frame,
            false,
            &expect![[
                r#"{"channel":"room","uuid":"00000000-0000-0000-0000-000000000001","message":{"text": "hello"},"edited":"2026-11-24T02:45:32.292333","type":"message:edit","cursor":"k3f9-7"}"#
            ]],
        );
        let deletion = Deletion {
            uuid: Uuid::from_u128(1),
            channel: Some(room()),
            audience: Audience::default(),
            no_history: false,
        };
        let frame = Frame::Deletion { position: None, deletion: Arc::new(deletion), audience };
        check(
            &frame,
            true,
            &expect![[
                r#"{"channel":"room","uuid":"00000000-0000-0000-0000-000000000001","type":"message:delete","catchup":true}"#
            ]],
        );
    }

    #[test]
    fn presence_and_state_show_public_keys_only() {
        let presence = |joined| {
            Frame::Presence(Arc::new(Presence {
                uuid: Uuid::from_u128(2),
                channel: room(),
                user: user("bob"),
                joined,
                members: vec![(user("alice"), profile())],
                time: from_micros(1_700_000_000_000_001),
            }))
        };
        check(
            &presence(Some(profile())),
            false,
            &expect![[
                r#"{"uuid":"00000000-0000-0000-0000-000000000002","type":"presence","user":"bob","users":[{"user":"alice","state":{"color":"red"}}],"timestamp":"2023-11-14T22:13:20.000001","channel":"room","message":{"action":"joined"},"state":{"color":"red"},"catchup":false}"#
            ]],
        );
        check(
            &presence(None),
            true,
            &expect![[
                r#"{"uuid":"00000000-0000-0000-0000-000000000002","type":"presence","user":"bob","users":[{"user":"alice","state":{"color":"red"}}],"timestamp":"2023-11-14T22:13:20.000001","channel":"room","message":{"action":"parted"},"state":null,"catchup":true}"#
            ]],
        );
        let change = StateChange {
            uuid: Uuid::from_u128(3),
            channel: room(),
            user: user("bob"),
            profile: profile(),
            changed: Arc::from([("color".into(), StateValue::Text("red".into()))]),
            time: from_micros(1_700_000_000_000_000),
        };
        check(
            &Frame::StateChange(Arc::new(change)),
            false,
            &expect![[
                r#"{"uuid":"00000000-0000-0000-0000-000000000003","type":"user_state_change","user":"bob","timestamp":"2023-11-14T22:13:20","catchup":false,"channel":"room","message":{"state":{"color":"red"},"changed":[{"key":"color","value":"red"}]}}"#
            ]],
        );
    }
}
