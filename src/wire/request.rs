//! Requests of back ends: JSON bodies become operations, or everything that is wrong with them.

use std::borrow::Cow;
use std::sync::Arc;

use hashbrown::HashMap;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::form::{self, BodyItems, Fault, Faults, Form, NULL, NotJson, WRONG_TYPE, schema_fault};
use crate::domain::message::{Audience, Deletion, Edit, Message};
use crate::domain::names::{ChannelName, ConnectionId, Username};
use crate::domain::operation::{
    ChangeState, Configure, Connect, Delete, EditMessages, ForgetChannel, ForgetUser, Post, PostOne, Subscribe,
    Unsubscribe,
};
use crate::domain::settings::SettingsPatch;
use crate::domain::state::{PublicKeys, UserState};
use crate::domain::tail::Place;
use crate::domain::timestamp::Timestamp;
use crate::domain::view::{HistoryOptions, InfoOptions};
use crate::json;

/// Most users that the messages of one request name in all: each may be a row in the store.
const MAX_RECIPIENTS: usize = 100_000;

/// Messages in a page of history, unless the request says otherwise, and the most that it may say:
/// an answer is made in memory.
const DEFAULT_HISTORY_LIMIT: u32 = 50;
const MAX_HISTORY_LIMIT: u32 = 1_000;

/// Why a body is no request.
#[derive(Debug)]
pub enum Invalid {
    /// It is not JSON.
    NotJson,
    /// It has the wrong shape.
    Shape {
        /// All that is wrong.
        faults: Faults,
        /// The connection it names, for also saying if that is unknown.
        connection: Option<ConnectionId>,
        /// The user it names, for also saying if that is unknown.
        user: Option<Username>,
    },
}

impl From<NotJson> for Invalid {
    fn from(_: NotJson) -> Self {
        Self::NotJson
    }
}

impl From<Faults> for Invalid {
    fn from(faults: Faults) -> Self {
        Self::Shape { faults, connection: None, user: None }
    }
}

fn form(body: &[u8]) -> Result<Form<'_>, Invalid> {
    Ok(Form::of(form::body(body)?).ok_or_else(|| schema_fault(WRONG_TYPE))?)
}

fn channels(raw: &RawValue) -> Result<Vec<ChannelName>, Fault> {
    form::list(raw, form::channel_name)
}

fn public_keys(raw: &RawValue) -> Result<PublicKeys, Fault> {
    form::list(raw, form::public_key).map(Into::into)
}

fn user_state(raw: &RawValue) -> Result<UserState, Fault> {
    let mut state = UserState::default();
    form::map(raw, |key, raw| {
        let value = json::state_value(raw).ok_or("Value is not type of string, integer, boolean or float.")?;
        state.set(key, value);
        Ok(())
    })?;
    Ok(state)
}

fn settings(mut form: Form<'_>) -> Result<SettingsPatch, Faults> {
    let size = |raw| form::integer(raw, 0);
    let patch = SettingsPatch {
        notify_presence: form.optional("notify_presence", form::boolean),
        store_history: form.optional("store_history", form::boolean),
        history_size: form.optional("history_size", size),
        broadcast_presence_with_user_lists: form.optional("broadcast_presence_with_user_lists", form::boolean),
        notify_state: form.optional("notify_state", form::boolean),
        store_frames: form.optional("store_frames", form::boolean),
        replay_size: form.optional("replay_size", size),
        history_ttl: form.nullable("history_ttl", |raw| form::integer(raw, 1)),
    };
    form.finish(Some(patch))
}

fn channel_configs(raw: &RawValue) -> Result<HashMap<ChannelName, SettingsPatch>, Fault> {
    let mut configs = HashMap::new();
    form::map(raw, |name, raw| {
        if raw.get() == "null" {
            return Err(NULL.into());
        }
        let patch = form::object(raw, settings)?;
        // A name that no channel can have configures nothing.
        if let Ok(name) = ChannelName::parse(name) {
            configs.insert(name, patch);
        }
        Ok(())
    })?;
    Ok(configs)
}

fn info_options(mut form: Form<'_>) -> Result<InfoOptions, Faults> {
    let default = InfoOptions::default();
    form.optional("include_connections", form::boolean);
    let options = InfoOptions {
        include_history: form.optional("include_history", form::boolean).unwrap_or(default.include_history),
        include_users: form.optional("include_users", form::boolean).unwrap_or(default.include_users),
        channels: form.optional("channels", channels),
        exclude_channels: form.optional("exclude_channels", channels).unwrap_or_default().into_iter().collect(),
        return_public_state: form.optional("return_public_state", form::boolean).unwrap_or(default.return_public_state),
    };
    form.finish(Some(options))
}

fn info_field(form: &mut Form<'_>) -> InfoOptions {
    form.optional("info", |raw| form::object(raw, info_options)).unwrap_or_default()
}

fn new_uuids(count: usize) -> Vec<Uuid> {
    (0..count).map(|_| Uuid::new_v4()).collect()
}

/// `POST /connect`.
pub fn connect(body: &[u8]) -> Result<Connect, Invalid> {
    let mut form = form(body)?;
    let user = form.required("username", form::username);
    let id = form.optional("conn_id", form::uuid);
    let channels = form.optional("channels", channels).unwrap_or_default();
    let fresh_user_state = form.optional("fresh_user_state", user_state).unwrap_or_default();
    let state = form.optional("user_state", user_state).unwrap_or_default();
    let public_keys = form.optional("state_public_keys", public_keys).unwrap_or_else(|| Arc::from([]));
    let channel_configs = form.optional("channel_configs", channel_configs).unwrap_or_default();
    let since = form.optional("since", form::floor_at);
    let info = info_field(&mut form);
    let user = form.finish(user)?;
    Ok(Connect {
        user,
        user_uuid: Uuid::new_v4(),
        id: ConnectionId(id.unwrap_or_else(Uuid::new_v4)),
        channel_uuids: new_uuids(channels.len()),
        channels,
        fresh_user_state,
        user_state: state,
        public_keys,
        channel_configs,
        since,
        info,
    })
}

/// The connection and the channels that a subscription names; `fallback`: the query's `conn_id`.
fn subscription(form: &mut Form<'_>, fallback: Option<&str>) -> (Option<ConnectionId>, Option<Vec<ChannelName>>) {
    let id = if form.has("conn_id") {
        form.optional("conn_id", form::uuid)
    } else {
        match fallback {
            Some(text) => {
                let id = form::parse_uuid(text);
                if id.is_none() {
                    form.fault("conn_id", "Not a valid UUID.");
                }
                id
            }
            None => {
                form.fault("conn_id", NULL);
                None
            }
        }
    };
    let channels = form.required("channels", channels);
    if channels.as_ref().is_some_and(Vec::is_empty) {
        form.fault("channels", "Shorter than minimum length 1.");
    }
    (id.map(ConnectionId), channels)
}

/// `POST /subscribe`; `fallback`: the query's `conn_id`.
pub fn subscribe(body: &[u8], fallback: Option<&str>) -> Result<Subscribe, Invalid> {
    let mut form = form(body)?;
    let (id, channels) = subscription(&mut form, fallback);
    let channel_configs = form.optional("channel_configs", channel_configs).unwrap_or_default();
    let info = info_field(&mut form);
    let (id, channels) =
        form.finish(id.zip(channels)).map_err(|faults| Invalid::Shape { faults, connection: id, user: None })?;
    Ok(Subscribe { id, channel_uuids: new_uuids(channels.len()), channels, channel_configs, info, added: Vec::new() })
}

/// `POST /unsubscribe`; `fallback`: the query's `conn_id`.
pub fn unsubscribe(body: &[u8], fallback: Option<&str>) -> Result<Unsubscribe, Invalid> {
    let mut form = form(body)?;
    let (id, channels) = subscription(&mut form, fallback);
    let info = info_field(&mut form);
    let (id, channels) =
        form.finish(id.zip(channels)).map_err(|faults| Invalid::Shape { faults, connection: id, user: None })?;
    Ok(Unsubscribe { id, channels, info, removed: Vec::new() })
}

/// `POST /user_state`.
pub fn change_state(body: &[u8]) -> Result<ChangeState, Invalid> {
    let mut form = form(body)?;
    let user = form.required("user", |raw| {
        let text = form::string(raw)?;
        // Nobody has a name of that length, and the stock server says both.
        Username::parse(&text).map_err(|error| match Fault::from(error) {
            Fault::Texts(mut texts) => {
                texts.push(Cow::Borrowed("Unknown user"));
                Fault::Texts(texts)
            }
            parts => parts,
        })
    });
    let state = form.optional("user_state", user_state).unwrap_or_default();
    let public_keys = form.nullable("state_public_keys", public_keys).flatten();
    let named = user.clone();
    let user = form.finish(user).map_err(|faults| Invalid::Shape { faults, connection: None, user: named })?;
    Ok(ChangeState { user, state, public_keys, changed: Vec::new() })
}

/// A list of objects, each read alike; faults by position.
fn batch<T>(body: &[u8], read: impl Fn(Form<'_>) -> Result<T, Faults>) -> Result<Vec<T>, Invalid> {
    let items = match form::body_items(body)? {
        BodyItems::Forms(items) => items,
        BodyItems::TooMany => return Err(Faults::from([("_schema".to_owned(), form::too_long())]).into()),
        BodyItems::NoList => return Err(schema_fault(WRONG_TYPE).into()),
    };
    let mut faults = Faults::new();
    let mut values = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let read = match item {
            Some(form) => read(form),
            None => {
                faults.extend(schema_fault(WRONG_TYPE));
                Err(Faults::new())
            }
        };
        match read {
            Ok(value) => values.push(value),
            Err(fault) => {
                faults.insert(index.to_string(), Fault::Parts(fault));
            }
        }
    }
    if faults.is_empty() { Ok(values) } else { Err(faults.into()) }
}

fn usernames(raw: &RawValue) -> Result<Box<[Username]>, Fault> {
    form::list(raw, form::username).map(Into::into)
}

fn audience(form: &mut Form<'_>) -> Audience {
    Audience {
        only: form.optional("pm_users", usernames).unwrap_or_default(),
        except: form.optional("exclude_users", usernames).unwrap_or_default(),
    }
}

fn channel(form: &mut Form<'_>) -> Option<ChannelName> {
    form.nullable("channel", form::channel_name).flatten()
}

/// A uuid for a message that comes without one. It begins with the time, and is random otherwise: those
/// of one batch stand together in the store's index, where random ones would each touch another page.
fn new_message_uuid(now: Timestamp) -> Uuid {
    const TIME_BYTES: usize = 6;
    let milliseconds = now.in_utc().and_utc().timestamp_millis().to_be_bytes();
    let mut bytes = Uuid::new_v4().into_bytes();
    bytes[..TIME_BYTES].copy_from_slice(&milliseconds[milliseconds.len() - TIME_BYTES..]);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

/// `POST /message`; `now`: the time of messages that name none.
pub fn post(body: &[u8], now: Timestamp) -> Result<Post, Invalid> {
    let messages = batch(body, |mut form| {
        let sender = form.required("user", form::username);
        let channel = channel(&mut form);
        let audience = audience(&mut form);
        let body = form.optional("message", form::any_object);
        let uuid = form.optional("uuid", form::uuid);
        let timestamp = form.optional("timestamp", form::timestamp).unwrap_or(now);
        let no_history = form.optional("no_history", form::boolean).unwrap_or(false);
        let sender = form.finish(sender)?;
        let message = Message {
            uuid: uuid.unwrap_or_else(|| new_message_uuid(now)),
            channel,
            sender,
            body: body.map(Into::into),
            timestamp,
            edited: None,
            audience,
            no_history,
        };
        Ok(PostOne { message: Arc::new(message), uuid_given: uuid.is_some() })
    })?;
    let recipients: usize = messages.iter().map(|one| one.message.audience.only.len()).sum();
    if recipients > MAX_RECIPIENTS {
        let fault = format!("More than {MAX_RECIPIENTS} recipients.").into();
        return Err(Faults::from([("_schema".to_owned(), fault)]).into());
    }
    Ok(Post { messages, posted: Vec::new() })
}

/// `PATCH /message`; `now`: the time of edits that name none.
pub fn edit(body: &[u8], now: Timestamp) -> Result<EditMessages, Invalid> {
    let edits = batch(body, |mut form| {
        let uuid = form.required("uuid", form::uuid);
        let sender = form.optional("user", form::username);
        let timestamp = form.optional("timestamp", form::timestamp);
        let body = form.optional("message", form::any_object);
        let edited = form.optional("edited", form::timestamp).unwrap_or(now);
        let channel = channel(&mut form);
        let audience = audience(&mut form);
        let no_history = form.optional("no_history", form::boolean).unwrap_or(false);
        let uuid = form.finish(uuid)?;
        let body = body.map(Into::into);
        Ok(Arc::new(Edit { uuid, channel, sender, body, timestamp, edited, audience, no_history }))
    })?;
    Ok(EditMessages { edits, positions: Vec::new() })
}

/// `DELETE /message`.
pub fn delete(body: &[u8]) -> Result<Delete, Invalid> {
    let deletions = batch(body, |mut form| {
        let uuid = form.required("uuid", form::uuid);
        let channel = channel(&mut form);
        let audience = audience(&mut form);
        let no_history = form.optional("no_history", form::boolean).unwrap_or(false);
        let uuid = form.finish(uuid)?;
        Ok(Arc::new(Deletion { uuid, channel, audience, no_history }))
    })?;
    Ok(Delete { deletions, positions: Vec::new() })
}

/// `POST /channel_config`: the first bad channel ends the check, and its faults stand alone.
pub fn configure(body: &[u8]) -> Result<Configure, Invalid> {
    let raw = form::body(body)?;
    let mut channels = Vec::new();
    let mut wrong = None;
    let read = form::map(raw, |name, raw| {
        if wrong.is_some() {
            return Ok(());
        }
        match channel_config(name, raw) {
            Ok(one) => channels.push(one),
            Err(faults) => wrong = Some(faults),
        }
        Ok(())
    });
    match (read, wrong) {
        (Err(_), _) if !raw.get().starts_with('{') => Err(schema_fault(WRONG_TYPE).into()),
        (Err(fault), _) => Err(Faults::from([("_schema".to_owned(), fault)]).into()),
        (Ok(()), Some(faults)) => Err(faults.into()),
        (Ok(()), None) => Ok(Configure { channels }),
    }
}

fn channel_config(name: &str, raw: &RawValue) -> Result<(ChannelName, Uuid, Option<SettingsPatch>), Faults> {
    let name = ChannelName::parse(name).map_err(|error| Faults::from([("channel".to_owned(), error.into())]))?;
    let patch = match raw.get() {
        "null" => None,
        _ => Some(settings(Form::of(raw).ok_or_else(|| schema_fault(WRONG_TYPE))?)?),
    };
    Ok((name, Uuid::new_v4(), patch))
}

/// `/info`; an empty body asks for everything.
pub fn info(body: &[u8]) -> Result<InfoOptions, Invalid> {
    if body.is_empty() {
        return Ok(InfoOptions::default());
    }
    let mut form = Form::of(form::body(body)?).ok_or_else(|| schema_fault("Invalid type."))?;
    let options = form.required("info", |raw| form::object(raw, info_options));
    Ok(form.finish(options)?)
}

/// `POST /history`.
pub fn history(body: &[u8]) -> Result<HistoryOptions, Invalid> {
    let mut form = form(body)?;
    let channel = form.optional("channel", form::channel_name);
    let user = form.optional("user", form::username);
    let limit = form.optional("limit", |raw| form::integer_within(raw, 1, MAX_HISTORY_LIMIT));
    let before = form.optional("before", form::cursor);
    let after = form.optional("after", form::cursor);
    if form.has("channel") == form.has("user") {
        form.fault("_schema", "Name either a channel or a user.");
    }
    let place = channel.map(Place::Channel).or(user.map(Place::Inbox));
    let place = form.finish(place)?;
    Ok(HistoryOptions { place, limit: limit.unwrap_or(DEFAULT_HISTORY_LIMIT), before, after })
}

/// `DELETE /user`.
pub fn forget_user(body: &[u8]) -> Result<ForgetUser, Invalid> {
    let mut form = form(body)?;
    let user = form.required("user", form::username);
    Ok(ForgetUser { user: form.finish(user)?, found: false })
}

/// `DELETE /channel`.
pub fn forget_channel(body: &[u8]) -> Result<ForgetChannel, Invalid> {
    let mut form = form(body)?;
    let channel = form.required("channel", form::channel_name);
    Ok(ForgetChannel { channel: form.finish(channel)?, found: false })
}

/// `POST /disconnect`.
pub fn disconnect(body: &[u8]) -> Result<ConnectionId, Invalid> {
    let mut form = form(body)?;
    let id = form.optional("conn_id", form::uuid);
    if !form.has("conn_id") {
        form.fault("conn_id", NULL);
    }
    Ok(ConnectionId(form.finish(id)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn faults<T: std::fmt::Debug>(result: Result<T, Invalid>) -> String {
        match result {
            Err(Invalid::Shape { faults, .. }) => serde_json::to_string(&faults).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn now() -> Timestamp {
        Timestamp::parse("2026-01-01T00:00").unwrap()
    }

    #[test]
    fn all_faults_of_a_body_are_reported_together() {
        let body = br#"{"channels": 5, "conn_id": "q", "user_state": {"a": [1]},
            "channel_configs": {"room": {"history_size": "x"}}, "info": {"include_history": "zz"}}"#;
        assert_eq!(
            faults(connect(body)),
            concat!(
                r#"{"channel_configs":{"room":{"value":{"history_size":["Not a valid integer."]}}},"#,
                r#""channels":["Not a valid list."],"conn_id":["Not a valid UUID."],"#,
                r#""info":{"include_history":["Not a valid boolean."]},"#,
                r#""user_state":{"a":{"value":["Value is not type of string, integer, boolean or float."]}},"#,
                r#""username":["Missing data for required field."]}"#
            )
        );
    }

    #[test]
    fn faults_of_batches_stand_by_position() {
        let wrong = r#"{"0":{},"1":{"user":["Missing data for required field."]},"_schema":["Invalid input type."]}"#;
        assert_eq!(faults(post(b"[null, {}]", now())), wrong);
        assert_eq!(faults(edit(b"{}", now())), r#"{"_schema":["Invalid input type."]}"#);
    }

    #[test]
    fn a_batch_has_so_many_elements_at_most() {
        let list = |element: &str, count: usize| format!("[{}]", vec![element; count].join(","));
        let too_long = r#"{"_schema":["Longer than maximum length 10000."]}"#;
        let valid = r#"{"user":"ann","channel":"room"}"#;
        assert_eq!(post(list(valid, 10_000).as_bytes(), now()).unwrap().messages.len(), 10_000);
        for element in [valid, "5"] {
            assert_eq!(faults(post(list(element, 10_001).as_bytes(), now())), too_long);
        }
    }

    #[test]
    fn the_first_bad_channel_ends_the_check() {
        let body = br#"{"a": null, "b": {"history_size": -1}, "c": 5}"#;
        assert_eq!(faults(configure(body)), r#"{"history_size":["Must be at least 0."]}"#);
        assert_eq!(faults(configure(br#"{"": {}}"#)), r#"{"channel":["Length must be between 1 and 256."]}"#);
        assert_eq!(faults(configure(b"[]")), r#"{"_schema":["Invalid input type."]}"#);
    }

    #[test]
    fn an_empty_user_is_also_unknown() {
        let wrong = r#"{"user":["Length must be between 1 and 512.","Unknown user"]}"#;
        assert_eq!(faults(change_state(br#"{"user": ""}"#)), wrong);
    }

    proptest! {
        #[test]
        fn no_body_panics(body in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..100),
            "\\[?\\{(\"(username|user|channel|channels|uuid|message|info|conn_id|pm_users)\": ?(\"[a-z]{0,3}\"|1|-2|null|\\[\\]|\\{\\}|true),?){0,4}\\}?\\]?"
                .prop_map(String::into_bytes),
        ]) {
            let _ = connect(&body);
            let _ = subscribe(&body, Some("x"));
            let _ = unsubscribe(&body, None);
            let _ = change_state(&body);
            let _ = (post(&body, now()), edit(&body, now()), delete(&body));
            let _ = (configure(&body), info(&body), disconnect(&body), history(&body));
            let _ = (forget_user(&body), forget_channel(&body));
        }
    }
}
