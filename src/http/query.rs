//! Query strings: the first of repeated parameters wins.

use std::borrow::Cow;
use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::error::ApiError;
use crate::domain::names::ConnectionId;
use crate::domain::position::Cursor;
use crate::domain::replay::Since;
use crate::wire::form::{Faults, NOT_A_CURSOR, NULL, parse_uuid};

/// Why a query names no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadConnectionId {
    /// The parameter is absent.
    Missing,
    /// It is no uuid.
    Malformed,
}

impl From<BadConnectionId> for ApiError {
    fn from(bad: BadConnectionId) -> Self {
        let text = match bad {
            BadConnectionId::Missing => NULL,
            BadConnectionId::Malformed => "Not a valid UUID.",
        };
        Self::Invalid(Faults::from([("conn_id".to_owned(), text.into())]))
    }
}

/// Empty: from the floors; else a cursor.
pub fn parse_since(text: &str) -> Result<Since, ApiError> {
    if text.is_empty() {
        return Ok(Since::Floors);
    }
    let malformed = |_| ApiError::Invalid(Faults::from([("since".to_owned(), NOT_A_CURSOR.into())]));
    Cursor::parse(text).map(Since::Cursor).map_err(malformed)
}

/// The query string of a request, which the edge has found to be decodable.
#[derive(Debug, Clone, Default)]
pub struct Query(String);

impl Query {
    /// A query string as it came, without the question mark.
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The connection that the parameter `conn_id` names.
    pub fn connection_id(&self) -> Result<ConnectionId, BadConnectionId> {
        let text = self.get("conn_id").ok_or(BadConnectionId::Missing)?;
        parse_uuid(&text).map(ConnectionId).ok_or(BadConnectionId::Malformed)
    }

    /// Where a listener that keeps a cursor wants to continue; none: it keeps none.
    pub fn since(&self) -> Result<Option<Since>, ApiError> {
        self.get("since").as_deref().map(parse_since).transpose()
    }

    /// The first parameter of that name.
    pub fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        form_urlencoded::parse(self.0.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self::new(parts.uri.query().unwrap_or_default()))
    }
}
