//! The panel, and the description of the API.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use super::assets;
use super::session::{Admin, Anonymous, SIGN_IN, redirect};
use crate::http::error::ApiError;
use crate::http::state::AppState;

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
