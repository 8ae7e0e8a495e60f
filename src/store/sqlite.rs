//! The store in a SQLite file: one writer connection, a few readers, one bulk statement per kind
//! of write. The server holds a lock on a file beside it for as long as it runs.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use chrono::NaiveDateTime;
use hashbrown::{HashMap, HashSet};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, query, query_scalar};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::contract::{
    Batch, ReplayPage, ReplayQuery, Start, Store, StoreError, StoreTotals, StoredConnection, Synchronous,
};
use super::migrate;
use super::rows::{Content, Rows};
use crate::domain::channel::{Channel, Logged, Retained};
use crate::domain::draft::{Held, HeldByUuid};
use crate::domain::frame::Frame;
use crate::domain::message::{Audience, Deletion, Edit, Message};
use crate::domain::names::{ChannelName, ConnectionId, Username};
use crate::domain::position::{Epoch, Numbering, Position};
use crate::domain::replay::Doubt;
use crate::domain::settings::ChannelSettings;
use crate::domain::state::Profile;
use crate::domain::timestamp::{Timestamp, from_micros};
use crate::domain::user::{Floor, User};
use crate::json;

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

/// See the module.
pub struct SqliteStore {
    options: SqliteConnectOptions,
    /// None after a commit failed: whoever settles it opens a new one.
    writer: Mutex<Option<SqliteConnection>>,
    readers: SqlitePool,
    _lock: File,
}

impl SqliteStore {
    /// Opens or creates the file that a URL like `sqlite://channelstream.db` names.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] with a sentence for the operator.
    pub async fn open(url: &str, synchronous: Synchronous) -> Result<(Self, Start), StoreError> {
        let options = SqliteConnectOptions::from_str(url)
            .map_err(|error| StoreError::Unusable(format!("`database_url` is not a SQLite URL: {error}")))?;
        let path = options.get_filename();
        let in_memory = ["mode=memory", ":memory:"].iter().any(|memory| url.contains(memory));
        if in_memory || path.as_os_str().is_empty() || path.to_string_lossy().starts_with("file:") {
            return Err(StoreError::Unusable("`database_url` must name a file: sqlite://FILE".to_owned()));
        }
        let path = create_private(path)?;
        let lock = own(&path)?;
        let options = options
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(false)
            .busy_timeout(BUSY)
            .statement_cache_capacity(PREPARED)
            .disable_statement_logging();
        let unusable = |error: sqlx::Error| {
            StoreError::Unusable(format!("the database {} cannot be opened: {error}", path.display()))
        };
        let mut writer = options.connect().await.map_err(unusable)?;
        migrate::sqlite(&mut writer, migrations::migrations::runner()).await?;
        // That the file is in use must be on the disk before anything else is.
        let start = take_over(&mut writer, synchronous).await.map_err(unusable)?;
        let options = match synchronous {
            Synchronous::Full => options,
            Synchronous::Normal => options.synchronous(SqliteSynchronous::Normal),
        };
        writer.close().await.map_err(unusable)?;
        let writer = options.connect().await.map_err(unusable)?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(BUSY)
            .connect_with(options.clone().create_if_missing(false).pragma("query_only", "1"))
            .await
            .map_err(unusable)?;
        Ok((Self { options, writer: Mutex::new(Some(writer)), readers, _lock: lock }, start))
    }
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

/// Becomes the one owner of the file for as long as the lock lives.
fn own(path: &Path) -> Result<File, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push("-owner");
    let name = PathBuf::from(name);
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&name).map_err(|error| {
        StoreError::Unusable(format!("{} cannot be written: {error}; see `database_url`", name.display()))
    })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::Unusable(format!(
            "another server is using the database {}: stop it, or give this one a `database_url` of its own",
            path.display()
        ))),
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
async fn take_over(writer: &mut SqliteConnection, synchronous: Synchronous) -> sqlx::Result<Start> {
    let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await?;
    query!("INSERT INTO meta (id, head, last_batch, clean) VALUES (1, 0, x'', 1) ON CONFLICT DO NOTHING")
        .execute(&mut *transaction)
        .await?;
    let meta = query!("SELECT head, clean FROM meta WHERE id = 1").fetch_one(&mut *transaction).await?;
    let latest = query_scalar!("SELECT committed FROM log ORDER BY position DESC LIMIT 1")
        .fetch_optional(&mut *transaction)
        .await?;
    let newest =
        query_scalar!("SELECT id FROM epochs ORDER BY number DESC LIMIT 1").fetch_optional(&mut *transaction).await?;
    let doubtful = meta.clean == IN_USE_UNSAFE;
    let epoch = match newest {
        Some(id) if !doubtful => id,
        _ => {
            let id = Uuid::new_v4().simple().to_string()[..8].to_owned();
            query!("INSERT INTO epochs (id, after) VALUES (?1, ?2)", id, meta.head).execute(&mut *transaction).await?;
            id
        }
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

/// Whether the engine refused the data, so that trying again is useless.
fn classify(error: sqlx::Error) -> StoreError {
    const CONSTRAINT: &str = "19";
    const TOO_BIG: &str = "18";
    const MISMATCH: &str = "20";
    let refused = match &error {
        // Only the head's row is asked for in a way that fails if it is not there.
        sqlx::Error::RowNotFound => return StoreError::NotOurs,
        sqlx::Error::Database(database) => database.code().is_some_and(|code| {
            let primary = code.parse::<u32>().map_or(code.to_string(), |code| (code & 0xff).to_string());
            [CONSTRAINT, TOO_BIG, MISMATCH].contains(&primary.as_str())
        }),
        sqlx::Error::Encode(_) => true,
        _ => false,
    };
    if refused { StoreError::Refused(error.to_string()) } else { StoreError::Unavailable(error.to_string()) }
}

fn corrupt(what: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("the store holds an unreadable {what}").into())
}

/// A JSON list of rows for `json_each`.
fn list<T: Serialize>(rows: impl IntoIterator<Item = T>) -> String {
    json::to_text(&rows.into_iter().collect::<Vec<T>>())
}

/// A content as columns in the order of the statements below.
type Columns<'a> = (Option<u64>, &'a str, &'a str, Option<&'a str>, Option<&'a str>, Option<&'a str>);

fn columns<'a>(content: &'a Content<'a>) -> Columns<'a> {
    (
        content.edit.map(|edit| edit.0),
        content.sender,
        &content.timestamp,
        content.edited.as_deref(),
        content.audience.as_deref(),
        content.body,
    )
}

async fn write(writer: &mut SqliteConnection, batch: &Batch) -> sqlx::Result<()> {
    let rows = Rows::of(batch);
    let at = batch.at.and_utc().timestamp_micros();
    let (before, head) = (batch.before.0 as i64, batch.head.0 as i64);
    let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await?;
    let connection = &mut *transaction;

    let id = batch.id.as_bytes().as_slice();
    let moved = query!("UPDATE meta SET head = ?1, last_batch = ?2 WHERE id = 1 AND head = ?3", head, id, before)
        .execute(&mut *connection)
        .await?;
    if moved.rows_affected() != 1 {
        return Err(sqlx::Error::RowNotFound);
    }

    if !rows.channels.is_empty() {
        let channels = list(rows.channels.iter().map(|(name, uuid, settings)| {
            (
                name.as_str(),
                uuid.simple().to_string(),
                settings.notify_presence as u8,
                settings.store_history as u8,
                settings.history_size,
                settings.broadcast_presence_with_user_lists as u8,
                settings.notify_state as u8,
                settings.store_frames as u8,
                settings.replay_size,
                settings.history_ttl,
            )
        }));
        query!(
            "INSERT INTO channels (name, uuid, notify_presence, store_history, history_size,
                 broadcast_presence_with_user_lists, notify_state, store_frames, replay_size, history_ttl, last_active)
             SELECT value ->> 0, unhex(value ->> 1), value ->> 2, value ->> 3, value ->> 4,
                 value ->> 5, value ->> 6, value ->> 7, value ->> 8, value ->> 9, ?2
             FROM json_each(?1) WHERE true
             ON CONFLICT (name) DO UPDATE SET
                 uuid = excluded.uuid,
                 notify_presence = excluded.notify_presence,
                 store_history = excluded.store_history,
                 history_size = excluded.history_size,
                 broadcast_presence_with_user_lists = excluded.broadcast_presence_with_user_lists,
                 notify_state = excluded.notify_state,
                 store_frames = excluded.store_frames,
                 replay_size = excluded.replay_size,
                 history_ttl = excluded.history_ttl,
                 last_active = excluded.last_active,
                 deleted = NULL",
            channels,
            at
        )
        .execute(&mut *connection)
        .await?;
    }
    if !rows.users.is_empty() {
        let users = list(rows.users.iter().map(|(name, uuid, profile)| {
            let state = json::to_text(&json::Json(profile.state()));
            (name.as_str(), uuid.simple().to_string(), state, json::public_keys_text(profile.public_keys()))
        }));
        query!(
            "INSERT INTO users (name, uuid, state, public_keys, created, last_active)
             SELECT value ->> 0, unhex(value ->> 1), value ->> 2, value ->> 3, ?2, ?3
             FROM json_each(?1) WHERE true
             ON CONFLICT (name) DO UPDATE SET
                 state = excluded.state, public_keys = excluded.public_keys, last_active = excluded.last_active",
            users,
            before,
            at
        )
        .execute(&mut *connection)
        .await?;
    }
    write_connections(connection, &rows, before, at).await?;
    write_log(connection, &rows, at).await?;
    if !rows.trimmed_channels.is_empty() {
        let trims = rows.trimmed_channels.iter().map(|(name, keep)| (name.as_str(), keep.messages, keep.deletions));
        trim_channels(connection, &list(trims)).await?;
    }
    if !rows.expired_channels.is_empty() {
        let expired = rows.expired_channels.iter().map(|(name, through)| (name.as_str(), through));
        expire_channels(connection, &list(expired)).await?;
    }
    if !rows.trimmed_inboxes.is_empty() {
        let trims = rows.trimmed_inboxes.iter().map(|(name, keep)| (name.as_str(), keep.messages, keep.deletions));
        trim_inboxes(connection, &list(trims)).await?;
    }
    if !rows.forgotten.is_empty() {
        forget_users(connection, &list(rows.forgotten.iter().map(|name| name.as_str()))).await?;
    }
    if let Some(left_before) = rows.floors_expired {
        let left_before = left_before.and_utc().timestamp_micros();
        query!(r#"DELETE FROM memberships WHERE "left" <= ?1"#, left_before).execute(&mut *connection).await?;
    }
    transaction.commit().await
}

async fn write_connections(connection: &mut SqliteConnection, rows: &Rows<'_>, head: i64, at: i64) -> sqlx::Result<()> {
    let id = |id: &ConnectionId| id.0.simple().to_string();
    let pair = |(connection, channel): &(ConnectionId, &ChannelName)| (id(connection), channel.as_str().to_owned());
    let ended = list(rows.ended.iter().map(id));
    if !rows.opened.is_empty() {
        let opened = list(rows.opened.iter().map(|(connection, user)| (id(connection), user.as_str())));
        query!(
            "INSERT INTO connections (id, user, opened, head)
             SELECT unhex(value ->> 0), users.id, ?2, ?3
             FROM json_each(?1) JOIN users ON users.name = value ->> 1 WHERE true
             ON CONFLICT (id) DO UPDATE SET opened = excluded.opened, head = excluded.head",
            opened,
            at,
            head
        )
        .execute(&mut *connection)
        .await?;
    }
    if !rows.opened.is_empty() || !rows.ended.is_empty() {
        let opened = list(rows.opened.iter().map(|(_, user)| user.as_str()));
        query!(
            "UPDATE users SET last_active = ?1
             WHERE name IN (SELECT value FROM json_each(?2))
                OR id IN (SELECT user FROM connections WHERE id IN (SELECT unhex(value) FROM json_each(?3)))",
            at,
            opened,
            ended
        )
        .execute(&mut *connection)
        .await?;
    }
    if !rows.subscribed.is_empty() || !rows.unsubscribed.is_empty() || !rows.ended.is_empty() {
        let subscribed = rows.subscribed.iter().map(|(_, channel, _)| channel.as_str());
        let channels = list(subscribed.chain(rows.unsubscribed.iter().map(|(_, channel)| channel.as_str())));
        query!(
            "UPDATE channels SET last_active = ?1
             WHERE name IN (SELECT value FROM json_each(?2))
                OR id IN (SELECT channel FROM subscriptions
                          WHERE connection IN (SELECT unhex(value) FROM json_each(?3)))",
            at,
            channels,
            ended
        )
        .execute(&mut *connection)
        .await?;
    }
    if !rows.floors_ended.is_empty() {
        let ended = list(rows.floors_ended.iter().map(|(user, channel)| (user.as_str(), channel.as_str())));
        query!(
            "DELETE FROM memberships WHERE (user, channel) IN
                 (SELECT users.id, channels.id FROM json_each(?1)
                  JOIN users ON users.name = value ->> 0 JOIN channels ON channels.name = value ->> 1)",
            ended
        )
        .execute(&mut *connection)
        .await?;
    }
    if !rows.subscribed.is_empty() {
        let subscribed =
            list(rows.subscribed.iter().map(|(connection, channel, head)| (id(connection), channel.as_str(), head.0)));
        query!(
            "INSERT INTO subscriptions (connection, channel)
             SELECT unhex(value ->> 0), channels.id
             FROM json_each(?1) JOIN channels ON channels.name = value ->> 1",
            subscribed
        )
        .execute(&mut *connection)
        .await?;
        query!(
            r#"INSERT INTO memberships (user, channel, floor, "left")
               SELECT connections.user, channels.id, value ->> 2, NULL
               FROM json_each(?1) JOIN channels ON channels.name = value ->> 1
               JOIN connections ON connections.id = unhex(value ->> 0) WHERE true
               ON CONFLICT (user, channel) DO UPDATE SET "left" = NULL"#,
            subscribed
        )
        .execute(&mut *connection)
        .await?;
    }
    if !rows.floors_set.is_empty() {
        let set = rows.floors_set.iter().map(|(user, channel, floor)| (user.as_str(), channel.as_str(), floor.0));
        let set = list(set);
        query!(
            r#"INSERT INTO memberships (user, channel, floor, "left")
               SELECT users.id, channels.id, value ->> 2, NULL
               FROM json_each(?1) JOIN users ON users.name = value ->> 0 JOIN channels ON channels.name = value ->> 1
               WHERE true
               ON CONFLICT (user, channel) DO UPDATE SET floor = excluded.floor"#,
            set
        )
        .execute(&mut *connection)
        .await?;
    }
    if !rows.unsubscribed.is_empty() {
        let unsubscribed = list(rows.unsubscribed.iter().map(pair));
        query!(
            "DELETE FROM subscriptions WHERE (connection, channel) IN
                 (SELECT unhex(value ->> 0), channels.id
                  FROM json_each(?1) JOIN channels ON channels.name = value ->> 1)",
            unsubscribed
        )
        .execute(&mut *connection)
        .await?;
        query!(
            "DELETE FROM memberships
             WHERE (user, channel) IN
                 (SELECT connections.user, channels.id FROM json_each(?1)
                  JOIN channels ON channels.name = value ->> 1 JOIN connections ON connections.id = unhex(value ->> 0))
               AND NOT EXISTS
                 (SELECT 1 FROM connections JOIN subscriptions ON subscriptions.connection = connections.id
                  WHERE connections.user = memberships.user AND subscriptions.channel = memberships.channel)",
            unsubscribed
        )
        .execute(&mut *connection)
        .await?;
    }
    if !rows.ended.is_empty() {
        query!(
            r#"UPDATE memberships SET "left" = ?1
               WHERE "left" IS NULL
                 AND user IN (SELECT user FROM connections WHERE id IN (SELECT unhex(value) FROM json_each(?2)))
                 AND NOT EXISTS
                   (SELECT 1 FROM connections JOIN subscriptions ON subscriptions.connection = connections.id
                    WHERE connections.user = memberships.user AND subscriptions.channel = memberships.channel
                      AND connections.id NOT IN (SELECT unhex(value) FROM json_each(?2)))"#,
            at,
            ended
        )
        .execute(&mut *connection)
        .await?;
        query!("DELETE FROM subscriptions WHERE connection IN (SELECT unhex(value) FROM json_each(?1))", ended)
            .execute(&mut *connection)
            .await?;
        query!("DELETE FROM connections WHERE id IN (SELECT unhex(value) FROM json_each(?1))", ended)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

async fn write_log(connection: &mut SqliteConnection, rows: &Rows<'_>, at: i64) -> sqlx::Result<()> {
    if !rows.changed.is_empty() {
        let changed = list(rows.changed.iter().map(|(position, content)| (position.0, columns(content))));
        query!(
            "UPDATE log SET edit = value ->> '$[1][0]', sender = value ->> '$[1][1]', timestamp = value ->> '$[1][2]',
                 edited = value ->> '$[1][3]', audience = value ->> '$[1][4]', body = value ->> '$[1][5]'
             FROM json_each(?1) WHERE log.position = value ->> 0",
            changed
        )
        .execute(&mut *connection)
        .await?;
    }
    if !rows.entries.is_empty() {
        let entries = list(rows.entries.iter().map(|entry| {
            (
                entry.position.0,
                entry.channel.map(ChannelName::as_str),
                entry.kind as u8,
                entry.uuid.simple().to_string(),
                entry.about.map(|about| about.0),
                entry.content.as_ref().map(columns),
                entry.audience.as_deref(),
            )
        }));
        query!(
            "INSERT INTO log (position, channel, kind, uuid, about, edit, sender, timestamp, edited, audience, body, committed)
             SELECT value ->> 0, channels.id, value ->> 2, unhex(value ->> 3), value ->> 4,
                 value ->> '$[5][0]', value ->> '$[5][1]', value ->> '$[5][2]', value ->> '$[5][3]',
                 coalesce(value ->> '$[5][4]', value ->> 6), value ->> '$[5][5]', ?2
             FROM json_each(?1) LEFT JOIN channels ON channels.name = value ->> 1",
            entries,
            at
        )
        .execute(&mut *connection)
        .await?;
    }
    if !rows.inbox.is_empty() {
        let inbox = list(rows.inbox.iter().map(|(user, position)| (user.as_str(), position.0)));
        query!(
            "INSERT INTO inbox (user, position)
             SELECT users.id, value ->> 1 FROM json_each(?1) JOIN users ON users.name = value ->> 0",
            inbox
        )
        .execute(&mut *connection)
        .await?;
    }
    if !rows.inbox_copies.is_empty() {
        let copies = list(rows.inbox_copies.iter().map(|(from, to)| (from.0, to.0)));
        query!(
            "INSERT INTO inbox (user, position)
             SELECT inbox.user, value ->> 1 FROM json_each(?1) JOIN inbox ON inbox.position = value ->> 0",
            copies
        )
        .execute(&mut *connection)
        .await?;
    }
    if !rows.gone.is_empty() {
        let gone = list(rows.gone.iter().map(|position| position.0));
        query!("DELETE FROM inbox WHERE position IN (SELECT value FROM json_each(?1))", gone)
            .execute(&mut *connection)
            .await?;
        query!("DELETE FROM log WHERE position IN (SELECT value FROM json_each(?1))", gone)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Drops what is older than the newest entries of each channel, and notes how far that goes.
async fn trim_channels(connection: &mut SqliteConnection, trims: &str) -> sqlx::Result<()> {
    let channels = query!(
        r#"SELECT channels.id AS "id!: i64", value ->> 1 AS "messages!: i64", value ->> 2 AS "deletions!: i64"
           FROM json_each(?1) JOIN channels ON channels.name = value ->> 0"#,
        trims
    )
    .fetch_all(&mut *connection)
    .await?;
    for keep in channels {
        let channel = query!(
            r#"SELECT ?1 AS "id!: i64",
                   coalesce((SELECT position FROM log WHERE channel = ?1 AND kind = 0
                             ORDER BY position DESC LIMIT 1 OFFSET ?2), 0) AS "messages!: i64",
                   coalesce((SELECT position FROM log WHERE channel = ?1 AND kind = 2
                             ORDER BY position DESC LIMIT 1 OFFSET ?3), 0) AS "deletions!: i64""#,
            keep.id,
            keep.messages,
            keep.deletions
        )
        .fetch_one(&mut *connection)
        .await?;
        drop_entries(connection, channel.id, channel.messages, channel.deletions).await?;
    }
    Ok(())
}

/// Takes all entries up to a position from a channel, with their edits, and deletions up to
/// another; notes how far that goes.
async fn drop_entries(connection: &mut SqliteConnection, channel: i64, all: i64, deletions: i64) -> sqlx::Result<()> {
    query!(
        "UPDATE channels SET
             last_active = max(last_active, coalesce(
                 (SELECT committed FROM log WHERE channel = ?1 ORDER BY position DESC LIMIT 1), 0)),
             trimmed = max(trimmed,
             coalesce((SELECT max(max(position, coalesce(edit, 0))) FROM log WHERE channel = ?1 AND position <= ?2), 0),
             coalesce((SELECT max(position) FROM log WHERE channel = ?1 AND kind = 2 AND position <= ?3), 0))
         WHERE id = ?1",
        channel,
        all,
        deletions
    )
    .execute(&mut *connection)
    .await?;
    query!(
        "DELETE FROM log WHERE channel = ?1 AND (position <= ?2 OR kind = 2 AND position <= ?3 OR
             position IN (SELECT edit FROM log WHERE channel = ?1 AND position <= ?2))",
        channel,
        all,
        deletions
    )
    .execute(&mut *connection)
    .await?;
    Ok(())
}

/// Most entries of one channel that expire in one go.
const EXPIRE_STEP: i64 = 2_000;

/// Drops what was committed up to a time, the oldest first.
async fn expire_channels(connection: &mut SqliteConnection, expired: &str) -> sqlx::Result<()> {
    let channels = query!(
        r#"SELECT channels.id AS "id!: i64", value ->> 1 AS "through!: i64"
           FROM json_each(?1) JOIN channels ON channels.name = value ->> 0"#,
        expired
    )
    .fetch_all(&mut *connection)
    .await?;
    for channel in channels {
        let through = query_scalar!(
            r#"SELECT max(position) AS "position?: i64"
               FROM (SELECT position, committed FROM log WHERE channel = ?1 ORDER BY position LIMIT ?3)
               WHERE committed <= ?2"#,
            channel.id,
            channel.through,
            EXPIRE_STEP
        )
        .fetch_one(&mut *connection)
        .await?;
        if let Some(through) = through {
            drop_entries(connection, channel.id, through, through).await?;
        }
    }
    Ok(())
}

/// Drops what is older than the newest private entries of each user.
async fn trim_inboxes(connection: &mut SqliteConnection, trims: &str) -> sqlx::Result<()> {
    let users = query!(
        r#"SELECT users.id AS "id!: i64", value ->> 1 AS "messages!: i64", value ->> 2 AS "deletions!: i64"
           FROM json_each(?1) JOIN users ON users.name = value ->> 0"#,
        trims
    )
    .fetch_all(&mut *connection)
    .await?;
    for keep in users {
        let user = query!(
            r#"SELECT ?1 AS "id!: i64",
                   coalesce((SELECT inbox.position FROM inbox JOIN log ON log.position = inbox.position
                             WHERE inbox.user = ?1 AND log.kind = 0
                             ORDER BY inbox.position DESC LIMIT 1 OFFSET ?2), 0) AS "messages!: i64",
                   coalesce((SELECT inbox.position FROM inbox JOIN log ON log.position = inbox.position
                             WHERE inbox.user = ?1 AND log.kind = 2
                             ORDER BY inbox.position DESC LIMIT 1 OFFSET ?3), 0) AS "deletions!: i64""#,
            keep.id,
            keep.messages,
            keep.deletions
        )
        .fetch_one(&mut *connection)
        .await?;
        drop_inbox(connection, user.id, user.messages, user.deletions).await?;
    }
    Ok(())
}

/// Takes all entries up to a position from an inbox, and deletions up to another; notes how far
/// that goes; and drops from the log what no inbox holds any more.
async fn drop_inbox(connection: &mut SqliteConnection, user: i64, all: i64, deletions: i64) -> sqlx::Result<()> {
    let gone = query!(
        r#"DELETE FROM inbox WHERE user = ?1 AND (position <= ?2 OR position IN
               (SELECT log.edit FROM inbox AS held JOIN log ON log.position = held.position
                WHERE held.user = ?1 AND held.position <= ?2
                UNION ALL
                SELECT log.position FROM inbox AS held JOIN log ON log.position = held.position
                WHERE held.user = ?1 AND held.position <= ?3 AND log.kind = 2))
           RETURNING position AS "position!: i64""#,
        user,
        all,
        deletions
    )
    .fetch_all(&mut *connection)
    .await?;
    let Some(highest) = gone.iter().map(|row| row.position).max() else { return Ok(()) };
    query!("UPDATE users SET trimmed = max(trimmed, ?2) WHERE id = ?1", user, highest)
        .execute(&mut *connection)
        .await?;
    let gone = list(gone.iter().map(|row| row.position));
    query!(
        "DELETE FROM log WHERE position IN (SELECT value FROM json_each(?1))
             AND NOT EXISTS (SELECT 1 FROM inbox WHERE inbox.position = log.position)",
        gone
    )
    .execute(&mut *connection)
    .await?;
    Ok(())
}

async fn forget_users(connection: &mut SqliteConnection, names: &str) -> sqlx::Result<()> {
    let users = query_scalar!("SELECT id FROM users WHERE name IN (SELECT value FROM json_each(?1))", names)
        .fetch_all(&mut *connection)
        .await?;
    for user in users {
        drop_inbox(connection, user, i64::MAX, i64::MAX).await?;
        query!("DELETE FROM memberships WHERE user = ?1", user).execute(&mut *connection).await?;
        query!("DELETE FROM users WHERE id = ?1", user).execute(&mut *connection).await?;
    }
    Ok(())
}

fn settings_of(flags: [i64; 5], history_size: i64, replay_size: i64, history_ttl: Option<i64>) -> ChannelSettings {
    let [notify_presence, store_history, user_lists, notify_state, store_frames] = flags.map(|flag| flag != 0);
    ChannelSettings {
        notify_presence,
        store_history,
        history_size: history_size as u32,
        broadcast_presence_with_user_lists: user_lists,
        notify_state,
        store_frames,
        replay_size: replay_size as u32,
        history_ttl: history_ttl.map(|seconds| seconds as u32),
    }
}

fn epoch_of(text: &str) -> sqlx::Result<Epoch> {
    Epoch::parse(text).map_err(|_| corrupt("epoch"))
}

fn uuid_of(bytes: &[u8]) -> sqlx::Result<Uuid> {
    Uuid::from_slice(bytes).map_err(|_| corrupt("uuid"))
}

fn channel_name(text: &str) -> sqlx::Result<ChannelName> {
    ChannelName::parse(text).map_err(|_| corrupt("channel name"))
}

fn username(text: &str) -> sqlx::Result<Username> {
    Username::parse(text).map_err(|_| corrupt("user name"))
}

/// A log entry of a message as it was read.
struct MessageRow {
    position: i64,
    edit: Option<i64>,
    uuid: Vec<u8>,
    sender: Option<String>,
    timestamp: Option<String>,
    edited: Option<String>,
    audience: Option<String>,
    body: Option<String>,
    committed: i64,
}

impl MessageRow {
    fn logged(self, channel: Option<ChannelName>) -> sqlx::Result<Logged> {
        let time = |text: &str| Timestamp::parse(text).ok_or_else(|| corrupt("timestamp"));
        let body = self.body.map(RawValue::from_string).transpose().map_err(|_| corrupt("body"))?;
        let message = Message {
            uuid: uuid_of(&self.uuid)?,
            channel,
            sender: username(self.sender.as_deref().unwrap_or_default())?,
            body: body.map(Into::into),
            timestamp: time(self.timestamp.as_deref().unwrap_or_default())?,
            edited: self.edited.as_deref().map(time).transpose()?,
            audience: json::audience_from_text(self.audience.as_deref()).ok_or_else(|| corrupt("audience"))?,
            no_history: false,
        };
        Ok(Logged {
            position: Position(self.position as u64),
            edit: self.edit.map(|edit| Position(edit as u64)),
            committed: self.committed,
            message: message.into(),
        })
    }
}

async fn read_channels(readers: &SqlitePool, names: &str) -> sqlx::Result<HashMap<ChannelName, Channel>> {
    let mut transaction = readers.begin().await?;
    let rows = query!(
        r#"SELECT id AS "id!", name, uuid, notify_presence, store_history, history_size, broadcast_presence_with_user_lists,
               notify_state, store_frames, replay_size, history_ttl,
               max(last_active, coalesce(
                   (SELECT committed FROM log WHERE channel = channels.id ORDER BY position DESC LIMIT 1), 0))
                   AS "last_active!: i64",
               (SELECT count(*) FROM log WHERE channel = channels.id AND kind = 0) AS "messages!: i64",
               (SELECT count(*) FROM log WHERE channel = channels.id AND kind = 2) AS "deletions!: i64"
           FROM channels WHERE deleted IS NULL AND name IN (SELECT value FROM json_each(?1))"#,
        names
    )
    .fetch_all(&mut *transaction)
    .await?;
    let mut channels = HashMap::with_capacity(rows.len());
    let mut names_by_id = HashMap::with_capacity(rows.len());
    for row in rows {
        let flags = [
            row.notify_presence,
            row.store_history,
            row.broadcast_presence_with_user_lists,
            row.notify_state,
            row.store_frames,
        ];
        let settings = settings_of(flags, row.history_size, row.replay_size, row.history_ttl);
        let mut channel = Channel::new(uuid_of(&row.uuid)?, settings, from_micros(row.last_active));
        channel.retained = Retained { messages: row.messages as u32, deletions: row.deletions as u32 };
        let name = channel_name(&row.name)?;
        if channel.retained.messages > 0 {
            names_by_id.insert(row.id, name.clone());
        }
        channels.insert(name, channel);
    }
    let with_history = list(names_by_id.keys());
    if !names_by_id.is_empty() {
        let rows = query!(
            r#"SELECT l.channel AS "channel!: i64", l.position AS "position!: i64", l.edit, l.uuid AS "uuid!: Vec<u8>",
                   l.sender, l.timestamp, l.edited, l.audience, l.body, l.committed AS "committed!: i64"
               FROM (SELECT position, channel,
                         row_number() OVER (PARTITION BY channel ORDER BY position DESC) AS age
                     FROM log WHERE kind = 0 AND channel IN (SELECT value FROM json_each(?1))) AS newest
               JOIN channels ON channels.id = newest.channel
               JOIN log AS l ON l.position = newest.position
               WHERE newest.age <= channels.history_size
               ORDER BY l.position"#,
            with_history
        )
        .fetch_all(&mut *transaction)
        .await?;
        for row in rows {
            let Some(name) = names_by_id.get(&row.channel) else { continue };
            let message = MessageRow {
                position: row.position,
                edit: row.edit,
                uuid: row.uuid,
                sender: row.sender,
                timestamp: row.timestamp,
                edited: row.edited,
                audience: row.audience,
                body: row.body,
                committed: row.committed,
            };
            if let Some(channel) = channels.get_mut(name) {
                channel.history.push(message.logged(Some(name.clone()))?);
                channel.cut_history();
            }
        }
    }
    Ok(channels)
}

async fn read_users(readers: &SqlitePool, names: &str) -> sqlx::Result<HashMap<Username, User>> {
    let mut transaction = readers.begin().await?;
    let rows = query!(
        r#"SELECT name, uuid, state, public_keys, created, last_active,
               (SELECT count(*) FROM inbox JOIN log ON log.position = inbox.position
                WHERE inbox.user = users.id AND log.kind = 0) AS "messages!: i64",
               (SELECT count(*) FROM inbox JOIN log ON log.position = inbox.position
                WHERE inbox.user = users.id AND log.kind = 2) AS "deletions!: i64"
           FROM users WHERE name IN (SELECT value FROM json_each(?1))"#,
        names
    )
    .fetch_all(&mut *transaction)
    .await?;
    let mut users = HashMap::with_capacity(rows.len());
    for row in rows {
        let state = json::state_from_text(&row.state).ok_or_else(|| corrupt("state"))?;
        let public_keys =
            json::public_keys_from_text(&row.public_keys).ok_or_else(|| corrupt("list of public keys"))?;
        let profile = Profile::new(state, public_keys);
        let mut user = User::new(uuid_of(&row.uuid)?, profile, from_micros(row.last_active));
        user.retained = Retained { messages: row.messages as u32, deletions: row.deletions as u32 };
        user.created = Position(row.created as u64);
        users.insert(username(&row.name)?, user);
    }
    let rows = query!(
        r#"SELECT users.name AS user, channels.name AS channel, memberships.floor, memberships."left"
           FROM users JOIN memberships ON memberships.user = users.id JOIN channels ON channels.id = memberships.channel
           WHERE users.name IN (SELECT value FROM json_each(?1))"#,
        names
    )
    .fetch_all(&mut *transaction)
    .await?;
    for row in rows {
        if let Some(user) = users.get_mut(&username(&row.user)?) {
            let floor = Floor { position: Position(row.floor as u64), left: row.left.map(from_micros) };
            user.floors.insert(channel_name(&row.channel)?, floor);
        }
    }
    Ok(users)
}

async fn read_held(readers: &SqlitePool, uuids: &str) -> sqlx::Result<HeldByUuid> {
    let rows = query!(
        r#"SELECT l.position, l.kind, l.about, l.edit, l.uuid, l.sender, l.timestamp, l.edited, l.audience, l.body, l.committed,
               channels.name AS "channel?"
           FROM log AS l LEFT JOIN channels ON channels.id = l.channel
           WHERE l.kind IN (0, 2) AND l.uuid IN (SELECT unhex(value) FROM json_each(?1))
           ORDER BY l.position"#,
        uuids
    )
    .fetch_all(readers)
    .await?;
    let mut held = HeldByUuid::with_capacity(rows.len());
    for row in rows {
        let channel = row.channel.as_deref().map(channel_name).transpose()?;
        let key = (uuid_of(&row.uuid)?, channel.clone());
        let entry = if row.kind == 0 {
            let message = MessageRow {
                position: row.position,
                edit: row.edit,
                uuid: row.uuid,
                sender: row.sender,
                timestamp: row.timestamp,
                edited: row.edited,
                audience: row.audience,
                body: row.body,
                committed: row.committed,
            };
            Held::Message(message.logged(channel)?)
        } else {
            let about = row.about.map(|about| Position(about as u64));
            Held::Deletion { position: Position(row.position as u64), about }
        };
        held.insert(key, entry);
    }
    Ok(held)
}

async fn read_replay(readers: &SqlitePool, asked: &ReplayQuery<'_>) -> sqlx::Result<ReplayPage> {
    let mut transaction = readers.begin().await?;
    let scopes = list(asked.channels.iter().map(|(name, from)| (name.as_str(), from.0)));
    let (user, inbox) = (asked.user.as_str(), asked.inbox.0 as i64);
    let (after, through) = (asked.after.0 as i64, asked.through.0 as i64);
    let at = asked.at.and_utc().timestamp_micros();
    let rows = query!(
        r#"WITH found AS (
             SELECT l.position
             FROM json_each(?1) AS scope
             JOIN channels ON channels.name = scope.value ->> 0
             JOIN log AS l ON l.channel = channels.id
             WHERE l.position > max(scope.value ->> 1, ?2) AND l.position <= ?3
               AND NOT (l.kind IN (1, 2) AND coalesce(l.about > scope.value ->> 1, 0))
               AND (channels.history_ttl IS NULL OR l.committed > ?4 - channels.history_ttl * 1000000)
             UNION ALL
             SELECT l.position
             FROM users JOIN inbox ON inbox.user = users.id JOIN log AS l ON l.position = inbox.position
             WHERE users.name = ?5 AND inbox.position > max(?6, ?2) AND inbox.position <= ?3
               AND NOT (l.kind IN (1, 2) AND coalesce(l.about > ?6, 0))
             ORDER BY 1 LIMIT ?7
           )
           SELECT l.position AS "position!: i64", l.kind AS "kind!: i64", l.uuid AS "uuid!: Vec<u8>",
               channels.name AS "channel?", coalesce(m.sender, l.sender) AS "sender?: String",
               coalesce(m.timestamp, l.timestamp) AS "timestamp?: String", coalesce(m.edited, l.edited) AS "edited?: String",
               coalesce(m.audience, l.audience) AS "audience?: String", coalesce(m.body, l.body) AS "body?: String",
               l.committed AS "committed!: i64"
           FROM found JOIN log AS l ON l.position = found.position
           LEFT JOIN log AS m ON l.kind = 1 AND m.position = l.about
           LEFT JOIN channels ON channels.id = l.channel
           ORDER BY l.position"#,
        scopes,
        after,
        through,
        at,
        user,
        inbox,
        asked.limit
    )
    .fetch_all(&mut *transaction)
    .await?;
    let mut page = ReplayPage::default();
    for row in rows {
        let channel = row.channel.as_deref().map(channel_name).transpose()?;
        let position = Some(Position(row.position as u64));
        page.frames.push(if row.kind == 2 {
            let audience = json::audience_from_text(row.audience.as_deref()).ok_or_else(|| corrupt("audience"))?;
            let uuid = uuid_of(&row.uuid)?;
            let deletion = Deletion { uuid, channel, audience: Audience::default(), no_history: false };
            Frame::Deletion { position, deletion: deletion.into(), audience: audience.into() }
        } else {
            let is_edit = row.kind == 1;
            let message = MessageRow {
                position: row.position,
                edit: None,
                uuid: row.uuid,
                sender: row.sender,
                timestamp: row.timestamp,
                edited: row.edited,
                audience: row.audience,
                body: row.body,
                committed: row.committed,
            }
            .logged(channel)?
            .message;
            if is_edit { edit_frame(position, &message) } else { Frame::Message { position, message } }
        });
    }
    let rows = query!(
        r#"SELECT channels.name, max(channels.trimmed, coalesce(
               (SELECT max(l.position) FROM log AS l
                WHERE channels.history_ttl IS NOT NULL AND l.channel = channels.id AND l.committed <= ?2 - channels.history_ttl * 1000000), 0)) AS "trimmed!: i64"
           FROM json_each(?1) AS scope JOIN channels ON channels.name = scope.value ->> 0"#,
        scopes,
        at
    )
    .fetch_all(&mut *transaction)
    .await?;
    for row in rows {
        page.trimmed.push((Some(channel_name(&row.name)?), Position(row.trimmed as u64)));
    }
    let trimmed =
        query_scalar!("SELECT trimmed FROM users WHERE name = ?1", user).fetch_optional(&mut *transaction).await?;
    page.trimmed.push((None, Position(trimmed.unwrap_or_default() as u64)));
    Ok(page)
}

/// An edit as it is shown late: all that the message says now.
fn edit_frame(position: Option<Position>, message: &Message) -> Frame {
    let edit = Edit {
        uuid: message.uuid,
        channel: message.channel.clone(),
        sender: Some(message.sender.clone()),
        body: message.body.clone(),
        timestamp: Some(message.timestamp),
        edited: message.edited.unwrap_or(message.timestamp),
        audience: Audience::default(),
        no_history: false,
    };
    Frame::Edit { position, edit: edit.into(), audience: message.audience.clone().into() }
}

async fn read_holding(readers: &SqlitePool, user: &str, doubts: &[Doubt]) -> sqlx::Result<Vec<Doubt>> {
    let asked = list(doubts.iter().enumerate().map(|(index, doubt)| {
        (index, doubt.channel.as_ref().map(ChannelName::as_str), doubt.after.0, doubt.through.0)
    }));
    let rows = query_scalar!(
        r#"SELECT doubt.value ->> 0 AS "index!: i64"
           FROM json_each(?1) AS doubt LEFT JOIN channels ON channels.name = doubt.value ->> 1
           JOIN users ON users.name = ?2
           WHERE CASE WHEN doubt.value ->> 1 IS NULL
             THEN users.trimmed > doubt.value ->> 2 AND users.trimmed <= doubt.value ->> 3
               OR EXISTS (SELECT 1 FROM inbox WHERE inbox.user = users.id
                          AND inbox.position > doubt.value ->> 2 AND inbox.position <= doubt.value ->> 3)
             ELSE channels.trimmed > doubt.value ->> 2 AND channels.trimmed <= doubt.value ->> 3
               OR EXISTS (SELECT 1 FROM log WHERE log.channel = channels.id
                          AND log.position > doubt.value ->> 2 AND log.position <= doubt.value ->> 3)
             END"#,
        asked,
        user
    )
    .fetch_all(readers)
    .await?;
    Ok(rows.into_iter().filter_map(|index| doubts.get(index as usize).cloned()).collect())
}

async fn read_connections(readers: &SqlitePool) -> sqlx::Result<Vec<StoredConnection>> {
    let mut transaction = readers.begin().await?;
    let rows = query!(
        r#"SELECT connections.id, connections.head, users.name FROM connections JOIN users ON users.id = connections.user
           ORDER BY connections.opened"#
    )
    .fetch_all(&mut *transaction)
    .await?;
    let mut connections = Vec::with_capacity(rows.len());
    let mut index = HashMap::with_capacity(rows.len());
    for row in rows {
        let id = ConnectionId(uuid_of(&row.id)?);
        index.insert(id, connections.len());
        let head = Position(row.head as u64);
        connections.push(StoredConnection { id, user: username(&row.name)?, channels: Vec::new(), head });
    }
    let rows = query!(
        r#"SELECT subscriptions.connection, channels.name
           FROM subscriptions JOIN channels ON channels.id = subscriptions.channel"#
    )
    .fetch_all(&mut *transaction)
    .await?;
    for row in rows {
        if let Some(index) = index.get(&ConnectionId(uuid_of(&row.connection)?)) {
            connections[*index].channels.push(channel_name(&row.name)?);
        }
    }
    Ok(connections)
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
            *held = Some(self.options.connect().await.map_err(classify)?);
        }
        let Some(writer) = held.as_mut() else { return Ok(false) };
        // A commit that was given up may still be on its way: its lock is waited for.
        let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await.map_err(classify)?;
        let last = query_scalar!("SELECT last_batch FROM meta WHERE id = 1").fetch_one(&mut *transaction).await;
        transaction.rollback().await.map_err(classify)?;
        Ok(last.map_err(classify)? == batch.as_bytes())
    }

    async fn channels(&self, names: &HashSet<ChannelName>) -> Result<HashMap<ChannelName, Channel>, StoreError> {
        if names.is_empty() {
            return Ok(HashMap::new());
        }
        let names = list(names.iter().map(ChannelName::as_str));
        read_channels(&self.readers, &names).await.map_err(classify)
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

    async fn replay(&self, asked: &ReplayQuery<'_>) -> Result<ReplayPage, StoreError> {
        read_replay(&self.readers, asked).await.map_err(classify)
    }

    async fn holding(&self, user: &Username, doubts: &[Doubt]) -> Result<Vec<Doubt>, StoreError> {
        if doubts.is_empty() {
            return Ok(Vec::new());
        }
        read_holding(&self.readers, user.as_str(), doubts).await.map_err(classify)
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
        writer.close().await.map_err(classify)
    }
}
