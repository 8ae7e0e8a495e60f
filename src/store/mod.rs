//! The store: what outlives the process. The only place that names a database.

mod contract;
mod migrate;
mod rows;
mod sqlite;

use std::sync::Arc;

pub use contract::{
    Batch, HistoryPage, HistoryQuery, ReplayPage, ReplayQuery, Start, Store, StoreError, StoreTotals, StoredConnection,
    Synchronous,
};

/// Opens the store of a URL, creates or migrates its tables, and becomes its owner.
///
/// # Errors
/// [`StoreError::Unusable`] with a sentence for the operator.
pub async fn open(url: &str, synchronous: Synchronous) -> Result<(Arc<dyn Store>, Start), StoreError> {
    let scheme = url.split_once(':').map(|(scheme, _)| scheme);
    match scheme {
        Some("sqlite") => {
            let (store, start) = sqlite::SqliteStore::open(url, synchronous).await?;
            Ok((Arc::new(store), start))
        }
        _ => Err(StoreError::Unusable(
            "`database_url` names no engine that this server has: write sqlite://FILE".to_owned(),
        )),
    }
}
