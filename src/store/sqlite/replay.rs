//! Reading what a listener has missed.

use sqlx::sqlite::SqlitePool;
use sqlx::{query, query_scalar};

use super::read::read_entries;
use super::values::list;
use crate::domain::names::ChannelName;
use crate::domain::position::Position;
use crate::domain::replay::Doubt;
use crate::store::contract::{ReplayPage, ReplayQuery};
use crate::store::values::channel_name;

pub(super) async fn read_replay(readers: &SqlitePool, asked: &ReplayQuery<'_>) -> sqlx::Result<ReplayPage> {
    let mut transaction = readers.begin().await?;
    let scopes = list(asked.channels.iter().map(|(name, from)| (name.as_str(), from.0)));
    let (user, inbox) = (asked.user.as_str(), asked.inbox.0 as i64);
    let (after, through) = (asked.after.0 as i64, asked.through.0 as i64);
    let at = asked.at.and_utc().timestamp_micros();
    // Only sizes of bodies are looked at.
    let found = query!(
        r#"WITH found AS (
             SELECT l.position
             FROM json_each(?1) AS scope
             JOIN channels ON channels.name = scope.value ->> 0
             JOIN log AS l ON l.position IN
                 (SELECT e.position FROM log AS e
                  WHERE e.channel = channels.id AND e.position > max(scope.value ->> 1, ?2) AND e.position <= ?3
                    AND NOT (e.kind IN (1, 2) AND coalesce(e.about > scope.value ->> 1, 0))
                    AND (channels.history_ttl IS NULL OR ?4 - channels.history_ttl * 1000000 <
                         CASE e.kind WHEN 1 THEN (SELECT committed FROM log WHERE position = e.about) ELSE e.committed END)
                  ORDER BY e.position LIMIT ?7)
             UNION ALL
             SELECT l.position
             FROM users JOIN inbox ON inbox.user = users.id JOIN log AS l ON l.position = inbox.position
             WHERE users.name = ?5 AND inbox.position > max(?6, ?2) AND inbox.position <= ?3
               AND NOT (l.kind IN (1, 2) AND coalesce(l.about > ?6, 0))
             ORDER BY 1 LIMIT ?7
           )
           SELECT found.position AS "position!: i64",
               sum(octet_length(coalesce(l.body, m.body, ''))) OVER (ORDER BY found.position)
                   - octet_length(coalesce(l.body, m.body, '')) < ?8 AS "fits!: bool"
           FROM found JOIN log AS l ON l.position = found.position
           LEFT JOIN log AS m ON l.kind = 1 AND m.position = l.about
           ORDER BY found.position"#,
        scopes,
        after,
        through,
        at,
        user,
        inbox,
        asked.limit,
        asked.max_bytes
    )
    .fetch_all(&mut *transaction)
    .await?;
    let positions: Vec<i64> = found.iter().filter(|row| row.fits).map(|row| row.position).collect();
    let is_last = found.len() < asked.limit as usize && positions.len() == found.len();
    let mut page = ReplayPage { is_last, ..ReplayPage::default() };
    for row in read_entries(&mut transaction, positions).await? {
        let (channel, entry) = row.entry()?;
        page.frames.push(entry.frame(channel.as_ref()));
    }
    let rows = query!(
        r#"SELECT channels.name, max(channels.trimmed, coalesce(
               (SELECT max(max(l.position, coalesce(l.edit, 0))) FROM log AS l
                WHERE channels.history_ttl IS NOT NULL AND l.channel = channels.id AND l.committed <= ?2 - channels.history_ttl * 1000000), 0)) AS "trimmed!: i64"
           FROM json_each(?1) AS scope JOIN channels ON channels.name = scope.value ->> 0"#,
        scopes,
        at
    )
    .fetch_all(&mut *transaction)
    .await?;
    for row in rows {
        page.trimmed.push((Some(channel_name(&row.name)?), Position(row.trimmed as u64)));
    }
    let trimmed =
        query_scalar!("SELECT trimmed FROM users WHERE name = ?1", user).fetch_optional(&mut *transaction).await?;
    page.trimmed.push((None, Position(trimmed.unwrap_or_default() as u64)));
    Ok(page)
}

pub(super) async fn read_holding(readers: &SqlitePool, user: &str, doubts: &[Doubt]) -> sqlx::Result<Vec<Doubt>> {
    let asked = list(doubts.iter().enumerate().map(|(index, doubt)| {
        (index, doubt.channel.as_ref().map(ChannelName::as_str), doubt.after.0, doubt.through.0)
    }));
    let rows = query_scalar!(
        r#"SELECT doubt.value ->> 0 AS "index!: i64"
           FROM json_each(?1) AS doubt LEFT JOIN channels ON channels.name = doubt.value ->> 1
           JOIN users ON users.name = ?2
           WHERE CASE WHEN doubt.value ->> 1 IS NULL
             THEN users.trimmed > doubt.value ->> 2 AND users.trimmed <= doubt.value ->> 3
               OR EXISTS (SELECT 1 FROM inbox WHERE inbox.user = users.id
                          AND inbox.position > doubt.value ->> 2 AND inbox.position <= doubt.value ->> 3)
             ELSE channels.trimmed > doubt.value ->> 2 AND channels.trimmed <= doubt.value ->> 3
               OR EXISTS (SELECT 1 FROM log WHERE log.channel = channels.id
                          AND log.position > doubt.value ->> 2 AND log.position <= doubt.value ->> 3)
             END"#,
        asked,
        user
    )
    .fetch_all(readers)
    .await?;
    Ok(rows.into_iter().filter_map(|index| doubts.get(index as usize).cloned()).collect())
}
