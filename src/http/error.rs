//! The one table of what goes wrong at the edge: statuses and bodies.

use std::borrow::Cow;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::domain::draft::Refusal;
use crate::hub::{CannotListen, NoHistory};
use crate::journal::Failure;
use crate::wire::form::{Fault, Faults};
use crate::wire::request::Invalid;

/// What a caller is told when a request fails.
#[derive(Debug)]
pub enum ApiError {
    /// 400: the request is malformed, in words.
    Malformed(&'static str),
    /// 422: the body is JSON of the wrong shape.
    Invalid(Faults),
    /// 422: the poll's connection id is malformed.
    MalformedPoll,
    /// 401: the signature is wrong or expired.
    BadSignature,
    /// 401: nobody may listen on this connection id.
    UnknownListener,
    /// 403: no signature, or an address that may not post.
    Forbidden,
    /// 404: no such path, or not with this method.
    NotFound,
    /// 404: the request is good, but there is nothing of that name.
    Unknown(Faults),
    /// 406: the configuration wants https.
    HttpsRequired,
    /// 408: the body did not come in time.
    TooSlow,
    /// 413: the body is larger than the configuration allows; how many bytes that is.
    TooLarge(usize),
    /// 426: this path speaks websocket only.
    UpgradeRequired,
    /// 429: the connection was opened too often.
    TooOften,
    /// 503: the store is down or stuck, or too much is waiting; in words.
    Unavailable(&'static str),
    /// 500: a fault of ours.
    Panicked,
}

impl ApiError {
    /// There is no such channel.
    pub fn unknown_channel() -> Self {
        Self::Unknown(Faults::from([("channel".to_owned(), "Unknown channel".into())]))
    }

    /// There is no such user.
    pub fn unknown_user() -> Self {
        Self::Unknown(Faults::from([("user".to_owned(), "Unknown user".into())]))
    }

    /// The same, and what else is wrong: faults of fields are told together.
    pub fn and(self, failure: Option<Failure>) -> Self {
        match (self, failure.map(Self::from)) {
            (Self::Invalid(mut faults), Some(Self::Invalid(more))) => {
                faults.extend(more);
                Self::Invalid(faults)
            }
            (this, _) => this,
        }
    }
}

impl From<Invalid> for ApiError {
    fn from(invalid: Invalid) -> Self {
        match invalid {
            Invalid::NotJson => Self::Malformed("Not valid JSON."),
            Invalid::Shape { faults, .. } => Self::Invalid(faults),
        }
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        let invalid = |field: &str, text: &'static str| Self::Invalid(Faults::from([(field.to_owned(), text.into())]));
        match failure {
            Failure::Refused(Refusal::UnknownConnection) => invalid("conn_id", "Unknown connection"),
            Failure::Refused(Refusal::UnknownUser) => invalid("user", "Unknown user"),
            Failure::Refused(Refusal::ForeignConnection) => invalid("conn_id", "Connection of another user"),
            Failure::Refused(Refusal::TooManyChannels) => invalid("channels", "Too many channels for one connection."),
            Failure::Refused(Refusal::UnknownCursor) => invalid("since", "Unknown cursor"),
            Failure::Refused(Refusal::StateTooLarge) => invalid("user_state", "State is too large."),
            Failure::Rejected => invalid("request", "The store refuses this."),
            Failure::Unavailable => Self::Unavailable("Storage is unavailable."),
            Failure::Busy => Self::Unavailable("Too busy."),
        }
    }
}

impl From<NoHistory> for ApiError {
    fn from(none: NoHistory) -> Self {
        let cursor = |field: &str| Self::Invalid(Faults::from([(field.to_owned(), "Unknown cursor".into())]));
        match none {
            NoHistory::UnknownChannel => Self::unknown_channel(),
            NoHistory::UnknownUser => Self::unknown_user(),
            NoHistory::UnknownBefore => cursor("before"),
            NoHistory::UnknownAfter => cursor("after"),
            NoHistory::Unavailable => Failure::Unavailable.into(),
        }
    }
}

impl From<CannotListen> for ApiError {
    fn from(cannot: CannotListen) -> Self {
        match cannot {
            CannotListen::Unknown => Self::UnknownListener,
            CannotListen::TooOften => Self::TooOften,
            CannotListen::Full => Self::Unavailable("Too many listeners."),
        }
    }
}

/// A generic error page, to be written as the request's `Accept` header asks.
#[derive(Debug, Clone)]
pub struct ErrorPage {
    status: StatusCode,
    text: &'static str,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let request = |status: StatusCode, text: Cow<'static, str>| {
            let body = Faults::from([("request".to_owned(), Fault::Texts(vec![text]))]);
            (status, Json(body)).into_response()
        };
        let page = |status: StatusCode, text: &'static str| {
            let mut response = status.into_response();
            response.extensions_mut().insert(ErrorPage { status, text });
            response
        };
        match self {
            Self::Malformed(text) => request(StatusCode::BAD_REQUEST, text.into()),
            Self::Invalid(faults) => (StatusCode::UNPROCESSABLE_ENTITY, Json(faults)).into_response(),
            Self::Unknown(faults) => (StatusCode::NOT_FOUND, Json(faults)).into_response(),
            Self::MalformedPoll => (StatusCode::UNPROCESSABLE_ENTITY, Json(["Wrong UUID format"])).into_response(),
            Self::BadSignature => {
                let body = std::collections::BTreeMap::from([("request", "Bad Signature")]);
                (StatusCode::UNAUTHORIZED, Json(body)).into_response()
            }
            Self::UnknownListener => {
                page(StatusCode::UNAUTHORIZED, "This server could not verify that you may listen on this connection.")
            }
            Self::Forbidden => page(StatusCode::FORBIDDEN, "Access was denied to this resource."),
            Self::NotFound => page(StatusCode::NOT_FOUND, "The resource could not be found."),
            Self::HttpsRequired => page(StatusCode::NOT_ACCEPTABLE, "SSL is required"),
            Self::TooSlow => request(StatusCode::REQUEST_TIMEOUT, "The body did not come in time.".into()),
            Self::TooLarge(most) => {
                request(StatusCode::PAYLOAD_TOO_LARGE, format!("The body is larger than {most} bytes.").into())
            }
            Self::UpgradeRequired => {
                let mut response = request(StatusCode::UPGRADE_REQUIRED, "This path speaks websocket only.".into());
                response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                response
            }
            Self::TooOften => request(StatusCode::TOO_MANY_REQUESTS, "This connection is opened too often.".into()),
            Self::Unavailable(text) => {
                let mut response = request(StatusCode::SERVICE_UNAVAILABLE, text.into());
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
                response
            }
            Self::Panicked => {
                request(StatusCode::INTERNAL_SERVER_ERROR, "A fault of this server; it was logged.".into())
            }
        }
    }
}

impl ErrorPage {
    /// Writes the page as the `Accept` header asks: JSON, HTML or plain text.
    pub fn render(&self, accept: Option<&HeaderValue>, path: &str) -> Response {
        let accept = accept.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let title = self.status.canonical_reason().unwrap_or("Error");
        let code = format!("{} {title}", self.status.as_u16());
        let path = if self.status == StatusCode::NOT_FOUND { path } else { "" };
        if accept.contains("application/json") {
            let message = format!("{}\n\n\n{path}\n\n", self.text);
            let body = indexmap::IndexMap::from([("message", message.as_str()), ("code", &code), ("title", title)]);
            return (self.status, Json(body)).into_response();
        }
        if accept.contains("text/html") || accept.contains("*/*") {
            let path = escape(path);
            let text = self.text;
            let html = format!(
                "<!doctype html>\n<html lang=\"en\">\n<head><title>{code}</title></head>\n\
                 <body>\n<h1>{code}</h1>\n<p>{text}</p>\n<p>{path}</p>\n</body>\n</html>\n"
            );
            return (self.status, axum::response::Html(html)).into_response();
        }
        (self.status, format!("{code}\n\n{}\n\n{path}\n", self.text)).into_response()
    }
}

/// Text as HTML shows it.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Writes the error page that a response stands for, if it stands for one.
/// `accept`: the request's header of that name.
pub fn render_page(response: Response, accept: Option<&HeaderValue>, path: &str) -> Response {
    match response.extensions().get::<ErrorPage>() {
        Some(page) => page.render(accept, path),
        None => response,
    }
}
