//! What leaves the log: past retention, past its time, or with its user. Notes how far that goes,
//! so that no gap is silent.

use std::collections::BTreeMap;

use sqlx::sqlite::SqliteConnection;
use sqlx::{query, query_scalar};

use super::values::list;
use crate::domain::history::Retained;
use crate::domain::names::ChannelName;

/// What goes from a channel: its id; all up to this position, with edits of it; deletions up to this one.
type Cut = (i64, i64, i64);

/// Drops what is older than the newest entries of each channel, and notes how far that goes.
pub(super) async fn trim_channels(
    connection: &mut SqliteConnection,
    trims: &[(&ChannelName, Retained)],
) -> sqlx::Result<()> {
    // An offset is the same for all rows of a query, and mostly channels keep as much as others.
    let mut alike: BTreeMap<(u32, u32), Vec<&str>> = BTreeMap::new();
    for (name, keep) in trims {
        alike.entry((keep.messages, keep.deletions)).or_default().push(name.as_str());
    }
    let mut cuts: Vec<Cut> = Vec::with_capacity(trims.len());
    for ((messages, deletions), names) in alike {
        let names = list(names);
        let found = query!(
            r#"SELECT id AS "id!: i64",
                   coalesce((SELECT position FROM log WHERE channel = channels.id AND kind = 0
                             ORDER BY position DESC LIMIT 1 OFFSET ?2), 0) AS "messages!: i64",
                   coalesce((SELECT position FROM log WHERE channel = channels.id AND kind = 2
                             ORDER BY position DESC LIMIT 1 OFFSET ?3), 0) AS "deletions!: i64"
               FROM channels WHERE name IN (SELECT value FROM json_each(?1))"#,
            names,
            messages,
            deletions
        )
        .fetch_all(&mut *connection)
        .await?;
        cuts.extend(found.into_iter().map(|channel| (channel.id, channel.messages, channel.deletions)));
    }
    drop_entries(connection, &cuts).await
}

/// Takes entries from channels, and notes how far that goes.
async fn drop_entries(connection: &mut SqliteConnection, cuts: &[Cut]) -> sqlx::Result<()> {
    let cuts = list(cuts);
    query!(
        "UPDATE channels SET
             last_active = max(last_active, coalesce(
                 (SELECT committed FROM log WHERE channel = channels.id ORDER BY position DESC LIMIT 1), 0)),
             trimmed = max(trimmed,
                 coalesce((SELECT max(max(position, coalesce(edit, 0))) FROM log
                           WHERE channel = channels.id AND position <= cut.value ->> 1), 0),
                 coalesce((SELECT max(position) FROM log
                           WHERE channel = channels.id AND kind = 2 AND position <= cut.value ->> 2), 0))
         FROM json_each(?1) AS cut WHERE channels.id = cut.value ->> 0",
        cuts
    )
    .execute(&mut *connection)
    .await?;
    // What goes is found by the index of each channel, and then goes in the order of the log.
    query!(
        "DELETE FROM log WHERE position IN
             (SELECT l.edit FROM json_each(?1) AS cut CROSS JOIN log AS l
                  ON l.channel = cut.value ->> 0 AND l.position <= cut.value ->> 1
              WHERE l.edit IS NOT NULL
              UNION ALL
              SELECT l.position FROM json_each(?1) AS cut CROSS JOIN log AS l
                  ON l.channel = cut.value ->> 0 AND l.position <= max(cut.value ->> 1, cut.value ->> 2)
              WHERE l.position <= cut.value ->> 1 OR l.kind = 2)",
        cuts
    )
    .execute(&mut *connection)
    .await?;
    Ok(())
}

/// Most entries of one channel that expire in one go.
const EXPIRE_STEP: i64 = 2_000;

/// Drops what was committed up to a time, the oldest first.
pub(super) async fn expire_channels(connection: &mut SqliteConnection, expired: &str) -> sqlx::Result<()> {
    let channels = query!(
        r#"SELECT channels.id AS "id!: i64", value ->> 1 AS "through!: i64"
           FROM json_each(?1) JOIN channels ON channels.name = value ->> 0"#,
        expired
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut cuts = Vec::with_capacity(channels.len());
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
        cuts.extend(through.map(|through| (channel.id, through, through)));
    }
    drop_entries(connection, &cuts).await
}

/// Drops what is older than the newest private entries of each user.
pub(super) async fn trim_inboxes(connection: &mut SqliteConnection, trims: &str) -> sqlx::Result<()> {
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

/// Users go with all they have; where an inbox went, the name stays with how far that goes, for
/// whoever has the name next.
pub(super) async fn forget_users(connection: &mut SqliteConnection, names: &str) -> sqlx::Result<()> {
    let users = query_scalar!("SELECT id FROM users WHERE name IN (SELECT value FROM json_each(?1))", names)
        .fetch_all(&mut *connection)
        .await?;
    for user in users {
        drop_inbox(connection, user, i64::MAX, i64::MAX).await?;
        query!(
            "INSERT INTO forgotten_users (name, trimmed) SELECT name, trimmed FROM users WHERE id = ?1 AND trimmed > 0",
            user
        )
        .execute(&mut *connection)
        .await?;
        query!("DELETE FROM memberships WHERE user = ?1", user).execute(&mut *connection).await?;
        query!("DELETE FROM users WHERE id = ?1", user).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Channels go with all they have; their rows stay for the name, its place in the order of
/// creation, and how far that goes.
pub(super) async fn forget_channels(connection: &mut SqliteConnection, forgotten: &str) -> sqlx::Result<()> {
    let channels = query!(
        r#"SELECT channels.id AS "id!: i64", value ->> 1 AS "head!: i64"
           FROM json_each(?1) JOIN channels ON channels.name = value ->> 0"#,
        forgotten
    )
    .fetch_all(&mut *connection)
    .await?;
    let cuts: Vec<Cut> = channels.iter().map(|channel| (channel.id, i64::MAX, i64::MAX)).collect();
    drop_entries(connection, &cuts).await?;
    for channel in channels {
        query!("DELETE FROM subscriptions WHERE channel = ?1", channel.id).execute(&mut *connection).await?;
        query!("DELETE FROM memberships WHERE channel = ?1", channel.id).execute(&mut *connection).await?;
        query!("UPDATE channels SET deleted = ?2, history_ttl = NULL WHERE id = ?1", channel.id, channel.head)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
