//! A whole store out of a database, or into one, in a session that has no time limits.

use async_trait::async_trait;
use futures_util::TryStreamExt;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor, query, query_as};
use uuid::Uuid;

use super::session::{Address, classify};
use crate::domain::position::Position;
use crate::store::archive::{
    ChannelRow, ConnectionRow, EpochRow, Extent, ForgottenUserRow, InboxRow, LogRow, MembershipRow, Page,
    SubscriptionRow, Table, UserRow, gather,
};
use crate::store::contract::{Archive, Pages, StoreError};

/// See the module.
pub(super) struct PostgresArchive {
    connection: PgConnection,
}

impl PostgresArchive {
    /// Becomes the owner of the store, unless somebody else is.
    pub(super) async fn open(address: &Address) -> Result<Option<Self>, StoreError> {
        let mut session = address.connect_without_limits().await?;
        if !address.within(session.try_lock_patiently()).await? {
            return Ok(None);
        }
        let mut connection = session.connection;
        address.within(connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")).await?;
        Ok(Some(Self { connection }))
    }
}

#[async_trait]
impl Archive for PostgresArchive {
    async fn extent(&mut self) -> Result<Extent, StoreError> {
        let row = query!(
            r#"SELECT coalesce((SELECT head FROM meta WHERE id = 1), 0) AS "head!",
                   (SELECT count(*) FROM epochs) AS "epochs!",
                   (SELECT count(*) FROM channels) AS "channels!",
                   (SELECT count(*) FROM users) AS "users!",
                   (SELECT count(*) FROM log) AS "log!",
                   (SELECT count(*) FROM inbox) AS "inbox!",
                   (SELECT count(*) FROM connections) AS "connections!",
                   (SELECT count(*) FROM subscriptions) AS "subscriptions!",
                   (SELECT count(*) FROM memberships) AS "memberships!",
                   (SELECT count(*) FROM forgotten_users) AS "forgotten_users!""#
        )
        .fetch_one(&mut self.connection)
        .await
        .map_err(classify)?;
        let rows = [
            row.epochs,
            row.channels,
            row.users,
            row.log,
            row.inbox,
            row.connections,
            row.subscriptions,
            row.memberships,
            row.forgotten_users,
        ];
        Ok(Extent::new(row.head, rows))
    }

    fn pages(&mut self, table: Table) -> Pages<'_> {
        let connection = &mut self.connection;
        match table {
            Table::Epochs => {
                let rows = query_as!(EpochRow, "SELECT number, id, after FROM epochs ORDER BY number");
                Box::pin(gather(rows.fetch(connection).map_err(classify)))
            }
            Table::Channels => {
                let rows = query_as!(
                    ChannelRow,
                    "SELECT id, name, uuid, notify_presence, store_history, history_size,
                         broadcast_presence_with_user_lists, notify_state, store_frames, replay_size, history_ttl,
                         last_active, trimmed, deleted
                     FROM channels ORDER BY id"
                );
                Box::pin(gather(rows.fetch(connection).map_err(classify)))
            }
            Table::Users => {
                let rows = query_as!(
                    UserRow,
                    "SELECT id, name, uuid, state, public_keys, created, last_active, trimmed FROM users ORDER BY id"
                );
                Box::pin(gather(rows.fetch(connection).map_err(classify)))
            }
            Table::Log => {
                let rows = query_as!(
                    LogRow,
                    r#"SELECT position, channel, kind::bigint AS "kind!", uuid, about, edit, sender, timestamp, edited,
                           audience, body, committed
                       FROM log ORDER BY position"#
                );
                Box::pin(gather(rows.fetch(connection).map_err(classify)))
            }
            Table::Inbox => {
                let rows = query_as!(InboxRow, r#"SELECT "user", position FROM inbox ORDER BY "user", position"#);
                Box::pin(gather(rows.fetch(connection).map_err(classify)))
            }
            Table::Connections => {
                let rows = query_as!(ConnectionRow, r#"SELECT id, "user", opened, head FROM connections ORDER BY id"#);
                Box::pin(gather(rows.fetch(connection).map_err(classify)))
            }
            Table::Subscriptions => {
                let rows = query_as!(
                    SubscriptionRow,
                    "SELECT connection, channel FROM subscriptions ORDER BY connection, channel"
                );
                Box::pin(gather(rows.fetch(connection).map_err(classify)))
            }
            Table::Memberships => {
                let rows = query_as!(
                    MembershipRow,
                    r#"SELECT "user", channel, floor, "left" FROM memberships ORDER BY "user", channel"#
                );
                Box::pin(gather(rows.fetch(connection).map_err(classify)))
            }
            Table::ForgottenUsers => {
                let rows = query_as!(ForgottenUserRow, "SELECT name, trimmed FROM forgotten_users ORDER BY name -- pg");
                Box::pin(gather(rows.fetch(connection).map_err(classify)))
            }
        }
    }

    async fn clear(&mut self) -> Result<(), StoreError> {
        query!("DELETE FROM epochs -- pg").execute(&mut self.connection).await.map_err(classify)?;
        Ok(())
    }

    async fn add(&mut self, page: &Page) -> Result<(), StoreError> {
        add(&mut self.connection, page).await.map_err(classify)
    }

    async fn finish(mut self: Box<Self>, head: Position) -> Result<(), StoreError> {
        finish(&mut self.connection, head.0 as i64).await.map_err(classify)?;
        // What counts is kept.
        let _ = self.connection.close().await;
        Ok(())
    }

    async fn close(self: Box<Self>) -> Result<(), StoreError> {
        self.connection.close().await.map_err(classify)
    }
}

async fn finish(connection: &mut PgConnection, head: i64) -> sqlx::Result<()> {
    let epoch = Uuid::new_v4().simple().to_string()[..8].to_owned();
    query!(
        "INSERT INTO epochs (number, id, after) OVERRIDING SYSTEM VALUE
         SELECT coalesce(max(number), 0) + 1, $1, $2 FROM epochs",
        epoch,
        head
    )
    .execute(&mut *connection)
    .await?;
    query!(
        "INSERT INTO meta (id, head, last_batch, owner) VALUES (1, $1, $2, $3)
         ON CONFLICT (id) DO UPDATE SET head = excluded.head, last_batch = excluded.last_batch, owner = excluded.owner",
        head,
        Uuid::nil(),
        Uuid::new_v4()
    )
    .execute(&mut *connection)
    .await?;
    // Nothing is set where there are no rows.
    query!(
        "SELECT setval(pg_get_serial_sequence('epochs', 'number'), (SELECT max(number) FROM epochs)) AS epochs,
             setval(pg_get_serial_sequence('channels', 'id'), (SELECT max(id) FROM channels)) AS channels,
             setval(pg_get_serial_sequence('users', 'id'), (SELECT max(id) FROM users)) AS users"
    )
    .fetch_one(&mut *connection)
    .await?;
    // Good plans need not wait for the database to look by itself.
    connection
        .execute("ANALYZE channels, users, log, inbox, connections, subscriptions, memberships, forgotten_users")
        .await?;
    connection.execute("COMMIT").await?;
    Ok(())
}

/// One column of all rows.
fn column<'a, R, T>(rows: &'a [R], of: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(of).collect()
}

async fn add(connection: &mut PgConnection, page: &Page) -> sqlx::Result<()> {
    match page {
        Page::Epochs(rows) => {
            query!(
                "INSERT INTO epochs (number, id, after) OVERRIDING SYSTEM VALUE
                 SELECT * FROM UNNEST($1::bigint[], $2::text[], $3::bigint[])",
                &column(rows, |row| row.number),
                &column(rows, |row| row.id.as_str()) as &[&str],
                &column(rows, |row| row.after)
            )
            .execute(connection)
            .await?;
        }
        Page::Channels(rows) => {
            query!(
                "INSERT INTO channels (id, name, uuid, notify_presence, store_history, history_size,
                     broadcast_presence_with_user_lists, notify_state, store_frames, replay_size, history_ttl,
                     last_active, trimmed, deleted)
                 SELECT * FROM UNNEST($1::bigint[], $2::text[], $3::uuid[], $4::boolean[], $5::boolean[], $6::bigint[],
                     $7::boolean[], $8::boolean[], $9::boolean[], $10::bigint[], $11::bigint[], $12::bigint[],
                     $13::bigint[], $14::bigint[])",
                &column(rows, |row| row.id),
                &column(rows, |row| row.name.as_str()) as &[&str],
                &column(rows, |row| row.uuid),
                &column(rows, |row| row.notify_presence),
                &column(rows, |row| row.store_history),
                &column(rows, |row| row.history_size),
                &column(rows, |row| row.broadcast_presence_with_user_lists),
                &column(rows, |row| row.notify_state),
                &column(rows, |row| row.store_frames),
                &column(rows, |row| row.replay_size),
                &column(rows, |row| row.history_ttl) as &[Option<i64>],
                &column(rows, |row| row.last_active),
                &column(rows, |row| row.trimmed),
                &column(rows, |row| row.deleted) as &[Option<i64>]
            )
            .execute(connection)
            .await?;
        }
        Page::Users(rows) => {
            query!(
                "INSERT INTO users (id, name, uuid, state, public_keys, created, last_active, trimmed)
                 SELECT * FROM UNNEST($1::bigint[], $2::text[], $3::uuid[], $4::text[], $5::text[], $6::bigint[],
                     $7::bigint[], $8::bigint[])",
                &column(rows, |row| row.id),
                &column(rows, |row| row.name.as_str()) as &[&str],
                &column(rows, |row| row.uuid),
                &column(rows, |row| row.state.as_str()) as &[&str],
                &column(rows, |row| row.public_keys.as_str()) as &[&str],
                &column(rows, |row| row.created),
                &column(rows, |row| row.last_active),
                &column(rows, |row| row.trimmed)
            )
            .execute(connection)
            .await?;
        }
        Page::Log(rows) => {
            query!(
                "INSERT INTO log (position, channel, kind, uuid, about, edit, sender, timestamp, edited, audience, body,
                     committed)
                 SELECT * FROM UNNEST($1::bigint[], $2::bigint[], $3::smallint[], $4::uuid[], $5::bigint[], $6::bigint[],
                     $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::bigint[])",
                &column(rows, |row| row.position),
                &column(rows, |row| row.channel) as &[Option<i64>],
                &column(rows, |row| row.kind as i16),
                &column(rows, |row| row.uuid),
                &column(rows, |row| row.about) as &[Option<i64>],
                &column(rows, |row| row.edit) as &[Option<i64>],
                &column(rows, |row| row.sender.as_deref()) as &[Option<&str>],
                &column(rows, |row| row.timestamp.as_deref()) as &[Option<&str>],
                &column(rows, |row| row.edited.as_deref()) as &[Option<&str>],
                &column(rows, |row| row.audience.as_deref()) as &[Option<&str>],
                &column(rows, |row| row.body.as_deref()) as &[Option<&str>],
                &column(rows, |row| row.committed)
            )
            .execute(connection)
            .await?;
        }
        Page::Inbox(rows) => {
            query!(
                r#"INSERT INTO inbox ("user", position) SELECT * FROM UNNEST($1::bigint[], $2::bigint[])"#,
                &column(rows, |row| row.user),
                &column(rows, |row| row.position)
            )
            .execute(connection)
            .await?;
        }
        Page::Connections(rows) => {
            query!(
                r#"INSERT INTO connections (id, "user", opened, head)
                   SELECT * FROM UNNEST($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[])"#,
                &column(rows, |row| row.id),
                &column(rows, |row| row.user),
                &column(rows, |row| row.opened),
                &column(rows, |row| row.head)
            )
            .execute(connection)
            .await?;
        }
        Page::Subscriptions(rows) => {
            query!(
                "INSERT INTO subscriptions (connection, channel) SELECT * FROM UNNEST($1::uuid[], $2::bigint[])",
                &column(rows, |row| row.connection),
                &column(rows, |row| row.channel)
            )
            .execute(connection)
            .await?;
        }
        Page::Memberships(rows) => {
            query!(
                r#"INSERT INTO memberships ("user", channel, floor, "left")
                   SELECT * FROM UNNEST($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[])"#,
                &column(rows, |row| row.user),
                &column(rows, |row| row.channel),
                &column(rows, |row| row.floor),
                &column(rows, |row| row.left) as &[Option<i64>]
            )
            .execute(connection)
            .await?;
        }
        Page::ForgottenUsers(rows) => {
            query!(
                "INSERT INTO forgotten_users (name, trimmed) SELECT * FROM UNNEST($1::text[], $2::bigint[])",
                &column(rows, |row| row.name.as_str()) as &[&str],
                &column(rows, |row| row.trimmed)
            )
            .execute(connection)
            .await?;
        }
    }
    Ok(())
}
