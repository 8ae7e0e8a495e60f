//! The HTTP face: the route table, all on one screen.

mod admin;
mod answer;
mod auth;
mod backend;
mod body;
pub mod edge;
mod error;
pub mod front;
mod links;
mod listen;
pub mod patience;
mod query;
mod request_id;
pub mod requests;
pub mod state;

use axum::extract::Request;
use axum::routing::{MethodFilter, any, delete, get, on, post};

use auth::{Credentials, Open, Signed, credentials_of};
use error::ApiError;
use state::AppState;

/// Every method that has a meaning with us; the edge answers OPTIONS.
const EVERY: MethodFilter = MethodFilter::GET
    .or(MethodFilter::HEAD)
    .or(MethodFilter::POST)
    .or(MethodFilter::PUT)
    .or(MethodFilter::PATCH)
    .or(MethodFilter::DELETE);

/// The paths of all routes, for counting: `tests/docs.rs` compares.
pub const PATHS: [&str; 24] = [
    "/connect",
    "/subscribe",
    "/unsubscribe",
    "/user_state",
    "/message",
    "/channel_config",
    "/info",
    "/history",
    "/user",
    "/channel",
    "/ws",
    "/listen",
    "/sse",
    "/disconnect",
    "/admin",
    "/admin/sign_in",
    "/admin/sign_out",
    "/admin/admin.json",
    "/openapi.json",
    "/api-explorer",
    "/static/{*file}",
    "/healthz",
    "/readyz",
    "/metrics",
];

/// All routes. Other methods on these paths, and other paths, are not found.
pub fn routes(state: AppState) -> axum::Router {
    axum::Router::new()
        // back ends
        .route("/connect", post(Signed(backend::connect)))
        .route("/subscribe", post(Signed(backend::subscribe)))
        .route("/unsubscribe", post(Signed(backend::unsubscribe)))
        .route("/user_state", post(Signed(backend::user_state)))
        .route("/message", post(Signed(backend::post)).patch(Signed(backend::edit)).delete(Signed(backend::delete)))
        .route("/channel_config", post(Signed(backend::channel_config)))
        .route("/info", on(EVERY, Signed(backend::info)))
        .route("/history", post(Signed(backend::history)))
        .route("/user", delete(Signed(backend::forget_user)))
        .route("/channel", delete(Signed(backend::forget_channel)))
        // listeners
        .route("/ws", any(listen::websocket))
        .route("/listen", get(Open(listen::long_poll)))
        .route("/sse", get(Open(listen::sse)))
        .route("/disconnect", on(EVERY, Open(listen::disconnect)))
        // people
        .route("/admin", get(Open(admin::panel)))
        .route("/admin/sign_in", get(Open(admin::sign_in_page)).post(Open(admin::sign_in)))
        .route("/admin/sign_out", on(EVERY, Open(admin::sign_out)))
        .route("/admin/admin.json", get(Open(admin::report)).post(Open(admin::report)))
        .route("/openapi.json", get(Open(admin::openapi)))
        .route("/api-explorer", get(Open(admin::explorer)))
        .route("/static/{*file}", get(Open(admin::asset)))
        // operators
        .route("/healthz", get(Open(admin::healthz)))
        .route("/readyz", get(Open(admin::readyz)))
        .route("/metrics", get(Open(admin::metrics)))
        .fallback(not_found)
        .method_not_allowed_fallback(not_found)
        .with_state(state)
}

async fn not_found(request: Request) -> ApiError {
    match credentials_of(request.extensions()) {
        Credentials::Bad => ApiError::BadSignature,
        _ => ApiError::NotFound,
    }
}
