//! The engines under test. Another one is one more `Engine`, and one more `contract!` in
//! `store_contract.rs`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use channelstream::domain::position::Position;
use channelstream::store::{self, Start, Store, StoreError, StoreOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, query_scalar};
use tempfile::TempDir;

use super::postgres;

/// An engine under test: the place of one store, new and empty at first.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Opens the store there, as a server does at its start.
    async fn open(&self) -> Result<(Arc<dyn Store>, Start), StoreError>;

    /// Where it is.
    async fn url(&self) -> String;

    /// The rows, of one column of text, of a query in the SQL that all engines share: for what
    /// the trait does not tell.
    async fn rows(&self, sql: &str) -> Vec<String>;

    /// Every row of every table, as text.
    async fn everything(&self) -> Vec<String>;
}

/// A SQLite file in a folder of its own.
pub struct Sqlite(TempDir);

impl Sqlite {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    async fn connection(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.0.path().join("store.db")).read_only(true);
        options.busy_timeout(Duration::from_secs(5)).connect().await.expect("the file is readable")
    }
}

#[async_trait]
impl Engine for Sqlite {
    async fn open(&self) -> Result<(Arc<dyn Store>, Start), StoreError> {
        store::open(&self.url().await, &StoreOptions::default()).await
    }

    async fn url(&self) -> String {
        format!("sqlite://{}/store.db", self.0.path().display())
    }

    async fn rows(&self, sql: &str) -> Vec<String> {
        let mut connection = self.connection().await;
        query_scalar(AssertSqlSafe(sql.to_owned())).fetch_all(&mut connection).await.expect(sql)
    }

    async fn everything(&self) -> Vec<String> {
        let columns = r#"SELECT 'SELECT coalesce(iif(typeof("' || c.name || '") = ''blob'', hex("' || c.name || '"), '
                             || 'CAST("' || c.name || '" AS TEXT)), '''') FROM "' || t.name || '"'
                         FROM sqlite_schema AS t JOIN pragma_table_xinfo(t.name) AS c WHERE t.type = 'table'"#;
        let mut rows = Vec::new();
        for select in self.rows(columns).await {
            rows.extend(self.rows(&select).await);
        }
        rows
    }
}

/// A database of a Postgres server that all tests share.
pub struct Postgres(String);

impl Postgres {
    pub fn new() -> Self {
        Self(postgres::shared().database())
    }
}

/// A hundred databases are a gigabyte that small machines may lack.
impl Drop for Postgres {
    fn drop(&mut self) {
        postgres::shared().forget(&self.0);
    }
}

#[async_trait]
impl Engine for Postgres {
    async fn open(&self) -> Result<(Arc<dyn Store>, Start), StoreError> {
        let database = store::database(&self.0, &StoreOptions::default()).await?;
        // That a session broke, and with it the owner's lock, the server notices a little later.
        for _ in 0..1_000 {
            if let Some(opened) = database.take_over(Position::default()).await? {
                return Ok(opened);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the store has an owner still");
    }

    async fn url(&self) -> String {
        self.0.clone()
    }

    async fn rows(&self, sql: &str) -> Vec<String> {
        let mut connection = postgres::connect(&self.0).await;
        query_scalar(AssertSqlSafe(sql.to_owned())).fetch_all(&mut connection).await.expect(sql)
    }

    async fn everything(&self) -> Vec<String> {
        let columns = "SELECT format('SELECT coalesce(%I::text, '''') FROM %I', column_name, table_name)
                       FROM information_schema.columns WHERE table_schema = current_schema()";
        let mut rows = Vec::new();
        for select in self.rows(columns).await {
            rows.extend(self.rows(&select).await);
        }
        rows
    }
}
