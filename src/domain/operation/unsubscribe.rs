//! `/unsubscribe`: takes channels from a connection.

use std::collections::BTreeSet;

use super::contract::Operation;
use super::subscribe::{membership, touch_shown};
use crate::domain::draft::{Draft, Key, Refusal, Touch, Undecided};
use crate::domain::event::Event;
use crate::domain::names::{ChannelName, ConnectionId};
use crate::domain::router::{Needs, Router};
use crate::domain::timestamp::Moment;
use crate::domain::view::{ChannelsView, InfoOptions, Showing};

/// A connection leaves channels.
#[derive(Debug)]
pub struct Unsubscribe {
    /// Which connection.
    pub id: ConnectionId,
    /// The channels, as given.
    pub channels: Vec<ChannelName>,
    /// What the answer shows.
    pub info: InfoOptions,
    /// Real changes, sorted; filled while deciding.
    pub removed: Vec<ChannelName>,
}

/// The answer to an [`Unsubscribe`].
#[derive(Debug)]
pub struct Unsubscribed {
    /// All memberships afterwards, sorted.
    pub channels: Vec<ChannelName>,
    /// These channels and their members.
    pub view: ChannelsView,
    /// Those that are to be in it.
    pub showing: Showing,
    /// Real changes, sorted.
    pub removed: Vec<ChannelName>,
}

impl Operation for Unsubscribe {
    type Outcome = Unsubscribed;

    fn needs(&self, _router: &Router, _needs: &mut Needs) {}

    fn decide(&mut self, router: &Router, draft: &mut Draft) -> Result<(), Undecided> {
        draft.touch(Key::Connection(self.id), Touch::Exclusive)?;
        let connection = router.connection(self.id).ok_or(Refusal::UnknownConnection)?;
        touch_shown(&connection.channels, draft)?;
        // Whether a floor ends depends on all of the user's connections.
        draft.touch(Key::User(connection.user.clone()), Touch::Exclusive)?;
        let removed: BTreeSet<_> = self.channels.iter().filter(|name| connection.channels.contains(*name)).collect();
        self.removed = removed.into_iter().cloned().collect();
        for channel in &self.removed {
            draft.add(Event::Unsubscribed { id: self.id, channel: channel.clone() });
        }
        Ok(())
    }

    fn outcome(self, router: &Router, _moment: Moment) -> Unsubscribed {
        let (channels, showing) = membership(self.id, self.info, router);
        Unsubscribed { channels, view: ChannelsView::default(), showing, removed: self.removed }
    }

    fn look(unsubscribed: &mut Unsubscribed, router: &Router, moment: Moment) -> bool {
        router.show(&mut unsubscribed.showing, &mut unsubscribed.view, moment)
    }
}
