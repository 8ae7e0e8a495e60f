//! All that can be read from a store, and what the model says it must be, as the same lines.

use std::collections::BTreeSet;

use channelstream::domain::names::ChannelName;
use channelstream::domain::position::Position;
use channelstream::domain::tail::Place;
use channelstream::json::audience_text;
use channelstream::store::Store;

use super::engine::Engine;
use super::world::{Kind, World, micros};
use super::{channel, text, user};

/// Few and small, so that there are mostly older ones.
const TAIL_ENTRIES: u32 = 4;
const TAIL_BYTES: u32 = 60;

/// All places, each up to the end of the log and up to the middle of it, and some that are not there.
fn places(world: &World) -> Vec<(Place, Position)> {
    let channels = world.channels.iter().map(|(name, _)| Place::Channel(name.clone()));
    let inboxes = world.users.keys().map(|name| Place::Inbox(name.clone()));
    let missing = [Place::Channel(channel("not there")), Place::Inbox(user("nobody"))];
    let all = channels.chain(inboxes).chain(missing);
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
    let tails = places(world).into_iter().map(|(place, before)| {
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
        sorted(world.channels.iter().map(|(name, kept)| format!("trimmed {name} {}", kept.trimmed.0))),
        sorted(world.users.iter().map(|(name, kept)| format!("trimmed inbox of {name} {}", kept.trimmed.0))),
        sorted(opened),
        tails.collect(),
        vec![format!("{subscriptions} subscriptions")],
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
    let places = places(world);
    let tails = store.tails(&places, TAIL_ENTRIES, TAIL_BYTES).await.expect("tails");
    assert_eq!(tails.len(), places.len(), "one for each place");
    let tails = places.iter().zip(tails).map(|((place, before), part)| text::tail(place, *before, &part));
    let rows = async |sql| sorted(engine.rows(sql).await);
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
        rows("SELECT 'trimmed ' || name || ' ' || trimmed FROM channels").await,
        rows("SELECT 'trimmed inbox of ' || name || ' ' || trimmed FROM users").await,
        rows(
            r#"SELECT 'opened by ' || users.name || ' ' || opened || ' ' || head
               FROM connections JOIN users ON users.id = connections."user""#,
        )
        .await,
        tails.collect(),
        rows("SELECT count(*) || ' subscriptions' FROM subscriptions").await,
    ]
    .concat()
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
