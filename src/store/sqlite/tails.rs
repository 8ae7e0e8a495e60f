//! Reading the newest part of places, for their tails in memory.

use hashbrown::HashMap;
use sqlx::query;
use sqlx::sqlite::SqlitePool;

use super::read::read_entries;
use super::values::list;
use crate::domain::position::Position;
use crate::domain::tail::{Entry, Place, TailPart};

pub(super) async fn read_tails(
    readers: &SqlitePool,
    places: &[(Place, Position)],
    limit: u32,
    bytes: u32,
) -> sqlx::Result<Vec<TailPart>> {
    let mut transaction = readers.begin().await?;
    let asked = list(places.iter().enumerate().map(|(index, (place, before))| {
        let (channel, user) = match place {
            Place::Channel(name) => (Some(name.as_str()), None),
            Place::Inbox(user) => (None, Some(user.as_str())),
        };
        (index, channel, user, before.0.min(i64::MAX as u64))
    }));
    let mut parts: Vec<TailPart> = places.iter().map(|_| TailPart::default()).collect();
    let trimmed = query!(
        r#"SELECT place.value ->> 0 AS "place!: i64", channels.trimmed AS "trimmed!: i64"
           FROM json_each(?1) AS place JOIN channels ON channels.name = place.value ->> 1
           UNION ALL
           SELECT place.value ->> 0, users.trimmed
           FROM json_each(?1) AS place JOIN users ON users.name = place.value ->> 2"#,
        asked
    )
    .fetch_all(&mut *transaction)
    .await?;
    for row in trimmed {
        parts[row.place as usize].trimmed = Position(row.trimmed as u64);
    }
    // One more than asked for shows that there are older ones; only sizes of bodies are looked at.
    let found = query!(
        r#"WITH found AS (
             SELECT place.value ->> 0 AS place, l.position
             FROM json_each(?1) AS place JOIN channels ON channels.name = place.value ->> 1
             JOIN log AS l ON l.position IN
                 (SELECT position FROM log WHERE channel = channels.id AND position <= place.value ->> 3
                  ORDER BY position DESC LIMIT ?2 + 1)
             UNION ALL
             SELECT place.value ->> 0, i.position
             FROM json_each(?1) AS place JOIN users ON users.name = place.value ->> 2
             JOIN inbox AS i ON i.user = users.id AND i.position IN
                 (SELECT position FROM inbox WHERE user = users.id AND position <= place.value ->> 3
                  ORDER BY position DESC LIMIT ?2 + 1)
           )
           SELECT found.place AS "place!: i64", found.position AS "position!: i64",
               row_number() OVER newest <= ?2
                   AND sum(octet_length(coalesce(l.body, m.body, ''))) OVER newest <= ?3 AS "fits!: bool"
           FROM found JOIN log AS l ON l.position = found.position
           LEFT JOIN log AS m ON l.kind = 1 AND m.position = l.about
           WINDOW newest AS (PARTITION BY found.place ORDER BY found.position DESC)
           ORDER BY found.position"#,
        asked,
        limit,
        bytes
    )
    .fetch_all(&mut *transaction)
    .await?;
    let positions = found.iter().filter(|row| row.fits).map(|row| row.position);
    let entries = read_entries(&mut transaction, positions).await?;
    // What is in several inboxes is shared by them.
    let mut by_position: HashMap<i64, Entry> = HashMap::with_capacity(entries.len());
    for row in entries {
        by_position.insert(row.position, row.entry()?.1);
    }
    for row in found {
        let part = &mut parts[row.place as usize];
        part.has_older |= !row.fits;
        part.entries.extend(by_position.get(&row.position).filter(|_| row.fits).cloned());
    }
    Ok(parts)
}
