//! The engine: opening and owning the file, and what the rest of the server asks of it.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::NaiveDateTime;
use hashbrown::{HashMap, HashSet};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, query, query_scalar};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::archive::SqliteArchive;
use super::history::read_history;
use super::read::{read_channels, read_connections, read_held, read_positions, read_users};
use super::replay::{read_holding, read_replay};
use super::tails::read_tails;
use super::values::{classify, list};
use super::write::write;
use crate::domain::channel::Channel;
use crate::domain::draft::HeldByUuid;
use crate::domain::names::{ChannelName, ConnectionId, Username};
use crate::domain::position::{Epoch, Numbering, Position};
use crate::domain::replay::Doubt;
use crate::domain::tail::{Place, TailPart};
use crate::domain::timestamp::from_micros;
use crate::domain::user::User;
use crate::store::contract::{
    Archive, Batch, Database, HistoryPage, HistoryQuery, ReplayPage, ReplayQuery, Start, Store, StoreError,
    StoreOptions, StoreTotals, StoredConnection, Synchronous,
};
use crate::store::migrate;
use crate::store::values::{channel_name, epoch_of, username};

mod migrations {
    #![allow(missing_docs)]
    refinery::embed_migrations!("migrations/sqlite");
}

/// Connections that read beside the writer.
const READERS: u32 = 3;
/// How long a statement waits for another process (a backup, a shell) before it fails.
const BUSY: Duration = Duration::from_secs(5);
/// Statements that each connection keeps prepared: more than there are.
const PREPARED: usize = 64;

/// Pages of the write-ahead log after which it is brought into the database: 16 MiB. A batch touches pages
/// all over the indexes, and most are touched again before that: the more batches, the fewer are copied.
const CHECKPOINT_PAGES: &str = "4000";
/// Pages that the writer keeps in memory at most, as SQLite counts: 16 MiB. What a large batch touches
/// should fit: with less, pages are written in the middle of it and read again in the next one.
const WRITER_CACHE: &str = "-16384";

/// A file that may hold a store.
pub struct SqliteDatabase {
    path: PathBuf,
    options: SqliteConnectOptions,
    synchronous: Synchronous,
}

/// See the module.
pub struct SqliteStore {
    /// How the one that writes connects.
    writing: SqliteConnectOptions,
    /// None after a commit failed: whoever settles it opens a new one.
    writer: Mutex<Option<SqliteConnection>>,
    readers: SqlitePool,
    lock: File,
}

impl SqliteDatabase {
    /// Finds or creates the file that a URL like `sqlite://channelstream.db` names.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] with a sentence for the operator.
    pub async fn open(url: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        let connect = options_of(url)?;
        if !options.create {
            must_exist(url)?;
            expect_store(&connect).await?;
        }
        let path = create_private(connect.get_filename())?;
        let connect = connect
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(false)
            .busy_timeout(BUSY)
            .statement_cache_capacity(PREPARED)
            .disable_statement_logging();
        let database = Self { path, options: connect, synchronous: options.synchronous };
        let mut connection = database.options.connect().await.map_err(|error| database.unusable(error))?;
        migrate::sqlite(&mut connection, migrations::migrations::runner()).await?;
        connection.close().await.map_err(|error| database.unusable(error))?;
        Ok(database)
    }

    fn unusable(&self, error: sqlx::Error) -> StoreError {
        StoreError::Unusable(format!("the database {} cannot be opened: {error}", self.path.display()))
    }

    async fn store(&self, lock: File, shown: Position) -> sqlx::Result<(SqliteStore, Start)> {
        let mut writer = self.options.connect().await?;
        // That the file is in use must be on the disk before anything else is.
        let start = take_over(&mut writer, self.synchronous, shown).await?;
        let options = match self.synchronous {
            Synchronous::Full => self.options.clone(),
            Synchronous::Normal => self.options.clone().synchronous(SqliteSynchronous::Normal),
        };
        writer.close().await?;
        // A statement that writes many rows keeps what it would need to undo itself: not in a file, which
        // would be made and removed with every batch.
        let writing = options
            .clone()
            .pragma("temp_store", "MEMORY")
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            .pragma("cache_size", WRITER_CACHE);
        let writer = writing.connect().await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(BUSY)
            .connect_with(options.create_if_missing(false).pragma("query_only", "1"))
            .await?;
        Ok((SqliteStore { writing, writer: Mutex::new(Some(writer)), readers, lock }, start))
    }
}

#[async_trait]
impl Database for SqliteDatabase {
    async fn take_over(&self, shown: Position) -> Result<Option<(Arc<dyn Store>, Start)>, StoreError> {
        let Some(lock) = own(&self.path)? else { return Ok(None) };
        let (store, start) = self.store(lock, shown).await.map_err(|error| self.unusable(error))?;
        Ok(Some((Arc::new(store), start)))
    }

    async fn begin_epoch(&self) -> Result<Option<(Epoch, Position)>, StoreError> {
        let Some(_lock) = own(&self.path)? else { return Ok(None) };
        let begun = async {
            let mut writer = self.options.connect().await?;
            let begun = number_anew(&mut writer).await?;
            writer.close().await?;
            Ok(begun)
        };
        begun.await.map(Some).map_err(|error| self.unusable(error))
    }

    async fn archive(&self) -> Result<Option<Box<dyn Archive>>, StoreError> {
        let Some(lock) = own(&self.path)? else { return Ok(None) };
        let archive = SqliteArchive::open(&self.options, lock).await.map_err(|error| self.unusable(error))?;
        Ok(Some(Box::new(archive)))
    }

    async fn place(&self) -> Result<String, StoreError> {
        use std::os::unix::fs::MetadataExt;
        let file = self.path.metadata();
        let file = file.map_err(|error| StoreError::Unavailable(format!("{}: {error}", self.path.display())))?;
        Ok(format!("{}:{}", file.dev(), file.ino()))
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

/// Fails if there is no file where a URL says.
///
/// # Errors
/// [`StoreError::Unusable`] with a sentence for the operator.
pub fn must_exist(url: &str) -> Result<(), StoreError> {
    let options = options_of(url)?;
    let path = options.get_filename();
    if path.exists() {
        return Ok(());
    }
    Err(StoreError::Unusable(format!("there is no database {}; see `database_url`", path.display())))
}

/// Fails unless there is a store in the file.
async fn expect_store(connect: &SqliteConnectOptions) -> Result<(), StoreError> {
    let path = connect.get_filename();
    let found = async {
        let mut connection = connect.clone().create_if_missing(false).disable_statement_logging().connect().await?;
        let found = query_scalar!("SELECT name FROM sqlite_schema WHERE type = 'table' AND name = 'epochs'");
        let found = found.fetch_optional(&mut connection).await?;
        connection.close().await?;
        Ok::<_, sqlx::Error>(found.is_some())
    };
    let nothing = |reason: String| {
        StoreError::Unusable(format!("there is no store in {}{reason}; see `database_url`", path.display()))
    };
    match found.await {
        Ok(true) => Ok(()),
        Ok(false) => Err(nothing(String::new())),
        Err(error) => Err(nothing(format!(": {error}"))),
    }
}

/// How to connect to the file that a URL names.
fn options_of(url: &str) -> Result<SqliteConnectOptions, StoreError> {
    let unusable = |reason: String| StoreError::Unusable(format!("`database_url` is not a SQLite URL{reason}"));
    let options = SqliteConnectOptions::from_str(url).map_err(|error| match url.contains('?') {
        // It may quote the value of a parameter, which may be meant as a password.
        true => unusable(", or has a parameter that does not fit".to_owned()),
        false => unusable(format!(": {error}")),
    })?;
    let path = options.get_filename();
    let in_memory = ["mode=memory", ":memory:"].iter().any(|memory| url.contains(memory));
    if in_memory || path.as_os_str().is_empty() || path.to_string_lossy().starts_with("file:") {
        return Err(StoreError::Unusable("`database_url` must name a file: sqlite://FILE".to_owned()));
    }
    Ok(options)
}

/// Makes the file, if it is not there, readable by nobody else: it holds what users say.
/// Gives its real path, whatever links lead to it.
fn create_private(path: &Path) -> Result<PathBuf, StoreError> {
    use std::os::unix::fs::OpenOptionsExt;
    let made = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
    made.and_then(|_| path.canonicalize()).map_err(|error| {
        StoreError::Unusable(format!("{} cannot be written: {error}; see `database_url`", path.display()))
    })
}

/// Becomes the one owner of the file for as long as the lock lives, unless another server is.
fn own(path: &Path) -> Result<Option<File>, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push("-owner");
    let name = PathBuf::from(name);
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&name).map_err(|error| {
        StoreError::Unusable(format!("{} cannot be written: {error}; see `database_url`", name.display()))
    })?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(error)) => {
            Err(StoreError::Unusable(format!("{} cannot be locked: {error}", name.display())))
        }
    }
}

/// What `meta.clean` says besides 1, a good end: in use, or in use without full sync, so that a
/// power cut may take commits back.
const IN_USE: i64 = 0;
const IN_USE_UNSAFE: i64 = 2;

/// Reads where the log stands, and notes that it is in use. A new numbering begins with a new
/// store, and where a power cut may have taken commits whose cursors were given out.
async fn take_over(writer: &mut SqliteConnection, synchronous: Synchronous, shown: Position) -> sqlx::Result<Start> {
    let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await?;
    have_meta(&mut transaction).await?;
    let meta = query!("SELECT head, clean FROM meta WHERE id = 1").fetch_one(&mut *transaction).await?;
    let latest = query_scalar!("SELECT committed FROM log ORDER BY position DESC LIMIT 1")
        .fetch_optional(&mut *transaction)
        .await?;
    let newest =
        query_scalar!("SELECT id FROM epochs ORDER BY number DESC LIMIT 1").fetch_optional(&mut *transaction).await?;
    let doubtful = meta.clean == IN_USE_UNSAFE || (meta.head as u64) < shown.0;
    let epoch = match newest {
        Some(id) if !doubtful => id,
        _ => add_epoch(&mut transaction, meta.head).await?,
    };
    let in_use = match synchronous {
        Synchronous::Full => IN_USE,
        Synchronous::Normal => IN_USE_UNSAFE,
    };
    query!("UPDATE meta SET clean = ?1 WHERE id = 1", in_use).execute(&mut *transaction).await?;
    transaction.commit().await?;
    let epochs = query!("SELECT id, after FROM epochs ORDER BY number").fetch_all(&mut *writer).await?;
    let epochs = epochs.into_iter().map(|row| Ok((epoch_of(&row.id)?, Position(row.after as u64))));
    let numbering = Numbering::new(epochs.collect::<sqlx::Result<_>>()?);
    let (head, latest) = (Position(meta.head as u64), from_micros(latest.unwrap_or_default()));
    Ok(Start { epoch: epoch_of(&epoch)?, head, latest, numbering })
}

async fn have_meta(connection: &mut SqliteConnection) -> sqlx::Result<()> {
    query!("INSERT INTO meta (id, head, last_batch, clean) VALUES (1, 0, x'', 1) ON CONFLICT DO NOTHING")
        .execute(connection)
        .await?;
    Ok(())
}

async fn add_epoch(connection: &mut SqliteConnection, head: i64) -> sqlx::Result<String> {
    let id = Uuid::new_v4().simple().to_string()[..8].to_owned();
    query!("INSERT INTO epochs (id, after) VALUES (?1, ?2)", id, head).execute(connection).await?;
    Ok(id)
}

async fn number_anew(writer: &mut SqliteConnection) -> sqlx::Result<(Epoch, Position)> {
    let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await?;
    have_meta(&mut transaction).await?;
    // Whatever end the last server had: nothing that was numbered since is trusted any more.
    let head =
        query_scalar!("UPDATE meta SET clean = 1 WHERE id = 1 RETURNING head").fetch_one(&mut *transaction).await?;
    let id = add_epoch(&mut transaction, head).await?;
    transaction.commit().await?;
    Ok((epoch_of(&id)?, Position(head as u64)))
}

impl SqliteStore {
    async fn read_channels(
        &self,
        names: &HashSet<ChannelName>,
        with_history: bool,
    ) -> Result<HashMap<ChannelName, Channel>, StoreError> {
        if names.is_empty() {
            return Ok(HashMap::new());
        }
        let names = list(names.iter().map(ChannelName::as_str));
        read_channels(&self.readers, &names, with_history).await.map_err(classify)
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut held = self.writer.lock().await;
        let Some(mut writer) = held.take() else {
            return Err(StoreError::Unavailable("the last commit is not settled".to_owned()));
        };
        match write(&mut writer, batch).await.map_err(classify) {
            Ok(()) => {
                *held = Some(writer);
                Ok(())
            }
            // Refused statements leave the connection as good as before: the transaction is undone.
            Err(refused @ StoreError::Refused(_)) => {
                *held = Some(writer);
                Err(refused)
            }
            Err(error) => Err(error),
        }
    }

    async fn settle(&self, batch: Uuid) -> Result<bool, StoreError> {
        let mut held = self.writer.lock().await;
        if held.is_none() {
            *held = Some(self.writing.connect().await.map_err(classify)?);
        }
        let Some(writer) = held.as_mut() else { return Ok(false) };
        // A commit that was given up may still be on its way: its lock is waited for.
        let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await.map_err(classify)?;
        let last = query_scalar!("SELECT last_batch FROM meta WHERE id = 1").fetch_one(&mut *transaction).await;
        transaction.rollback().await.map_err(classify)?;
        Ok(last.map_err(classify)? == batch.as_bytes())
    }

    async fn check(&self) -> Result<(), StoreError> {
        query_scalar!("SELECT head FROM meta WHERE id = 1").fetch_one(&self.readers).await.map_err(classify)?;
        Ok(())
    }

    async fn channels(&self, names: &HashSet<ChannelName>) -> Result<HashMap<ChannelName, Channel>, StoreError> {
        self.read_channels(names, true).await
    }

    async fn bare_channels(&self, names: &HashSet<ChannelName>) -> Result<HashMap<ChannelName, Channel>, StoreError> {
        self.read_channels(names, false).await
    }

    async fn users(&self, names: &HashSet<Username>) -> Result<HashMap<Username, User>, StoreError> {
        if names.is_empty() {
            return Ok(HashMap::new());
        }
        let names = list(names.iter().map(Username::as_str));
        read_users(&self.readers, &names).await.map_err(classify)
    }

    async fn held(&self, uuids: &HashSet<Uuid>) -> Result<HeldByUuid, StoreError> {
        if uuids.is_empty() {
            return Ok(HeldByUuid::new());
        }
        let uuids = list(uuids.iter().map(|uuid| uuid.simple().to_string()));
        read_held(&self.readers, &uuids).await.map_err(classify)
    }

    async fn positions_at(
        &self,
        times: &HashSet<NaiveDateTime>,
    ) -> Result<HashMap<NaiveDateTime, Position>, StoreError> {
        if times.is_empty() {
            return Ok(HashMap::new());
        }
        read_positions(&self.readers, times).await.map_err(classify)
    }

    async fn replay(&self, asked: &ReplayQuery<'_>) -> Result<ReplayPage, StoreError> {
        read_replay(&self.readers, asked).await.map_err(classify)
    }

    async fn holding(&self, user: &Username, doubts: &[Doubt]) -> Result<Vec<Doubt>, StoreError> {
        if doubts.is_empty() {
            return Ok(Vec::new());
        }
        read_holding(&self.readers, user.as_str(), doubts).await.map_err(classify)
    }

    async fn tails(&self, places: &[(Place, Position)], limit: u32, bytes: u32) -> Result<Vec<TailPart>, StoreError> {
        if places.is_empty() {
            return Ok(Vec::new());
        }
        read_tails(&self.readers, places, limit, bytes).await.map_err(classify)
    }

    async fn history(&self, asked: &HistoryQuery<'_>) -> Result<Option<HistoryPage>, StoreError> {
        read_history(&self.readers, asked).await.map_err(classify)
    }

    async fn channel_names(&self, after: i64, limit: u32) -> Result<Vec<(i64, ChannelName)>, StoreError> {
        let rows = query!(
            r#"SELECT id AS "id!", name FROM channels WHERE deleted IS NULL AND id > ?1 ORDER BY id LIMIT ?2"#,
            after,
            limit
        )
        .fetch_all(&self.readers)
        .await
        .map_err(classify)?;
        rows.iter().map(|row| Ok((row.id, channel_name(&row.name).map_err(classify)?))).collect()
    }

    async fn connections(&self) -> Result<Vec<StoredConnection>, StoreError> {
        read_connections(&self.readers).await.map_err(classify)
    }

    async fn note_seen(&self, seen: &[(ConnectionId, Position)]) -> Result<(), StoreError> {
        let seen = list(seen.iter().map(|(id, position)| (id.0.simple().to_string(), position.0)));
        let mut held = self.writer.lock().await;
        let Some(writer) = held.as_mut() else {
            return Err(StoreError::Unavailable("the last commit is not settled".to_owned()));
        };
        query!(
            "UPDATE connections SET head = value ->> 1 FROM json_each(?1) WHERE connections.id = unhex(value ->> 0)",
            seen
        )
        .execute(writer)
        .await
        .map_err(classify)?;
        Ok(())
    }

    async fn expired_channels(&self, at: NaiveDateTime, limit: u32) -> Result<Vec<ChannelName>, StoreError> {
        let at = at.and_utc().timestamp_micros();
        let names = query_scalar!(
            "SELECT name FROM channels
             WHERE history_ttl IS NOT NULL AND deleted IS NULL
               AND (SELECT committed FROM log WHERE channel = channels.id ORDER BY position LIMIT 1)
                   <= ?1 - history_ttl * 1000000
             LIMIT ?2",
            at,
            limit
        )
        .fetch_all(&self.readers)
        .await
        .map_err(classify)?;
        names.iter().map(|name| channel_name(name).map_err(classify)).collect()
    }

    async fn idle_users(&self, since: NaiveDateTime, limit: u32) -> Result<Vec<Username>, StoreError> {
        let since = since.and_utc().timestamp_micros();
        let names = query_scalar!(
            "SELECT name FROM users
             WHERE last_active <= ?1 AND NOT EXISTS (SELECT 1 FROM connections WHERE connections.user = users.id)
             ORDER BY last_active LIMIT ?2",
            since,
            limit
        )
        .fetch_all(&self.readers)
        .await
        .map_err(classify)?;
        names.iter().map(|name| username(name).map_err(classify)).collect()
    }

    async fn size(&self) -> Result<u64, StoreError> {
        let file = self.writing.get_filename();
        let mut log = file.as_os_str().to_owned();
        log.push("-wal");
        let bytes = async |path: &Path| tokio::fs::metadata(path).await.map(|metadata| metadata.len());
        let database = bytes(file).await.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        // There is none before the first write.
        Ok(database + bytes(Path::new(&log)).await.unwrap_or(0))
    }

    async fn totals(&self) -> Result<StoreTotals, StoreError> {
        let row = query!(
            r#"SELECT (SELECT count(*) FROM channels WHERE deleted IS NULL) AS "channels!: i64",
                   (SELECT count(*) FROM users) AS "users!: i64""#
        )
        .fetch_one(&self.readers)
        .await
        .map_err(classify)?;
        Ok(StoreTotals { channels: row.channels as u64, users: row.users as u64 })
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.readers.close().await;
        let Some(mut writer) = self.writer.lock().await.take() else { return Ok(()) };
        query!("UPDATE meta SET clean = 1 WHERE id = 1").execute(&mut writer).await.map_err(classify)?;
        writer.close().await.map_err(classify)?;
        self.lock.unlock().map_err(|error| StoreError::Unavailable(error.to_string()))
    }
}
