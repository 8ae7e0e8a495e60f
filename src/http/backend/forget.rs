//! `DELETE /user`, `DELETE /channel`

use axum::extract::State;

use crate::http::answer::{Answer, JsonText};
use crate::http::body::RawBody;
use crate::http::error::ApiError;
use crate::http::state::AppState;
use crate::wire::{reply, request};

/// Forgets a user; its connections end.
pub async fn forget_user(State(state): State<AppState>, RawBody(body): RawBody) -> Answer {
    let operation = request::forget_user(&body)?;
    let name = operation.user.clone();
    let found = state.hub.perform(operation, body.len()).await?;
    if found { Ok(JsonText(reply::forgotten_user(&name))) } else { Err(ApiError::unknown_user()) }
}

/// Forgets a channel; its members' connections stay.
pub async fn forget_channel(State(state): State<AppState>, RawBody(body): RawBody) -> Answer {
    let operation = request::forget_channel(&body)?;
    let name = operation.channel.clone();
    let found = state.hub.perform(operation, body.len()).await?;
    if found { Ok(JsonText(reply::forgotten_channel(&name))) } else { Err(ApiError::unknown_channel()) }
}
