//! What handlers share.

use std::sync::Arc;

use axum::extract::FromRef;
use axum_extra::extract::cookie::Key;
use sha2::{Digest, Sha512};
use uuid::Uuid;

use super::requests::Requests;
use crate::config::Config;
use crate::hub::Hub;
use crate::signature::Signer;

/// Shared by all handlers; a clone is cheap.
#[derive(Clone)]
pub struct AppState(Arc<Shared>);

/// See [`AppState`].
pub struct Shared {
    /// Everything behind the edge.
    pub hub: Arc<Hub>,
    /// The configuration.
    pub config: Config,
    /// Checks back ends' signatures.
    pub signer: Signer,
    /// Counts requests.
    pub requests: Requests,
    /// Signs session cookies.
    cookie_key: Key,
    /// Whether the server is going down.
    pub draining: std::sync::atomic::AtomicBool,
}

impl AppState {
    /// Without a cookie secret in the configuration, sessions end with the process. `paths`: those of the
    /// routes.
    pub fn new(hub: Arc<Hub>, config: Config, paths: &[&'static str]) -> Self {
        let random = Uuid::new_v4().to_string() + &Uuid::new_v4().to_string();
        let secret = config.cookie_secret.as_ref().map_or(random.as_str(), |secret| secret.expose());
        // Whoever changes the password signs everybody out.
        let password = config.admin_secret.expose();
        let cookie_key =
            Key::from(&Sha512::new().chain_update(secret).chain_update([0]).chain_update(password).finalize());
        let signer = Signer::new(config.secret.expose());
        let requests = Requests::new(paths);
        Self(Arc::new(Shared { hub, config, signer, requests, cookie_key, draining: false.into() }))
    }
}

impl std::ops::Deref for AppState {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl FromRef<AppState> for Key {
    fn from_ref(state: &AppState) -> Self {
        state.0.cookie_key.clone()
    }
}
