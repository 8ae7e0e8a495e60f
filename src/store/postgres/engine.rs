//! The engine: reaching and owning the database, and what the rest of the server asks of it.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::NaiveDateTime;
use hashbrown::{HashMap, HashSet};
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{Connection, query, query_scalar};
use tokio::sync::Mutex;
use tokio::time::sleep;
use tracing::warn;
use uuid::Uuid;

use super::archive::PostgresArchive;
use super::history::read_history;
use super::read::{read_channels, read_connections, read_held, read_positions, read_users};
use super::replay::{read_holding, read_replay};
use super::session::{Address, Identity, PAUSE, Reader, Session, classify, lift_limits};
use super::tails::read_tails;
use super::values::texts;
use super::write::{Ground, write};
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
    StoreOptions, StoreTotals, StoredConnection,
};
use crate::store::migrate;
use crate::store::values::{channel_name, epoch_of, username};

mod migrations {
    #![allow(missing_docs)]
    refinery::embed_migrations!("migrations/postgres");
}

/// The oldest release that has all we use.
const OLDEST: i32 = 120_000;

/// A database that may hold a store.
pub struct PostgresDatabase {
    address: Address,
    readers: u32,
    /// Looks whether the store is free, while another server owns it.
    candidate: Mutex<Option<Session>>,
    sessions: Sessions,
}

/// Of these the newest is in use; the others are ended before another one asks for the lock: an
/// answer that was lost must not leave it to a session that nobody knows.
type Sessions = Arc<parking_lot::Mutex<Vec<Identity>>>;

/// A new session that may ask for the lock, which no forgotten one holds.
async fn contender(address: &Address, sessions: &Sessions) -> Result<Session, StoreError> {
    let mut session = address.connect().await?;
    let broken = sessions.lock().clone();
    sessions.lock().push(session.identity.clone());
    address.within(session.end(&broken)).await?;
    sessions.lock().retain(|one| !broken.contains(one));
    Ok(session)
}

/// See the module.
pub struct PostgresStore {
    address: Address,
    /// What `meta` says as long as the store is ours, and holds what we committed.
    ground: parking_lot::Mutex<Ground>,
    /// None after a commit failed: whoever settles it opens a new one.
    writer: Mutex<Option<Session>>,
    /// Sessions that held or asked for the lock, as far as they may live on at the server.
    sessions: Sessions,
    readers: PgPool,
}

impl PostgresDatabase {
    /// Reaches the database that a URL like `postgres://user:password@host/database` names.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] with a sentence for the operator.
    pub async fn open(url: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        let address = Address::parse(url, options.timeout)?;
        let unusable = |error: StoreError| match error {
            StoreError::Unusable(sentence) => StoreError::Unusable(sentence),
            StoreError::Unavailable(reason) | StoreError::Refused(reason) => StoreError::Unusable(format!(
                "the database {} cannot be used: {reason}; see `database_url`",
                address.name()
            )),
            StoreError::NotOurs => StoreError::NotOurs,
        };
        let mut connection = address.connect_plainly().await.map_err(unusable)?;
        suits(&mut connection).await.map_err(unusable)?;
        // Migrations may take their time.
        address.within(lift_limits(&mut connection)).await.map_err(unusable)?;
        if !options.create {
            expect_store(&mut connection).await.map_err(unusable)?;
        }
        migrate::postgres(&mut connection, migrations::migrations::runner()).await?;
        // It said all that it had to.
        let _ = connection.close().await;
        Ok(Self { address, readers: options.readers, candidate: Mutex::new(None), sessions: Sessions::default() })
    }
}

/// Whether we can work with a database at all.
async fn suits(connection: &mut PgConnection) -> Result<(), StoreError> {
    let found = query!(
        r#"SELECT current_setting('server_version_num')::int AS "version!", current_setting('server_version') AS "name!",
               current_setting('server_encoding') AS "encoding!", current_setting('fsync') AS "fsync!""#
    )
    .fetch_one(connection)
    .await
    .map_err(classify)?;
    if found.version < OLDEST {
        return Err(StoreError::Unavailable(format!(
            "it is Postgres {}, and 12 is the oldest that will do",
            found.name
        )));
    }
    if found.encoding != "UTF8" {
        return Err(StoreError::Unavailable(format!("its encoding is {}: make one with UTF8", found.encoding)));
    }
    if found.fsync != "on" {
        warn!("the database runs with fsync off: a power cut may corrupt it and lose what was acknowledged");
    }
    Ok(())
}

/// Fails unless there is a store in the database.
async fn expect_store(connection: &mut PgConnection) -> Result<(), StoreError> {
    let found = query_scalar!(r#"SELECT to_regclass('epochs') IS NOT NULL AS "found!""#);
    if found.fetch_one(connection).await.map_err(classify)? {
        return Ok(());
    }
    Err(StoreError::Unavailable("there is no store in it".to_owned()))
}

#[async_trait]
impl Database for PostgresDatabase {
    async fn take_over(&self, shown: Position) -> Result<Option<(Arc<dyn Store>, Start)>, StoreError> {
        let mut candidate = self.candidate.lock().await;
        let mut session = match candidate.take() {
            Some(session) => session,
            None => contender(&self.address, &self.sessions).await?,
        };
        if !self.address.within(session.try_lock()).await? {
            *candidate = Some(session);
            return Ok(None);
        }
        let owner = Uuid::new_v4();
        let timeline = timeline(&self.address, &mut session).await?;
        let (start, last) = self.address.within(take_over(&mut session.connection, owner, &timeline, shown)).await?;
        let store = PostgresStore {
            address: self.address.clone(),
            ground: parking_lot::Mutex::new(Ground { owner, last }),
            sessions: self.sessions.clone(),
            writer: Mutex::new(Some(session)),
            readers: self.address.pool(self.readers),
        };
        Ok(Some((Arc::new(store), start)))
    }

    async fn begin_epoch(&self) -> Result<Option<(Epoch, Position)>, StoreError> {
        let mut session = self.address.connect().await?;
        if !self.address.within(session.try_lock()).await? {
            return Ok(None);
        }
        let begun = self.address.within(number_anew(&mut session.connection)).await?;
        self.address.within(session.connection.close()).await?;
        Ok(Some(begun))
    }

    async fn archive(&self) -> Result<Option<Box<dyn Archive>>, StoreError> {
        let Some(archive) = PostgresArchive::open(&self.address).await? else { return Ok(None) };
        Ok(Some(Box::new(archive)))
    }

    async fn place(&self) -> Result<String, StoreError> {
        let mut session = self.address.connect().await?;
        let place = query_scalar!(
            r#"SELECT concat_ws(' ', extract(epoch FROM pg_postmaster_start_time()), current_database(), 'meta'::regclass::oid)
                   AS "place!""#
        )
        .fetch_one(&mut session.connection);
        let place = self.address.within(place).await?;
        let _ = session.connection.close().await;
        Ok(place)
    }

    fn name(&self) -> String {
        self.address.name()
    }
}

/// Notes whose the store is from now on, and reads where the log stands. Waits for the last batch of
/// the owner before. A new numbering begins with a new store, and where the log may have less than
/// was shown of it: after a failover of the database, and after a restore.
async fn take_over(
    connection: &mut PgConnection,
    owner: Uuid,
    timeline: &str,
    shown: Position,
) -> sqlx::Result<(Start, Uuid)> {
    let mut transaction = connection.begin().await?;
    let (head, last) = own(&mut transaction, owner).await?;
    let before = query_scalar!("SELECT timeline FROM meta WHERE id = 1").fetch_one(&mut *transaction).await?;
    query!("UPDATE meta SET timeline = $1 WHERE id = 1", timeline).execute(&mut *transaction).await?;
    let is_continued = head as u64 >= shown.0 && (before.is_empty() || before == timeline);
    let latest = query_scalar!("SELECT committed FROM log ORDER BY position DESC LIMIT 1 -- pg")
        .fetch_optional(&mut *transaction)
        .await?;
    let newest = query_scalar!("SELECT id FROM epochs ORDER BY number DESC LIMIT 1 -- pg")
        .fetch_optional(&mut *transaction)
        .await?;
    let epoch = match newest {
        Some(id) if is_continued => id,
        _ => add_epoch(&mut transaction, head).await?,
    };
    let epochs = query!("SELECT id, after FROM epochs ORDER BY number -- pg").fetch_all(&mut *transaction).await?;
    transaction.commit().await?;
    let epochs = epochs.into_iter().map(|row| Ok((epoch_of(&row.id)?, Position(row.after as u64))));
    let numbering = Numbering::new(epochs.collect::<sqlx::Result<_>>()?);
    let (head, latest) = (Position(head as u64), from_micros(latest.unwrap_or_default()));
    Ok((Start { epoch: epoch_of(&epoch)?, head, latest, numbering }, last))
}

/// Which of its pasts the database goes on from: it begins another timeline with each failover and
/// each restore to a point in time. Empty where it does not say.
async fn timeline(address: &Address, session: &mut Session) -> Result<String, StoreError> {
    let asked = query_scalar!(r#"SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8) AS "timeline!""#)
        .fetch_one(&mut session.connection);
    match address.within(asked).await {
        Err(StoreError::Refused(_)) => Ok(String::new()),
        answered => answered,
    }
}

/// Notes whose the store is; gives its head, and the last batch.
async fn own(connection: &mut PgConnection, owner: Uuid) -> sqlx::Result<(i64, Uuid)> {
    let meta = query!(
        "INSERT INTO meta (id, head, last_batch, owner) VALUES (1, 0, $1, $2)
         ON CONFLICT (id) DO UPDATE SET owner = excluded.owner RETURNING head, last_batch",
        Uuid::nil(),
        owner
    )
    .fetch_one(connection)
    .await?;
    Ok((meta.head, meta.last_batch))
}

async fn add_epoch(connection: &mut PgConnection, head: i64) -> sqlx::Result<String> {
    let id = Uuid::new_v4().simple().to_string()[..8].to_owned();
    query!("INSERT INTO epochs (id, after) VALUES ($1, $2)", id, head).execute(connection).await?;
    Ok(id)
}

async fn number_anew(connection: &mut PgConnection) -> sqlx::Result<(Epoch, Position)> {
    let mut transaction = connection.begin().await?;
    let (head, _) = own(&mut transaction, Uuid::nil()).await?;
    let id = add_epoch(&mut transaction, head).await?;
    transaction.commit().await?;
    Ok((epoch_of(&id)?, Position(head as u64)))
}

impl PostgresStore {
    async fn read_channels(
        &self,
        names: &HashSet<ChannelName>,
        with_history: bool,
    ) -> Result<HashMap<ChannelName, Channel>, StoreError> {
        if names.is_empty() {
            return Ok(HashMap::new());
        }
        let names = texts(names.iter().map(ChannelName::as_str));
        let mut reader = self.reader().await?;
        let channels = self.address.within(read_channels(&mut reader, &names, with_history)).await?;
        reader.done();
        Ok(channels)
    }

    /// A session to read in; dropped before it is done, it is not used again.
    async fn reader(&self) -> Result<Reader, StoreError> {
        Reader::of(&self.readers).await
    }

    /// A session that holds the owner's lock, after the last one broke.
    async fn reconnect(&self) -> Result<Session, StoreError> {
        let mut session = contender(&self.address, &self.sessions).await?;
        self.address.within(self.expect_ours(&mut session)).await?;
        let locked = async {
            while !session.try_lock().await? {
                self.expect_ours(&mut session).await?;
                sleep(PAUSE).await;
            }
            Ok(session)
        };
        self.address.within(locked).await
    }

    /// Says that there is no such row, unless the store is ours.
    async fn expect_ours(&self, session: &mut Session) -> sqlx::Result<()> {
        let owner = query_scalar!("SELECT owner FROM meta WHERE id = 1").fetch_one(&mut session.connection).await?;
        if owner == self.ground.lock().owner { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut held = self.writer.lock().await;
        let Some(mut writer) = held.take() else {
            return Err(StoreError::Unavailable("the last commit is not settled".to_owned()));
        };
        let ground = *self.ground.lock();
        let written = self.address.within(write(&mut writer.connection, ground, batch)).await;
        if written.is_ok() {
            self.ground.lock().last = batch.id;
        }
        // After refused statements a session is as good as before: the transaction is undone.
        if matches!(written, Ok(()) | Err(StoreError::Refused(_))) {
            *held = Some(writer);
        }
        written
    }

    async fn settle(&self, batch: Uuid) -> Result<bool, StoreError> {
        let mut held = self.writer.lock().await;
        let mut writer = match held.take() {
            Some(writer) => writer,
            None => self.reconnect().await?,
        };
        // A commit that was given up may still be on its way: its lock is waited for. Or it waits for
        // a replica: what is written here is acknowledged after that.
        let decided = async {
            let mut transaction = writer.connection.begin().await?;
            let found = query!("UPDATE meta SET owner = owner WHERE id = 1 RETURNING owner, last_batch")
                .fetch_one(&mut *transaction)
                .await?;
            transaction.commit().await?;
            Ok(found)
        };
        let found = self.address.within(decided).await?;
        let mut ground = self.ground.lock();
        let is_there = found.last_batch == batch;
        if found.owner != ground.owner || !is_there && found.last_batch != ground.last {
            return Err(StoreError::NotOurs);
        }
        ground.last = found.last_batch;
        *held = Some(writer);
        Ok(is_there)
    }

    async fn check(&self) -> Result<(), StoreError> {
        let mut held = self.writer.lock().await;
        let mut writer = match held.take() {
            Some(writer) => writer,
            None => self.reconnect().await?,
        };
        let found = query!("SELECT owner, last_batch FROM meta WHERE id = 1").fetch_one(&mut writer.connection);
        let found = self.address.within(found).await?;
        let ground = *self.ground.lock();
        if (found.owner, found.last_batch) != (ground.owner, ground.last) {
            return Err(StoreError::NotOurs);
        }
        *held = Some(writer);
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
        let names = texts(names.iter().map(Username::as_str));
        let mut reader = self.reader().await?;
        let users = self.address.within(read_users(&mut reader, &names)).await?;
        reader.done();
        Ok(users)
    }

    async fn held(&self, uuids: &HashSet<Uuid>) -> Result<HeldByUuid, StoreError> {
        if uuids.is_empty() {
            return Ok(HeldByUuid::new());
        }
        let uuids: Vec<Uuid> = uuids.iter().copied().collect();
        let mut reader = self.reader().await?;
        let held = self.address.within(read_held(&mut reader, &uuids)).await?;
        reader.done();
        Ok(held)
    }

    async fn positions_at(
        &self,
        times: &HashSet<NaiveDateTime>,
    ) -> Result<HashMap<NaiveDateTime, Position>, StoreError> {
        if times.is_empty() {
            return Ok(HashMap::new());
        }
        let mut reader = self.reader().await?;
        let positions = self.address.within(read_positions(&mut reader, times)).await?;
        reader.done();
        Ok(positions)
    }

    async fn replay(&self, asked: &ReplayQuery<'_>) -> Result<ReplayPage, StoreError> {
        let mut reader = self.reader().await?;
        let page = self.address.within(read_replay(&mut reader, asked)).await?;
        reader.done();
        Ok(page)
    }

    async fn holding(&self, user: &Username, doubts: &[Doubt]) -> Result<Vec<Doubt>, StoreError> {
        if doubts.is_empty() {
            return Ok(Vec::new());
        }
        let mut reader = self.reader().await?;
        let holding = self.address.within(read_holding(&mut reader, user.as_str(), doubts)).await?;
        reader.done();
        Ok(holding)
    }

    async fn tails(&self, places: &[(Place, Position)], limit: u32, bytes: u32) -> Result<Vec<TailPart>, StoreError> {
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let mut reader = self.reader().await?;
        let tails = self.address.within(read_tails(&mut reader, places, limit, bytes)).await?;
        reader.done();
        Ok(tails)
    }

    async fn history(&self, asked: &HistoryQuery<'_>) -> Result<Option<HistoryPage>, StoreError> {
        let mut reader = self.reader().await?;
        let page = self.address.within(read_history(&mut reader, asked)).await?;
        reader.done();
        Ok(page)
    }

    async fn channel_names(&self, after: i64, limit: u32) -> Result<Vec<(i64, ChannelName)>, StoreError> {
        let mut reader = self.reader().await?;
        let names = query!(
            "SELECT id, name FROM channels WHERE deleted IS NULL AND id > $1 ORDER BY id LIMIT $2",
            after,
            i64::from(limit)
        )
        .fetch_all(&mut *reader);
        let rows = self.address.within(names).await?;
        reader.done();
        rows.iter().map(|row| Ok((row.id, channel_name(&row.name).map_err(classify)?))).collect()
    }

    async fn connections(&self) -> Result<Vec<StoredConnection>, StoreError> {
        let mut reader = self.reader().await?;
        let connections = self.address.within(read_connections(&mut reader)).await?;
        reader.done();
        Ok(connections)
    }

    async fn note_seen(&self, seen: &[(ConnectionId, Position)]) -> Result<(), StoreError> {
        let ids: Vec<Uuid> = seen.iter().map(|(id, _)| id.0).collect();
        let positions: Vec<i64> = seen.iter().map(|(_, position)| position.0 as i64).collect();
        let mut held = self.writer.lock().await;
        let Some(mut writer) = held.take() else {
            return Err(StoreError::Unavailable("the last commit is not settled".to_owned()));
        };
        let noted = query!(
            "UPDATE connections SET head = s.head
             FROM UNNEST($1::uuid[], $2::bigint[]) AS s (id, head)
             WHERE connections.id = s.id AND EXISTS (SELECT 1 FROM meta WHERE meta.owner = $3)",
            &ids,
            &positions,
            self.ground.lock().owner
        )
        .execute(&mut writer.connection);
        self.address.within(noted).await?;
        *held = Some(writer);
        Ok(())
    }

    async fn expired_channels(&self, at: NaiveDateTime, limit: u32) -> Result<Vec<ChannelName>, StoreError> {
        let mut reader = self.reader().await?;
        let names = query_scalar!(
            "SELECT name FROM channels
             WHERE history_ttl IS NOT NULL AND deleted IS NULL
               AND (SELECT committed FROM log WHERE channel = channels.id ORDER BY position LIMIT 1)
                   <= $1::bigint - history_ttl * 1000000
             LIMIT $2",
            at.and_utc().timestamp_micros(),
            i64::from(limit)
        )
        .fetch_all(&mut *reader);
        let names = self.address.within(names).await?;
        reader.done();
        names.iter().map(|name| channel_name(name).map_err(classify)).collect()
    }

    async fn idle_users(&self, since: NaiveDateTime, limit: u32) -> Result<Vec<Username>, StoreError> {
        let mut reader = self.reader().await?;
        let names = query_scalar!(
            r#"SELECT name FROM users
               WHERE last_active <= $1 AND NOT EXISTS (SELECT 1 FROM connections WHERE connections."user" = users.id)
               ORDER BY last_active LIMIT $2"#,
            since.and_utc().timestamp_micros(),
            i64::from(limit)
        )
        .fetch_all(&mut *reader);
        let names = self.address.within(names).await?;
        reader.done();
        names.iter().map(|name| username(name).map_err(classify)).collect()
    }

    async fn size(&self) -> Result<u64, StoreError> {
        let mut reader = self.reader().await?;
        let size = query_scalar!(r#"SELECT pg_database_size(current_database()) AS "size!""#);
        let size = self.address.within(size.fetch_one(&mut *reader)).await?;
        reader.done();
        Ok(size as u64)
    }

    async fn totals(&self) -> Result<StoreTotals, StoreError> {
        let mut reader = self.reader().await?;
        let totals = query!(
            r#"SELECT (SELECT count(*) FROM channels WHERE deleted IS NULL) AS "channels!",
                   (SELECT count(*) FROM users) AS "users!" -- pg"#
        )
        .fetch_one(&mut *reader);
        let row = self.address.within(totals).await?;
        reader.done();
        Ok(StoreTotals { channels: row.channels as u64, users: row.users as u64 })
    }

    async fn close(&self) -> Result<(), StoreError> {
        let Some(writer) = self.writer.lock().await.take() else { return Ok(()) };
        self.address.within(writer.connection.close()).await?;
        let closed = async {
            self.readers.close().await;
            Ok(())
        };
        self.address.within(closed).await
    }
}
