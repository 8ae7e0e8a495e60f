//! Names and texts: how what happens is printed.

use std::fmt::Write;
use std::sync::Arc;

use channelstream::domain::channel::Logged;
use channelstream::domain::frame::Frame;
use channelstream::domain::message::{Body, Deletion, Edit, Message};
use channelstream::domain::names::{ChannelName, ConnectionId, Username};
use channelstream::domain::operation::{Connected, Posted, StateReport, Subscribed, Unsubscribed};
use channelstream::domain::position::Position;
use channelstream::domain::router::Router;
use channelstream::domain::settings::ChannelSettings;
use channelstream::domain::state::{Change, Profile, StateValue};
use channelstream::domain::timestamp::{Timestamp, from_micros};
use channelstream::domain::view::ChannelsView;
use chrono::{Datelike, NaiveDateTime};
use uuid::Uuid;

/// Who says something if nobody is named.
pub const SOMEBODY: &str = "app";

/// When the world begins.
pub fn clock() -> NaiveDateTime {
    from_micros(1_767_225_600_000_000) // 2026-01-01
}

// ---- Names ----

pub fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name).expect("a channel's name")
}

pub fn user(name: &str) -> Username {
    Username::parse(name).expect("a user's name")
}

pub fn connection(name: &str) -> ConnectionId {
    ConnectionId(uuid(name))
}

/// Uuids hold the names that they go by.
pub fn uuid(name: &str) -> Uuid {
    let mut bytes = [0; 16];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    Uuid::from_bytes(bytes)
}

/// None: a uuid that nobody chose.
pub fn name_of(uuid: Uuid) -> Option<String> {
    let text = std::str::from_utf8(uuid.as_bytes()).ok()?.trim_end_matches('\0').to_owned();
    text.starts_with(|first: char| first.is_ascii_alphabetic()).then_some(text)
}

pub fn connection_name(id: ConnectionId) -> String {
    name_of(id.0).expect("a name")
}

// ---- Texts ----

pub fn value_text(value: &StateValue) -> String {
    match value {
        StateValue::Null => "null".to_owned(),
        StateValue::Bool(value) => value.to_string(),
        StateValue::Number(text) => text.to_string(),
        StateValue::Text(text) => format!("'{text}'"),
    }
}

pub fn state_text<'a>(state: impl IntoIterator<Item = (&'a str, &'a StateValue)>) -> String {
    let pairs = state.into_iter().map(|(key, value)| format!("{key}={}", value_text(value)));
    pairs.collect::<Vec<_>>().join(" ")
}

pub fn changes_text(changes: &[Change]) -> String {
    state_text(changes.iter().map(|(key, value)| (&**key, value)))
}

/// A user with state in braces, if there is any.
pub fn person_text(name: &Username, state: &str) -> String {
    if state.is_empty() { name.to_string() } else { format!("{name}{{{state}}}") }
}

pub fn join<T: ToString>(parts: impl IntoIterator<Item = T>) -> String {
    parts.into_iter().map(|part| part.to_string()).collect::<Vec<_>>().join(", ")
}

/// Parts in a row, without those that say nothing.
pub fn sentence(parts: impl IntoIterator<Item = String>) -> String {
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

/// A list with what it is of, or nothing if it is empty.
pub fn labelled<T: ToString>(label: &str, parts: impl IntoIterator<Item = T>) -> String {
    match join(parts) {
        list if list.is_empty() => list,
        list => format!("{label} {list}"),
    }
}

/// Members with their public state.
fn people(members: &[(Username, Profile)]) -> Vec<String> {
    let text = |(name, profile): &(Username, Profile)| person_text(name, &state_text(profile.public().iter()));
    let mut people: Vec<String> = members.iter().map(text).collect();
    people.sort();
    people
}

/// What is said of a message, without where: ` m1 'hi' by ann edited #3`.
fn message_text(message: &Message, position: Option<Position>) -> String {
    let mut text = said_text(message.uuid, message.body.as_ref(), Some(&message.sender), Some(message.timestamp));
    if message.edited.is_some() {
        text += " edited";
    }
    text + &position_text(position)
}

fn said_text(uuid: Uuid, body: Option<&Body>, sender: Option<&Username>, time: Option<Timestamp>) -> String {
    let mut text = name_of(uuid).map(|name| format!(" {name}")).unwrap_or_default();
    if let Some(body) = body {
        write!(text, " '{}'", body.get().trim_matches('"')).expect("a String takes all");
    }
    if let Some(sender) = sender.filter(|sender| sender.as_str() != SOMEBODY) {
        write!(text, " by {sender}").expect("a String takes all");
    }
    if let Some(time) = time.filter(|time| !time.to_string().starts_with(&clock().year().to_string())) {
        write!(text, " dated {}", &time.to_string()[..4]).expect("a String takes all");
    }
    text
}

pub fn position_text(position: Option<Position>) -> String {
    position.map(|position| format!(" #{}", position.0)).unwrap_or_default()
}

fn place_text(channel: Option<&ChannelName>) -> String {
    channel.map_or_else(|| "private".to_owned(), ToString::to_string)
}

pub fn frame_text(frame: &Frame) -> String {
    match frame {
        Frame::Message { position, message } => {
            format!("{}: message{}", place_text(message.channel.as_ref()), message_text(message, *position))
        }
        Frame::Edit { position, edit, .. } => {
            let said = said_text(edit.uuid, edit.body.as_ref(), edit.sender.as_ref(), edit.timestamp);
            format!("{}: edit{said}{}", place_text(edit.channel.as_ref()), position_text(*position))
        }
        Frame::Deletion { position, deletion, .. } => {
            let said = said_text(deletion.uuid, None, None, None);
            format!("{}: delete{said}{}", place_text(deletion.channel.as_ref()), position_text(*position))
        }
        Frame::Presence(presence) => {
            let (what, state) = match &presence.joined {
                Some(profile) => ("joined", state_text(profile.public().iter())),
                None => ("parted", String::new()),
            };
            let among = labelled(" among", people(&presence.members));
            format!("{}: {what} {}{among}", presence.channel, person_text(&presence.user, &state))
        }
        Frame::StateChange(change) => {
            let (changed, public) = (changes_text(&change.changed), state_text(change.profile.public().iter()));
            format!("{}: state of {} {changed} {{{public}}}", change.channel, change.user)
        }
    }
}

pub fn logged_text(logged: &Logged) -> String {
    let edit = logged.edit.map(|edit| format!("~{}", edit.0)).unwrap_or_default();
    message_text(&logged.message, Some(logged.position)).trim_start().to_owned() + &edit
}

pub fn view_text(view: &ChannelsView, router: &Router) -> String {
    let mut parts = Vec::new();
    for channel in &view.channels {
        let users = labelled(" of", channel.users.iter());
        let history = labelled(":", channel.history.iter().map(logged_text));
        parts.push(format!("{} {}c {}u{users}{history}", channel.name, channel.total_connections, channel.total_users));
    }
    let state = |profile: &Profile| state_text(profile.state().iter());
    let members = view.members();
    let mut people: Vec<String> = members.iter().map(|name| person_text(name, &state(&router.profile(name)))).collect();
    people.sort();
    parts.push(labelled("users", people));
    sentence(parts)
}

pub fn settings_text(settings: &ChannelSettings) -> String {
    let mut parts = Vec::new();
    let flags = [
        ("presence", settings.notify_presence),
        ("lists", settings.broadcast_presence_with_user_lists),
        ("state", settings.notify_state),
        ("history", settings.store_history),
    ];
    parts.extend(flags.into_iter().filter(|(_, on)| *on).map(|(name, _)| name.to_owned()));
    parts.push(format!("size={} replay={}", settings.history_size, settings.replay_size));
    parts.extend(settings.history_ttl.map(|seconds| format!("ttl={seconds}")));
    parts.extend((!settings.store_frames).then(|| "frames=off".to_owned()));
    parts.join(" ")
}

pub fn profile_text(profile: &Profile) -> String {
    let state = format!("{{{}}}", state_text(profile.state().iter()));
    sentence([state, labelled("public", profile.public_keys().iter())])
}

// ---- Answers ----

pub fn connected_text(answer: Connected, router: &Router) -> String {
    let who = format!("{} is {} {}", connection_name(answer.id), answer.user, profile_text(&answer.profile));
    let head = format!("head {}", answer.head.0);
    sentence([who, labelled("in", &answer.channels), view_text(&answer.view, router), head])
}

pub fn subscribed_text(answer: Subscribed, router: &Router) -> String {
    sentence([labelled("added", &answer.added), labelled("in", &answer.channels), view_text(&answer.view, router)])
}

pub fn unsubscribed_text(answer: Unsubscribed, router: &Router) -> String {
    sentence([labelled("removed", &answer.removed), labelled("in", &answer.channels), view_text(&answer.view, router)])
}

pub fn state_report_text(answer: StateReport) -> String {
    let changed = Some(changes_text(&answer.changed)).filter(|text| !text.is_empty());
    sentence([labelled("changed", changed), profile_text(&answer.profile)])
}

pub fn posted_text(answer: Vec<Posted>) -> String {
    join(answer.iter().map(|posted| {
        let duplicate = if posted.duplicate { " duplicate" } else { "" };
        message_text(&posted.message, posted.position).trim_start().to_owned() + duplicate
    }))
}

pub fn edited_text(answer: Vec<(Arc<Edit>, Option<Position>)>) -> String {
    join(answer.iter().map(|(edit, position)| receipt_text(edit.uuid, *position)))
}

pub fn deleted_text(answer: Vec<(Arc<Deletion>, Option<Position>)>) -> String {
    join(answer.iter().map(|(deletion, position)| receipt_text(deletion.uuid, *position)))
}

fn receipt_text(uuid: Uuid, position: Option<Position>) -> String {
    name_of(uuid).unwrap_or_default() + &position_text(position)
}
