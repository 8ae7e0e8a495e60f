//! Reading what a listener has missed.

use sqlx::postgres::PgConnection;
use sqlx::{query, query_scalar};

use super::read::read_entries;
use super::session::snapshot;
use super::values::texts;
use crate::domain::names::ChannelName;
use crate::domain::position::Position;
use crate::domain::replay::Doubt;
use crate::store::contract::{ReplayPage, ReplayQuery};
use crate::store::values::channel_name;

pub(super) async fn read_replay(reader: &mut PgConnection, asked: &ReplayQuery<'_>) -> sqlx::Result<ReplayPage> {
    let mut transaction = snapshot(reader).await?;
    let names = texts(asked.channels.iter().map(|(name, _)| name.as_str()));
    // A position after every other one is beyond what a column holds.
    let column = |position: Position| i64::try_from(position.0).unwrap_or(i64::MAX);
    let starts: Vec<i64> = asked.channels.iter().map(|(_, from)| column(*from)).collect();
    let at = asked.at.and_utc().timestamp_micros();
    // Only sizes of bodies are looked at.
    let found = query!(
        r#"WITH found AS (
             SELECT l.position
             FROM UNNEST($1::text[], $2::bigint[]) AS scope (name, start)
             JOIN channels ON channels.name = scope.name
             CROSS JOIN LATERAL
                 (SELECT e.position FROM log AS e
                  WHERE e.channel = channels.id AND e.position > greatest(scope.start, $3) AND e.position <= $4
                    AND NOT (e.kind IN (1, 2) AND coalesce(e.about > scope.start, false))
                    AND (channels.history_ttl IS NULL OR $5::bigint - channels.history_ttl * 1000000 <
                         CASE e.kind WHEN 1 THEN (SELECT committed FROM log WHERE position = e.about) ELSE e.committed END)
                  ORDER BY e.position LIMIT $8) AS l
             UNION ALL
             SELECT l.position
             FROM users JOIN inbox ON inbox."user" = users.id JOIN log AS l ON l.position = inbox.position
             WHERE users.name = $6 AND inbox.position > greatest($7::bigint, $3) AND inbox.position <= $4
               AND NOT (l.kind IN (1, 2) AND coalesce(l.about > $7, false))
             ORDER BY 1 LIMIT $8
           )
           SELECT found.position AS "position!",
               (sum(octet_length(coalesce(l.body, m.body, ''))) OVER (ORDER BY found.position)
                   - octet_length(coalesce(l.body, m.body, '')) < $9) AS "fits!"
           FROM found JOIN log AS l ON l.position = found.position
           LEFT JOIN log AS m ON l.kind = 1 AND m.position = l.about
           ORDER BY found.position"#,
        &names as &[&str],
        &starts,
        column(asked.after),
        column(asked.through),
        at,
        asked.user.as_str(),
        column(asked.inbox),
        i64::from(asked.limit),
        i64::from(asked.max_bytes)
    )
    .fetch_all(&mut *transaction)
    .await?;
    let positions: Vec<i64> = found.iter().filter(|row| row.fits).map(|row| row.position).collect();
    let is_last = found.len() < asked.limit as usize && positions.len() == found.len();
    let mut page = ReplayPage { is_last, ..ReplayPage::default() };
    for row in read_entries(&mut transaction, &positions).await? {
        let (channel, entry) = row.entry()?;
        page.frames.push(entry.frame(channel.as_ref()));
    }
    let rows = query!(
        r#"SELECT channels.name, greatest(channels.trimmed,
               (SELECT max(greatest(l.position, l.edit)) FROM log AS l
                WHERE channels.history_ttl IS NOT NULL AND l.channel = channels.id
                  AND l.committed <= $2::bigint - channels.history_ttl * 1000000)) AS "trimmed!"
           FROM channels WHERE channels.name = ANY($1)"#,
        &names as &[&str],
        at
    )
    .fetch_all(&mut *transaction)
    .await?;
    for row in rows {
        page.trimmed.push((Some(channel_name(&row.name)?), Position(row.trimmed as u64)));
    }
    let trimmed = query_scalar!("SELECT trimmed FROM users WHERE name = $1", asked.user.as_str())
        .fetch_optional(&mut *transaction)
        .await?;
    page.trimmed.push((None, Position(trimmed.unwrap_or_default() as u64)));
    transaction.commit().await?;
    Ok(page)
}

pub(super) async fn read_holding(reader: &mut PgConnection, user: &str, doubts: &[Doubt]) -> sqlx::Result<Vec<Doubt>> {
    let places: Vec<Option<&str>> =
        doubts.iter().map(|doubt| doubt.channel.as_ref().map(ChannelName::as_str)).collect();
    let afters: Vec<i64> = doubts.iter().map(|doubt| doubt.after.0 as i64).collect();
    let throughs: Vec<i64> = doubts.iter().map(|doubt| doubt.through.0 as i64).collect();
    let rows = query_scalar!(
        r#"SELECT doubt.number AS "number!"
           FROM UNNEST($1::text[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS doubt (name, after, through, number)
           LEFT JOIN channels ON channels.name = doubt.name
           JOIN users ON users.name = $4
           WHERE CASE WHEN doubt.name IS NULL
             THEN users.trimmed > doubt.after AND users.trimmed <= doubt.through
               OR EXISTS (SELECT 1 FROM inbox WHERE inbox."user" = users.id
                          AND inbox.position > doubt.after AND inbox.position <= doubt.through)
             ELSE channels.trimmed > doubt.after AND channels.trimmed <= doubt.through
               OR EXISTS (SELECT 1 FROM log WHERE log.channel = channels.id
                          AND log.position > doubt.after AND log.position <= doubt.through)
             END"#,
        &places as &[Option<&str>],
        &afters,
        &throughs,
        user
    )
    .fetch_all(reader)
    .await?;
    Ok(rows.into_iter().filter_map(|number| doubts.get(number as usize - 1).cloned()).collect())
}
