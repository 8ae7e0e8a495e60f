//! Answers that are JSON text already.

use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;

/// A JSON text as an answer.
pub struct JsonText(pub String);

impl IntoResponse for JsonText {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "application/json")], self.0).into_response()
    }
}

/// What a handler for back ends answers.
pub type Answer = Result<JsonText, ApiError>;
