//! Answers to back ends: outcomes become JSON.

use indexmap::IndexMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::frame::{Changed, Text, changed, cursor};
use crate::domain::channel::Logged;
use crate::domain::message::Message;
use crate::domain::names::{ChannelName, ConnectionId, Username};
use crate::domain::operation::{Connected, DeleteOne, Posted, Receipt, StateReport, Subscribed, Unsubscribed};
use crate::domain::position::{Cursor, Epoch, Position};
use crate::domain::roster::Roster;
use crate::domain::settings::ChannelSettings;
use crate::domain::state::{Profile, UserState};
use crate::domain::tail::Place;
use crate::domain::timestamp::Timestamp;
use crate::domain::view::{ChannelView, ChannelsView, HistoryView};
use crate::json::{Json, PublicState};

/// Bytes of a message's answer besides its body, about.
const USUAL_REPLY: usize = 320;

#[derive(Serialize)]
struct Settings {
    notify_presence: bool,
    store_history: bool,
    history_size: u32,
    broadcast_presence_with_user_lists: bool,
    notify_state: bool,
    store_frames: bool,
    replay_size: u32,
    history_ttl: Option<u32>,
}

impl From<&ChannelSettings> for Settings {
    fn from(settings: &ChannelSettings) -> Self {
        Self {
            notify_presence: settings.notify_presence,
            store_history: settings.store_history,
            history_size: settings.history_size,
            broadcast_presence_with_user_lists: settings.broadcast_presence_with_user_lists,
            notify_state: settings.notify_state,
            store_frames: settings.store_frames,
            replay_size: settings.replay_size,
            history_ttl: settings.history_ttl,
        }
    }
}

/// A message with its delivery details, as it is answered and as history shows it.
#[derive(Serialize)]
struct MessageReply<'a> {
    pm_users: Json<'a, [Username]>,
    exclude_users: Json<'a, [Username]>,
    channel: Option<Json<'a, ChannelName>>,
    no_history: bool,
    uuid: Uuid,
    timestamp: Text<Timestamp>,
    user: Json<'a, Username>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a RawValue>,
    edited: Option<Text<Timestamp>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    catchup: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<Text<Cursor>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
}

impl<'a> MessageReply<'a> {
    fn of(message: &'a Message, position: Option<Position>, epoch: &Epoch) -> Self {
        Self {
            pm_users: Json(&message.audience.only),
            exclude_users: Json(&message.audience.except),
            channel: message.channel.as_ref().map(Json),
            no_history: message.no_history,
            uuid: message.uuid,
            timestamp: Text(message.timestamp),
            user: Json(&message.sender),
            message: message.body.as_deref(),
            edited: message.edited.map(Text),
            catchup: None,
            r#type: None,
            cursor: cursor(epoch, position),
            duplicate: false,
        }
    }

    fn in_history(logged: &'a Logged, epoch: &Epoch) -> Self {
        let reply = Self::of(&logged.message, Some(logged.position), epoch);
        Self { catchup: Some(false), r#type: Some("message"), ..reply }
    }
}

#[derive(Serialize)]
struct EditReply<'a> {
    pm_users: Json<'a, [Username]>,
    exclude_users: Json<'a, [Username]>,
    channel: Option<Json<'a, ChannelName>>,
    no_history: bool,
    uuid: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Json<'a, Username>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Text<Timestamp>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    edited: Option<Text<Timestamp>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<Text<Cursor>>,
}

#[derive(Serialize)]
pub(super) struct ChannelReply<'a> {
    uuid: Uuid,
    name: Json<'a, ChannelName>,
    long_name: (),
    settings: Settings,
    history: Vec<MessageReply<'a>>,
    last_active: Text<Timestamp>,
    total_connections: usize,
    total_users: usize,
    users: Json<'a, Roster>,
}

impl<'a> ChannelReply<'a> {
    pub(super) fn of(view: &'a ChannelView, epoch: &Epoch) -> Self {
        Self {
            uuid: view.uuid,
            name: Json(&view.name),
            long_name: (),
            settings: Settings::from(&view.settings),
            history: view.history.iter().map(|logged| MessageReply::in_history(logged, epoch)).collect(),
            last_active: Text(view.last_active),
            total_connections: view.total_connections,
            total_users: view.total_users,
            users: Json(&view.users),
        }
    }
}

/// All of a user's state, or the public part.
enum ShownState<'a> {
    All(Json<'a, UserState>),
    Public(PublicState<'a>),
}

impl Serialize for ShownState<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All(state) => state.serialize(serializer),
            Self::Public(state) => state.serialize(serializer),
        }
    }
}

#[derive(Serialize)]
pub(super) struct UserReply<'a> {
    user: Json<'a, Username>,
    state: ShownState<'a>,
}

#[derive(Serialize)]
struct ChannelsReply<'a> {
    channels: IndexMap<&'a str, ChannelReply<'a>>,
    users: Vec<UserReply<'a>>,
}

impl<'a> UserReply<'a> {
    pub(super) fn of((user, profile): &'a (Username, Profile), public_state_only: bool) -> Self {
        let state = match public_state_only {
            true => ShownState::Public(PublicState(profile)),
            false => ShownState::All(Json(profile.state())),
        };
        Self { user: Json(user), state }
    }
}

impl<'a> ChannelsReply<'a> {
    fn of(view: &'a ChannelsView, people: &'a [(Username, Profile)], epoch: &Epoch) -> Self {
        let channels = view.channels.iter();
        let user = |person| UserReply::of(person, view.public_state_only);
        Self {
            channels: channels.map(|channel| (channel.name.as_str(), ChannelReply::of(channel, epoch))).collect(),
            users: people.iter().map(user).collect(),
        }
    }
}

#[derive(Serialize)]
struct ConnectedReply<'a> {
    conn_id: Json<'a, ConnectionId>,
    state: Json<'a, UserState>,
    username: Json<'a, Username>,
    public_state: PublicState<'a>,
    channels: Json<'a, [ChannelName]>,
    channels_info: ChannelsReply<'a>,
    cursor: Text<Cursor>,
}

#[derive(Serialize)]
struct MembershipReply<'a> {
    channels: Json<'a, [ChannelName]>,
    channels_info: ChannelsReply<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscribed_to: Option<Json<'a, [ChannelName]>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unsubscribed_from: Option<Json<'a, [ChannelName]>>,
}

#[derive(Serialize)]
struct StateReply<'a> {
    user_state: Json<'a, UserState>,
    changed_state: Vec<Changed<'a>>,
    public_keys: Vec<&'a str>,
}

fn text(reply: &impl Serialize) -> String {
    crate::json::to_text(reply)
}

/// The answer to `/connect`. `people`: the members of the channels that it shows.
pub fn connected(connected: &Connected, people: &[(Username, Profile)], epoch: &Epoch) -> String {
    text(&ConnectedReply {
        conn_id: Json(&connected.id),
        state: Json(connected.profile.state()),
        username: Json(&connected.user),
        public_state: PublicState(&connected.profile),
        channels: Json(&connected.channels),
        channels_info: ChannelsReply::of(&connected.view, people, epoch),
        cursor: Text(Cursor { epoch: epoch.clone(), position: connected.head }),
    })
}

/// The answer to `/subscribe`. `people`: the members of the channels that it shows.
pub fn subscribed(subscribed: &Subscribed, people: &[(Username, Profile)], epoch: &Epoch) -> String {
    text(&MembershipReply {
        channels: Json(&subscribed.channels),
        channels_info: ChannelsReply::of(&subscribed.view, people, epoch),
        subscribed_to: Some(Json(&subscribed.added)),
        unsubscribed_from: None,
    })
}

/// The answer to `/unsubscribe`. `people`: the members of the channels that it shows.
pub fn unsubscribed(unsubscribed: &Unsubscribed, people: &[(Username, Profile)], epoch: &Epoch) -> String {
    text(&MembershipReply {
        channels: Json(&unsubscribed.channels),
        channels_info: ChannelsReply::of(&unsubscribed.view, people, epoch),
        subscribed_to: None,
        unsubscribed_from: Some(Json(&unsubscribed.removed)),
    })
}

/// The answer to `/user_state`.
pub fn state(report: &StateReport) -> String {
    text(&StateReply {
        user_state: Json(report.profile.state()),
        changed_state: changed(&report.changed),
        public_keys: report.profile.public_keys().iter().map(|key| &**key).collect(),
    })
}

/// The answer to `POST /message`.
pub fn posted(posted: &[Posted], epoch: &Epoch) -> String {
    let replies = posted
        .iter()
        .map(|one| MessageReply { duplicate: one.duplicate, ..MessageReply::of(&one.message, one.position, epoch) });
    let replies: Vec<_> = replies.collect();
    let bodies: usize = posted.iter().filter_map(|one| one.message.body.as_ref()).map(|body| body.get().len()).sum();
    crate::json::to_text_of(&replies, bodies + replies.len() * USUAL_REPLY)
}

/// The answer to `PATCH /message`.
pub fn edited(edits: &[(std::sync::Arc<crate::domain::message::Edit>, Receipt)], epoch: &Epoch) -> String {
    let replies = edits.iter().map(|(edit, position)| EditReply {
        pm_users: Json(&edit.audience.only),
        exclude_users: Json(&edit.audience.except),
        channel: edit.channel.as_ref().map(Json),
        no_history: edit.no_history,
        uuid: edit.uuid,
        user: edit.sender.as_ref().map(Json),
        timestamp: edit.timestamp.map(Text),
        message: edit.body.as_deref(),
        edited: Some(Text(edit.edited)),
        cursor: cursor(epoch, *position),
    });
    text(&replies.collect::<Vec<_>>())
}

/// The answer to `DELETE /message`.
pub fn deleted(deletions: &[(DeleteOne, Receipt)], epoch: &Epoch) -> String {
    let replies = deletions.iter().map(|(deletion, position)| EditReply {
        pm_users: Json(&deletion.audience.only),
        exclude_users: Json(&deletion.audience.except),
        channel: deletion.channel.as_ref().map(Json),
        no_history: deletion.no_history,
        uuid: deletion.uuid,
        user: None,
        timestamp: None,
        message: None,
        edited: None,
        cursor: cursor(epoch, *position),
    });
    text(&replies.collect::<Vec<_>>())
}

/// The answer to `/channel_config`, which shows no members.
pub fn channels(view: &ChannelsView, epoch: &Epoch) -> String {
    text(&ChannelsReply::of(view, &[], epoch))
}

/// The answer to `DELETE /user`.
pub fn forgotten_user(name: &Username) -> String {
    text(&std::collections::BTreeMap::from([("user", Json(name))]))
}

/// The answer to `DELETE /channel`.
pub fn forgotten_channel(name: &ChannelName) -> String {
    text(&std::collections::BTreeMap::from([("channel", Json(name))]))
}

#[derive(Serialize)]
struct HistoryReply<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<Json<'a, ChannelName>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Json<'a, Username>>,
    messages: Vec<MessageReply<'a>>,
    cursor: Text<Cursor>,
    has_more: bool,
}

/// The answer to `/history`.
pub fn history(view: &HistoryView, epoch: &Epoch) -> String {
    let (channel, user) = match &view.place {
        Place::Channel(name) => (Some(Json(name)), None),
        Place::Inbox(name) => (None, Some(Json(name))),
    };
    text(&HistoryReply {
        channel,
        user,
        messages: view.messages.iter().map(|logged| MessageReply::in_history(logged, epoch)).collect(),
        cursor: Text(Cursor { epoch: epoch.clone(), position: view.head }),
        has_more: view.has_more,
    })
}
