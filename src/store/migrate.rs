//! Lets refinery run migrations over an sqlx connection, all in one transaction.

use refinery_core::traits::r#async::{AsyncMigrate, AsyncQuery, AsyncTransaction};
use refinery_core::{Migration, Runner};
#[cfg(feature = "postgres")]
use sqlx::PgConnection;
#[cfg(feature = "sqlite")]
use sqlx::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::contract::StoreError;

/// An sqlx connection as refinery wants it; its transactions are savepoints in ours.
struct Over<'c, C>(&'c mut C);

macro_rules! over {
    ($connection:ty) => {
        impl AsyncTransaction for Over<'_, $connection> {
            type Error = sqlx::Error;

            async fn execute<'a, T: Iterator<Item = &'a str> + Send + 'a>(
                &'a mut self,
                queries: T,
            ) -> sqlx::Result<usize> {
                let mut savepoint = self.0.begin().await?;
                let mut count = 0;
                for query in queries {
                    savepoint.execute(sqlx::raw_sql(AssertSqlSafe(query.to_owned()))).await?;
                    count += 1;
                }
                savepoint.commit().await?;
                Ok(count)
            }
        }

        impl AsyncQuery<Vec<Migration>> for Over<'_, $connection> {
            async fn query<'a>(&'a mut self, query: &'a str) -> sqlx::Result<Vec<Migration>> {
                let rows: Vec<(i32, String, String, String)> =
                    sqlx::query_as(AssertSqlSafe(query.to_owned())).fetch_all(&mut *self.0).await?;
                rows.into_iter()
                    .map(|(version, name, applied_on, checksum)| {
                        let applied_on = OffsetDateTime::parse(&applied_on, &Rfc3339).map_err(decode)?;
                        Ok(Migration::applied(version, name, applied_on, checksum.parse().map_err(decode)?))
                    })
                    .collect()
            }
        }

        impl AsyncMigrate for Over<'_, $connection> {}
    };
}

#[cfg(feature = "sqlite")]
over!(SqliteConnection);
#[cfg(feature = "postgres")]
over!(PgConnection);

fn decode(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}

fn unusable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unusable(format!(
        "the tables of the store cannot be brought up to date: {error}. If it was made by a newer release, run that"
    ))
}

/// Brings the tables of a SQLite store up to date; several processes may do so at once.
///
/// # Errors
/// [`StoreError::Unusable`] if a migration fails or the store is of a newer release; the store is
/// then as it was.
#[cfg(feature = "sqlite")]
pub async fn sqlite(connection: &mut SqliteConnection, runner: Runner) -> Result<(), StoreError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(unusable)?;
    runner.run_async(&mut Over(&mut *transaction)).await.map_err(unusable)?;
    transaction.commit().await.map_err(unusable)
}

/// The key of the lock under which Postgres stores are migrated, one after the other.
#[cfg(feature = "postgres")]
const MIGRATING: i64 = 0x6368_616e_6e65_6c73;

/// The same for a Postgres store.
///
/// # Errors
/// See [`sqlite`].
#[cfg(feature = "postgres")]
pub async fn postgres(connection: &mut PgConnection, runner: Runner) -> Result<(), StoreError> {
    let mut transaction = connection.begin().await.map_err(unusable)?;
    let lock = sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(MIGRATING);
    lock.execute(&mut *transaction).await.map_err(unusable)?;
    runner.run_async(&mut Over(&mut *transaction)).await.map_err(unusable)?;
    transaction.commit().await.map_err(unusable)
}
