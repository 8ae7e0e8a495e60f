//! The store: what outlives the process. The only place that names a database.

mod contract;
mod migrate;
mod rows;
mod sqlite;

use std::sync::Arc;

use crate::domain::position::{Epoch, Position};

pub use contract::{
    Batch, HistoryPage, HistoryQuery, ReplayPage, ReplayQuery, Start, Store, StoreError, StoreTotals, StoredConnection,
    Synchronous,
};

/// Opens the store of a URL, creates or migrates its tables, and becomes its owner.
///
/// # Errors
/// [`StoreError::Unusable`] with a sentence for the operator.
pub async fn open(url: &str, synchronous: Synchronous) -> Result<(Arc<dyn Store>, Start), StoreError> {
    match scheme(url) {
        Some("sqlite") => {
            let (store, start) = sqlite::SqliteStore::open(url, synchronous).await?;
            Ok((Arc::new(store), start))
        }
        _ => Err(unknown_engine()),
    }
}

/// Begins a new numbering in the store of a URL, which no server may use meanwhile: after it was put
/// back to an older state, cursors of the newer one must not be taken for what is numbered now.
/// Gives the new epoch and the head after which it begins; older cursors stay good up to there.
///
/// # Errors
/// [`StoreError::Unusable`] with a sentence for the operator.
pub async fn begin_epoch(url: &str) -> Result<(Epoch, Position), StoreError> {
    match scheme(url) {
        Some("sqlite") => sqlite::begin_epoch(url).await,
        _ => Err(unknown_engine()),
    }
}

fn scheme(url: &str) -> Option<&str> {
    url.split_once(':').map(|(scheme, _)| scheme)
}

fn unknown_engine() -> StoreError {
    StoreError::Unusable("`database_url` names no engine that this server has: write sqlite://FILE".to_owned())
}
