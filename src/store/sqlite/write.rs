//! Writing a batch: one bulk statement per kind of write, all in one transaction.
//!
//! Where thousands of rows may come in one statement they are taken apart by `jsonb_each`: with `json_each`
//! each row would be written as text again and parsed anew. Where they are inserted it says `OR FAIL`: who
//! fails takes the whole transaction back, so SQLite need not note how to take back a single statement.

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, query, query_scalar};

use super::retention::{expire_channels, forget_channels, forget_users, trim_channels, trim_inboxes};
use super::values::list;
use crate::domain::names::{ChannelName, ConnectionId};
use crate::json;
use crate::store::contract::Batch;
use crate::store::rows::{Content, Rows};

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

pub(super) async fn write(writer: &mut SqliteConnection, batch: &Batch) -> sqlx::Result<()> {
    let rows = Rows::of(batch);
    let at = batch.at.and_utc().timestamp_micros();
    let (before, head) = (batch.before.0 as i64, batch.head.0 as i64);
    if rows.only_appends() && rows.inbox.is_empty() {
        let appended = append(writer, batch, &rows, at).await;
        if appended.is_err() {
            // Where this fails as well, so does the next batch, and is given another connection.
            let _ = query!("ROLLBACK").execute(writer).await;
        }
        return appended;
    }
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
            "INSERT INTO users (name, uuid, state, public_keys, created, last_active, trimmed)
             SELECT value ->> 0, unhex(value ->> 1), value ->> 2, value ->> 3, ?2, ?3,
                 coalesce((SELECT trimmed FROM forgotten_users WHERE name = value ->> 0), 0)
             FROM json_each(?1) WHERE true
             ON CONFLICT (name) DO UPDATE SET
                 state = excluded.state, public_keys = excluded.public_keys, last_active = excluded.last_active",
            users,
            before,
            at
        )
        .execute(&mut *connection)
        .await?;
        query!("DELETE FROM forgotten_users WHERE name IN (SELECT value ->> 0 FROM json_each(?1))", users)
            .execute(&mut *connection)
            .await?;
    }
    write_connections(connection, &rows, before, at).await?;
    write_log(connection, &rows, at).await?;
    if !rows.trimmed_channels.is_empty() {
        trim_channels(connection, &rows.trimmed_channels).await?;
    }
    if !rows.expired_channels.is_empty() {
        let expired = rows.expired_channels.iter().map(|(name, through)| (name.as_str(), through));
        expire_channels(connection, &list(expired)).await?;
    }
    if !rows.trimmed_inboxes.is_empty() {
        trim_inboxes(connection, &rows.trimmed_inboxes).await?;
    }
    if !rows.forgotten.is_empty() {
        forget_users(connection, &list(rows.forgotten.iter().map(|name| name.as_str()))).await?;
    }
    if !rows.forgotten_channels.is_empty() {
        let forgotten = rows.forgotten_channels.iter().map(|(name, head)| (name.as_str(), head.0));
        forget_channels(connection, &list(forgotten)).await?;
    }
    if let Some(left_before) = rows.floors_expired {
        let left_before = left_before.and_utc().timestamp_micros();
        query!(r#"DELETE FROM memberships WHERE "left" <= ?1"#, left_before).execute(&mut *connection).await?;
    }
    transaction.commit().await
}

/// What nearly every batch is under load, new entries of channels, in two hops to the thread that runs
/// SQLite, where it would take four. If it fails, its transaction is to be undone. Parameters have no
/// numbers here: those of all statements of a text are counted through.
async fn append(writer: &mut SqliteConnection, batch: &Batch, rows: &Rows<'_>, at: i64) -> sqlx::Result<()> {
    let (before, head) = (batch.before.0 as i64, batch.head.0 as i64);
    let id = batch.id.as_bytes().as_slice();
    query_scalar!(
        "BEGIN IMMEDIATE; UPDATE meta SET head = ?, last_batch = ? WHERE id = 1 AND head = ? RETURNING id",
        head,
        id,
        before
    )
    .fetch_all(&mut *writer)
    .await?
    .pop()
    .ok_or(sqlx::Error::RowNotFound)?;
    let entries = entry_list(rows);
    query!(
        "INSERT OR FAIL INTO log (position, channel, kind, uuid, about, edit, sender, timestamp, edited, audience, body, committed)
         SELECT value ->> 0, channels.id, value ->> 2, unhex(value ->> 3), value ->> 4,
             value ->> '$[5][0]', value ->> '$[5][1]', value ->> '$[5][2]', value ->> '$[5][3]',
             coalesce(value ->> '$[5][4]', value ->> 6), value ->> '$[5][5]', ?
         FROM jsonb_each(?) LEFT JOIN channels ON channels.name = value ->> 1;
         COMMIT",
        at,
        entries
    )
    .execute(writer)
    .await?;
    Ok(())
}

/// New log entries as a JSON list.
fn entry_list(rows: &Rows<'_>) -> String {
    list(rows.entries.iter().map(|entry| {
        (
            entry.position.0,
            entry.channel.map(ChannelName::as_str),
            entry.kind as u8,
            entry.uuid.simple().to_string(),
            entry.about.map(|about| about.0),
            entry.content.as_ref().map(columns),
            entry.audience.as_deref(),
        )
    }))
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
               ON CONFLICT (user, channel) DO UPDATE SET floor = excluded.floor, "left" = NULL"#,
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
        let entries = entry_list(rows);
        query!(
            "INSERT OR FAIL INTO log (position, channel, kind, uuid, about, edit, sender, timestamp, edited, audience, body, committed)
             SELECT value ->> 0, channels.id, value ->> 2, unhex(value ->> 3), value ->> 4,
                 value ->> '$[5][0]', value ->> '$[5][1]', value ->> '$[5][2]', value ->> '$[5][3]',
                 coalesce(value ->> '$[5][4]', value ->> 6), value ->> '$[5][5]', ?2
             FROM jsonb_each(?1) LEFT JOIN channels ON channels.name = value ->> 1",
            entries,
            at
        )
        .execute(&mut *connection)
        .await?;
    }
    if !rows.inbox.is_empty() {
        let inbox = list(rows.inbox.iter().map(|(user, position)| (user.as_str(), position.0)));
        query!(
            "INSERT OR FAIL INTO inbox (user, position)
             SELECT users.id, value ->> 1 FROM jsonb_each(?1) JOIN users ON users.name = value ->> 0",
            inbox
        )
        .execute(&mut *connection)
        .await?;
    }
    if !rows.inbox_copies.is_empty() {
        let copies = list(rows.inbox_copies.iter().map(|(from, to)| (from.0, to.0)));
        query!(
            "INSERT OR FAIL INTO inbox (user, position)
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
