//! `/disconnect`

use axum::Json;
use axum::extract::State;
use axum::http::Method;

use crate::domain::names::ConnectionId;
use crate::http::body::RawBody;
use crate::http::error::ApiError;
use crate::http::query::Query;
use crate::http::state::AppState;
use crate::wire::form::{Faults, NULL, parse_uuid};
use crate::wire::request;

/// Ends a connection at the next sweep: `POST` names it in the body, other methods in the query.
pub async fn disconnect(
    State(state): State<AppState>,
    method: Method,
    query: Query,
    RawBody(body): RawBody,
) -> Result<Json<bool>, ApiError> {
    let id = match method {
        Method::POST => request::disconnect(&body)?,
        _ => named(query.get("conn_id").as_deref())?,
    };
    Ok(Json(state.hub.dismiss(id)))
}

fn named(text: Option<&str>) -> Result<ConnectionId, ApiError> {
    let fault = |text: &'static str| ApiError::Invalid(Faults::from([("conn_id".to_owned(), text.into())]));
    let id = parse_uuid(text.ok_or_else(|| fault(NULL))?).ok_or_else(|| fault("Not a valid UUID."))?;
    Ok(ConnectionId(id))
}
