//! Whether the server lives, and whether it can be sent work.

use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;

use crate::http::state::AppState;

/// What a probe is told.
#[derive(Serialize)]
pub struct Health {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// `GET /healthz`: the process answers.
pub async fn healthz() -> Json<Health> {
    alive()
}

/// What a probe is told while the process answers.
pub fn alive() -> Json<Health> {
    Json(Health { status: "alive", reason: None })
}

/// `GET /readyz`: the store took the last commit and the server is not going down.
pub async fn readyz(State(state): State<AppState>) -> (StatusCode, Json<Health>) {
    match readiness(&state) {
        Ok(()) => (StatusCode::OK, Json(Health { status: "ready", reason: None })),
        Err(reason) => not_ready(reason),
    }
}

/// Whether the server can be sent work, or why not.
pub fn readiness(state: &AppState) -> Result<(), &'static str> {
    match state.draining.load(Ordering::Relaxed) {
        true => Err("the server is going down"),
        false if state.hub.is_store_stuck() => Err("the store is unavailable"),
        false => Ok(()),
    }
}

/// What a probe is told while the server cannot be sent work.
pub fn not_ready(reason: &'static str) -> (StatusCode, Json<Health>) {
    (StatusCode::SERVICE_UNAVAILABLE, Json(Health { status: "not ready", reason: Some(reason) }))
}
