//! The front: to whom a request goes. While this server owns the store, to its edge; while it stands
//! by, everybody is told that there is nobody yet.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use parking_lot::RwLock;

use super::admin::{alive, not_ready, standby_metrics};
use super::edge::{Edge, add_cors};
use super::error::ApiError;
use super::request_id::{REQUEST_ID, identify};
use super::state::AppState;
use crate::config::Config;

/// Why a standby is not ready.
const STANDBY: &str = "another server owns the store: this one stands by";

/// Stands by until it is told to serve.
pub struct Front {
    config: Arc<Config>,
    edge: RwLock<Option<Edge>>,
    /// What serves no more, while its listeners are sent away.
    leaving: RwLock<Option<AppState>>,
}

impl Front {
    /// Nobody serves yet.
    pub fn new(config: Arc<Config>) -> Self {
        Self { config, edge: RwLock::default(), leaving: RwLock::default() }
    }

    /// From now on requests go there.
    pub fn serve(&self, edge: Edge) {
        *self.edge.write() = Some(edge);
    }

    /// From now on nobody serves. Requests under way still end, and listeners are to be sent away.
    pub fn stand_by(&self) {
        let edge = self.edge.write().take();
        *self.leaving.write() = edge.map(|edge| edge.state().clone());
    }

    /// All listeners were sent away.
    pub fn forget(&self) {
        *self.leaving.write() = None;
    }

    /// What handlers share, while this server serves.
    pub fn state(&self) -> Option<AppState> {
        self.edge.read().as_ref().map(|edge| edge.state().clone())
    }

    /// The same, or what handlers shared that still have listeners.
    pub fn last_state(&self) -> Option<AppState> {
        self.state().or_else(|| self.leaving.read().clone())
    }

    /// Answers one request. `peer`: who sent it.
    pub async fn answer(&self, mut request: Request, peer: SocketAddr) -> Response {
        let id = identify(request.headers_mut());
        let edge = self.edge.read().clone();
        let mut response = match edge {
            Some(edge) => edge.answer(request, peer).await,
            None => self.decline(&request),
        };
        response.headers_mut().insert(REQUEST_ID, id);
        response
    }

    fn decline(&self, request: &Request) -> Response {
        let mut response = match request.uri().path() {
            "/healthz" => alive().into_response(),
            "/readyz" => not_ready(STANDBY).into_response(),
            "/metrics" => standby_metrics(&self.config, request.headers()).into_response(),
            _ => ApiError::Unavailable("This server stands by.").into_response(),
        };
        add_cors(&self.config, request.headers().get(header::ORIGIN), response.headers_mut());
        response
    }
}
