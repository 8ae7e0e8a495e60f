//! Reading a page of messages, for back ends: which ones, then what they say.

use sqlx::sqlite::{SqliteConnection, SqlitePool};
use sqlx::{query, query_scalar};

use super::read::{newest_by, read_entries};
use crate::domain::tail::Place;
use crate::store::contract::{HistoryPage, HistoryQuery};
use crate::store::values::EntryRow;

/// Where a message is, and how many bytes it has.
struct Found {
    position: i64,
    bytes: i64,
}

pub(super) async fn read_history(readers: &SqlitePool, asked: &HistoryQuery<'_>) -> sqlx::Result<Option<HistoryPage>> {
    let mut transaction = readers.begin().await?;
    let Some(found) = find(&mut transaction, asked).await? else { return Ok(None) };
    let mut page = HistoryPage::default();
    let (mut positions, mut bytes) = (Vec::with_capacity(found.len()), 0);
    for message in found {
        bytes += message.bytes as u64;
        if positions.len() >= asked.limit as usize || bytes > asked.max_bytes && !positions.is_empty() {
            page.has_more = true;
            break;
        }
        positions.push(message.position);
    }
    let rows = read_entries(&mut transaction, positions).await?;
    page.messages = rows.into_iter().map(EntryRow::logged).collect::<sqlx::Result<_>>()?;
    Ok(Some(page))
}

/// The messages that fit, in the order in which they come into the page, and one more than it
/// takes. None if there is no such channel or user.
async fn find(connection: &mut SqliteConnection, asked: &HistoryQuery<'_>) -> sqlx::Result<Option<Vec<Found>>> {
    let after = asked.after.map_or(0, |after| after.0 as i64);
    let end = (asked.through.0 as i64).saturating_add(1);
    let end = asked.before.map_or(end, |before| end.min(before.0 as i64));
    let limit = i64::from(asked.limit) + 1;
    let oldest_first = asked.after.is_some();
    let name = match asked.place {
        Place::Channel(name) => name.as_str(),
        Place::Inbox(name) => {
            return inbox(connection, name.as_str(), after, end, oldest_first, limit).await;
        }
    };
    let channel =
        query!(r#"SELECT id AS "id!: i64", history_ttl FROM channels WHERE name = ?1 AND deleted IS NULL"#, name)
            .fetch_optional(&mut *connection)
            .await?;
    let Some(channel) = channel else { return Ok(None) };
    let after = match channel.history_ttl {
        Some(seconds) => {
            let over = asked.at.and_utc().timestamp_micros() - seconds * 1_000_000;
            after.max(newest_by(connection, [over]).await?[0])
        }
        None => after,
    };
    let found = if oldest_first {
        query!(
            r#"SELECT position AS "position!: i64",
                   coalesce(octet_length(body), 0) + coalesce(octet_length(audience), 0) AS "bytes!: i64"
               FROM log WHERE channel = ?1 AND kind = 0 AND position > ?2 AND position < ?3
               ORDER BY position LIMIT ?4"#,
            channel.id,
            after,
            end,
            limit
        )
        .map(|row| Found { position: row.position, bytes: row.bytes })
        .fetch_all(&mut *connection)
        .await?
    } else {
        query!(
            r#"SELECT position AS "position!: i64",
                   coalesce(octet_length(body), 0) + coalesce(octet_length(audience), 0) AS "bytes!: i64"
               FROM log WHERE channel = ?1 AND kind = 0 AND position > ?2 AND position < ?3
               ORDER BY position DESC LIMIT ?4"#,
            channel.id,
            after,
            end,
            limit
        )
        .map(|row| Found { position: row.position, bytes: row.bytes })
        .fetch_all(&mut *connection)
        .await?
    };
    Ok(Some(found))
}

/// Inboxes are small: all of one is read, and then turned around or not.
async fn inbox(
    connection: &mut SqliteConnection,
    name: &str,
    after: i64,
    end: i64,
    oldest_first: bool,
    limit: i64,
) -> sqlx::Result<Option<Vec<Found>>> {
    let user = query_scalar!(r#"SELECT id AS "id!: i64" FROM users WHERE name = ?1"#, name)
        .fetch_optional(&mut *connection)
        .await?;
    let Some(user) = user else { return Ok(None) };
    let rows = query!(
        r#"SELECT l.position AS "position!: i64",
               coalesce(octet_length(l.body), 0) + coalesce(octet_length(l.audience), 0) AS "bytes!: i64"
           FROM inbox JOIN log AS l ON l.position = inbox.position
           WHERE inbox.user = ?1 AND l.kind = 0 AND inbox.position > ?2 AND inbox.position < ?3
           ORDER BY inbox.position"#,
        user,
        after,
        end
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut found: Vec<Found> =
        rows.into_iter().map(|row| Found { position: row.position, bytes: row.bytes }).collect();
    if !oldest_first {
        found.reverse();
    }
    found.truncate(limit as usize);
    Ok(Some(found))
}
