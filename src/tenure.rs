//! Who owns the store: this server, which then serves, or another one, and then this server stands
//! by until the store is free. What it had in memory ends with its tenure: the next one begins with
//! what the store holds.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::config::Config;
use crate::domain::position::Position;
use crate::domain::tails::TailLimits;
use crate::http::edge::Edge;
use crate::http::front::Front;
use crate::http::state::AppState;
use crate::http::{PATHS, routes};
use crate::hub::{Hub, HubOptions};
use crate::store::{Database, StoreError};
use crate::{heartbeat, sweeper};

/// How often a standby looks whether the store is free.
const LOOK: Duration = Duration::from_millis(250);

/// Why there can be no further tenure.
#[derive(Debug, thiserror::Error)]
pub enum TenureError {
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The task that writes to the store failed, which is a fault of this program.
    #[error("the journal failed, see the log above; nothing that was acknowledged is lost: start me again")]
    Journal,
}

/// A server's claim to a store.
pub struct Tenure {
    database: Arc<dyn Database>,
    config: Arc<Config>,
    front: Arc<Front>,
    /// Up to where listeners of this process were shown the log.
    shown: Position,
}

/// What runs while this server owns the store.
struct Reign {
    state: AppState,
    sweeping: JoinHandle<()>,
}

impl Drop for Reign {
    fn drop(&mut self) {
        self.sweeping.abort();
    }
}

impl Tenure {
    /// Serves through `front` whenever the store is ours: if nobody owns it, at once. The task
    /// ends when there can be no further tenure.
    ///
    /// # Errors
    /// If the store cannot be reached or used.
    pub async fn start(
        database: Arc<dyn Database>,
        config: Arc<Config>,
        front: Arc<Front>,
    ) -> Result<JoinHandle<TenureError>, StoreError> {
        let mut tenure = Self { database, config, front, shown: Position::default() };
        let reign = tenure.begin().await?;
        if reign.is_none() {
            let database = tenure.database.name();
            info!(database, "another server owns the store: this one stands by, and takes over when that one ends");
        }
        Ok(tokio::spawn(async move {
            match tenure.go_on(reign).await {
                Err(error) => error,
                Ok(never) => match never {},
            }
        }))
    }

    /// Takes the store over, if nobody owns it, and serves.
    async fn begin(&mut self) -> Result<Option<Reign>, StoreError> {
        let Some((store, start)) = self.database.take_over(self.shown).await? else { return Ok(None) };
        // If it had less, a new epoch has begun by now.
        self.shown = start.head;
        let options = HubOptions {
            grace: self.config.gc_conns_after,
            resume_window: self.config.resume_window,
            commit_timeout: self.config.commit_timeout,
            max_queue_bytes: self.config.max_queue_bytes,
            tails: TailLimits { all: self.config.tail_memory, ..TailLimits::default() },
            max_listeners: self.config.max_connections,
            attach_rate: self.config.attach_rate,
        };
        let hub = Hub::start(store, start, options).await?;
        // Also for those who are sent away at the end.
        tokio::spawn(heartbeat::run(Arc::downgrade(&hub), self.config.heartbeat_interval));
        let sweeping = tokio::spawn(sweeper::run(hub.clone(), self.config.forget_users_after));
        let state = AppState::new(hub, Config::clone(&self.config), &PATHS);
        self.front.serve(Edge::new(state.clone(), routes(state.clone())));
        Ok(Some(Reign { state, sweeping }))
    }

    async fn go_on(mut self, mut reign: Option<Reign>) -> Result<std::convert::Infallible, TenureError> {
        loop {
            if let Some(current) = reign.take() {
                self.end(current).await?;
            }
            sleep(LOOK).await;
            match self.begin().await {
                Ok(None) => {}
                Ok(begun) => {
                    info!("this server owns the store now, and serves");
                    reign = begun;
                }
                Err(StoreError::Unusable(sentence)) => return Err(StoreError::Unusable(sentence).into()),
                Err(error) => warn!(%error, "the store cannot be taken over yet"),
            }
        }
    }

    /// Serves until the store is not ours any more; then sends everybody away.
    async fn end(&mut self, reign: Reign) -> Result<(), TenureError> {
        let hub = reign.state.hub.clone();
        hub.journal_ended().await;
        if !hub.is_lost() {
            return Err(TenureError::Journal);
        }
        reign.state.draining.store(true, Ordering::Relaxed);
        self.front.stand_by();
        self.shown = hub.head();
        hub.send_away(self.config.drain_seconds).await;
        self.front.forget();
        info!("this server stands by");
        Ok(())
    }
}
