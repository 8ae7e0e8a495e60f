//! `/connect`: lets a listener in.

use std::collections::BTreeSet;

use hashbrown::HashMap;
use uuid::Uuid;

use super::contract::Operation;
use super::subscribe::add_subscriptions;
use crate::domain::draft::{Draft, Key, Refusal, Touch, Undecided};
use crate::domain::event::Event;
use crate::domain::names::{ChannelName, ConnectionId, Username};
use crate::domain::position::Position;
use crate::domain::router::{Needs, Router};
use crate::domain::settings::SettingsPatch;
use crate::domain::state::{Profile, PublicKeys, UserState};
use crate::domain::timestamp::Moment;
use crate::domain::user::FloorAt;
use crate::domain::view::{ChannelsView, InfoOptions, Showing};

/// A user comes with a new connection, or brings more channels to one it has.
#[derive(Debug)]
pub struct Connect {
    /// Who.
    pub user: Username,
    /// The identity of the user, if it is new.
    pub user_uuid: Uuid,
    /// The connection's id: the one asked for, or a new one.
    pub id: ConnectionId,
    /// The channels to become a member of, as given.
    pub channels: Vec<ChannelName>,
    /// The identities of these channels, if they are new.
    pub channel_uuids: Vec<Uuid>,
    /// State for a user that is new.
    pub fresh_user_state: UserState,
    /// State merged every time; nobody is told.
    pub user_state: UserState,
    /// Replaces the user's public keys every time.
    pub public_keys: PublicKeys,
    /// Settings for channels that this creates.
    pub channel_configs: HashMap<ChannelName, SettingsPatch>,
    /// Where the user's floors in these channels are put; none: they stay where they are.
    pub since: Option<FloorAt>,
    /// What the answer shows.
    pub info: InfoOptions,
}

/// The answer to a [`Connect`].
#[derive(Debug)]
pub struct Connected {
    /// The connection's id.
    pub id: ConnectionId,
    /// Whose it is.
    pub user: Username,
    /// The user's state and public keys.
    pub profile: Profile,
    /// The channels asked for, sorted.
    pub channels: Vec<ChannelName>,
    /// These channels and their members.
    pub view: ChannelsView,
    /// Those that are to be in it.
    pub showing: Showing,
    /// The head of the log at this moment.
    pub head: Position,
}

impl Operation for Connect {
    type Outcome = Connected;

    fn needs(&self, _router: &Router, needs: &mut Needs) {
        needs.users.insert(self.user.clone());
        needs.channels.extend(self.channels.iter().cloned());
        if let Some(FloorAt::Time(time)) = self.since {
            needs.times.insert(time);
        }
    }

    fn decide(&mut self, router: &Router, draft: &mut Draft) -> Result<(), Undecided> {
        let connection = router.connection(self.id);
        if draft.done() == 0 {
            draft.touch(Key::Connection(self.id), Touch::Exclusive)?;
            if connection.is_some_and(|connection| connection.user != self.user) {
                return Err(Refusal::ForeignConnection.into());
            }
            self.decide_user(router, draft)?;
            draft.add(Event::ConnectionOpened { id: self.id, user: self.user.clone() });
        }
        let current = connection.map(|connection| &connection.channels);
        let wanted = self.channels.iter().zip(&self.channel_uuids);
        add_subscriptions(self.id, &self.user, current, wanted, &self.channel_configs, router, draft)?;
        self.decide_floors(router, draft)
    }

    fn outcome(mut self, router: &Router, _moment: Moment) -> Connected {
        self.channels.sort_unstable();
        let mut names = self.channels.clone();
        names.dedup();
        let showing = Showing { names, options: self.info, viewer: Some(self.user.clone()), done: 0 };
        let profile = router.user(&self.user).map(|user| user.profile.clone()).unwrap_or_default();
        let (view, head) = (ChannelsView::default(), router.head());
        Connected { id: self.id, user: self.user, profile, channels: self.channels, view, showing, head }
    }

    fn look(connected: &mut Connected, router: &Router, moment: Moment) -> bool {
        router.show(&mut connected.showing, &mut connected.view, moment)
    }
}

impl Connect {
    fn decide_user(&self, router: &Router, draft: &mut Draft) -> Result<(), Undecided> {
        let known = router.user(&self.user);
        let key = Key::User(self.user.clone());
        if let Some(user) = known {
            let same_keys = *user.profile.public_keys() == self.public_keys;
            if same_keys && self.user_state.iter().next().is_none() {
                return draft.touch(key, Touch::Shared);
            }
        }
        draft.touch(key, Touch::Exclusive)?;
        let mut state = known.map_or_else(UserState::default, |user| user.profile.state().clone());
        if known.is_none() {
            state.merge(&self.fresh_user_state);
        }
        state.merge(&self.user_state);
        if state.is_too_large() {
            return Err(Refusal::StateTooLarge.into());
        }
        draft.add(Event::UserKept {
            name: self.user.clone(),
            uuid: known.map_or(self.user_uuid, |user| user.uuid),
            profile: Profile::new(state, self.public_keys.clone()),
        });
        Ok(())
    }

    fn decide_floors(&self, router: &Router, draft: &mut Draft) -> Result<(), Undecided> {
        let Some(since) = &self.since else { return Ok(()) };
        // Another that puts the same floor elsewhere must come before or after.
        draft.touch(Key::User(self.user.clone()), Touch::Exclusive)?;
        let position = match since {
            FloorAt::Earliest => Position(0),
            FloorAt::Cursor(cursor) => router.resolve(cursor, draft.head()).ok_or(Refusal::UnknownCursor)?,
            FloorAt::Time(time) => draft.position_at(*time),
        };
        for channel in self.channels.iter().collect::<BTreeSet<_>>() {
            draft.add(Event::FloorSet { user: self.user.clone(), channel: channel.clone(), position });
        }
        Ok(())
    }
}
