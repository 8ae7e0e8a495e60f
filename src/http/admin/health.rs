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
    reason: Option<String>,
}

/// `GET /healthz`: the process answers.
pub async fn healthz() -> Json<Health> {
    Json(Health { status: "alive", reason: None })
}

/// `GET /readyz`: the store answers and the server is not going down.
pub async fn readyz(State(state): State<AppState>) -> (StatusCode, Json<Health>) {
    let ready = match state.draining.load(Ordering::Relaxed) {
        true => Err("the server is going down".to_owned()),
        false => state.hub.check_store().await,
    };
    match ready {
        Ok(()) => (StatusCode::OK, Json(Health { status: "ready", reason: None })),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, Json(Health { status: "not ready", reason: Some(reason) })),
    }
}
