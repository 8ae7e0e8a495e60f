//! Reading what memory lacks.

use chrono::NaiveDateTime;
use hashbrown::{HashMap, HashSet};
use sqlx::sqlite::{SqliteConnection, SqlitePool};
use sqlx::{query, query_as, query_scalar};
use uuid::Uuid;

use super::values::{list, uuid_of};
use crate::domain::channel::Channel;
use crate::domain::draft::HeldByUuid;
use crate::domain::history::Retained;
use crate::domain::names::{ChannelName, ConnectionId, Username};
use crate::domain::position::Position;
use crate::domain::state::Profile;
use crate::domain::tail::Tail;
use crate::domain::timestamp::from_micros;
use crate::domain::user::{Floor, User};
use crate::json;
use crate::store::contract::StoredConnection;
use crate::store::halving::Halving;
use crate::store::values::{EntryRow, channel_name, corrupt, settings_of, username};

/// Channels, with their histories or without.
pub(super) async fn read_channels(
    readers: &SqlitePool,
    names: &str,
    with_history: bool,
) -> sqlx::Result<HashMap<ChannelName, Channel>> {
    let mut transaction = readers.begin().await?;
    let rows = query!(
        r#"SELECT id AS "id!", name, uuid, notify_presence, store_history, history_size, broadcast_presence_with_user_lists,
               notify_state, store_frames, replay_size, history_ttl, trimmed,
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
    let mut histories = Vec::new();
    for row in rows {
        let flags = [
            row.notify_presence,
            row.store_history,
            row.broadcast_presence_with_user_lists,
            row.notify_state,
            row.store_frames,
        ];
        let flags = flags.map(|flag| flag != 0);
        let settings = settings_of(flags, row.history_size, row.replay_size, row.history_ttl);
        let mut channel = Channel::new(uuid_of(&row.uuid)?, settings, from_micros(row.last_active));
        channel.retained = Retained { messages: row.messages as u32, deletions: row.deletions as u32 };
        if channel.retained.is_empty() {
            channel.tail = Tail::whole(Position(row.trimmed as u64));
        }
        let name = channel_name(&row.name)?;
        if with_history && channel.retained.messages > 0 {
            histories.push(row.id);
        }
        channels.insert(name, channel);
    }
    if !histories.is_empty() {
        let histories = list(histories);
        let rows = query_as!(
            EntryRow,
            r#"SELECT l.position AS "position!: i64", l.kind AS "kind!: i64", l.about, l.edit, l.uuid AS "uuid!: Uuid",
                   channels.name AS "channel?: String", l.sender, l.timestamp, l.edited, l.audience, l.body,
                   l.committed AS "committed!: i64", l.committed AS "posted!: i64"
               FROM (SELECT position, channel,
                         row_number() OVER (PARTITION BY channel ORDER BY position DESC) AS age
                     FROM log WHERE kind = 0 AND channel IN (SELECT value FROM json_each(?1))) AS newest
               JOIN channels ON channels.id = newest.channel
               JOIN log AS l ON l.position = newest.position
               WHERE newest.age <= channels.history_size
               ORDER BY l.position"#,
            histories
        )
        .fetch_all(&mut *transaction)
        .await?;
        for entry in rows {
            let logged = entry.logged()?;
            if let Some(channel) = logged.message.channel.as_ref().and_then(|name| channels.get_mut(name)) {
                channel.history.push(logged);
                channel.cut_history();
            }
        }
    }
    Ok(channels)
}

pub(super) async fn read_users(readers: &SqlitePool, names: &str) -> sqlx::Result<HashMap<Username, User>> {
    let mut transaction = readers.begin().await?;
    let rows = query!(
        r#"SELECT name, uuid, state, public_keys, created, last_active, trimmed,
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
        if user.retained.is_empty() {
            user.tail = Tail::whole(Position(row.trimmed as u64));
        }
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

pub(super) async fn read_held(readers: &SqlitePool, uuids: &str) -> sqlx::Result<HeldByUuid> {
    let rows = query_as!(
        EntryRow,
        r#"SELECT l.position AS "position!: i64", l.kind AS "kind!: i64", l.about, l.edit, l.uuid AS "uuid!: Uuid",
               channels.name AS "channel?: String", l.sender, l.timestamp, l.edited, l.audience, l.body,
               l.committed AS "committed!: i64", l.committed AS "posted!: i64"
           FROM log AS l LEFT JOIN channels ON channels.id = l.channel
           WHERE l.kind IN (0, 2) AND l.uuid IN (SELECT unhex(value) FROM json_each(?1))
           ORDER BY l.position"#,
        uuids
    )
    .fetch_all(readers)
    .await?;
    let mut held = HeldByUuid::with_capacity(rows.len());
    for entry in rows {
        held.insert((entry.uuid, entry.channel()?), entry.held()?);
    }
    Ok(held)
}

/// Log entries in the order of the log; those of edits with the content of their messages.
pub(super) async fn read_entries(
    connection: &mut SqliteConnection,
    positions: impl IntoIterator<Item = i64>,
) -> sqlx::Result<Vec<EntryRow>> {
    let positions = list(positions);
    query_as!(
        EntryRow,
        r#"SELECT l.position AS "position!: i64", l.kind AS "kind!: i64", l.uuid AS "uuid!: Uuid", l.about,
               l.edit, channels.name AS "channel?: String", coalesce(m.sender, l.sender) AS "sender?: String",
               coalesce(m.timestamp, l.timestamp) AS "timestamp?: String", coalesce(m.edited, l.edited) AS "edited?: String",
               coalesce(m.audience, l.audience) AS "audience?: String", coalesce(m.body, l.body) AS "body?: String",
               l.committed AS "committed!: i64", coalesce(m.committed, l.committed) AS "posted!: i64"
           FROM log AS l LEFT JOIN log AS m ON l.kind = 1 AND m.position = l.about
           LEFT JOIN channels ON channels.id = l.channel
           WHERE l.position IN (SELECT value FROM json_each(?1)) ORDER BY l.position"#,
        positions
    )
    .fetch_all(connection)
    .await
}

pub(super) async fn read_positions(
    readers: &SqlitePool,
    times: &HashSet<NaiveDateTime>,
) -> sqlx::Result<HashMap<NaiveDateTime, Position>> {
    let mut transaction = readers.begin().await?;
    let micros = times.iter().map(|time| time.and_utc().timestamp_micros());
    let newest = newest_by(&mut transaction, micros).await?;
    Ok(times.iter().copied().zip(newest.into_iter().map(|position| Position(position as u64))).collect())
}

/// The newest entries that were committed by times; 0 where there is none.
pub(super) async fn newest_by(
    connection: &mut SqliteConnection,
    times: impl IntoIterator<Item = i64>,
) -> sqlx::Result<Vec<i64>> {
    let head = query_scalar!("SELECT head FROM meta WHERE id = 1").fetch_one(&mut *connection).await?;
    let mut halving = Halving::new(times, head);
    loop {
        let wanted = halving.wanted();
        if wanted.is_empty() {
            return Ok(halving.newest().collect());
        }
        let spans = list(&wanted);
        let found = query!(
            r#"SELECT span.value ->> 0 AS "number!: i64", l.position AS "position!: i64", l.committed AS "committed!: i64"
               FROM json_each(?1) AS span JOIN log AS l ON l.position =
                   (SELECT max(position) FROM log
                    WHERE position > span.value ->> 1 AND position <= span.value ->> 2)"#,
            spans
        )
        .fetch_all(&mut *connection)
        .await?;
        halving.narrow(&wanted, found.into_iter().map(|row| (row.number, row.position, row.committed)));
    }
}

pub(super) async fn read_connections(readers: &SqlitePool) -> sqlx::Result<Vec<StoredConnection>> {
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
