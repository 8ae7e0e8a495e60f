//! The panel, its figures, and the description of the API.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};

use super::assets;
use super::session::{Admin, Anonymous, redirect};
use crate::http::answer::JsonText;
use crate::http::error::ApiError;
use crate::http::state::AppState;
use crate::wire::reply;

const SIGN_IN: &str = "/admin/sign_in";

/// `GET /admin`
pub async fn panel(
    State(state): State<AppState>,
    headers: HeaderMap,
    admin: Result<Admin, Anonymous>,
) -> Result<Response, ApiError> {
    match admin {
        Ok(Admin) => assets::page("panel.html", |html| html),
        Err(Anonymous) => Ok(redirect(&state, &headers, SIGN_IN)),
    }
}

/// `/admin/admin.json`
pub async fn report(
    State(state): State<AppState>,
    headers: HeaderMap,
    admin: Result<Admin, Anonymous>,
) -> Result<Response, ApiError> {
    match admin {
        Ok(Admin) => {
            let report = state.hub.report().await?;
            Ok(JsonText(reply::admin(&report, state.hub.epoch())).into_response())
        }
        Err(Anonymous) => Ok(redirect(&state, &headers, SIGN_IN)),
    }
}

/// `GET /openapi.json`
pub async fn openapi(_admin: Admin) -> Result<Response, ApiError> {
    assets::openapi()
}

/// `GET /api-explorer`
pub async fn explorer(
    State(state): State<AppState>,
    headers: HeaderMap,
    admin: Result<Admin, Anonymous>,
) -> Result<Response, ApiError> {
    match admin {
        Ok(Admin) => assets::page("explorer.html", |html| html),
        Err(Anonymous) => Ok(redirect(&state, &headers, SIGN_IN)),
    }
}
