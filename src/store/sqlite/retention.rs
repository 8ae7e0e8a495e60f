//! What leaves the log: past retention, past its time, or with its user. Notes how far that goes,
//! so that no gap is silent.

use std::collections::BTreeMap;

use sqlx::sqlite::SqliteConnection;
use sqlx::{query, query_scalar};

use super::values::list;
use crate::domain::history::Retained;
use crate::domain::names::{ChannelName, Username};

/// What goes from a channel or an inbox: its id or the user's; all up to this position, with edits of it;
/// deletions up to this one.
type Cut = (i64, i64, i64);

/// Names by how many messages and deletions they keep: that is an offset, which is the same for all rows of
/// a query, and mostly one keeps as much as others.
fn alike<'a>(trims: impl Iterator<Item = (&'a str, Retained)>) -> impl Iterator<Item = (u32, u32, String)> {
    let mut alike: BTreeMap<(u32, u32), Vec<&str>> = BTreeMap::new();
    for (name, keep) in trims {
        alike.entry((keep.messages, keep.deletions)).or_default().push(name);
    }
    alike.into_iter().map(|((messages, deletions), names)| (messages, deletions, list(names)))
}

/// Drops what is older than the newest entries of each channel, and notes how far that goes.
pub(super) async fn trim_channels(
    connection: &mut SqliteConnection,
    trims: &[(&ChannelName, Retained)],
) -> sqlx::Result<()> {
    let mut cuts: Vec<Cut> = Vec::with_capacity(trims.len());
    for (messages, deletions, names) in alike(trims.iter().map(|(name, keep)| (name.as_str(), *keep))) {
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
pub(super) async fn trim_inboxes(
    connection: &mut SqliteConnection,
    trims: &[(&Username, Retained)],
) -> sqlx::Result<()> {
    let mut cuts: Vec<Cut> = Vec::with_capacity(trims.len());
    for (messages, deletions, names) in alike(trims.iter().map(|(name, keep)| (name.as_str(), *keep))) {
        let found = query!(
            r#"SELECT id AS "id!: i64",
                   coalesce((SELECT inbox.position FROM inbox JOIN log ON log.position = inbox.position
                             WHERE inbox.user = users.id AND log.kind = 0
                             ORDER BY inbox.position DESC LIMIT 1 OFFSET ?2), 0) AS "messages!: i64",
                   coalesce((SELECT inbox.position FROM inbox JOIN log ON log.position = inbox.position
                             WHERE inbox.user = users.id AND log.kind = 2
                             ORDER BY inbox.position DESC LIMIT 1 OFFSET ?3), 0) AS "deletions!: i64"
               FROM users WHERE name IN (SELECT value FROM json_each(?1))"#,
            names,
            messages,
            deletions
        )
        .fetch_all(&mut *connection)
        .await?;
        cuts.extend(found.into_iter().map(|user| (user.id, user.messages, user.deletions)));
    }
    drop_inboxes(connection, &cuts).await
}

/// Takes entries from inboxes, with their edits, and notes how far that goes; and drops from the log what
/// no inbox holds any more.
async fn drop_inboxes(connection: &mut SqliteConnection, cuts: &[Cut]) -> sqlx::Result<()> {
    let cuts = list(cuts);
    let held = query!(
        r#"SELECT held.user AS "user!: i64", held.position AS "position!: i64", log.edit AS "edit?: i64"
           FROM json_each(?1) AS cut CROSS JOIN inbox AS held
               ON held.user = cut.value ->> 0 AND held.position <= max(cut.value ->> 1, cut.value ->> 2)
           CROSS JOIN log ON log.position = held.position
           WHERE held.position <= cut.value ->> 1 OR log.kind = 2"#,
        cuts
    )
    .fetch_all(&mut *connection)
    .await?;
    if held.is_empty() {
        return Ok(());
    }
    let edits = held.iter().filter_map(|row| row.edit.map(|edit| (row.user, edit)));
    let going = list(held.iter().map(|row| (row.user, row.position)).chain(edits));
    let gone = query!(
        r#"DELETE FROM inbox WHERE (user, position) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?1))
           RETURNING user AS "user!: i64", position AS "position!: i64""#,
        going
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut highest: BTreeMap<i64, i64> = BTreeMap::new();
    for row in &gone {
        let highest = highest.entry(row.user).or_default();
        *highest = row.position.max(*highest);
    }
    let highest = list(highest);
    query!(
        "UPDATE users SET trimmed = max(trimmed, value ->> 1) FROM json_each(?1) WHERE users.id = value ->> 0",
        highest
    )
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
    let users =
        query_scalar!(r#"SELECT id AS "id!: i64" FROM users WHERE name IN (SELECT value FROM json_each(?1))"#, names)
            .fetch_all(&mut *connection)
            .await?;
    let cuts: Vec<Cut> = users.iter().map(|user| (*user, i64::MAX, i64::MAX)).collect();
    drop_inboxes(connection, &cuts).await?;
    let users = list(users);
    query!(
        "INSERT INTO forgotten_users (name, trimmed)
         SELECT name, trimmed FROM users WHERE id IN (SELECT value FROM json_each(?1)) AND trimmed > 0",
        users
    )
    .execute(&mut *connection)
    .await?;
    query!("DELETE FROM memberships WHERE user IN (SELECT value FROM json_each(?1))", users)
        .execute(&mut *connection)
        .await?;
    query!("DELETE FROM users WHERE id IN (SELECT value FROM json_each(?1))", users).execute(&mut *connection).await?;
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
