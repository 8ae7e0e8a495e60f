//! `POST /channel_config`

use axum::extract::State;

use crate::http::answer::{Answer, JsonText};
use crate::http::body::RawBody;
use crate::http::state::AppState;
use crate::wire::{reply, request};

/// Creates channels and changes their settings.
pub async fn channel_config(State(state): State<AppState>, RawBody(body): RawBody) -> Answer {
    let configured = state.hub.perform(request::configure(&body)?, body.len()).await?;
    Ok(JsonText(reply::channels(&configured.view, state.hub.epoch())))
}
