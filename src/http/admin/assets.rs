//! Files of the panel and of the browser client, embedded in the binary.

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use rust_embed::{EmbeddedFile, RustEmbed};

use crate::http::error::ApiError;

/// The files of `web/`.
#[derive(RustEmbed)]
#[folder = "web/"]
struct Web;

/// What pages import of the browser client, by the names that it has always had.
#[derive(RustEmbed)]
#[folder = "clients/js/"]
#[prefix = "channelstream/"]
#[include = "channelstream.js"]
#[include = "index.js"]
struct Client;

/// `GET /static/…`
pub async fn asset(Path(path): Path<String>, headers: HeaderMap) -> Result<Response, ApiError> {
    if let Some(file) = Client::get(&path) {
        // It is imported by pages of applications, which are of another origin.
        return Ok(([(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")], embedded(file, &headers)).into_response());
    }
    let file = Web::get(&format!("static/{path}")).ok_or(ApiError::NotFound)?;
    Ok(embedded(file, &headers))
}

fn embedded(file: EmbeddedFile, headers: &HeaderMap) -> Response {
    let tag = tag(&file);
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response();
    }
    let kind = file.metadata.mimetype().to_owned();
    let caching = "no-cache".to_owned();
    let headers = [(header::CONTENT_TYPE, kind), (header::ETAG, tag), (header::CACHE_CONTROL, caching)];
    (headers, file.data).into_response()
}

fn tag(file: &EmbeddedFile) -> String {
    let digest = &file.metadata.sha256_hash()[..12];
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}

/// A page that may load only what we serve.
pub fn page(name: &str, fill: impl FnOnce(String) -> String) -> Result<Response, ApiError> {
    let file = Web::get(name).ok_or(ApiError::NotFound)?;
    let html = fill(String::from_utf8_lossy(&file.data).into_owned());
    let policy = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";
    let headers = [(header::CONTENT_SECURITY_POLICY, policy), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Html(html)).into_response())
}

/// The OpenAPI document.
pub fn openapi() -> Result<Response, ApiError> {
    let file = Web::get("openapi.json").ok_or(ApiError::NotFound)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], file.data).into_response())
}
