//! Values as SQLite keeps them, and back; what its errors mean.

use serde::Serialize;
use uuid::Uuid;

use crate::json;
use crate::store::contract::StoreError;
use crate::store::values::corrupt;

/// A JSON list of rows for `json_each`.
pub(super) fn list<T: Serialize>(rows: impl IntoIterator<Item = T>) -> String {
    json::to_text(&rows.into_iter().collect::<Vec<T>>())
}

pub(super) fn uuid_of(bytes: &[u8]) -> sqlx::Result<Uuid> {
    Uuid::from_slice(bytes).map_err(|_| corrupt("uuid"))
}

/// Whether the engine refused the data, so that trying again is useless.
pub(super) fn classify(error: sqlx::Error) -> StoreError {
    const CONSTRAINT: &str = "19";
    const TOO_BIG: &str = "18";
    const MISMATCH: &str = "20";
    let refused = match &error {
        // Only the head's row is asked for in a way that fails if it is not there.
        sqlx::Error::RowNotFound => return StoreError::NotOurs,
        sqlx::Error::Database(database) => database.code().is_some_and(|code| {
            let primary = code.parse::<u32>().map_or(code.to_string(), |code| (code & 0xff).to_string());
            [CONSTRAINT, TOO_BIG, MISMATCH].contains(&primary.as_str())
        }),
        sqlx::Error::Encode(_) => true,
        _ => false,
    };
    if refused { StoreError::Refused(error.to_string()) } else { StoreError::Unavailable(error.to_string()) }
}
