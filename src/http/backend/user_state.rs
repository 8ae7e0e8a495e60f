//! `POST /user_state`

use axum::extract::State;

use crate::domain::draft::Refusal;
use crate::http::answer::{Answer, JsonText};
use crate::http::body::RawBody;
use crate::http::error::ApiError;
use crate::http::state::AppState;
use crate::journal::Failure;
use crate::wire::request::Invalid;
use crate::wire::{reply, request};

/// Changes a user's state and says which of it is public.
pub async fn user_state(State(state): State<AppState>, RawBody(body): RawBody) -> Answer {
    let operation = match request::change_state(&body) {
        Ok(operation) => operation,
        Err(invalid) => return Err(with_unknown_user(&state, invalid).await),
    };
    let report = state.hub.perform(operation, body.len()).await?;
    Ok(JsonText(reply::state(&report)))
}

/// Adds to what is wrong with a body that the user it names is unknown.
async fn with_unknown_user(state: &AppState, invalid: Invalid) -> ApiError {
    let unknown = match &invalid {
        Invalid::Shape { user: Some(user), .. } => matches!(state.hub.knows_user(user).await, Ok(false)),
        _ => false,
    };
    ApiError::from(invalid).and(unknown.then_some(Failure::Refused(Refusal::UnknownUser)))
}
