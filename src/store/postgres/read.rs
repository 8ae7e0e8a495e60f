//! Reading what memory lacks. What takes several queries takes them in one snapshot.

use chrono::NaiveDateTime;
use hashbrown::{HashMap, HashSet};
use sqlx::postgres::PgConnection;
use sqlx::{query, query_as, query_scalar};
use uuid::Uuid;

use super::session::snapshot;
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
    reader: &mut PgConnection,
    names: &[&str],
    with_history: bool,
) -> sqlx::Result<HashMap<ChannelName, Channel>> {
    let mut transaction = snapshot(reader).await?;
    let rows = query!(
        r#"SELECT id, name, uuid, notify_presence, store_history, history_size, broadcast_presence_with_user_lists,
               notify_state, store_frames, replay_size, history_ttl, trimmed,
               greatest(last_active,
                   (SELECT committed FROM log WHERE channel = channels.id ORDER BY position DESC LIMIT 1))
                   AS "last_active!",
               (SELECT count(*) FROM log WHERE channel = channels.id AND kind = 0) AS "messages!",
               (SELECT count(*) FROM log WHERE channel = channels.id AND kind = 2) AS "deletions!"
           FROM channels WHERE deleted IS NULL AND name = ANY($1)"#,
        names as &[&str]
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
        let settings = settings_of(flags, row.history_size, row.replay_size, row.history_ttl);
        let mut channel = Channel::new(row.uuid, settings, from_micros(row.last_active));
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
        let rows = query_as!(
            EntryRow,
            r#"SELECT l.position AS "position!", l.kind::bigint AS "kind!", l.about, l.edit, l.uuid AS "uuid!", channels.name AS "channel?", l.sender,
                   l.timestamp, l.edited, l.audience, l.body, l.committed AS "committed!", l.committed AS "posted!"
               FROM channels CROSS JOIN LATERAL
                   (SELECT * FROM log WHERE log.channel = channels.id AND log.kind = 0
                    ORDER BY log.position DESC LIMIT channels.history_size) AS l
               WHERE channels.id = ANY($1)
               ORDER BY l.position"#,
            &histories
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
    transaction.commit().await?;
    Ok(channels)
}

pub(super) async fn read_users(reader: &mut PgConnection, names: &[&str]) -> sqlx::Result<HashMap<Username, User>> {
    let mut transaction = snapshot(reader).await?;
    let rows = query!(
        r#"SELECT name, uuid, state, public_keys, created, last_active, trimmed,
               (SELECT count(*) FROM inbox JOIN log ON log.position = inbox.position
                WHERE inbox."user" = users.id AND log.kind = 0) AS "messages!",
               (SELECT count(*) FROM inbox JOIN log ON log.position = inbox.position
                WHERE inbox."user" = users.id AND log.kind = 2) AS "deletions!"
           FROM users WHERE name = ANY($1)"#,
        names as &[&str]
    )
    .fetch_all(&mut *transaction)
    .await?;
    let mut users = HashMap::with_capacity(rows.len());
    for row in rows {
        let state = json::state_from_text(&row.state).ok_or_else(|| corrupt("state"))?;
        let public_keys =
            json::public_keys_from_text(&row.public_keys).ok_or_else(|| corrupt("list of public keys"))?;
        let profile = Profile::new(state, public_keys);
        let mut user = User::new(row.uuid, profile, from_micros(row.last_active));
        user.retained = Retained { messages: row.messages as u32, deletions: row.deletions as u32 };
        if user.retained.is_empty() {
            user.tail = Tail::whole(Position(row.trimmed as u64));
        }
        user.created = Position(row.created as u64);
        users.insert(username(&row.name)?, user);
    }
    let rows = query!(
        r#"SELECT users.name AS "user", channels.name AS channel, memberships.floor, memberships."left"
           FROM users JOIN memberships ON memberships."user" = users.id
           JOIN channels ON channels.id = memberships.channel
           WHERE users.name = ANY($1)"#,
        names as &[&str]
    )
    .fetch_all(&mut *transaction)
    .await?;
    for row in rows {
        if let Some(user) = users.get_mut(&username(&row.user)?) {
            let floor = Floor { position: Position(row.floor as u64), left: row.left.map(from_micros) };
            user.floors.insert(channel_name(&row.channel)?, floor);
        }
    }
    transaction.commit().await?;
    Ok(users)
}

pub(super) async fn read_held(reader: &mut PgConnection, uuids: &[Uuid]) -> sqlx::Result<HeldByUuid> {
    let rows = query_as!(
        EntryRow,
        r#"SELECT l.position AS "position!", l.kind::bigint AS "kind!", l.about, l.edit, l.uuid AS "uuid!", channels.name AS "channel?", l.sender,
               l.timestamp, l.edited, l.audience, l.body, l.committed AS "committed!", l.committed AS "posted!"
           FROM log AS l LEFT JOIN channels ON channels.id = l.channel
           WHERE l.kind IN (0, 2) AND l.uuid = ANY($1)
           ORDER BY l.position"#,
        uuids
    )
    .fetch_all(reader)
    .await?;
    let mut held = HeldByUuid::with_capacity(rows.len());
    for entry in rows {
        held.insert((entry.uuid, entry.channel()?), entry.held()?);
    }
    Ok(held)
}

/// Log entries in the order of the log; those of edits with the content of their messages.
pub(super) async fn read_entries(reader: &mut PgConnection, positions: &[i64]) -> sqlx::Result<Vec<EntryRow>> {
    query_as!(
        EntryRow,
        r#"SELECT l.position AS "position!", l.kind::bigint AS "kind!", l.about, l.edit, l.uuid AS "uuid!",
               channels.name AS "channel?", coalesce(m.sender, l.sender) AS sender,
               coalesce(m.timestamp, l.timestamp) AS timestamp, coalesce(m.edited, l.edited) AS edited,
               coalesce(m.audience, l.audience) AS audience, coalesce(m.body, l.body) AS body,
               l.committed AS "committed!", coalesce(m.committed, l.committed) AS "posted!"
           FROM log AS l LEFT JOIN log AS m ON l.kind = 1 AND m.position = l.about
           LEFT JOIN channels ON channels.id = l.channel
           WHERE l.position = ANY($1) ORDER BY l.position"#,
        positions
    )
    .fetch_all(reader)
    .await
}

pub(super) async fn read_positions(
    reader: &mut PgConnection,
    times: &HashSet<NaiveDateTime>,
) -> sqlx::Result<HashMap<NaiveDateTime, Position>> {
    let mut transaction = snapshot(reader).await?;
    let micros = times.iter().map(|time| time.and_utc().timestamp_micros());
    let newest = newest_by(&mut transaction, micros).await?;
    transaction.commit().await?;
    Ok(times.iter().copied().zip(newest.into_iter().map(|position| Position(position as u64))).collect())
}

/// The newest entries that were committed by times; 0 where there is none.
pub(super) async fn newest_by(
    connection: &mut PgConnection,
    times: impl IntoIterator<Item = i64>,
) -> sqlx::Result<Vec<i64>> {
    let head = query_scalar!("SELECT head FROM meta WHERE id = 1 -- pg").fetch_one(&mut *connection).await?;
    let mut halving = Halving::new(times, head);
    loop {
        let wanted = halving.wanted();
        if wanted.is_empty() {
            return Ok(halving.newest().collect());
        }
        let numbers: Vec<i64> = wanted.iter().map(|(number, ..)| *number).collect();
        let lows: Vec<i64> = wanted.iter().map(|(_, low, _)| *low).collect();
        let middles: Vec<i64> = wanted.iter().map(|(.., middle)| *middle).collect();
        let found = query!(
            r#"SELECT span.number AS "number!", l.position AS "position!", l.committed AS "committed!"
               FROM UNNEST($1::bigint[], $2::bigint[], $3::bigint[]) AS span (number, low, middle)
               CROSS JOIN LATERAL (SELECT position, committed FROM log
                                   WHERE position > span.low AND position <= span.middle
                                   ORDER BY position DESC LIMIT 1) AS l"#,
            &numbers,
            &lows,
            &middles
        )
        .fetch_all(&mut *connection)
        .await?;
        halving.narrow(&wanted, found.into_iter().map(|row| (row.number, row.position, row.committed)));
    }
}

pub(super) async fn read_connections(reader: &mut PgConnection) -> sqlx::Result<Vec<StoredConnection>> {
    let mut transaction = snapshot(reader).await?;
    let rows = query!(
        r#"SELECT connections.id, connections.head, users.name
           FROM connections JOIN users ON users.id = connections."user"
           ORDER BY connections.opened"#
    )
    .fetch_all(&mut *transaction)
    .await?;
    let mut connections = Vec::with_capacity(rows.len());
    let mut index = HashMap::with_capacity(rows.len());
    for row in rows {
        let id = ConnectionId(row.id);
        index.insert(id, connections.len());
        let head = Position(row.head as u64);
        connections.push(StoredConnection { id, user: username(&row.name)?, channels: Vec::new(), head });
    }
    let rows = query!(
        "SELECT subscriptions.connection, channels.name
         FROM subscriptions JOIN channels ON channels.id = subscriptions.channel"
    )
    .fetch_all(&mut *transaction)
    .await?;
    for row in rows {
        if let Some(index) = index.get(&ConnectionId(row.connection)) {
            connections[*index].channels.push(channel_name(&row.name)?);
        }
    }
    transaction.commit().await?;
    Ok(connections)
}
