//! The store: what outlives the process. The only place that names a database.

mod archive;
mod contract;
mod halving;
mod measured;
mod migrate;
#[cfg(feature = "postgres")]
mod postgres;
mod rows;
#[cfg(feature = "sqlite")]
mod sqlite;
mod values;

use std::sync::Arc;

pub use archive::{Extent, Page, Table};
pub use contract::{
    Archive, Batch, Database, HistoryPage, HistoryQuery, Pages, ReplayPage, ReplayQuery, Start, Store, StoreError,
    StoreOptions, StoreTotals, StoredConnection, Synchronous,
};
pub use measured::Measured;

use crate::domain::position::{Epoch, Position};

/// Finds the database of a URL, and creates or migrates its tables.
///
/// # Errors
/// [`StoreError::Unusable`] with a sentence for the operator.
pub async fn database(url: &str, options: &StoreOptions) -> Result<Arc<dyn Database>, StoreError> {
    let scheme = url.split_once(':').map(|(scheme, _)| scheme);
    match scheme {
        #[cfg(feature = "sqlite")]
        Some("sqlite") => Ok(Arc::new(sqlite::SqliteDatabase::open(url, options).await?)),
        #[cfg(feature = "postgres")]
        Some("postgres" | "postgresql") => Ok(Arc::new(postgres::PostgresDatabase::open(url, options).await?)),
        _ => Err(StoreError::Unusable(
            "`database_url` names no engine that this server has: write sqlite://FILE or postgres://USER@HOST/DATABASE"
                .to_owned(),
        )),
    }
}

/// Opens the store of a URL at once, as its owner.
///
/// # Errors
/// As [`database`] and [`Database::take_over`]; [`StoreError::Unusable`] also if another server is
/// the owner.
pub async fn open(url: &str, options: &StoreOptions) -> Result<(Arc<dyn Store>, Start), StoreError> {
    let database = database(url, options).await?;
    let owned = database.take_over(Position::default()).await?;
    owned.ok_or_else(|| in_use(&*database))
}

/// Begins a new numbering in the store of a URL, see [`Database::begin_epoch`].
///
/// # Errors
/// [`StoreError::Unusable`] with a sentence for the operator.
pub async fn begin_epoch(url: &str) -> Result<(Epoch, Position), StoreError> {
    #[cfg(feature = "sqlite")]
    if url.starts_with("sqlite:") {
        sqlite::must_exist(url)?;
    }
    let database = database(url, &StoreOptions::default()).await?;
    database.begin_epoch().await?.ok_or_else(|| in_use(&*database))
}

fn in_use(database: &dyn Database) -> StoreError {
    StoreError::Unusable(format!("another server is using the database {}: stop it first", database.name()))
}
