//! Query strings: the first of repeated parameters wins.

use std::borrow::Cow;
use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

/// The query string of a request, which the edge has found to be decodable.
#[derive(Debug, Clone, Default)]
pub struct Query(String);

impl Query {
    /// A query string as it came, without the question mark.
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
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
