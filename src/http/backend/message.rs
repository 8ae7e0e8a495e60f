//! `POST /message`, `PATCH /message`, `DELETE /message`

use axum::extract::State;

use crate::http::answer::{Answer, JsonText};
use crate::http::body::RawBody;
use crate::http::state::AppState;
use crate::wire::{reply, request};

/// Says something in channels or to users.
pub async fn post(State(state): State<AppState>, RawBody(body): RawBody) -> Answer {
    let metrics = state.hub.metrics();
    let refused = |reason| _ = metrics.posts_refused.of(reason).inc();
    let post = request::post(&body, state.hub.now().timestamp()).inspect_err(|_| refused("invalid"))?;
    let posted = state.hub.post(post, body.len()).await.inspect_err(|failure| refused(failure.name()))?;
    let duplicates = posted.iter().filter(|posted| posted.duplicate).count();
    metrics.messages_duplicate.inc_by(duplicates as u64);
    metrics.messages_accepted.inc_by((posted.len() - duplicates) as u64);
    Ok(JsonText(reply::posted(&posted, state.hub.epoch())))
}

/// Changes messages.
pub async fn edit(State(state): State<AppState>, RawBody(body): RawBody) -> Answer {
    let edits = request::edit(&body, state.hub.now().timestamp())?;
    let edited = state.hub.perform(edits, body.len()).await?;
    Ok(JsonText(reply::edited(&edited, state.hub.epoch())))
}

/// Takes messages back.
pub async fn delete(State(state): State<AppState>, RawBody(body): RawBody) -> Answer {
    let deleted = state.hub.perform(request::delete(&body)?, body.len()).await?;
    Ok(JsonText(reply::deleted(&deleted, state.hub.epoch())))
}
