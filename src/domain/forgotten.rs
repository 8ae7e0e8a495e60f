//! Channels that were forgotten while users still had floors there. To look through all users at once
//! would take long: such floors count as gone, and go when their users are looked through, some at a
//! time.

use hashbrown::HashMap;

use super::names::{ChannelName, Username};
use super::parted::{PARTS, Parted};
use super::user::User;

/// See the module.
#[derive(Debug, Default)]
pub struct Forgotten {
    /// Of each the number that it has among all that were ever forgotten.
    channels: HashMap<ChannelName, u64>,
    /// How many were ever forgotten.
    count: u64,
    /// The part of the users that is looked through next.
    part: usize,
    /// How many had been forgotten when the first part was.
    began: u64,
}

impl Forgotten {
    /// A channel was forgotten.
    pub fn add(&mut self, name: ChannelName) {
        self.count += 1;
        self.channels.insert(name, self.count);
    }

    /// How many were ever forgotten.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether all users have been looked through.
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    /// Whether a user's floor in a channel is from before that was forgotten.
    pub fn voids(&self, user: &User, channel: &ChannelName) -> bool {
        self.channels.get(channel).is_some_and(|number| *number > user.looked_through)
    }

    /// Takes such floors from a user.
    pub fn clear(&self, user: &mut User) {
        if user.looked_through == self.count {
            return;
        }
        let mut floors = std::mem::take(&mut user.floors);
        if floors.len() > self.channels.len() {
            for channel in self.channels.keys().filter(|channel| self.voids(user, channel)) {
                floors.remove(channel);
            }
        } else {
            floors.retain(|channel, _| !self.voids(user, channel));
        }
        user.floors = floors;
        user.looked_through = self.count;
    }

    /// Looks through some of the users. What all have been looked through for is not remembered any
    /// longer.
    pub fn clear_some(&mut self, users: &mut Parted<Username, User>) {
        if self.channels.is_empty() {
            return;
        }
        users.part_mut(self.part).for_each(|user| self.clear(user));
        self.part = (self.part + 1) % PARTS;
        if self.part == 0 {
            let began = std::mem::replace(&mut self.began, self.count);
            self.channels.retain(|_, number| *number > began);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::position::Position;
    use super::super::state::Profile;
    use super::super::timestamp::from_micros;
    use super::super::user::Floor;
    use super::*;

    fn channel(name: &str) -> ChannelName {
        ChannelName::parse(name).unwrap()
    }

    fn user(channels: &[&str]) -> User {
        let mut user = User::new(uuid::Uuid::nil(), Profile::default(), from_micros(0));
        let floor = Floor { position: Position(0), left: None };
        user.floors.extend(channels.iter().map(|name| (channel(name), floor)));
        user
    }

    #[test]
    fn floors_go_when_their_user_is_looked_through() {
        let mut forgotten = Forgotten::default();
        let mut users = Parted::default();
        for number in 0..1_000 {
            users.insert(Username::parse(&number.to_string()).unwrap(), user(&["gone", "stays"]));
        }
        forgotten.add(channel("gone"));
        let ann = users.get_mut(&Username::parse("7").unwrap()).unwrap();
        assert!(forgotten.voids(ann, &channel("gone")) && !forgotten.voids(ann, &channel("stays")));
        forgotten.clear(ann);
        assert_eq!(ann.floors.len(), 1);
        // It is there again, and so is the floor.
        ann.floors.insert(channel("gone"), Floor { position: Position(1), left: None });
        assert!(!forgotten.voids(ann, &channel("gone")));
        let mut steps = 0;
        while !forgotten.is_empty() {
            forgotten.clear_some(&mut users);
            steps += 1;
        }
        assert!(steps <= 2 * PARTS);
        let left: usize = users.iter().map(|(_, user)| user.floors.len()).sum();
        assert_eq!(left, 1_001);
    }
}
