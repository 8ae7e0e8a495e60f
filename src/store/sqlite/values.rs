//! Values as SQLite keeps them, and back.

use serde::Serialize;
use uuid::Uuid;

use crate::json;
use crate::store::values::corrupt;

/// A JSON list of rows for `json_each`.
pub(super) fn list<T: Serialize>(rows: impl IntoIterator<Item = T>) -> String {
    json::to_text(&rows.into_iter().collect::<Vec<T>>())
}

pub(super) fn uuid_of(bytes: &[u8]) -> sqlx::Result<Uuid> {
    Uuid::from_slice(bytes).map_err(|_| corrupt("uuid"))
}
