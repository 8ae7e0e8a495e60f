//! `/info`

use axum::extract::State;

use crate::http::answer::{Answer, JsonText};
use crate::http::body::RawBody;
use crate::http::state::AppState;
use crate::wire::{reply, request};

/// Tells about channels and who is in them.
pub async fn info(State(state): State<AppState>, RawBody(body): RawBody) -> Answer {
    let view = state.hub.info(&request::info(&body)?).await?;
    Ok(JsonText(reply::channels(&view, state.hub.epoch())))
}
