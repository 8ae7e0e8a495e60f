//! A whole store out of a file, or into one.

use std::fs::File;

use async_trait::async_trait;
use futures_util::TryStreamExt;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Executor, query, query_as};
use uuid::Uuid;

use super::values::{classify, list};
use crate::domain::position::Position;
use crate::store::archive::{
    ChannelRow, ConnectionRow, EpochRow, Extent, ForgottenUserRow, InboxRow, LogRow, MembershipRow, Page,
    SubscriptionRow, Table, UserRow, gather,
};
use crate::store::contract::{Archive, Pages, StoreError};

/// Memory for pages of the file, in KiB: indexes in no order are written once, not again and again.
const CACHE: &str = "-65536";

/// See the module.
pub(super) struct SqliteArchive {
    connection: SqliteConnection,
    _lock: File,
}

impl SqliteArchive {
    /// Opens the file that the lock is for.
    pub(super) async fn open(options: &SqliteConnectOptions, lock: File) -> sqlx::Result<Self> {
        let mut connection = options.clone().pragma("cache_size", CACHE).connect().await?;
        connection.execute("BEGIN").await?;
        Ok(Self { connection, _lock: lock })
    }
}

#[async_trait]
impl Archive for SqliteArchive {
    async fn extent(&mut self) -> Result<Extent, StoreError> {
        let row = query!(
            r#"SELECT coalesce((SELECT head FROM meta WHERE id = 1), 0) AS "head!: i64",
                   (SELECT count(*) FROM epochs) AS "epochs!: i64",
                   (SELECT count(*) FROM channels) AS "channels!: i64",
                   (SELECT count(*) FROM users) AS "users!: i64",
                   (SELECT count(*) FROM log) AS "log!: i64",
                   (SELECT count(*) FROM inbox) AS "inbox!: i64",
                   (SELECT count(*) FROM connections) AS "connections!: i64",
                   (SELECT count(*) FROM subscriptions) AS "subscriptions!: i64",
                   (SELECT count(*) FROM memberships) AS "memberships!: i64",
                   (SELECT count(*) FROM forgotten_users) AS "forgotten_users!: i64""#
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
                let rows = query_as!(EpochRow, r#"SELECT number AS "number!", id, after FROM epochs ORDER BY number"#);
                Box::pin(gather(rows.fetch(connection).map_err(classify)))
            }
            Table::Channels => {
                let rows = query_as!(
                    ChannelRow,
                    r#"SELECT id AS "id!", name, uuid AS "uuid: Uuid", notify_presence AS "notify_presence: bool",
                           store_history AS "store_history: bool", history_size,
                           broadcast_presence_with_user_lists AS "broadcast_presence_with_user_lists: bool",
                           notify_state AS "notify_state: bool", store_frames AS "store_frames: bool", replay_size,
                           history_ttl, last_active, trimmed, deleted
                       FROM channels ORDER BY id"#
                );
                Box::pin(gather(rows.fetch(connection).map_err(classify)))
            }
            Table::Users => {
                let rows = query_as!(
                    UserRow,
                    r#"SELECT id AS "id!", name, uuid AS "uuid: Uuid", state, public_keys, created, last_active, trimmed
                       FROM users ORDER BY id"#
                );
                Box::pin(gather(rows.fetch(connection).map_err(classify)))
            }
            Table::Log => {
                let rows = query_as!(
                    LogRow,
                    r#"SELECT position AS "position!", channel, kind, uuid AS "uuid: Uuid", about, edit, sender, timestamp,
                           edited, audience, body, committed
                       FROM log ORDER BY position"#
                );
                Box::pin(gather(rows.fetch(connection).map_err(classify)))
            }
            Table::Inbox => {
                let rows = query_as!(InboxRow, "SELECT user, position FROM inbox ORDER BY user, position");
                Box::pin(gather(rows.fetch(connection).map_err(classify)))
            }
            Table::Connections => {
                let rows = query_as!(
                    ConnectionRow,
                    r#"SELECT id AS "id: Uuid", user, opened, head FROM connections ORDER BY id"#
                );
                Box::pin(gather(rows.fetch(connection).map_err(classify)))
            }
            Table::Subscriptions => {
                let rows = query_as!(
                    SubscriptionRow,
                    r#"SELECT connection AS "connection: Uuid", channel FROM subscriptions
                       ORDER BY connection, channel"#
                );
                Box::pin(gather(rows.fetch(connection).map_err(classify)))
            }
            Table::Memberships => {
                let rows = query_as!(
                    MembershipRow,
                    r#"SELECT user, channel, floor, "left" FROM memberships ORDER BY user, channel"#
                );
                Box::pin(gather(rows.fetch(connection).map_err(classify)))
            }
            Table::ForgottenUsers => {
                let rows = query_as!(ForgottenUserRow, "SELECT name, trimmed FROM forgotten_users ORDER BY name");
                Box::pin(gather(rows.fetch(connection).map_err(classify)))
            }
        }
    }

    async fn clear(&mut self) -> Result<(), StoreError> {
        query!("DELETE FROM epochs").execute(&mut self.connection).await.map_err(classify)?;
        Ok(())
    }

    async fn add(&mut self, page: &Page) -> Result<(), StoreError> {
        add(&mut self.connection, page).await.map_err(classify)
    }

    async fn finish(mut self: Box<Self>, head: Position) -> Result<(), StoreError> {
        let (head, epoch) = (head.0 as i64, Uuid::new_v4().simple().to_string()[..8].to_owned());
        let connection = &mut self.connection;
        let finished = async {
            query!("INSERT INTO epochs (id, after) VALUES (?1, ?2)", epoch, head).execute(&mut *connection).await?;
            query!(
                "INSERT INTO meta (id, head, last_batch, clean) VALUES (1, ?1, x'', 1)
                 ON CONFLICT (id) DO UPDATE
                 SET head = excluded.head, last_batch = excluded.last_batch, clean = excluded.clean",
                head
            )
            .execute(&mut *connection)
            .await?;
            connection.execute("COMMIT").await
        };
        finished.await.map_err(classify)?;
        self.connection.close().await.map_err(classify)
    }

    async fn close(mut self: Box<Self>) -> Result<(), StoreError> {
        self.connection.execute("ROLLBACK").await.map_err(classify)?;
        self.connection.close().await.map_err(classify)
    }
}

fn hex(uuid: &Uuid) -> String {
    uuid.simple().to_string()
}

async fn add(connection: &mut SqliteConnection, page: &Page) -> sqlx::Result<()> {
    match page {
        Page::Epochs(rows) => {
            let rows = list(rows.iter().map(|row| (row.number, &row.id, row.after)));
            query!(
                "INSERT INTO epochs (number, id, after)
                 SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?1)",
                rows
            )
            .execute(connection)
            .await?;
        }
        Page::Channels(rows) => {
            let rows = list(rows.iter().map(|row| {
                let flags = [
                    row.notify_presence,
                    row.store_history,
                    row.broadcast_presence_with_user_lists,
                    row.notify_state,
                    row.store_frames,
                ];
                let numbers = [row.last_active, row.trimmed, row.history_size, row.replay_size];
                (row.id, &row.name, hex(&row.uuid), flags.map(u8::from), numbers, row.history_ttl, row.deleted)
            }));
            query!(
                "INSERT INTO channels (id, name, uuid, notify_presence, store_history, broadcast_presence_with_user_lists,
                     notify_state, store_frames, last_active, trimmed, history_size, replay_size, history_ttl, deleted)
                 SELECT value ->> 0, value ->> 1, unhex(value ->> 2), value ->> '$[3][0]', value ->> '$[3][1]',
                     value ->> '$[3][2]', value ->> '$[3][3]', value ->> '$[3][4]', value ->> '$[4][0]',
                     value ->> '$[4][1]', value ->> '$[4][2]', value ->> '$[4][3]', value ->> 5, value ->> 6
                 FROM json_each(?1)",
                rows
            )
            .execute(connection)
            .await?;
        }
        Page::Users(rows) => {
            let rows = list(rows.iter().map(|row| {
                let numbers = [row.created, row.last_active, row.trimmed];
                (row.id, &row.name, hex(&row.uuid), &row.state, &row.public_keys, numbers)
            }));
            query!(
                "INSERT INTO users (id, name, uuid, state, public_keys, created, last_active, trimmed)
                 SELECT value ->> 0, value ->> 1, unhex(value ->> 2), value ->> 3, value ->> 4,
                     value ->> '$[5][0]', value ->> '$[5][1]', value ->> '$[5][2]'
                 FROM json_each(?1)",
                rows
            )
            .execute(connection)
            .await?;
        }
        Page::Log(rows) => {
            let rows = list(rows.iter().map(|row| {
                let numbers = (row.position, row.channel, row.kind, row.about, row.edit, row.committed);
                let texts = [&row.sender, &row.timestamp, &row.edited, &row.audience, &row.body];
                (numbers, hex(&row.uuid), texts)
            }));
            query!(
                "INSERT INTO log (position, channel, kind, about, edit, committed, uuid,
                     sender, timestamp, edited, audience, body)
                 SELECT value ->> '$[0][0]', value ->> '$[0][1]', value ->> '$[0][2]', value ->> '$[0][3]',
                     value ->> '$[0][4]', value ->> '$[0][5]', unhex(value ->> 1),
                     value ->> '$[2][0]', value ->> '$[2][1]', value ->> '$[2][2]', value ->> '$[2][3]',
                     value ->> '$[2][4]'
                 FROM json_each(?1)",
                rows
            )
            .execute(connection)
            .await?;
        }
        Page::Inbox(rows) => {
            let rows = list(rows.iter().map(|row| (row.user, row.position)));
            query!("INSERT INTO inbox (user, position) SELECT value ->> 0, value ->> 1 FROM json_each(?1)", rows)
                .execute(connection)
                .await?;
        }
        Page::Connections(rows) => {
            let rows = list(rows.iter().map(|row| (hex(&row.id), row.user, row.opened, row.head)));
            query!(
                "INSERT INTO connections (id, user, opened, head)
                 SELECT unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3 FROM json_each(?1)",
                rows
            )
            .execute(connection)
            .await?;
        }
        Page::Subscriptions(rows) => {
            let rows = list(rows.iter().map(|row| (hex(&row.connection), row.channel)));
            query!(
                "INSERT INTO subscriptions (connection, channel)
                 SELECT unhex(value ->> 0), value ->> 1 FROM json_each(?1)",
                rows
            )
            .execute(connection)
            .await?;
        }
        Page::Memberships(rows) => {
            let rows = list(rows.iter().map(|row| (row.user, row.channel, row.floor, row.left)));
            query!(
                r#"INSERT INTO memberships (user, channel, floor, "left")
                   SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?1)"#,
                rows
            )
            .execute(connection)
            .await?;
        }
        Page::ForgottenUsers(rows) => {
            let rows = list(rows.iter().map(|row| (&row.name, row.trimmed)));
            query!(
                "INSERT INTO forgotten_users (name, trimmed) SELECT value ->> 0, value ->> 1 FROM json_each(?1)",
                rows
            )
            .execute(connection)
            .await?;
        }
    }
    Ok(())
}
