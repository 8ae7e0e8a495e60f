//! Expiring messages: those that are older than their channel keeps them.

use super::contract::Operation;
use crate::domain::channel::Channel;
use crate::domain::draft::{Draft, Key, Touch, Undecided};
use crate::domain::event::Event;
use crate::domain::names::ChannelName;
use crate::domain::router::{Needs, Router};
use crate::domain::timestamp::Moment;

/// Messages of some channels go whose time is over; the server asks for it now and then.
#[derive(Debug)]
pub struct ExpireMessages {
    /// Channels that hold such messages, by the store's word.
    pub channels: Vec<ChannelName>,
}

impl Operation for ExpireMessages {
    type Outcome = ();

    fn needs(&self, _router: &Router, needs: &mut Needs) {
        needs.channels.extend(self.channels.iter().cloned());
    }

    fn decide(&mut self, router: &Router, draft: &mut Draft) -> Result<(), Undecided> {
        for name in &self.channels {
            let Some(channel) = router.channel(name) else { continue };
            if channel.settings.history_ttl.is_some() {
                expire(name, channel, draft)?;
            }
        }
        Ok(())
    }

    fn outcome(self, _router: &Router, _moment: Moment) {}
}

/// Takes from a channel's log what is past its time.
pub(super) fn expire(name: &ChannelName, channel: &Channel, draft: &mut Draft) -> Result<(), Undecided> {
    draft.touch(Key::Channel(name.clone()), Touch::Exclusive)?;
    let through = channel.settings.over_by(draft.moment().micros());
    draft.add(Event::ChannelExpired { channel: name.clone(), through });
    draft.reload(name);
    Ok(())
}
