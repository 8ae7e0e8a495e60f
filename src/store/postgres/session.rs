//! Sessions with the database: how they are made, what they are told first, how long they may take,
//! and what their errors mean. The session that writes holds the owner's lock.

use std::ops::{Deref, DerefMut};
use std::str::FromStr;
use std::time::{Duration, Instant};

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Postgres, Transaction, query, query_scalar};
use tokio::time::{sleep, timeout};

use crate::store::contract::StoreError;

/// What a URL may say after its question mark.
const PARAMETERS: &[&str] = &[
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];
/// What may be wrong if it is not clear what is what.
const ENCODE: &str = "cannot be read: characters such as @ / ? # in a user or password are written as %40 %2F %3F %23";
/// Under this key, to which the number of our table is added, the owner's lock is held: stores in
/// several schemas of one database have an owner each.
const OWNER: i64 = 0x6368_616e_0000_0000;
/// Pause between attempts to get the owner's lock back.
pub(super) const PAUSE: Duration = Duration::from_millis(50);
/// How long the database may take to notice that a process died.
const NOTICED: Duration = Duration::from_secs(2);

/// How to reach a database.
#[derive(Clone)]
pub(super) struct Address {
    options: PgConnectOptions,
    timeout: Duration,
}

impl Address {
    /// Reads a URL.
    pub(super) fn parse(url: &str, timeout: Duration) -> Result<Self, StoreError> {
        let unusable = |reason: String| StoreError::Unusable(format!("`database_url` {reason}"));
        if let Some((_, parameters)) = url.split_once('?') {
            let known = |key: &str| PARAMETERS.contains(&key) || key.starts_with("options[") && key.ends_with(']');
            let unknown =
                form_urlencoded::parse(parameters.as_bytes()).map(|(key, _)| key.into_owned()).find(|key| !known(key));
            if let Some(key) = unknown {
                // What looks like none may be a part of the password.
                let is_name = key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
                return Err(unusable(match is_name {
                    true => format!("has a parameter that we do not know: {key}"),
                    false => ENCODE.to_owned(),
                }));
            }
        }
        let mut options = PgConnectOptions::from_str(url)
            .map_err(|error| match url.contains('?') {
                // It may quote the value of a parameter, which may be a password.
                true => unusable("is not a Postgres URL, or has a parameter with a value that does not fit".to_owned()),
                false => unusable(format!("is not a Postgres URL: {error}")),
            })?
            .disable_statement_logging();
        if [options.get_host(), options.get_database().unwrap_or_default()].iter().any(|part| part.contains('@')) {
            return Err(unusable(ENCODE.to_owned()));
        }
        if options.get_application_name().is_none() {
            options = options.application_name("channelstream");
        }
        Ok(Self { options, timeout })
    }

    /// Without user and password.
    pub(super) fn name(&self) -> String {
        let database = self.options.get_database().unwrap_or(self.options.get_username());
        match self.options.get_socket() {
            Some(socket) => format!("{database} at {}", socket.display()),
            None => format!("{database} at {}:{}", self.options.get_host(), self.options.get_port()),
        }
    }

    /// Bounds how long the database may take.
    pub(super) async fn within<T>(&self, asked: impl Future<Output = sqlx::Result<T>>) -> Result<T, StoreError> {
        match timeout(self.timeout, asked).await {
            Ok(answered) => answered.map_err(classify),
            Err(_) => Err(StoreError::Unavailable(format!("no answer within {} s", self.timeout.as_secs_f64()))),
        }
    }

    /// A new session as the database makes it.
    pub(super) async fn connect_plainly(&self) -> Result<PgConnection, StoreError> {
        self.within(self.options.connect()).await
    }

    /// A new session.
    pub(super) async fn connect(&self) -> Result<Session, StoreError> {
        self.within(async {
            let mut connection = self.options.connect().await?;
            prepare(&mut connection, self.timeout).await?;
            let own = query!(
                r#"SELECT pid AS "pid!", backend_start::text AS "since!"
                   FROM pg_stat_activity WHERE pid = pg_backend_pid()"#
            )
            .fetch_one(&mut connection)
            .await?;
            Ok(Session { connection, identity: Identity { pid: own.pid, since: own.since } })
        })
        .await
    }

    /// A new session whose statements and transactions may take their time.
    pub(super) async fn connect_without_limits(&self) -> Result<Session, StoreError> {
        let mut session = self.connect().await?;
        self.within(lift_limits(&mut session.connection)).await?;
        Ok(session)
    }

    /// Sessions that read, made when they are needed.
    pub(super) fn pool(&self, size: u32) -> PgPool {
        let timeout = self.timeout;
        PgPoolOptions::new()
            .max_connections(size)
            .acquire_timeout(timeout)
            .after_connect(move |connection, _| Box::pin(prepare(connection, timeout)))
            .connect_lazy_with(self.options.clone())
    }
}

/// Tells a new session how we work: plans are made once, and none takes the whole table for many
/// rows; a statement ends in time even if nobody waits for it any more; a session ends, and gives its
/// locks back, soon after this machine is gone; an acknowledged commit is on the disk, whatever the
/// database's default is.
async fn prepare(connection: &mut PgConnection, timeout: Duration) -> sqlx::Result<()> {
    query!(
        "SELECT count(set_config(name, value, false))
         FROM (VALUES ('plan_cache_mode', 'force_generic_plan'), ('jit', 'off'), ('statement_timeout', $1),
                      ('default_transaction_isolation', 'read committed'),
                      ('tcp_keepalives_idle', '10'), ('tcp_keepalives_interval', '5'), ('tcp_keepalives_count', '3'),
                      ('synchronous_commit', CASE current_setting('synchronous_commit')
                           WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END)
              ) AS setting (name, value)",
        timeout.as_millis().to_string()
    )
    .fetch_one(connection)
    .await?;
    Ok(())
}

/// Lets statements and transactions of a session take their time, whatever the database's defaults are.
pub(super) async fn lift_limits(connection: &mut PgConnection) -> sqlx::Result<()> {
    // Not every release has all of them.
    query!(
        "SELECT count(set_config(name, '0', false)) FROM pg_settings
         WHERE name IN ('statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout',
                        'lock_timeout')"
    )
    .fetch_one(connection)
    .await?;
    Ok(())
}

/// Several queries that see the same state.
pub(super) async fn snapshot(reader: &mut PgConnection) -> sqlx::Result<Transaction<'_, Postgres>> {
    reader.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await
}

/// Which session it is, so that it can be ended from another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pid: i32,
    since: String,
}

/// A session that may write.
pub(super) struct Session {
    pub(super) connection: PgConnection,
    pub(super) identity: Identity,
}

impl Session {
    /// Becomes the owner, unless another session is.
    pub(super) async fn try_lock(&mut self) -> sqlx::Result<bool> {
        query_scalar!(r#"SELECT pg_try_advisory_lock($1::bigint + 'meta'::regclass::oid::bigint) AS "locked!""#, OWNER)
            .fetch_one(&mut self.connection)
            .await
    }

    /// Becomes the owner, unless another session is and stays it for a while: that a process died,
    /// the database notices a little later.
    pub(super) async fn try_lock_patiently(&mut self) -> sqlx::Result<bool> {
        let since = Instant::now();
        while !self.try_lock().await? {
            if since.elapsed() > NOTICED {
                return Ok(false);
            }
            sleep(PAUSE).await;
        }
        Ok(true)
    }

    /// Ends sessions that broke: that may not have been noticed at the other end, where they hold
    /// the lock, or a transaction that is not decided.
    pub(super) async fn end(&mut self, broken: &[Identity]) -> sqlx::Result<()> {
        let pids: Vec<i32> = broken.iter().map(|one| one.pid).collect();
        let since: Vec<&str> = broken.iter().map(|one| one.since.as_str()).collect();
        query!(
            "SELECT pg_terminate_backend(activity.pid)
             FROM pg_stat_activity AS activity JOIN UNNEST($1::int[], $2::text[]) AS broken (pid, since)
                 ON broken.pid = activity.pid AND broken.since = activity.backend_start::text",
            &pids,
            &since as &[&str]
        )
        .fetch_all(&mut self.connection)
        .await?;
        Ok(())
    }
}

/// A session of the pool that is used for one thing. One that did not come to its end, because it
/// failed or nobody waits any more, is of no use to others.
pub(super) struct Reader(Option<PoolConnection<Postgres>>);

impl Reader {
    pub(super) async fn of(pool: &PgPool) -> Result<Self, StoreError> {
        pool.acquire().await.map(|connection| Self(Some(connection))).map_err(classify)
    }

    /// Gives the session back.
    pub(super) fn done(mut self) {
        drop(self.0.take());
    }
}

impl Deref for Reader {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.0.as_ref().expect("it is taken at its end only")
    }
}

impl DerefMut for Reader {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.0.as_mut().expect("it is taken at its end only")
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(unfinished) = self.0.take() {
            drop(unfinished.detach());
        }
    }
}

/// Whether the database refused the data, so that trying again is useless.
pub(super) fn classify(error: sqlx::Error) -> StoreError {
    // Connections, read-only replicas, deadlocks, resources, locks, operators, the system.
    const UNAVAILABLE: &[&str] = &["08", "25", "40", "53", "55", "57", "58"];
    match &error {
        // Only the head's row is asked for in a way that fails if it is not there.
        sqlx::Error::RowNotFound => StoreError::NotOurs,
        sqlx::Error::Database(database)
            if database.code().is_some_and(|code| !UNAVAILABLE.iter().any(|class| code.starts_with(class))) =>
        {
            StoreError::Refused(error.to_string())
        }
        sqlx::Error::Encode(_) => StoreError::Refused(error.to_string()),
        _ => StoreError::Unavailable(error.to_string()),
    }
}
