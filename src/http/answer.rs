//! Answers that are JSON text already, whole or in parts.

use std::future::{Future, ready};
use std::io;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use tracing::warn;

use super::error::ApiError;
use crate::journal::Failure;

/// Answers are sent whole up to this size, and in parts from there on.
const WHOLE: usize = 256 << 10;

/// Headers of an answer, about.
const HEADERS: usize = 8;

/// A JSON text as an answer.
pub struct JsonText<T = String>(pub T);

impl<T: Into<Body>> IntoResponse for JsonText<T> {
    fn into_response(self) -> Response {
        let mut response = Response::new(self.0.into());
        // With room for what the edge adds.
        response.headers_mut().reserve(HEADERS);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

/// What a handler for back ends answers.
pub type Answer = Result<JsonText, ApiError>;

/// An answer that may be too long to be made at once.
pub trait Parts: Send + 'static {
    /// The text goes on with this; none: it is complete.
    fn next(&mut self) -> impl Future<Output = Result<Option<String>, Failure>> + Send;
}

/// Sends an answer of which no more is made than the client takes. What goes wrong in the beginning
/// is answered; later the answer breaks off, which no client can take for its end.
pub async fn in_parts(mut parts: impl Parts) -> Result<Response, ApiError> {
    let mut text = String::new();
    while text.len() < WHOLE {
        match parts.next().await? {
            Some(part) => text.push_str(&part),
            None => return Ok(JsonText(text).into_response()),
        }
    }
    let rest = stream::try_unfold(parts, |mut parts| async move {
        let part = parts.next().await.map_err(|failure| {
            warn!(?failure, "an answer breaks off");
            io::Error::other("the store cannot be read")
        })?;
        io::Result::Ok(part.map(|part| (part, parts)))
    });
    let body = Body::from_stream(stream::once(ready(io::Result::Ok(text))).chain(rest));
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

#[cfg(test)]
mod tests {
    use axum::body::HttpBody;
    use http_body_util::BodyExt;

    use super::*;

    /// So many parts of so many bytes, then a failure or the end.
    struct Given {
        parts: usize,
        bytes: usize,
        fails: bool,
    }

    impl Parts for Given {
        async fn next(&mut self) -> Result<Option<String>, Failure> {
            if self.parts == 0 {
                return if self.fails { Err(Failure::Unavailable) } else { Ok(None) };
            }
            self.parts -= 1;
            Ok(Some("x".repeat(self.bytes)))
        }
    }

    /// The length that is told before, and how much comes; none: it breaks off.
    async fn received(given: Given) -> (Option<u64>, Option<usize>) {
        let body = in_parts(given).await.unwrap_or_else(IntoResponse::into_response).into_body();
        let length = body.size_hint().exact();
        (length, body.collect().await.ok().map(|body| body.to_bytes().len()))
    }

    #[tokio::test]
    async fn small_answers_are_whole_and_long_ones_come_in_parts() {
        let given = |parts, fails| Given { parts, bytes: 100 << 10, fails };
        assert_eq!(received(given(2, false)).await, (Some(200 << 10), Some(200 << 10)));
        assert_eq!(received(given(20, false)).await, (None, Some(2_000 << 10)));
        assert_eq!(received(given(20, true)).await, (None, None), "it breaks off");
        assert!(matches!(in_parts(given(2, true)).await, Err(ApiError::Unavailable(_))));
    }
}
