//! What a store gives, as text: one form for the model, for what is read back, and for the
//! expectations in the tests.

use channelstream::domain::channel::{Channel, Logged, Retained};
use channelstream::domain::draft::Held;
use channelstream::domain::message::{Audience, Message};
use channelstream::domain::names::{ChannelName, ConnectionId, Username};
use channelstream::domain::position::Position;
use channelstream::domain::tail::{Place, Said, TailPart};
use channelstream::domain::timestamp::from_micros;
use channelstream::domain::user::User;
use channelstream::json::{Json, audience_text, public_keys_text, to_text};
use channelstream::store::{HistoryQuery, StoredConnection};
use chrono::NaiveDateTime;
use uuid::Uuid;

use super::world::clock;

/// Longer bodies are shown by length and first letters.
const SHOWN: usize = 400;

/// `@3` for the moment of the third batch.
pub fn moment(time: NaiveDateTime) -> String {
    let batch = (time - clock(0)).num_seconds();
    if clock(batch) == time { format!("@{batch}") } else { format!("@{time}") }
}

/// `#1 m1 @2 2010-01-01T01:01:00 ann: {}`: position, uuid, commit, time, sender, body;
/// `#1~4` if the latest edit stands at position 4.
pub fn logged(logged: &Logged) -> String {
    let message = &logged.message;
    let edit = logged.edit.map(|edit| format!("~{}", edit.0)).unwrap_or_default();
    let committed = moment(from_micros(logged.committed));
    let edited = message.edited.map(|edited| format!(" edited {edited}")).unwrap_or_default();
    let body = match message.body.as_ref().map(|body| body.get()) {
        None => "no body".to_owned(),
        Some(text) if text.len() > SHOWN => {
            format!("{} bytes of {}", text.len(), text.chars().take(20).collect::<String>())
        }
        Some(text) => text.to_owned(),
    };
    let flag = if message.no_history { " no_history" } else { "" };
    let (uuid, time, sender, audience) =
        (uuid('m', message.uuid), message.timestamp, &message.sender, audience(&message.audience));
    format!("#{}{edit} {uuid} {committed} {time}{edited} {sender}{audience}{flag}: {body}", logged.position.0)
}

fn audience(audience: &Audience) -> String {
    let only = if audience.only.is_empty() { String::new() } else { format!(" to {:?}", audience.only) };
    let except = if audience.except.is_empty() { String::new() } else { format!(" but {:?}", audience.except) };
    only + &except
}

fn uuid(letter: char, uuid: Uuid) -> String {
    format!("{letter}{}", uuid.as_u128())
}

/// `2`, or `2 and 1 deleted`.
fn retained(retained: Retained) -> String {
    match retained {
        Retained { messages, deletions: 0 } => messages.to_string(),
        Retained { messages, deletions } => format!("{messages} and {deletions} deleted"),
    }
}

/// How much the log holds, then the history, oldest first.
pub fn history(channel: &Channel) -> Vec<String> {
    let holds = format!("holds {}", retained(channel.retained));
    std::iter::once(holds).chain(channel.history.iter().map(logged)).collect()
}

/// A page of history: what was asked for, then the messages.
pub fn page<'a>(
    asked: &HistoryQuery<'_>,
    messages: impl IntoIterator<Item = &'a Logged>,
    has_more: bool,
) -> Vec<String> {
    let place = match asked.place {
        Place::Channel(name) => format!("channel {name:?}"),
        Place::Inbox(name) => format!("inbox of {name:?}"),
    };
    let (after, before) = (asked.after.map(|after| after.0), asked.before.map(|before| before.0));
    let head = format!(
        "{} of {place} after {after:?} before {before:?} through {}, more: {has_more}",
        asked.limit, asked.through.0
    );
    std::iter::once(head).chain(messages.into_iter().map(logged)).collect()
}

pub fn channel(name: &ChannelName, channel: &Channel) -> Vec<String> {
    assert!(
        channel.members.is_empty() && channel.members.listeners().next().is_none(),
        "members of {name} are not stored"
    );
    let head = format!(
        "channel {name:?} {} active {} {:?}",
        uuid('i', channel.uuid),
        moment(channel.last_active),
        channel.settings
    );
    std::iter::once(head).chain(history(channel)).collect()
}

pub fn user(name: &Username, user: &User) -> String {
    assert!(user.connections.is_empty(), "connections of {name} are not loaded with the user");
    let state = to_text(&Json(user.profile.state()));
    let keys = public_keys_text(user.profile.public_keys());
    let identity = uuid('i', user.uuid);
    let active = moment(user.last_active);
    format!("{name:?} {identity} active {active} holds {} {state} public {keys}", retained(user.retained))
}

pub fn held(uuid: Uuid, channel: Option<&ChannelName>, held: &Held) -> String {
    let place = channel.map_or("private".to_owned(), |name| format!("{name:?}"));
    match held {
        Held::Message(message) => format!("{place} {}", logged(message)),
        Held::Deletion { position, about, audience } => {
            let was = about.map(|about| format!(", was #{}", about.0)).unwrap_or_default();
            let whose = audience_text(audience).map(|audience| format!(", for {audience}")).unwrap_or_default();
            format!("{place} #{} m{} is deleted{was}{whose}", position.0, uuid.as_u128())
        }
    }
}

/// `k1 "ann": ["chat", "news"]`, the channels sorted.
pub fn connection(connection: &StoredConnection) -> String {
    let mut channels = connection.channels.clone();
    channels.sort_unstable();
    format!("{} {:?}: {channels:?}", connection_id(connection.id), connection.user)
}

fn connection_id(id: ConnectionId) -> String {
    uuid('k', id.0)
}

/// A place, up to where it was read, what was trimmed and whether there are older ones; then line by line the entries.
pub fn tail(place: &Place, before: Position, part: &TailPart) -> String {
    let at = |micros: i64| moment(from_micros(micros));
    let said = |said: &Said| match said {
        Said::Message(message) => format!("message {}", of_message(message)),
        Said::Edit { about, posted, message } => {
            format!("edit of #{} {} {}", about.0, at(*posted), of_message(message))
        }
        Said::Deletion { uuid: of, about, audience: to } => {
            format!("deletion of {} {about:?}{}", uuid('m', *of), audience(to))
        }
    };
    let entries: Vec<String> = part
        .entries
        .iter()
        .map(|entry| format!("\n#{} {} {}", entry.position.0, at(entry.committed), said(&entry.said)))
        .collect();
    let older = if part.has_older { ", and older ones" } else { "" };
    format!("{place:?} up to {}, trimmed {}{older}{}", before.0, part.trimmed.0, entries.concat())
}

fn of_message(message: &Message) -> String {
    let (body, edited) = (message.body.as_ref().map(|body| body.get()), message.edited.map(|time| time.to_string()));
    format!(
        "{} of {} at {} {edited:?}{}: {}",
        uuid('m', message.uuid),
        message.sender,
        message.timestamp,
        audience(&message.audience),
        body.map_or("no body", |body| body.get(..SHOWN).unwrap_or(body))
    )
}
