//! Values as SQLite keeps them, and back.

use serde::Serialize;
use uuid::Uuid;

use crate::domain::names::{ChannelName, Username};
use crate::domain::position::Epoch;
use crate::json;

pub(super) fn corrupt(what: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("the store holds an unreadable {what}").into())
}

/// A JSON list of rows for `json_each`.
pub(super) fn list<T: Serialize>(rows: impl IntoIterator<Item = T>) -> String {
    json::to_text(&rows.into_iter().collect::<Vec<T>>())
}

pub(super) fn epoch_of(text: &str) -> sqlx::Result<Epoch> {
    Epoch::parse(text).map_err(|_| corrupt("epoch"))
}

pub(super) fn uuid_of(bytes: &[u8]) -> sqlx::Result<Uuid> {
    Uuid::from_slice(bytes).map_err(|_| corrupt("uuid"))
}

pub(super) fn channel_name(text: &str) -> sqlx::Result<ChannelName> {
    ChannelName::parse(text).map_err(|_| corrupt("channel name"))
}

pub(super) fn username(text: &str) -> sqlx::Result<Username> {
    Username::parse(text).map_err(|_| corrupt("user name"))
}
