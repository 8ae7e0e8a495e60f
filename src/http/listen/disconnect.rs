//! `/disconnect`

use axum::Json;
use axum::extract::State;
use axum::http::Method;

use crate::http::body::SmallBody;
use crate::http::error::ApiError;
use crate::http::query::Query;
use crate::http::state::AppState;
use crate::wire::request;

/// Ends a connection at the next sweep: `POST` names it in the body, other methods in the query.
pub async fn disconnect(
    State(state): State<AppState>,
    method: Method,
    query: Query,
    SmallBody(body): SmallBody,
) -> Result<Json<bool>, ApiError> {
    let id = match method {
        Method::POST => request::disconnect(&body)?,
        _ => query.connection_id()?,
    };
    Ok(Json(state.hub.dismiss(id)))
}
