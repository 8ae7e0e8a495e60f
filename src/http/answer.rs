//! Answers that are JSON text already.

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;

/// A JSON text as an answer.
pub struct JsonText<T = String>(pub T);

impl<T: Into<Body>> IntoResponse for JsonText<T> {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "application/json")], self.0.into()).into_response()
    }
}

/// What a handler for back ends answers.
pub type Answer = Result<JsonText, ApiError>;
