//! Reading the newest part of places, for their tails in memory.

use hashbrown::HashMap;
use sqlx::postgres::PgConnection;
use sqlx::query;

use super::read::read_entries;
use super::session::snapshot;
use crate::domain::names::{ChannelName, Username};
use crate::domain::position::Position;
use crate::domain::tail::{Entry, Place, TailPart};

pub(super) async fn read_tails(
    reader: &mut PgConnection,
    places: &[(Place, Position)],
    limit: u32,
    bytes: u32,
) -> sqlx::Result<Vec<TailPart>> {
    let mut transaction = snapshot(reader).await?;
    let (channels, users): (Vec<Option<&str>>, Vec<Option<&str>>) = places
        .iter()
        .map(|(place, _)| match place {
            Place::Channel(name) => (Some(ChannelName::as_str(name)), None),
            Place::Inbox(user) => (None, Some(Username::as_str(user))),
        })
        .unzip();
    let ends: Vec<i64> = places.iter().map(|(_, end)| i64::try_from(end.0).unwrap_or(i64::MAX)).collect();
    let mut parts: Vec<TailPart> = places.iter().map(|_| TailPart::default()).collect();
    let trimmed = query!(
        r#"SELECT place.number AS "number!", coalesce(channels.trimmed, users.trimmed) AS "trimmed!"
           FROM UNNEST($1::text[], $2::text[]) WITH ORDINALITY AS place (channel, "user", number)
           LEFT JOIN channels ON channels.name = place.channel LEFT JOIN users ON users.name = place."user"
           WHERE channels.id IS NOT NULL OR users.id IS NOT NULL"#,
        &channels as &[Option<&str>],
        &users as &[Option<&str>]
    )
    .fetch_all(&mut *transaction)
    .await?;
    for row in trimmed {
        parts[row.number as usize - 1].trimmed = Position(row.trimmed as u64);
    }
    // One more than asked for shows that there are older ones; only sizes of bodies are looked at.
    let found = query!(
        r#"WITH found AS (
             SELECT place.number, l.position
             FROM UNNEST($1::text[], $3::bigint[]) WITH ORDINALITY AS place (channel, through, number)
             JOIN channels ON channels.name = place.channel
             CROSS JOIN LATERAL (SELECT position FROM log WHERE channel = channels.id AND position <= place.through
                                 ORDER BY position DESC LIMIT $4::bigint + 1) AS l
             UNION ALL
             SELECT place.number, i.position
             FROM UNNEST($2::text[], $3::bigint[]) WITH ORDINALITY AS place ("user", through, number)
             JOIN users ON users.name = place."user"
             CROSS JOIN LATERAL (SELECT position FROM inbox WHERE inbox."user" = users.id AND position <= place.through
                                 ORDER BY position DESC LIMIT $4::bigint + 1) AS i
           )
           SELECT found.number AS "number!", found.position AS "position!",
               (row_number() OVER newest <= $4
                   AND sum(octet_length(coalesce(l.body, m.body, ''))) OVER newest <= $5) AS "fits!"
           FROM found JOIN log AS l ON l.position = found.position
           LEFT JOIN log AS m ON l.kind = 1 AND m.position = l.about
           WINDOW newest AS (PARTITION BY found.number ORDER BY found.position DESC)
           ORDER BY found.position"#,
        &channels as &[Option<&str>],
        &users as &[Option<&str>],
        &ends,
        i64::from(limit),
        i64::from(bytes)
    )
    .fetch_all(&mut *transaction)
    .await?;
    let positions: Vec<i64> = found.iter().filter(|row| row.fits).map(|row| row.position).collect();
    let entries = read_entries(&mut transaction, &positions).await?;
    transaction.commit().await?;
    // What is in several inboxes is shared by them.
    let mut by_position: HashMap<i64, Entry> = HashMap::with_capacity(entries.len());
    for row in entries {
        by_position.insert(row.position, row.entry()?.1);
    }
    for row in found {
        let part = &mut parts[row.number as usize - 1];
        part.has_older |= !row.fits;
        part.entries.extend(by_position.get(&row.position).filter(|_| row.fits).cloned());
    }
    Ok(parts)
}
