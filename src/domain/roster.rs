//! A roster: the users of a channel in the order of their names, in shared pieces, so that a copy for
//! an answer takes no time that matters, however many they are.

use std::sync::Arc;

use super::names::Username;

/// Most names in one piece: what has to be copied for a change while a copy of the roster is around.
const PIECE: usize = 128;

/// See the module. A clone shares all names.
#[derive(Debug, Clone, Default)]
pub struct Roster {
    /// None is empty; in the order of the names, as are those in each.
    pieces: Vec<Arc<Vec<Username>>>,
}

impl Roster {
    /// A user comes; nothing happens if it is there.
    pub fn insert(&mut self, user: &Username) {
        let at = self.piece_of(user).min(self.pieces.len().saturating_sub(1));
        let Some(piece) = self.pieces.get_mut(at) else {
            return self.pieces.push(Arc::new(vec![user.clone()]));
        };
        let Err(index) = piece.binary_search(user) else { return };
        let names = Arc::make_mut(piece);
        names.insert(index, user.clone());
        if names.len() > PIECE {
            let upper = names.split_off(PIECE / 2);
            self.pieces.insert(at + 1, Arc::new(upper));
        }
    }

    /// A user goes.
    pub fn remove(&mut self, user: &Username) {
        let at = self.piece_of(user);
        let Some(piece) = self.pieces.get_mut(at) else { return };
        let Ok(index) = piece.binary_search(user) else { return };
        let names = Arc::make_mut(piece);
        names.remove(index);
        if names.is_empty() {
            self.pieces.remove(at);
        }
    }

    /// The users, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Username> {
        self.pieces.iter().flat_map(|piece| piece.iter())
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(|piece| piece.len()).sum()
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// In how many pieces they are: what a clone costs.
    pub fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// The piece that has a user, if any has.
    fn piece_of(&self, user: &Username) -> usize {
        self.pieces.partition_point(|piece| piece.last().is_some_and(|last| last < user))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn user(number: u16) -> Username {
        Username::parse(&number.to_string()).unwrap()
    }

    fn names(roster: &Roster) -> Vec<Username> {
        roster.iter().cloned().collect()
    }

    #[test]
    fn many_come_and_go() {
        let mut roster = Roster::default();
        (0..1_000).for_each(|number| roster.insert(&user(number)));
        assert!(roster.len() == 1_000 && roster.pieces() > 1_000 / PIECE && roster.pieces() < 1_000 / 20);
        assert!(names(&roster).is_sorted());
        let before = roster.clone();
        (0..1_000).for_each(|number| roster.remove(&user(number)));
        assert!(roster.is_empty() && roster.pieces() == 0);
        assert_eq!(before.len(), 1_000, "a copy stays as it was");
    }

    proptest! {
        #[test]
        fn it_is_a_sorted_set(changes in prop::collection::vec((0..600u16, any::<bool>()), 0..2_000)) {
            let (mut roster, mut expected) = (Roster::default(), BTreeSet::new());
            for (number, comes) in changes {
                let user = user(number);
                if comes {
                    roster.insert(&user);
                    expected.insert(user);
                } else {
                    roster.remove(&user);
                    expected.remove(&user);
                }
            }
            prop_assert_eq!(roster.len(), expected.len());
            prop_assert_eq!(names(&roster), Vec::from_iter(expected));
        }
    }
}
