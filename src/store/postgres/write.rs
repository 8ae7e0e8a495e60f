//! Writing a batch: one bulk statement per kind of write. What is added to the log goes with the
//! head in one statement.

use sqlx::postgres::PgConnection;
use sqlx::{Connection, query, query_scalar};
use uuid::Uuid;

use super::retention::{expire_channels, forget_channels, forget_users, trim_channels, trim_inboxes};
use super::values::texts;
use crate::domain::names::{ChannelName, Username};
use crate::json;
use crate::store::contract::Batch;
use crate::store::rows::{Content, Rows};

/// What a batch builds on; where `meta` says something else, there is no row to move.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ground {
    /// Who owns the store.
    pub(super) owner: Uuid,
    /// The batch before.
    pub(super) last: Uuid,
}

/// Writes a batch, if it stands on the right ground.
pub(super) async fn write(writer: &mut PgConnection, ground: Ground, batch: &Batch) -> sqlx::Result<()> {
    let rows = Rows::of(batch);
    if rows.only_appends() {
        return append(writer, ground, batch, &rows).await;
    }
    let at = batch.at.and_utc().timestamp_micros();
    let before = batch.before.0 as i64;
    let mut transaction = writer.begin().await?;
    let connection = &mut *transaction;
    write_channels(connection, &rows, at).await?;
    write_users(connection, &rows, before, at).await?;
    append(connection, ground, batch, &rows).await?;
    write_connections(connection, &rows, before, at).await?;
    write_changes(connection, &rows).await?;
    if !rows.trimmed_channels.is_empty() {
        trim_channels(connection, &rows.trimmed_channels).await?;
    }
    if !rows.expired_channels.is_empty() {
        expire_channels(connection, &rows.expired_channels).await?;
    }
    if !rows.trimmed_inboxes.is_empty() {
        trim_inboxes(connection, &rows.trimmed_inboxes).await?;
    }
    if !rows.forgotten.is_empty() {
        forget_users(connection, &texts(rows.forgotten.iter().map(|name| name.as_str()))).await?;
    }
    if !rows.forgotten_channels.is_empty() {
        forget_channels(connection, &rows.forgotten_channels).await?;
    }
    if let Some(left_before) = rows.floors_expired {
        let left_before = left_before.and_utc().timestamp_micros();
        query!(r#"DELETE FROM memberships WHERE "left" <= $1"#, left_before).execute(&mut *connection).await?;
    }
    transaction.commit().await
}

/// Moves the head, under the lock of its row, and adds new entries to the log and to inboxes.
async fn append(connection: &mut PgConnection, ground: Ground, batch: &Batch, rows: &Rows<'_>) -> sqlx::Result<()> {
    let at = batch.at.and_utc().timestamp_micros();
    let entries = &rows.entries;
    let content = |index: usize| entries[index].content.as_ref();
    let each = 0..entries.len();
    let positions: Vec<i64> = entries.iter().map(|entry| entry.position.0 as i64).collect();
    let channels: Vec<Option<&str>> = entries.iter().map(|entry| entry.channel.map(ChannelName::as_str)).collect();
    let kinds: Vec<i16> = entries.iter().map(|entry| entry.kind as i16).collect();
    let uuids: Vec<Uuid> = entries.iter().map(|entry| entry.uuid).collect();
    let abouts: Vec<Option<i64>> = entries.iter().map(|entry| entry.about.map(|about| about.0 as i64)).collect();
    let edits: Vec<Option<i64>> =
        each.clone().map(|index| content(index).and_then(|content| content.edit).map(|edit| edit.0 as i64)).collect();
    let senders: Vec<Option<&str>> = each.clone().map(|index| content(index).map(|content| content.sender)).collect();
    let timestamps: Vec<Option<&str>> =
        each.clone().map(|index| content(index).map(|content| content.timestamp.as_str())).collect();
    let edited: Vec<Option<&str>> =
        each.clone().map(|index| content(index).and_then(|content| content.edited.as_deref())).collect();
    let audiences: Vec<Option<&str>> = entries
        .iter()
        .map(|entry| entry.content.as_ref().map_or(entry.audience.as_deref(), |content| content.audience.as_deref()))
        .collect();
    let bodies: Vec<Option<&str>> = each.map(|index| content(index).and_then(|content| content.body)).collect();
    let inbox_users = texts(rows.inbox.iter().map(|(user, _)| user.as_str()));
    let inbox_positions: Vec<i64> = rows.inbox.iter().map(|(_, position)| position.0 as i64).collect();
    let moved = query_scalar!(
        r#"WITH moved AS (
             UPDATE meta SET head = $1, last_batch = $2 WHERE id = 1 AND head = $3 AND owner = $4 AND last_batch = $19 RETURNING id
           ), logged AS (
             INSERT INTO log (position, channel, kind, uuid, about, edit, sender, timestamp, edited, audience, body, committed)
             SELECT e.position, (SELECT id FROM channels WHERE name = e.channel), e.kind, e.uuid, e.about, e.edit,
                 e.sender, e.timestamp, e.edited, e.audience, e.body, $5
             FROM moved, UNNEST($6::bigint[], $7::text[], $8::smallint[], $9::uuid[], $10::bigint[], $11::bigint[],
                                $12::text[], $13::text[], $14::text[], $15::text[], $16::text[])
                 AS e (position, channel, kind, uuid, about, edit, sender, timestamp, edited, audience, body)
           ), received AS (
             INSERT INTO inbox ("user", position)
             SELECT users.id, i.position
             FROM moved, UNNEST($17::text[], $18::bigint[]) AS i (name, position) JOIN users ON users.name = i.name
           )
           SELECT id FROM moved"#,
        batch.head.0 as i64,
        batch.id,
        batch.before.0 as i64,
        ground.owner,
        at,
        &positions,
        &channels as &[Option<&str>],
        &kinds,
        &uuids,
        &abouts as &[Option<i64>],
        &edits as &[Option<i64>],
        &senders as &[Option<&str>],
        &timestamps as &[Option<&str>],
        &edited as &[Option<&str>],
        &audiences as &[Option<&str>],
        &bodies as &[Option<&str>],
        &inbox_users as &[&str],
        &inbox_positions,
        ground.last
    )
    .fetch_optional(connection)
    .await?;
    moved.map(|_| ()).ok_or(sqlx::Error::RowNotFound)
}

async fn write_channels(connection: &mut PgConnection, rows: &Rows<'_>, at: i64) -> sqlx::Result<()> {
    if rows.channels.is_empty() {
        return Ok(());
    }
    let names = texts(rows.channels.iter().map(|(name, ..)| name.as_str()));
    let uuids: Vec<Uuid> = rows.channels.iter().map(|(_, uuid, _)| *uuid).collect();
    let settings = || rows.channels.iter().map(|(.., settings)| settings);
    query!(
        "INSERT INTO channels (name, uuid, notify_presence, store_history, history_size,
             broadcast_presence_with_user_lists, notify_state, store_frames, replay_size, history_ttl, last_active)
         SELECT c.name, c.uuid, c.notify_presence, c.store_history, c.history_size, c.user_lists, c.notify_state,
             c.store_frames, c.replay_size, c.history_ttl, $11
         FROM UNNEST($1::text[], $2::uuid[], $3::boolean[], $4::boolean[], $5::bigint[], $6::boolean[],
                     $7::boolean[], $8::boolean[], $9::bigint[], $10::bigint[]) WITH ORDINALITY
             AS c (name, uuid, notify_presence, store_history, history_size, user_lists, notify_state,
                   store_frames, replay_size, history_ttl, number)
         ORDER BY c.number
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
        &names as &[&str],
        &uuids,
        &settings().map(|settings| settings.notify_presence).collect::<Vec<bool>>(),
        &settings().map(|settings| settings.store_history).collect::<Vec<bool>>(),
        &settings().map(|settings| settings.history_size.into()).collect::<Vec<i64>>(),
        &settings().map(|settings| settings.broadcast_presence_with_user_lists).collect::<Vec<bool>>(),
        &settings().map(|settings| settings.notify_state).collect::<Vec<bool>>(),
        &settings().map(|settings| settings.store_frames).collect::<Vec<bool>>(),
        &settings().map(|settings| settings.replay_size.into()).collect::<Vec<i64>>(),
        &settings().map(|settings| settings.history_ttl.map(i64::from)).collect::<Vec<Option<i64>>>()
            as &[Option<i64>],
        at
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn write_users(connection: &mut PgConnection, rows: &Rows<'_>, head: i64, at: i64) -> sqlx::Result<()> {
    if rows.users.is_empty() {
        return Ok(());
    }
    let names = texts(rows.users.iter().map(|(name, ..)| name.as_str()));
    let uuids: Vec<Uuid> = rows.users.iter().map(|(_, uuid, _)| *uuid).collect();
    let states: Vec<String> =
        rows.users.iter().map(|(.., profile)| json::to_text(&json::Json(profile.state()))).collect();
    let public_keys: Vec<String> =
        rows.users.iter().map(|(.., profile)| json::public_keys_text(profile.public_keys())).collect();
    query!(
        "INSERT INTO users (name, uuid, state, public_keys, created, last_active, trimmed)
         SELECT u.name, u.uuid, u.state, u.public_keys, $5, $6,
             coalesce((SELECT trimmed FROM forgotten_users WHERE name = u.name), 0)
         FROM UNNEST($1::text[], $2::uuid[], $3::text[], $4::text[]) AS u (name, uuid, state, public_keys)
         ON CONFLICT (name) DO UPDATE SET
             state = excluded.state, public_keys = excluded.public_keys, last_active = excluded.last_active",
        &names as &[&str],
        &uuids,
        &states,
        &public_keys,
        head,
        at
    )
    .execute(&mut *connection)
    .await?;
    query!("DELETE FROM forgotten_users WHERE name = ANY($1)", &names as &[&str]).execute(connection).await?;
    Ok(())
}

async fn write_connections(connection: &mut PgConnection, rows: &Rows<'_>, head: i64, at: i64) -> sqlx::Result<()> {
    let ended: Vec<Uuid> = rows.ended.iter().map(|id| id.0).collect();
    if !rows.opened.is_empty() {
        let ids: Vec<Uuid> = rows.opened.iter().map(|(id, _)| id.0).collect();
        let users = texts(rows.opened.iter().map(|(_, user)| user.as_str()));
        query!(
            r#"INSERT INTO connections (id, "user", opened, head)
               SELECT DISTINCT ON (c.id) c.id, users.id, $3::bigint, $4::bigint
               FROM UNNEST($1::uuid[], $2::text[]) AS c (id, name) JOIN users ON users.name = c.name
               ON CONFLICT (id) DO UPDATE SET opened = excluded.opened, head = excluded.head"#,
            &ids,
            &users as &[&str],
            at,
            head
        )
        .execute(&mut *connection)
        .await?;
    }
    if !rows.opened.is_empty() || !rows.ended.is_empty() {
        let opened = texts(rows.opened.iter().map(|(_, user)| user.as_str()));
        query!(
            r#"UPDATE users SET last_active = $1
               WHERE id IN (SELECT id FROM users WHERE name = ANY($2)
                            UNION SELECT "user" FROM connections WHERE id = ANY($3))"#,
            at,
            &opened as &[&str],
            &ended
        )
        .execute(&mut *connection)
        .await?;
    }
    if !rows.subscribed.is_empty() || !rows.unsubscribed.is_empty() || !rows.ended.is_empty() {
        let subscribed = rows.subscribed.iter().map(|(_, channel, _)| channel.as_str());
        let channels = texts(subscribed.chain(rows.unsubscribed.iter().map(|(_, channel)| channel.as_str())));
        query!(
            "UPDATE channels SET last_active = $1
             WHERE id IN (SELECT id FROM channels WHERE name = ANY($2)
                          UNION SELECT channel FROM subscriptions WHERE connection = ANY($3))",
            at,
            &channels as &[&str],
            &ended
        )
        .execute(&mut *connection)
        .await?;
    }
    if !rows.floors_ended.is_empty() {
        let (users, channels) = places(&rows.floors_ended);
        query!(
            r#"DELETE FROM memberships WHERE ("user", channel) IN
                   (SELECT users.id, channels.id FROM UNNEST($1::text[], $2::text[]) AS f ("user", channel)
                    JOIN users ON users.name = f."user" JOIN channels ON channels.name = f.channel)"#,
            &users as &[&str],
            &channels as &[&str]
        )
        .execute(&mut *connection)
        .await?;
    }
    if !rows.subscribed.is_empty() {
        let ids: Vec<Uuid> = rows.subscribed.iter().map(|(id, ..)| id.0).collect();
        let channels = texts(rows.subscribed.iter().map(|(_, channel, _)| channel.as_str()));
        let floors: Vec<i64> = rows.subscribed.iter().map(|(.., head)| head.0 as i64).collect();
        query!(
            "INSERT INTO subscriptions (connection, channel)
             SELECT s.connection, channels.id
             FROM UNNEST($1::uuid[], $2::text[]) AS s (connection, channel) JOIN channels ON channels.name = s.channel",
            &ids,
            &channels as &[&str]
        )
        .execute(&mut *connection)
        .await?;
        // Of several connections of one user the first begins the floor.
        query!(
            r#"INSERT INTO memberships ("user", channel, floor, "left")
               SELECT DISTINCT ON (connections."user", channels.id) connections."user", channels.id, s.floor, NULL::bigint
               FROM UNNEST($1::uuid[], $2::text[], $3::bigint[]) WITH ORDINALITY
                   AS s (connection, channel, floor, number)
               JOIN channels ON channels.name = s.channel JOIN connections ON connections.id = s.connection
               ORDER BY connections."user", channels.id, s.number
               ON CONFLICT ("user", channel) DO UPDATE SET "left" = NULL"#,
            &ids,
            &channels as &[&str],
            &floors
        )
        .execute(&mut *connection)
        .await?;
    }
    if !rows.floors_set.is_empty() {
        let users = texts(rows.floors_set.iter().map(|(user, ..)| user.as_str()));
        let channels = texts(rows.floors_set.iter().map(|(_, channel, _)| channel.as_str()));
        let floors: Vec<i64> = rows.floors_set.iter().map(|(.., floor)| floor.0 as i64).collect();
        // Of several for one place the last one holds.
        query!(
            r#"INSERT INTO memberships ("user", channel, floor, "left")
               SELECT DISTINCT ON (users.id, channels.id) users.id, channels.id, f.floor, NULL::bigint
               FROM UNNEST($1::text[], $2::text[], $3::bigint[]) WITH ORDINALITY AS f ("user", channel, floor, number)
               JOIN users ON users.name = f."user" JOIN channels ON channels.name = f.channel
               ORDER BY users.id, channels.id, f.number DESC
               ON CONFLICT ("user", channel) DO UPDATE SET floor = excluded.floor, "left" = NULL"#,
            &users as &[&str],
            &channels as &[&str],
            &floors
        )
        .execute(&mut *connection)
        .await?;
    }
    if !rows.unsubscribed.is_empty() {
        let ids: Vec<Uuid> = rows.unsubscribed.iter().map(|(id, _)| id.0).collect();
        let channels = texts(rows.unsubscribed.iter().map(|(_, channel)| channel.as_str()));
        query!(
            "DELETE FROM subscriptions WHERE (connection, channel) IN
                 (SELECT u.connection, channels.id
                  FROM UNNEST($1::uuid[], $2::text[]) AS u (connection, channel)
                  JOIN channels ON channels.name = u.channel)",
            &ids,
            &channels as &[&str]
        )
        .execute(&mut *connection)
        .await?;
        query!(
            r#"DELETE FROM memberships
               WHERE ("user", channel) IN
                   (SELECT connections."user", channels.id
                    FROM UNNEST($1::uuid[], $2::text[]) AS u (connection, channel)
                    JOIN channels ON channels.name = u.channel JOIN connections ON connections.id = u.connection)
                 AND NOT EXISTS
                   (SELECT 1 FROM connections JOIN subscriptions ON subscriptions.connection = connections.id
                    WHERE connections."user" = memberships."user" AND subscriptions.channel = memberships.channel)"#,
            &ids,
            &channels as &[&str]
        )
        .execute(&mut *connection)
        .await?;
    }
    if !rows.ended.is_empty() {
        query!(
            r#"UPDATE memberships SET "left" = $1
               WHERE "left" IS NULL
                 AND "user" IN (SELECT "user" FROM connections WHERE id = ANY($2))
                 AND NOT EXISTS
                   (SELECT 1 FROM connections JOIN subscriptions ON subscriptions.connection = connections.id
                    WHERE connections."user" = memberships."user" AND subscriptions.channel = memberships.channel
                      AND connections.id <> ALL($2))"#,
            at,
            &ended
        )
        .execute(&mut *connection)
        .await?;
        query!("DELETE FROM subscriptions WHERE connection = ANY($1)", &ended).execute(&mut *connection).await?;
        query!("DELETE FROM connections WHERE id = ANY($1)", &ended).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Users and channels as two arrays.
fn places<'a>(places: &[(&'a Username, &'a ChannelName)]) -> (Vec<&'a str>, Vec<&'a str>) {
    places.iter().map(|(user, channel)| (user.as_str(), channel.as_str())).unzip()
}

/// What changes or goes of what the log holds already.
async fn write_changes(connection: &mut PgConnection, rows: &Rows<'_>) -> sqlx::Result<()> {
    if !rows.changed.is_empty() {
        let contents = || rows.changed.values();
        let positions: Vec<i64> = rows.changed.keys().map(|position| position.0 as i64).collect();
        let edits: Vec<Option<i64>> = contents().map(|content| content.edit.map(|edit| edit.0 as i64)).collect();
        let optional = |of: fn(&Content<'_>) -> Option<String>| contents().map(of).collect::<Vec<Option<String>>>();
        let bodies: Vec<Option<&str>> = contents().map(|content| content.body).collect();
        query!(
            "UPDATE log SET edit = c.edit, sender = c.sender, timestamp = c.timestamp, edited = c.edited,
                 audience = c.audience, body = c.body
             FROM UNNEST($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
                 AS c (position, edit, sender, timestamp, edited, audience, body)
             WHERE log.position = c.position",
            &positions,
            &edits as &[Option<i64>],
            &texts(contents().map(|content| content.sender)) as &[&str],
            &texts(contents().map(|content| content.timestamp.as_str())) as &[&str],
            &optional(|content| content.edited.clone()) as &[Option<String>],
            &optional(|content| content.audience.clone()) as &[Option<String>],
            &bodies as &[Option<&str>]
        )
        .execute(&mut *connection)
        .await?;
    }
    if !rows.inbox_copies.is_empty() {
        let (from, to): (Vec<i64>, Vec<i64>) =
            rows.inbox_copies.iter().map(|(from, to)| (from.0 as i64, to.0 as i64)).unzip();
        query!(
            r#"INSERT INTO inbox ("user", position)
               SELECT inbox."user", c.target
               FROM UNNEST($1::bigint[], $2::bigint[]) AS c (source, target) JOIN inbox ON inbox.position = c.source"#,
            &from,
            &to
        )
        .execute(&mut *connection)
        .await?;
    }
    if !rows.gone.is_empty() {
        let gone: Vec<i64> = rows.gone.iter().map(|position| position.0 as i64).collect();
        query!("DELETE FROM inbox WHERE position = ANY($1)", &gone).execute(&mut *connection).await?;
        query!("DELETE FROM log WHERE position = ANY($1)", &gone).execute(&mut *connection).await?;
    }
    Ok(())
}
