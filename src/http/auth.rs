//! Who is asking: signatures and addresses of back ends.

use std::future::{Ready, ready};
use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::Request;
use axum::handler::Handler;
use axum::http::{Extensions, header};
use axum::response::{IntoResponse, Response};
use futures_util::future::Either;

use super::body::{SmallBody, announced_bytes, read};
use super::error::ApiError;
use super::query::Query;
use super::state::AppState;
use crate::clock::unix_seconds;

/// What a request says to be signed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credentials {
    /// Nothing.
    Missing,
    /// A good signature.
    Good,
    /// A wrong, expired or malformed one.
    Bad,
}

/// Where the signature stands; the query and form parameter is called `secret`.
const HEADER: &str = "x-channelstream-secret";
/// Oldest signature accepted, in seconds. Source: the stock server.
const MAX_AGE_SECONDS: u32 = 60;
/// Finds and checks a request's signature: in the header, else in the query, else in a short form;
/// the body is handed back as it came.
///
/// # Errors
/// If a form had to be read and could not be.
pub async fn credentials(state: &AppState, request: Request) -> Result<(Credentials, Request), ApiError> {
    if let Some(value) = request.headers().get(HEADER) {
        // What is no text can be no signature, but it is there.
        let checked = check(state, value.to_str().unwrap_or("-"));
        return Ok((checked, request));
    }
    if let Some(secret) = Query::new(request.uri().query().unwrap_or_default()).get("secret") {
        return Ok((check(state, &secret), request));
    }
    let (parts, body) = request.into_parts();
    let is_form = parts
        .headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.to_str().is_ok_and(|value| value.starts_with("application/x-www-form-urlencoded")));
    let is_short = announced_bytes(&parts.headers).is_some_and(|bytes| bytes <= SmallBody::MAX_BYTES);
    if !is_form || !is_short {
        return Ok((Credentials::Missing, Request::from_parts(parts, body)));
    }
    let bytes = read(&parts.headers, body, SmallBody::MAX_BYTES, state.config.request_timeout).await?;
    let secret = form_urlencoded::parse(&bytes).find(|(key, _)| key == "secret").map(|(_, value)| value);
    let checked = secret.map_or(Credentials::Missing, |secret| check(state, &secret));
    Ok((checked, Request::from_parts(parts, Body::from(bytes))))
}

fn check(state: &AppState, token: &str) -> Credentials {
    if token.is_empty() {
        return Credentials::Missing;
    }
    let now = unix_seconds();
    let max_age = state.config.validate_requests.then_some(MAX_AGE_SECONDS);
    match state.signer.verify(token, now, max_age) {
        Ok(()) => Credentials::Good,
        Err(_) => Credentials::Bad,
    }
}

/// Who sent a request, as the edge found out.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// The address of its connection.
    pub peer: SocketAddr,
    /// What it is signed with.
    pub credentials: Credentials,
}

/// What a request is signed with, as the edge noted it among the request's extensions.
pub fn credentials_of(extensions: &Extensions) -> Credentials {
    extensions.get::<Caller>().map_or(Credentials::Missing, |caller| caller.credentials)
}

/// A handler that only back ends get to: first by address, then by signature.
#[derive(Clone)]
pub struct Signed<H>(pub H);

/// A handler that everybody gets to but those who tried to sign and failed.
#[derive(Clone)]
pub struct Open<H>(pub H);

/// What a guarded handler answers: at once, or after it was asked.
type Guarded<F> = Either<Ready<Response>, F>;

fn refused<F>(error: ApiError) -> Guarded<F> {
    Either::Left(ready(error.into_response()))
}

impl<T, H: Handler<T, AppState>> Handler<T, AppState> for Signed<H> {
    type Future = Guarded<H::Future>;

    fn call(self, request: Request, state: AppState) -> Self::Future {
        let Some(caller) = request.extensions().get::<Caller>() else { return refused(ApiError::Forbidden) };
        if !state.config.allow_posting_from.allows(caller.peer.ip()) {
            return refused(ApiError::Forbidden);
        }
        match caller.credentials {
            Credentials::Good => Either::Right(self.0.call(request, state)),
            Credentials::Bad => refused(ApiError::BadSignature),
            Credentials::Missing => refused(ApiError::Forbidden),
        }
    }
}

impl<T, H: Handler<T, AppState>> Handler<T, AppState> for Open<H> {
    type Future = Guarded<H::Future>;

    fn call(self, request: Request, state: AppState) -> Self::Future {
        match credentials_of(request.extensions()) {
            Credentials::Bad => refused(ApiError::BadSignature),
            _ => Either::Right(self.0.call(request, state)),
        }
    }
}
