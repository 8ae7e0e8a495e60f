//! Signing in and out: a signed cookie that opens the admin pages and nothing else.

use std::time::Duration;

use axum::Extension;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum_extra::extract::SignedCookieJar;
use axum_extra::extract::cookie::{Cookie, Key, SameSite};
use subtle::ConstantTimeEq;
use tracing::warn;

use super::assets::page;
use crate::http::auth::{Caller, Credentials, credentials_of};
use crate::http::body::SmallBody;
use crate::http::error::{ApiError, escape};
use crate::http::links::{link, scheme};
use crate::http::request_id::request_id;
use crate::http::state::AppState;

/// Where one signs in.
pub const SIGN_IN: &str = "/admin/sign_in";
/// The cookie's name and how long it lasts. Source: the stock server.
const COOKIE: &str = "auth_tkt";
const DAYS: i64 = 30;
/// How long a wrong password takes. Source: the stock server.
const PAUSE: Duration = Duration::from_millis(500);

/// Somebody who signed in, or a back end that signed the request.
pub struct Admin;

/// Nobody of them: what to do about it is for the handler to say.
pub struct Anonymous;

impl FromRequestParts<AppState> for Admin {
    type Rejection = Anonymous;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Anonymous> {
        if credentials_of(&parts.extensions) == Credentials::Good {
            return Ok(Self);
        }
        let jar = SignedCookieJar::<Key>::from_request_parts(parts, state).await.map_err(|_| Anonymous)?;
        let cookie = jar.get(COOKIE).ok_or(Anonymous)?;
        let (expires, user) = cookie.value().split_once(':').ok_or(Anonymous)?;
        let expires: i64 = expires.parse().map_err(|_| Anonymous)?;
        let valid = expires > state.hub.now().utc.and_utc().timestamp() && user == state.config.admin_user;
        valid.then_some(Self).ok_or(Anonymous)
    }
}

impl IntoResponse for Anonymous {
    fn into_response(self) -> Response {
        ApiError::Forbidden.into_response()
    }
}

/// Sends somebody elsewhere.
pub fn redirect(state: &AppState, headers: &HeaderMap, path: &str) -> Response {
    (StatusCode::FOUND, [(header::LOCATION, link(headers, &state.config, path))]).into_response()
}

/// `GET /admin/sign_in`
pub async fn sign_in_page() -> Result<Response, ApiError> {
    form("")
}

fn form(error: &str) -> Result<Response, ApiError> {
    page("sign_in.html", |html| html.replace("{{error}}", &escape(error)))
}

/// `POST /admin/sign_in`
pub async fn sign_in(
    State(state): State<AppState>,
    Extension(Caller { peer, .. }): Extension<Caller>,
    headers: HeaderMap,
    jar: SignedCookieJar,
    SmallBody(body): SmallBody,
) -> Result<Response, ApiError> {
    let field = |name: &str| {
        let value = form_urlencoded::parse(&body).find(|(key, _)| key == name).map(|(_, value)| value);
        value.unwrap_or_default().trim().to_owned()
    };
    let (user, password) = (field("username"), field("password"));
    let right_user = user.as_bytes().ct_eq(state.config.admin_user.as_bytes());
    if !(bool::from(right_user) & state.config.admin_secret.matches(&password)) {
        warn!(request_id = request_id(&headers), %peer, "somebody failed to sign in to the admin panel");
        tokio::time::sleep(PAUSE).await;
        return form("Wrong user name or password.");
    }
    let expires = state.hub.now().utc.and_utc().timestamp() + DAYS * 86_400;
    let mut cookie = Cookie::new(COOKIE, format!("{expires}:{user}"));
    dress(&mut cookie, scheme(&headers, &state.config));
    cookie.set_max_age(time::Duration::days(DAYS));
    Ok((jar.add(cookie), redirect(&state, &headers, "/admin")).into_response())
}

fn dress(cookie: &mut Cookie<'_>, scheme: &str) {
    cookie.set_path("/");
    cookie.set_http_only(true);
    cookie.set_same_site(SameSite::Lax);
    cookie.set_secure(scheme == "https");
}

/// `/admin/sign_out`
pub async fn sign_out(State(state): State<AppState>, headers: HeaderMap, jar: SignedCookieJar) -> Response {
    let mut cookie = Cookie::from(COOKIE);
    dress(&mut cookie, scheme(&headers, &state.config));
    (jar.remove(cookie), redirect(&state, &headers, SIGN_IN)).into_response()
}
