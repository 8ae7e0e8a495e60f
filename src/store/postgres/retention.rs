//! What leaves the log: past retention, past its time, or with its user. Notes how far that goes,
//! so that no gap is silent.

use std::collections::BTreeMap;

use sqlx::postgres::PgConnection;
use sqlx::{query, query_scalar};

use super::values::texts;
use crate::domain::history::Retained;
use crate::domain::names::{ChannelName, Username};
use crate::domain::position::Position;

/// What goes from a channel or an inbox: its id or the user's; all up to this position, with edits of it;
/// deletions up to this one.
type Cut = (i64, i64, i64);

/// Drops what is older than the newest entries of each channel, and notes how far that goes.
pub(super) async fn trim_channels(
    connection: &mut PgConnection,
    trims: &[(&ChannelName, Retained)],
) -> sqlx::Result<()> {
    let names = texts(trims.iter().map(|(name, _)| name.as_str()));
    let messages: Vec<i64> = trims.iter().map(|(_, keep)| keep.messages.into()).collect();
    let deletions: Vec<i64> = trims.iter().map(|(_, keep)| keep.deletions.into()).collect();
    let channels = query!(
        r#"SELECT channels.id,
               coalesce((SELECT position FROM log WHERE channel = channels.id AND kind = 0
                         ORDER BY position DESC LIMIT 1 OFFSET t.messages), 0) AS "messages!",
               coalesce((SELECT position FROM log WHERE channel = channels.id AND kind = 2
                         ORDER BY position DESC LIMIT 1 OFFSET t.deletions), 0) AS "deletions!"
           FROM UNNEST($1::text[], $2::bigint[], $3::bigint[]) AS t (name, messages, deletions)
           JOIN channels ON channels.name = t.name"#,
        &names as &[&str],
        &messages,
        &deletions
    )
    .fetch_all(&mut *connection)
    .await?;
    let cuts: Vec<Cut> =
        channels.into_iter().map(|channel| (channel.id, channel.messages, channel.deletions)).collect();
    drop_entries(connection, &cuts).await
}

/// Takes entries from channels, and notes how far that goes.
async fn drop_entries(connection: &mut PgConnection, cuts: &[Cut]) -> sqlx::Result<()> {
    let channels: Vec<i64> = cuts.iter().map(|(channel, ..)| *channel).collect();
    let alls: Vec<i64> = cuts.iter().map(|(_, all, _)| *all).collect();
    let deletions: Vec<i64> = cuts.iter().map(|(.., deletions)| *deletions).collect();
    query!(
        "UPDATE channels SET
             last_active = greatest(last_active,
                 (SELECT committed FROM log WHERE channel = channels.id ORDER BY position DESC LIMIT 1)),
             trimmed = greatest(trimmed,
                 (SELECT max(greatest(position, edit)) FROM log
                  WHERE channel = channels.id AND position <= cut.all_to),
                 (SELECT max(position) FROM log
                  WHERE channel = channels.id AND kind = 2 AND position <= cut.deletions_to))
         FROM UNNEST($1::bigint[], $2::bigint[], $3::bigint[]) AS cut (channel, all_to, deletions_to)
         WHERE channels.id = cut.channel",
        &channels,
        &alls,
        &deletions
    )
    .execute(&mut *connection)
    .await?;
    // One after the other: each finds what it drops by an index.
    query!(
        "DELETE FROM log WHERE position IN
             (SELECT l.edit FROM UNNEST($1::bigint[], $2::bigint[]) AS cut (channel, all_to)
              JOIN log AS l ON l.channel = cut.channel AND l.position <= cut.all_to)",
        &channels,
        &alls
    )
    .execute(&mut *connection)
    .await?;
    query!(
        "DELETE FROM log AS l
         USING UNNEST($1::bigint[], $2::bigint[], $3::bigint[]) AS cut (channel, all_to, deletions_to)
         WHERE l.channel = cut.channel AND l.position <= greatest(cut.all_to, cut.deletions_to)
             AND (l.position <= cut.all_to OR l.kind = 2)",
        &channels,
        &alls,
        &deletions
    )
    .execute(&mut *connection)
    .await?;
    Ok(())
}

/// Most entries of one channel that expire in one go.
const EXPIRE_STEP: i64 = 2_000;

/// Drops what was committed up to a time, the oldest first.
pub(super) async fn expire_channels(
    connection: &mut PgConnection,
    expired: &[(&ChannelName, i64)],
) -> sqlx::Result<()> {
    let names = texts(expired.iter().map(|(name, _)| name.as_str()));
    let throughs: Vec<i64> = expired.iter().map(|(_, through)| *through).collect();
    let channels = query!(
        r#"SELECT channels.id,
               (SELECT max(position)
                FROM (SELECT position, committed FROM log WHERE channel = channels.id ORDER BY position LIMIT $3)
                    AS oldest
                WHERE committed <= e.through) AS through
           FROM UNNEST($1::text[], $2::bigint[]) AS e (name, through) JOIN channels ON channels.name = e.name"#,
        &names as &[&str],
        &throughs,
        EXPIRE_STEP
    )
    .fetch_all(&mut *connection)
    .await?;
    let cuts = channels.into_iter().filter_map(|row| row.through.map(|through| (row.id, through, through)));
    drop_entries(connection, &cuts.collect::<Vec<Cut>>()).await
}

/// Drops what is older than the newest private entries of each user.
pub(super) async fn trim_inboxes(connection: &mut PgConnection, trims: &[(&Username, Retained)]) -> sqlx::Result<()> {
    let names = texts(trims.iter().map(|(name, _)| name.as_str()));
    let messages: Vec<i64> = trims.iter().map(|(_, keep)| keep.messages.into()).collect();
    let deletions: Vec<i64> = trims.iter().map(|(_, keep)| keep.deletions.into()).collect();
    let users = query!(
        r#"SELECT users.id,
               coalesce((SELECT inbox.position FROM inbox JOIN log ON log.position = inbox.position
                         WHERE inbox."user" = users.id AND log.kind = 0
                         ORDER BY inbox.position DESC LIMIT 1 OFFSET t.messages), 0) AS "messages!",
               coalesce((SELECT inbox.position FROM inbox JOIN log ON log.position = inbox.position
                         WHERE inbox."user" = users.id AND log.kind = 2
                         ORDER BY inbox.position DESC LIMIT 1 OFFSET t.deletions), 0) AS "deletions!"
           FROM UNNEST($1::text[], $2::bigint[], $3::bigint[]) AS t (name, messages, deletions)
           JOIN users ON users.name = t.name"#,
        &names as &[&str],
        &messages,
        &deletions
    )
    .fetch_all(&mut *connection)
    .await?;
    let cuts: Vec<Cut> = users.into_iter().map(|user| (user.id, user.messages, user.deletions)).collect();
    drop_inboxes(connection, &cuts).await
}

/// Takes entries from inboxes, with their edits, and notes how far that goes; and drops from the log what
/// no inbox holds any more.
async fn drop_inboxes(connection: &mut PgConnection, cuts: &[Cut]) -> sqlx::Result<()> {
    let users: Vec<i64> = cuts.iter().map(|(user, ..)| *user).collect();
    let alls: Vec<i64> = cuts.iter().map(|(_, all, _)| *all).collect();
    let deletions: Vec<i64> = cuts.iter().map(|(.., deletions)| *deletions).collect();
    let held = query!(
        r#"SELECT held."user", held.position, log.edit
           FROM UNNEST($1::bigint[], $2::bigint[], $3::bigint[]) AS cut (id, all_to, deletions_to)
           JOIN inbox AS held ON held."user" = cut.id AND held.position <= greatest(cut.all_to, cut.deletions_to)
           JOIN log ON log.position = held.position
           WHERE held.position <= cut.all_to OR log.kind = 2"#,
        &users,
        &alls,
        &deletions
    )
    .fetch_all(&mut *connection)
    .await?;
    if held.is_empty() {
        return Ok(());
    }
    let edits = held.iter().filter_map(|row| row.edit.map(|edit| (row.user, edit)));
    let (users, positions): (Vec<i64>, Vec<i64>) = held.iter().map(|row| (row.user, row.position)).chain(edits).unzip();
    let gone = query!(
        r#"DELETE FROM inbox USING UNNEST($1::bigint[], $2::bigint[]) AS going (id, position)
           WHERE inbox."user" = going.id AND inbox.position = going.position
           RETURNING inbox."user", inbox.position"#,
        &users,
        &positions
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut highest: BTreeMap<i64, i64> = BTreeMap::new();
    for row in &gone {
        let highest = highest.entry(row.user).or_default();
        *highest = row.position.max(*highest);
    }
    let (users, highest): (Vec<i64>, Vec<i64>) = highest.into_iter().unzip();
    query!(
        "UPDATE users SET trimmed = greatest(trimmed, gone.highest)
         FROM UNNEST($1::bigint[], $2::bigint[]) AS gone (id, highest) WHERE users.id = gone.id",
        &users,
        &highest
    )
    .execute(&mut *connection)
    .await?;
    let positions: Vec<i64> = gone.iter().map(|row| row.position).collect();
    query!(
        "DELETE FROM log WHERE position = ANY($1)
             AND NOT EXISTS (SELECT 1 FROM inbox WHERE inbox.position = log.position)",
        &positions
    )
    .execute(&mut *connection)
    .await?;
    Ok(())
}

/// Users go with all they have; where an inbox went, the name stays with how far that goes, for
/// whoever has the name next.
pub(super) async fn forget_users(connection: &mut PgConnection, names: &[&str]) -> sqlx::Result<()> {
    let users = query_scalar!("SELECT id FROM users WHERE name = ANY($1)", names as &[&str])
        .fetch_all(&mut *connection)
        .await?;
    let cuts: Vec<Cut> = users.iter().map(|user| (*user, i64::MAX, i64::MAX)).collect();
    drop_inboxes(connection, &cuts).await?;
    query!(
        "INSERT INTO forgotten_users (name, trimmed)
         SELECT name, trimmed FROM users WHERE id = ANY($1) AND trimmed > 0",
        &users
    )
    .execute(&mut *connection)
    .await?;
    query!(r#"DELETE FROM memberships WHERE "user" = ANY($1)"#, &users).execute(&mut *connection).await?;
    query!("DELETE FROM users WHERE id = ANY($1)", &users).execute(&mut *connection).await?;
    Ok(())
}

/// Channels go with all they have; their rows stay for the name, its place in the order of
/// creation, and how far that goes.
pub(super) async fn forget_channels(
    connection: &mut PgConnection,
    forgotten: &[(&ChannelName, Position)],
) -> sqlx::Result<()> {
    let names = texts(forgotten.iter().map(|(name, _)| name.as_str()));
    let heads: Vec<i64> = forgotten.iter().map(|(_, head)| head.0 as i64).collect();
    let channels = query!(
        "SELECT channels.id, f.head
         FROM UNNEST($1::text[], $2::bigint[]) AS f (name, head) JOIN channels ON channels.name = f.name",
        &names as &[&str],
        &heads
    )
    .fetch_all(&mut *connection)
    .await?;
    let cuts: Vec<Cut> = channels.iter().map(|channel| (channel.id, i64::MAX, i64::MAX)).collect();
    drop_entries(connection, &cuts).await?;
    for channel in channels {
        query!("DELETE FROM subscriptions WHERE channel = $1", channel.id).execute(&mut *connection).await?;
        query!("DELETE FROM memberships WHERE channel = $1", channel.id).execute(&mut *connection).await?;
        query!("UPDATE channels SET deleted = $2, history_ttl = NULL WHERE id = $1", channel.id, channel.head)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
