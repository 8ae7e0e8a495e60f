//! All that can be read from a store, and what the model says it must be, as the same lines.

use std::collections::BTreeSet;
use std::time::Duration;

use channelstream::domain::names::ChannelName;
use channelstream::domain::position::Position;
use channelstream::domain::tail::Place;
use channelstream::json::audience_text;
use channelstream::store::{HistoryQuery, Store};
use chrono::NaiveDateTime;

use super::engine::Engine;
use super::world::{Kind, World, clock, micros};
use super::{channel, text, user};

/// Few and small, so that there are mostly older ones.
const TAIL_ENTRIES: u32 = 4;
const TAIL_BYTES: u32 = 60;

/// All places, each up to the end of the log and up to the middle of it, and some that are not there.
fn ends_of_places(world: &World) -> Vec<(Place, Position)> {
    let missing = [Place::Channel(channel("not there")), Place::Inbox(user("nobody"))];
    let all = places(world).into_iter().chain(missing);
    let middle = Position(world.head.0 / 2);
    all.flat_map(|place| [(place.clone(), Position(u64::MAX)), (place, middle)]).collect()
}

/// What must be there.
pub fn expected(world: &World) -> Vec<String> {
    let kept = |name| text::channel(name, &world.loaded_channel(name).expect("it exists"));
    let known = |name| text::user(name, &world.loaded_user(name).expect("it exists"));
    let held = world.log.values().filter_map(|entry| {
        let held = world.held(entry.uuid, entry.channel.as_ref())?;
        Some(text::held(entry.uuid, entry.channel.as_ref(), &held))
    });
    let idle = world.users.keys().filter(|name| !world.is_connected(name));
    let entries = world.log.iter().map(|(position, entry)| {
        let kind = match &entry.kind {
            Kind::Message(_) => "message".to_owned(),
            Kind::Edit { about } => format!("edit of {}", about.0),
            Kind::Deletion { about, audience } => {
                let about = about.map_or("the unknown".to_owned(), |about| about.0.to_string());
                let audience = audience_text(audience).unwrap_or("everyone".to_owned());
                format!("deletion of {about} for {audience}")
            }
        };
        let committed = micros(entry.committed);
        let place = entry.channel.as_ref().map_or("private", ChannelName::as_str);
        format!("entry {} {kind} {committed} {place}", position.0)
    });
    let inbox = world
        .log
        .iter()
        .flat_map(|(position, entry)| entry.inboxes.iter().map(move |user| format!("inbox of {user} {}", position.0)));
    let opened = world
        .opened
        .iter()
        .map(|(id, (time, head))| format!("opened by {} {} {}", world.connections[id].0, micros(*time), head.0));
    let tails = ends_of_places(world).into_iter().map(|(place, before)| {
        let part = world.tail(&place, before, TAIL_ENTRIES as usize, TAIL_BYTES as usize);
        text::tail(&place, before, &part)
    });
    let subscriptions: usize = world.connections.values().map(|(_, channels)| channels.len()).sum();
    [
        vec![format!("{:?}", world.totals())],
        world.channels.iter().flat_map(|(name, _)| kept(name)).collect(),
        sorted(world.users.keys().map(known)),
        sorted(world.stored_connections().iter().map(text::connection)),
        held.collect::<BTreeSet<_>>().into_iter().collect(),
        sorted(idle.map(|name| format!("idle {name:?}"))),
        sorted(entries),
        sorted(inbox),
        sorted(
            world.channels.iter().map(|(name, kept)| format!("trimmed {name} {}", kept.trimmed.0)).chain(
                world
                    .forgotten_channels
                    .iter()
                    .map(|(name, (trimmed, head))| format!("trimmed {name} {} deleted at {}", trimmed.0, head.0)),
            ),
        ),
        sorted(world.forgotten_users.iter().map(|(name, trimmed)| format!("once inbox of {name} {}", trimmed.0))),
        sorted(world.users.iter().map(|(name, kept)| format!("trimmed inbox of {name} {}", kept.trimmed.0))),
        sorted(opened),
        tails.collect(),
        vec![format!("{subscriptions} subscriptions")],
        sorted(world.floors.iter().map(|((user, channel), (position, left))| {
            let left = left.map(|left| format!(" left {}", micros(left))).unwrap_or_default();
            format!("floor of {user} in {channel} {}{left}", position.0)
        })),
        times(world).map(|time| format!("by {time} {}", world.position_at(time).0)).collect(),
        places(world)
            .iter()
            .flat_map(|place| queries(world, place))
            .flat_map(|query| {
                let (messages, has_more) = world.history(&query).expect("there is such a place");
                text::page(&query, messages, has_more)
            })
            .collect(),
    ]
    .concat()
}

/// What is there: all that the trait tells of the names and uuids in `world`, and what a later
/// replay will rest on, which only the tables tell today.
pub async fn read(world: &World, store: &dyn Store, engine: &dyn Engine) -> Vec<String> {
    let numbered = store.channel_names(0, u32::MAX).await.expect("channel names");
    assert!(numbered.is_sorted_by(|(one, _), (two, _)| one < two), "channel numbers rise: {numbered:?}");
    let names = || numbered.iter().map(|(_, name)| name);
    let channels = store.channels(&names().cloned().collect()).await.expect("channels");
    let users = store.users(&world.users.keys().cloned().collect()).await.expect("users");
    let connections = store.connections().await.expect("connections");
    let held = store.held(&world.uuids.iter().copied().collect()).await.expect("held");
    let idle = store.idle_users(world.now(), u32::MAX).await.expect("idle users");
    let ends = ends_of_places(world);
    let tails = store.tails(&ends, TAIL_ENTRIES, TAIL_BYTES).await.expect("tails");
    assert_eq!(tails.len(), ends.len(), "one for each place");
    let tails = ends.iter().zip(tails).map(|((place, before), part)| text::tail(place, *before, &part));
    let mut pages = Vec::new();
    for place in places(world) {
        for query in queries(world, &place) {
            let page = store.history(&query).await.expect("a page").expect("there is such a place");
            pages.extend(text::page(&query, &page.messages, page.has_more));
        }
    }
    let rows = async |sql| sorted(engine.rows(sql).await);
    let positions = store.positions_at(&times(world).collect()).await.expect("positions");
    [
        vec![format!("{:?}", store.totals().await.expect("totals"))],
        names().flat_map(|name| text::channel(name, &channels[name])).collect(),
        sorted(users.iter().map(|(name, user)| text::user(name, user))),
        sorted(connections.iter().map(text::connection)),
        sorted(held.iter().map(|((uuid, channel), held)| text::held(*uuid, channel.as_ref(), held))),
        sorted(idle.iter().map(|name| format!("idle {name:?}"))),
        rows(
            "SELECT 'entry ' || position
                 || CASE kind WHEN 0 THEN ' message ' WHEN 1 THEN ' edit of ' || about || ' '
                    ELSE ' deletion of ' || coalesce(CAST(about AS TEXT), 'the unknown')
                         || ' for ' || coalesce(audience, 'everyone') || ' ' END
                 || committed || ' ' || coalesce(channels.name, 'private')
             FROM log LEFT JOIN channels ON channels.id = log.channel",
        )
        .await,
        rows(
            r#"SELECT 'inbox of ' || coalesce(users.name, 'nobody') || ' ' || position
               FROM inbox LEFT JOIN users ON users.id = inbox."user""#,
        )
        .await,
        rows(
            "SELECT 'trimmed ' || name || ' ' || trimmed
                 || CASE WHEN deleted IS NULL THEN '' ELSE ' deleted at ' || deleted END FROM channels",
        )
        .await,
        rows("SELECT 'once inbox of ' || name || ' ' || trimmed FROM forgotten_users").await,
        rows("SELECT 'trimmed inbox of ' || name || ' ' || trimmed FROM users").await,
        rows(
            r#"SELECT 'opened by ' || users.name || ' ' || opened || ' ' || head
               FROM connections JOIN users ON users.id = connections."user""#,
        )
        .await,
        tails.collect(),
        rows("SELECT count(*) || ' subscriptions' FROM subscriptions").await,
        rows(
            r#"SELECT 'floor of ' || users.name || ' in ' || channels.name || ' ' || floor
                   || CASE WHEN "left" IS NULL THEN '' ELSE ' left ' || "left" END
               FROM memberships JOIN users ON users.id = memberships."user"
               JOIN channels ON channels.id = memberships.channel"#,
        )
        .await,
        times(world).map(|time| format!("by {time} {}", positions[&time].0)).collect(),
        pages,
    ]
    .concat()
}

fn places(world: &World) -> Vec<Place> {
    let channels = world.channels.iter().map(|(name, _)| Place::Channel(name.clone()));
    channels.chain(world.users.keys().cloned().map(Place::Inbox)).collect()
}

/// Pages of history that between them show everything.
fn queries<'a>(world: &World, place: &'a Place) -> Vec<HistoryQuery<'a>> {
    let (head, middle) = (world.head, Position(world.head.0 / 2));
    let page = |after, before, through, limit| {
        let (at, max_bytes) = (world.now(), u64::MAX);
        HistoryQuery { place, after, before, through, at, limit, max_bytes }
    };
    vec![page(None, None, head, 1_000), page(None, Some(middle), head, 3), page(Some(middle), None, head, 2)]
}

/// Moments of some batches, and moments in between.
fn times(world: &World) -> impl Iterator<Item = NaiveDateTime> {
    let batches = (0..=world.batches).step_by(1 + world.batches as usize / 8).map(clock);
    batches.flat_map(|time| [time - Duration::from_micros(1), time])
}

/// The lines of either that the other lacks.
pub fn difference(expected: &[String], read: &[String]) -> String {
    let only_in = |these: &[String], those: &[String]| {
        these.iter().filter(|line| !those.contains(line)).map(|line| format!("\n  {line}")).collect::<String>()
    };
    format!("lacks{}\nbut holds{}", only_in(expected, read), only_in(read, expected))
}

pub fn sorted(lines: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<String> = lines.into_iter().collect();
    lines.sort_unstable();
    lines
}
