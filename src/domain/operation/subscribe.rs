//! `/subscribe`: adds channels to a connection.

use std::collections::BTreeSet;

use hashbrown::{HashMap, HashSet};
use uuid::Uuid;

use super::contract::Operation;
use crate::domain::draft::{Draft, Key, Refusal, Touch, Undecided};
use crate::domain::event::Event;
use crate::domain::names::{ChannelName, ConnectionId, Username};
use crate::domain::router::{Needs, Router};
use crate::domain::settings::{ChannelSettings, SettingsPatch};
use crate::domain::timestamp::Moment;
use crate::domain::view::{ChannelsView, InfoOptions, Showing};

/// Most channels of one connection: each answer about it lists them all.
const MAX_CHANNELS: usize = 10_000;

/// A connection becomes a member of more channels.
#[derive(Debug)]
pub struct Subscribe {
    /// Which connection.
    pub id: ConnectionId,
    /// The channels, as given.
    pub channels: Vec<ChannelName>,
    /// The identities of these channels, if they are new.
    pub channel_uuids: Vec<Uuid>,
    /// Settings for channels that this creates.
    pub channel_configs: HashMap<ChannelName, SettingsPatch>,
    /// What the answer shows.
    pub info: InfoOptions,
    /// Real changes, sorted; filled while deciding.
    pub added: Vec<ChannelName>,
}

/// The answer to a [`Subscribe`].
#[derive(Debug)]
pub struct Subscribed {
    /// All memberships afterwards, sorted.
    pub channels: Vec<ChannelName>,
    /// These channels and their members.
    pub view: ChannelsView,
    /// Those that are to be in it.
    pub showing: Showing,
    /// Real changes, sorted.
    pub added: Vec<ChannelName>,
}

impl Operation for Subscribe {
    type Outcome = Subscribed;

    fn needs(&self, _router: &Router, needs: &mut Needs) {
        needs.channels.extend(self.channels.iter().cloned());
    }

    fn decide(&mut self, router: &Router, draft: &mut Draft) -> Result<(), Undecided> {
        draft.touch(Key::Connection(self.id), Touch::Exclusive)?;
        let connection = router.connection(self.id).ok_or(Refusal::UnknownConnection)?;
        if draft.done() == 0 {
            touch_shown(&connection.channels, draft)?;
            let added: BTreeSet<_> = self.channels.iter().filter(|name| !connection.channels.contains(*name)).collect();
            self.added = added.into_iter().cloned().collect();
        }
        let wanted = self.channels.iter().zip(&self.channel_uuids);
        add_subscriptions(
            self.id,
            &connection.user,
            Some(&connection.channels),
            wanted,
            &self.channel_configs,
            router,
            draft,
        )
    }

    fn outcome(self, router: &Router, _moment: Moment) -> Subscribed {
        let (channels, showing) = membership(self.id, self.info, router);
        Subscribed { channels, view: ChannelsView::default(), showing, added: self.added }
    }

    fn look(subscribed: &mut Subscribed, router: &Router, moment: Moment) -> bool {
        router.show(&mut subscribed.showing, &mut subscribed.view, moment)
    }
}

/// The answer shows all channels of a connection.
pub(super) fn touch_shown(channels: &BTreeSet<ChannelName>, draft: &mut Draft) -> Result<(), Undecided> {
    channels.iter().try_for_each(|name| draft.touch(Key::Channel(name.clone()), Touch::Shared))
}

/// Adds the events that make a connection a member of channels it is not in yet; creates those
/// that do not exist.
pub(super) fn add_subscriptions<'a>(
    id: ConnectionId,
    user: &Username,
    current: Option<&BTreeSet<ChannelName>>,
    wanted: impl Iterator<Item = (&'a ChannelName, &'a Uuid)>,
    configs: &HashMap<ChannelName, SettingsPatch>,
    router: &Router,
    draft: &mut Draft,
) -> Result<(), Undecided> {
    // Whether a floor begins or ends depends on all of the user's connections.
    draft.touch(Key::User(user.clone()), Touch::Shared)?;
    let done = draft.done();
    let mut seen = HashSet::new();
    let mut count = current.map_or(0, BTreeSet::len);
    for (index, (name, uuid)) in wanted.enumerate() {
        let is_added = seen.insert(name) && !current.is_some_and(|channels| channels.contains(name));
        count += usize::from(is_added);
        if count > MAX_CHANNELS {
            return Err(Refusal::TooManyChannels.into());
        }
        if index < done {
            continue;
        }
        match is_added {
            true => add_subscription(id, user, name, *uuid, configs, router, draft)?,
            false => draft.touch(Key::Channel(name.clone()), Touch::Shared)?,
        }
        draft.next_element()?;
    }
    Ok(())
}

fn add_subscription(
    id: ConnectionId,
    user: &Username,
    name: &ChannelName,
    uuid: Uuid,
    configs: &HashMap<ChannelName, SettingsPatch>,
    router: &Router,
    draft: &mut Draft,
) -> Result<(), Undecided> {
    let key = Key::Channel(name.clone());
    if router.channel(name).is_some() {
        draft.touch(key, Touch::Shared)?;
    } else {
        draft.touch(key, Touch::Exclusive)?;
        let default = ChannelSettings::default();
        let settings = configs.get(name).map_or_else(|| default.clone(), |patch| patch.applied_to(&default));
        draft.add(Event::ChannelKept { name: name.clone(), uuid, settings });
    }
    let held = router.user(user).is_some_and(|user| router.kept_floor(user, name).is_some());
    if held && router.floor(user, name, draft.moment().utc).is_none() {
        // Another that comes at the same time must find the new floor, not this one.
        draft.touch(Key::User(user.clone()), Touch::Exclusive)?;
        draft.add(Event::FloorEnded { user: user.clone(), channel: name.clone() });
    }
    draft.add(Event::Subscribed { id, channel: name.clone() });
    Ok(())
}

/// All channels of a connection; its user may look at them.
pub(super) fn membership(id: ConnectionId, options: InfoOptions, router: &Router) -> (Vec<ChannelName>, Showing) {
    let Some(connection) = router.connection(id) else { return Default::default() };
    let names: Vec<ChannelName> = connection.channels.iter().cloned().collect();
    let viewer = Some(connection.user.clone());
    (names.clone(), Showing { names, options, viewer, done: 0 })
}
