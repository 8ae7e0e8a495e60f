//! The edge: what happens to every request before its handler and to every answer after it: paths
//! are decoded, prefixes taken off, https demanded, signatures looked at, preflights answered,
//! error pages and CORS headers written, and a line logged.

use std::any::Any;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::body::Body;
use axum::extract::Request;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use tower::ServiceExt;
use tracing::{Level, debug, enabled, error};

use super::auth::{Caller, Credentials, credentials};
use super::error::{ApiError, render_page};
use super::links::{is_https, script_name};
use super::request_id::REQUEST_ID;
use super::state::AppState;
use crate::config::Config;

/// What must stay escaped in a path.
const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'<').add(b'>').add(b'?').add(b'`');

/// Answers requests of one server.
#[derive(Clone)]
pub struct Edge {
    state: AppState,
    routes: axum::Router,
}

impl Edge {
    /// In front of these routes.
    pub fn new(state: AppState, routes: axum::Router) -> Self {
        Self { state, routes }
    }

    /// What its handlers share.
    pub fn state(&self) -> &AppState {
        &self.state
    }

    /// Answers one request. `peer`: who sent it.
    pub async fn answer(&self, mut request: Request, peer: SocketAddr) -> Response {
        let started = Instant::now();
        // What the answer depends on, beside the handler: clones share the request's memory.
        let method = request.method().clone();
        let [origin, accept, id] =
            [header::ORIGIN, header::ACCEPT, REQUEST_ID].map(|name| request.headers().get(name).cloned());
        let (uri, response) = match own_path(request.uri(), request.headers()) {
            Ok(uri) => {
                *request.uri_mut() = uri.clone();
                (Some(uri), self.dispatch(request, peer).await.unwrap_or_else(IntoResponse::into_response))
            }
            Err(error) => (None, error.into_response()),
        };
        let path = uri.as_ref().map_or("", Uri::path);
        let mut response = render_page(response, accept.as_ref(), path);
        if !path.starts_with("/static/") {
            add_cors(&self.state.config, origin.as_ref(), response.headers_mut());
        }
        response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        let took = started.elapsed();
        self.state.requests.note(path, response.status(), took);
        if enabled!(Level::DEBUG) {
            let milliseconds = took.as_secs_f64() * 1000.0;
            let id = id.as_ref().and_then(|id| id.to_str().ok());
            debug!(request_id = id, %method, path, status = response.status().as_u16(), milliseconds, %peer, "answered");
        }
        response
    }

    async fn dispatch(&self, request: Request, peer: SocketAddr) -> Result<Response, ApiError> {
        if self.state.config.enforce_https && !is_https(request.headers()) {
            return Err(ApiError::HttpsRequired);
        }
        let (credentials, mut request) = credentials(&self.state, request).await?;
        if request.method() == Method::OPTIONS {
            return preflight(request.uri().path(), credentials);
        }
        let id = request.headers().get(REQUEST_ID).cloned();
        request.extensions_mut().insert(Caller { peer, credentials });
        match AssertUnwindSafe(self.routes.clone().oneshot(request)).catch_unwind().await {
            Ok(Ok(response)) => Ok(response),
            Err(cause) => Err(panicked(&*cause, id.as_ref())),
        }
    }
}

/// A handler panicked: its request is answered all the same, and nobody else notices.
fn panicked(cause: &(dyn Any + Send), id: Option<&HeaderValue>) -> ApiError {
    let text = cause.downcast_ref::<&str>().copied().or_else(|| cause.downcast_ref::<String>().map(String::as_str));
    let request_id = id.and_then(|id| id.to_str().ok());
    error!(request_id, panic = text.unwrap_or("unknown"), "a handler panicked");
    ApiError::Panicked
}

/// Says which pages may read an answer. `origin`: the page that asks, by the request's header.
pub fn add_cors(config: &Config, origin: Option<&HeaderValue>, response: &mut HeaderMap) {
    const ALWAYS: [(HeaderName, HeaderValue); 4] = [
        (HeaderName::from_static("xdomainrequestallowed"), HeaderValue::from_static("1")),
        (header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, OPTIONS, PUT, DELETE, PATCH")),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static(
                "Content-Type, Depth, User-Agent, X-File-Size, X-Requested-With, If-Modified-Since, X-File-Name, \
                 Cache-Control, Pragma, Origin, Connection, Referer, Cookie",
            ),
        ),
        (header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400")),
    ];
    let origin = origin.and_then(|origin| origin.to_str().ok());
    if !config.allow_cors.allows(None) {
        response.append(header::VARY, HeaderValue::from_static("Origin"));
    }
    if config.allow_cors.allows(origin) {
        response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    }
    for (name, value) in ALWAYS {
        response.insert(name, value);
    }
}

fn preflight(path: &str, credentials: Credentials) -> Result<Response, ApiError> {
    if path.starts_with("/static/") {
        return Err(ApiError::NotFound);
    }
    if credentials == Credentials::Bad && path != "/ws" {
        return Err(ApiError::BadSignature);
    }
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=UTF-8")], Body::empty()).into_response())
}

/// The path as our routes know it: decoded, and without the prefix of a proxy. The websocket's
/// path has no prefix, as with the stock server.
fn own_path(uri: &Uri, headers: &HeaderMap) -> Result<Uri, ApiError> {
    const UNDECODABLE: ApiError = ApiError::Malformed("The path or query is not UTF-8.");
    let query = uri.query();
    if query.is_some_and(|query| percent_decode_str(query).decode_utf8().is_err()) {
        return Err(UNDECODABLE);
    }
    let prefix = script_name(headers);
    if prefix.is_none() && !uri.path().contains('%') {
        return Ok(uri.clone());
    }
    let decoded = percent_decode_str(uri.path()).decode_utf8().map_err(|_| UNDECODABLE)?;
    let without = prefix.and_then(|prefix| decoded.strip_prefix(prefix)).filter(|path| path.starts_with('/'));
    let path = without.filter(|path| *path != "/ws").unwrap_or(&decoded);
    let mut text = utf8_percent_encode(path, ESCAPED).to_string();
    if let Some(query) = query {
        text.push('?');
        text.push_str(query);
    }
    let path_and_query = PathAndQuery::try_from(text).map_err(|_| UNDECODABLE)?;
    Uri::builder().path_and_query(path_and_query).build().map_err(|_| UNDECODABLE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::links::SCRIPT_NAME;

    fn path(uri: &str, prefix: Option<&'static str>) -> Option<String> {
        let mut headers = HeaderMap::new();
        if let Some(prefix) = prefix {
            headers.insert(SCRIPT_NAME, HeaderValue::from_static(prefix));
        }
        own_path(&uri.parse().unwrap(), &headers).ok().map(|uri| uri.to_string())
    }

    #[test]
    fn paths_are_decoded_and_prefixes_taken_off() {
        assert_eq!(path("/%63onnect?a=%20b", None).as_deref(), Some("/connect?a=%20b"));
        assert_eq!(path("/pfx/connect", Some("/pfx")).as_deref(), Some("/connect"));
        assert_eq!(path("/connect", Some("/pfx")).as_deref(), Some("/connect"));
        assert_eq!(path("/pfxconnect", Some("/pfx")).as_deref(), Some("/pfxconnect"));
        assert_eq!(path("/pfx/ws?conn_id=1", Some("/pfx")).as_deref(), Some("/pfx/ws?conn_id=1"));
        assert_eq!(path("/static/..%2f..%2fetc", None).as_deref(), Some("/static/../../etc"));
        assert_eq!(path("/%ff", None), None);
        assert_eq!(path("/a?%ff", None), None);
        assert_eq!(path("/%3Fa%25", None).as_deref(), Some("/%3Fa%25"));
    }
}
