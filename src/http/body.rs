//! Request bodies: read whole, within the configured size and time.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::error::ApiError;
use super::state::AppState;

/// How much of a body that is too large is still read, so that the client gets to the answer.
const DRAIN_BYTES: usize = 64 << 20;

/// The bytes of a body; [`ApiError::TooLarge`] or [`ApiError::TooSlow`] if it does not fit.
pub struct RawBody(pub Bytes);

impl FromRequest<AppState> for RawBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let most = state.config.max_body_bytes;
        read(&parts.headers, body, most, state.config.request_timeout).await.map(Self)
    }
}

/// The bytes of a body that anybody may send: at most [`SmallBody::MAX_BYTES`].
pub struct SmallBody(pub Bytes);

impl SmallBody {
    /// Enough for a form or a connection id.
    pub const MAX_BYTES: usize = 64 << 10;
}

impl FromRequest<AppState> for SmallBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let most = Self::MAX_BYTES.min(state.config.max_body_bytes);
        read(&parts.headers, body, most, state.config.request_timeout).await.map(Self)
    }
}

/// How long a body says it is.
pub fn announced_bytes(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Reads a body of at most `most` bytes that comes within `patience`.
///
/// # Errors
/// [`ApiError::TooLarge`], [`ApiError::TooSlow`], or [`ApiError::Malformed`] if it breaks off.
pub async fn read(headers: &HeaderMap, body: Body, most: usize, patience: Duration) -> Result<Bytes, ApiError> {
    match timeout(patience, collect(body, announced_bytes(headers), most)).await {
        Ok(result) => result,
        Err(_) => Err(ApiError::TooSlow),
    }
}

async fn collect(mut body: Body, announced: Option<usize>, most: usize) -> Result<Bytes, ApiError> {
    if announced.is_some_and(|bytes| bytes > most) {
        drain(body, 0).await;
        return Err(ApiError::TooLarge(most));
    }
    let mut collected = BytesMut::with_capacity(announced.unwrap_or(0));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| ApiError::Malformed("The body breaks off."))?;
        let Ok(bytes) = frame.into_data() else { continue };
        if collected.len() + bytes.len() > most {
            let read = collected.len() + bytes.len();
            drop(collected);
            drain(body, read).await;
            return Err(ApiError::TooLarge(most));
        }
        if collected.is_empty() && announced == Some(bytes.len()) {
            return Ok(bytes);
        }
        collected.extend_from_slice(&bytes);
    }
    Ok(collected.freeze())
}

/// Reads on and throws away: a client that is still sending would not see an early answer.
async fn drain(mut body: Body, mut read: usize) {
    while read < DRAIN_BYTES
        && let Some(Ok(frame)) = body.frame().await
    {
        read += frame.data_ref().map_or(0, Bytes::len);
    }
}
