//! `POST /connect`

use axum::extract::State;

use crate::http::answer::{Answer, JsonText};
use crate::http::body::RawBody;
use crate::http::state::AppState;
use crate::wire::{reply, request};

/// Lets a listener in: makes a connection id for a user and its channels.
pub async fn connect(State(state): State<AppState>, RawBody(body): RawBody) -> Answer {
    let connected = state.hub.perform(request::connect(&body)?, body.len()).await?;
    let people = state.hub.people(connected.view.members());
    Ok(JsonText(reply::connected(&connected, &people, state.hub.epoch())))
}
