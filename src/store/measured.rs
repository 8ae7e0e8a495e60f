//! A store that is watched: how long it takes for each request, and how often it fails, whoever asks.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use chrono::NaiveDateTime;
use hashbrown::{HashMap, HashSet};
use uuid::Uuid;

use super::contract::{
    Batch, HistoryPage, HistoryQuery, ReplayPage, ReplayQuery, Store, StoreError, StoreTotals, StoredConnection,
};
use crate::domain::channel::Channel;
use crate::domain::draft::HeldByUuid;
use crate::domain::names::{ChannelName, ConnectionId, Username};
use crate::domain::position::Position;
use crate::domain::replay::Doubt;
use crate::domain::tail::{Place, TailPart};
use crate::domain::user::User;
use crate::metrics::Metrics;

/// See the module.
pub struct Measured {
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
}

impl Measured {
    /// Watches a store.
    pub fn new(store: Arc<dyn Store>, metrics: Arc<Metrics>) -> Self {
        Self { store, metrics }
    }

    /// `operation`: one of [`crate::metrics::STORE_OPERATIONS`].
    async fn measure<T>(
        &self,
        operation: &'static str,
        request: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let asked = Instant::now();
        let result = request.await;
        self.metrics.store_seconds.of(operation).observe(asked.elapsed().as_secs_f64());
        if result.is_err() {
            self.metrics.store_errors.of(operation).inc();
        }
        result
    }
}

#[async_trait]
impl Store for Measured {
    async fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        self.measure("commit", self.store.commit(batch)).await
    }

    async fn settle(&self, batch: Uuid) -> Result<bool, StoreError> {
        self.measure("settle", self.store.settle(batch)).await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.measure("check", self.store.check()).await
    }

    async fn channels(&self, names: &HashSet<ChannelName>) -> Result<HashMap<ChannelName, Channel>, StoreError> {
        self.measure("load", self.store.channels(names)).await
    }

    async fn bare_channels(&self, names: &HashSet<ChannelName>) -> Result<HashMap<ChannelName, Channel>, StoreError> {
        self.measure("load", self.store.bare_channels(names)).await
    }

    async fn users(&self, names: &HashSet<Username>) -> Result<HashMap<Username, User>, StoreError> {
        self.measure("load", self.store.users(names)).await
    }

    async fn held(&self, uuids: &HashSet<Uuid>) -> Result<HeldByUuid, StoreError> {
        self.measure("load", self.store.held(uuids)).await
    }

    async fn positions_at(
        &self,
        times: &HashSet<NaiveDateTime>,
    ) -> Result<HashMap<NaiveDateTime, Position>, StoreError> {
        self.measure("load", self.store.positions_at(times)).await
    }

    async fn replay(&self, query: &ReplayQuery<'_>) -> Result<ReplayPage, StoreError> {
        self.measure("replay", self.store.replay(query)).await
    }

    async fn holding(&self, user: &Username, doubts: &[Doubt]) -> Result<Vec<Doubt>, StoreError> {
        self.measure("replay", self.store.holding(user, doubts)).await
    }

    async fn tails(&self, places: &[(Place, Position)], limit: u32, bytes: u32) -> Result<Vec<TailPart>, StoreError> {
        self.measure("tails", self.store.tails(places, limit, bytes)).await
    }

    async fn history(&self, query: &HistoryQuery<'_>) -> Result<Option<HistoryPage>, StoreError> {
        self.measure("history", self.store.history(query)).await
    }

    async fn channel_names(&self, after: i64, limit: u32) -> Result<Vec<(i64, ChannelName)>, StoreError> {
        self.measure("load", self.store.channel_names(after, limit)).await
    }

    async fn connections(&self) -> Result<Vec<StoredConnection>, StoreError> {
        self.measure("load", self.store.connections()).await
    }

    async fn note_seen(&self, seen: &[(ConnectionId, Position)]) -> Result<(), StoreError> {
        self.measure("sweep", self.store.note_seen(seen)).await
    }

    async fn expired_channels(&self, at: NaiveDateTime, limit: u32) -> Result<Vec<ChannelName>, StoreError> {
        self.measure("sweep", self.store.expired_channels(at, limit)).await
    }

    async fn idle_users(&self, since: NaiveDateTime, limit: u32) -> Result<Vec<Username>, StoreError> {
        self.measure("sweep", self.store.idle_users(since, limit)).await
    }

    async fn size(&self) -> Result<u64, StoreError> {
        self.measure("count", self.store.size()).await
    }

    async fn totals(&self) -> Result<StoreTotals, StoreError> {
        self.measure("count", self.store.totals()).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.store.close().await
    }
}
