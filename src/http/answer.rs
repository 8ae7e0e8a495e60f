//! Answers that are JSON text already.

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::error::ApiError;

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
