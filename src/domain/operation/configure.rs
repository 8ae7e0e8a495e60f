//! `/channel_config`: creates channels and changes their settings.

use uuid::Uuid;

use super::contract::Operation;
use crate::domain::draft::{Draft, Key, Touch, Undecided};
use crate::domain::event::Event;
use crate::domain::names::ChannelName;
use crate::domain::router::{Needs, Router};
use crate::domain::settings::SettingsPatch;
use crate::domain::timestamp::Moment;
use crate::domain::view::{ChannelsView, InfoOptions};

/// Channels get settings.
#[derive(Debug)]
pub struct Configure {
    /// Each channel once: its identity if it is new, and the settings named; none: it is created
    /// or stays as it is.
    pub channels: Vec<(ChannelName, Uuid, Option<SettingsPatch>)>,
}

impl Operation for Configure {
    type Outcome = ChannelsView;

    fn needs(&self, _router: &Router, needs: &mut Needs) {
        needs.channels.extend(self.channels.iter().map(|(name, ..)| name.clone()));
    }

    fn decide(&mut self, router: &Router, draft: &mut Draft) -> Result<(), Undecided> {
        for (name, new_uuid, patch) in &self.channels {
            draft.touch(Key::Channel(name.clone()), Touch::Exclusive)?;
            let channel = router.channel(name);
            let current = channel.map(|channel| channel.settings.clone());
            let base = current.clone().unwrap_or_default();
            let settings = patch.as_ref().map_or_else(|| base.clone(), |patch| patch.applied_to(&base));
            if current.as_ref() == Some(&settings) {
                continue;
            }
            if channel.is_some_and(|channel| settings.history_size > base.history_size && channel.has_older()) {
                draft.reload(name);
            }
            let uuid = channel.map_or(*new_uuid, |channel| channel.uuid);
            draft.add(Event::ChannelKept { name: name.clone(), uuid, settings });
        }
        Ok(())
    }

    fn outcome(self, router: &Router, moment: Moment) -> ChannelsView {
        let options = InfoOptions { include_history: false, include_users: false, ..InfoOptions::default() };
        router.view(self.channels.iter().map(|(name, ..)| name), &options, None, moment)
    }
}
