//! `/channel_config`: creates channels and changes their settings.

use uuid::Uuid;

use super::contract::Operation;
use crate::domain::draft::{Draft, Key, Touch, Undecided};
use crate::domain::event::Event;
use crate::domain::names::ChannelName;
use crate::domain::router::{Needs, Router};
use crate::domain::settings::SettingsPatch;
use crate::domain::timestamp::Moment;
use crate::domain::view::{ChannelsView, InfoOptions, Showing};

/// Channels get settings.
#[derive(Debug)]
pub struct Configure {
    /// Each channel once: its identity if it is new, and the settings named; none: it is created
    /// or stays as it is.
    pub channels: Vec<(ChannelName, Uuid, Option<SettingsPatch>)>,
}

/// The answer to a [`Configure`].
#[derive(Debug, Default)]
pub struct Configured {
    /// The channels.
    pub view: ChannelsView,
    /// Those that are to be in it.
    pub showing: Showing,
}

impl Operation for Configure {
    type Outcome = Configured;

    fn needs(&self, _router: &Router, needs: &mut Needs) {
        needs.channels.extend(self.channels.iter().map(|(name, ..)| name.clone()));
    }

    fn decide(&mut self, router: &Router, draft: &mut Draft) -> Result<(), Undecided> {
        for (name, new_uuid, patch) in &self.channels[draft.done()..] {
            decide_one(name, *new_uuid, patch.as_ref(), router, draft)?;
            draft.next_element()?;
        }
        Ok(())
    }

    fn outcome(self, _router: &Router, _moment: Moment) -> Configured {
        let options = InfoOptions { include_history: false, include_users: false, ..InfoOptions::default() };
        let names = self.channels.into_iter().map(|(name, ..)| name).collect();
        Configured { showing: Showing { names, options, ..Showing::default() }, ..Configured::default() }
    }

    fn look(configured: &mut Configured, router: &Router, moment: Moment) -> bool {
        router.show(&mut configured.showing, &mut configured.view, moment)
    }
}

fn decide_one(
    name: &ChannelName,
    new_uuid: Uuid,
    patch: Option<&SettingsPatch>,
    router: &Router,
    draft: &mut Draft,
) -> Result<(), Undecided> {
    draft.touch(Key::Channel(name.clone()), Touch::Exclusive)?;
    let channel = router.channel(name);
    let current = channel.map(|channel| channel.settings.clone());
    let base = current.clone().unwrap_or_default();
    let settings = patch.map_or_else(|| base.clone(), |patch| patch.applied_to(&base));
    if current.as_ref() == Some(&settings) {
        return Ok(());
    }
    if channel.is_some_and(|channel| settings.history_size > base.history_size && channel.has_older()) {
        draft.reload(name);
    }
    let uuid = channel.map_or(new_uuid, |channel| channel.uuid);
    draft.add(Event::ChannelKept { name: name.clone(), uuid, settings });
    Ok(())
}
