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
pub mod state;

use axum::extract::Request;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, any, delete, get, on, post};
use tower_http::catch_panic::CatchPanicLayer;

use auth::{Credentials, credentials_of};
use error::ApiError;
use state::AppState;

/// Every method that has a meaning with us; the edge answers OPTIONS.
const EVERY: MethodFilter = MethodFilter::GET
    .or(MethodFilter::HEAD)
    .or(MethodFilter::POST)
    .or(MethodFilter::PUT)
    .or(MethodFilter::PATCH)
    .or(MethodFilter::DELETE);

/// All routes. Other methods on these paths, and other paths, are not found.
pub fn routes(state: AppState) -> axum::Router {
    let signed =
        |route: MethodRouter<AppState>| route.route_layer(from_fn_with_state(state.clone(), auth::backends_only));
    let open = |route: MethodRouter<AppState>| route.route_layer(from_fn(auth::no_bad_signature));
    axum::Router::new()
        // back ends
        .route("/connect", signed(post(backend::connect)))
        .route("/subscribe", signed(post(backend::subscribe)))
        .route("/unsubscribe", signed(post(backend::unsubscribe)))
        .route("/user_state", signed(post(backend::user_state)))
        .route("/message", signed(post(backend::post).patch(backend::edit).delete(backend::delete)))
        .route("/channel_config", signed(post(backend::channel_config)))
        .route("/info", signed(on(EVERY, backend::info)))
        .route("/history", signed(post(backend::history)))
        .route("/user", signed(delete(backend::forget_user)))
        .route("/channel", signed(delete(backend::forget_channel)))
        // listeners
        .route("/ws", any(listen::websocket))
        .route("/listen", open(get(listen::long_poll)))
        .route("/sse", open(get(listen::sse)))
        .route("/disconnect", open(on(EVERY, listen::disconnect)))
        // people
        .route("/admin", open(get(admin::panel)))
        .route("/admin/sign_in", open(get(admin::sign_in_page).post(admin::sign_in)))
        .route("/admin/sign_out", open(on(EVERY, admin::sign_out)))
        .route("/admin/admin.json", open(get(admin::report).post(admin::report)))
        .route("/openapi.json", open(get(admin::openapi)))
        .route("/api-explorer", open(get(admin::explorer)))
        .route("/static/{*file}", open(get(admin::asset)))
        // operators
        .route("/healthz", open(get(admin::healthz)))
        .route("/readyz", open(get(admin::readyz)))
        .fallback(not_found)
        .method_not_allowed_fallback(not_found)
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(state)
}

async fn not_found(request: Request) -> ApiError {
    match credentials_of(&request) {
        Credentials::Bad => ApiError::BadSignature,
        _ => ApiError::NotFound,
    }
}

fn panicked(cause: Box<dyn std::any::Any + Send>) -> Response {
    let text = cause.downcast_ref::<&str>().copied().or_else(|| cause.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = text.unwrap_or("unknown"), "a handler panicked");
    axum::response::IntoResponse::into_response(ApiError::Panicked)
}
