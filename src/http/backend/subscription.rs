//! `POST /subscribe`, `POST /unsubscribe`

use axum::extract::State;

use crate::domain::draft::Refusal;
use crate::http::answer::{Answer, JsonText};
use crate::http::body::RawBody;
use crate::http::error::ApiError;
use crate::http::query::Query;
use crate::http::state::AppState;
use crate::journal::Failure;
use crate::wire::request::Invalid;
use crate::wire::{reply, request};

/// Adds channels to a connection.
pub async fn subscribe(State(state): State<AppState>, query: Query, RawBody(body): RawBody) -> Answer {
    let read = request::subscribe(&body, query.get("conn_id").as_deref());
    let operation = read.map_err(|invalid| with_unknown_connection(&state, invalid))?;
    let subscribed = state.hub.perform(operation, body.len()).await?;
    let people = state.hub.people(subscribed.view.members());
    Ok(JsonText(reply::subscribed(&subscribed, &people, state.hub.epoch())))
}

/// Takes channels from a connection.
pub async fn unsubscribe(State(state): State<AppState>, query: Query, RawBody(body): RawBody) -> Answer {
    let read = request::unsubscribe(&body, query.get("conn_id").as_deref());
    let operation = read.map_err(|invalid| with_unknown_connection(&state, invalid))?;
    let unsubscribed = state.hub.perform(operation, body.len()).await?;
    let people = state.hub.people(unsubscribed.view.members());
    Ok(JsonText(reply::unsubscribed(&unsubscribed, &people, state.hub.epoch())))
}

/// Adds to what is wrong with a body that the connection it names is unknown.
fn with_unknown_connection(state: &AppState, invalid: Invalid) -> ApiError {
    let unknown = match &invalid {
        Invalid::Shape { connection: Some(id), .. } => !state.hub.knows_connection(*id),
        _ => false,
    };
    ApiError::from(invalid).and(unknown.then_some(Failure::Refused(Refusal::UnknownConnection)))
}
