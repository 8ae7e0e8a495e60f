//! `POST /history`

use axum::extract::State;

use crate::http::answer::{Answer, JsonText};
use crate::http::body::RawBody;
use crate::http::state::AppState;
use crate::wire::{reply, request};

/// Reads messages that the log holds, page by page.
pub async fn history(State(state): State<AppState>, RawBody(body): RawBody) -> Answer {
    let view = state.hub.history(request::history(&body)?).await?;
    Ok(JsonText(reply::history(&view, state.hub.epoch())))
}
