//! All tails together: how much memory they take, and which go first when that is too much.

use hashbrown::DefaultHashBuilder;
use indexmap::IndexSet;

use super::tail::{Place, Tail};

/// How much memory tails may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TailLimits {
    /// Most bytes of one place.
    pub place: usize,
    /// Most bytes of all together; 0: there are no tails.
    pub all: usize,
}

impl Default for TailLimits {
    fn default() -> Self {
        Self { place: 256 << 10, all: 256 << 20 }
    }
}

/// The tails that have entries, in a circle: a hand goes round and takes those that were not used
/// since it came by the last time.
#[derive(Debug, Default)]
pub struct Tails {
    limits: TailLimits,
    bytes: usize,
    circle: IndexSet<Place, DefaultHashBuilder>,
    hand: usize,
}

impl Tails {
    /// Counts from now on.
    pub fn set_limits(&mut self, limits: TailLimits) {
        self.limits = limits;
    }

    /// About how many bytes they keep alive.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there are any.
    pub fn is_on(&self) -> bool {
        self.limits.all > 0
    }

    /// Whether some have to go.
    pub fn is_over(&self) -> bool {
        self.bytes > self.limits.all
    }

    /// Changes a tail, which counts as using it, but for the first time.
    pub fn change(&mut self, tail: &mut Tail, place: impl FnOnce() -> Place, change: impl FnOnce(&mut Tail)) {
        let before = tail.bytes();
        change(tail);
        tail.cut(self.limits.place);
        self.bytes = self.bytes - before + tail.bytes();
        tail.is_used |= tail.is_listed;
        if !tail.is_listed && !tail.is_empty() {
            tail.is_listed = true;
            self.circle.insert(place());
        }
    }

    /// A tail is no more.
    pub fn remove(&mut self, place: &Place, tail: &Tail) {
        self.bytes -= tail.bytes();
        if tail.is_listed {
            self.circle.swap_remove(place);
        }
    }

    /// The next to be looked at.
    pub fn candidate(&mut self) -> Option<Place> {
        if self.hand >= self.circle.len() {
            self.hand = 0;
        }
        self.circle.get_index(self.hand).cloned()
    }

    /// The one that [`Tails::candidate`] named goes, unless it was used. `empty`: empties it.
    pub fn pass(&mut self, tail: Option<&mut Tail>, empty: impl FnOnce(&mut Tail)) {
        match tail {
            Some(tail) if tail.is_used => {
                tail.is_used = false;
                self.hand += 1;
            }
            Some(tail) => {
                self.bytes -= tail.bytes();
                empty(tail);
                self.bytes += tail.bytes();
                tail.is_listed = false;
                self.circle.swap_remove_index(self.hand);
            }
            None => {
                self.circle.swap_remove_index(self.hand);
            }
        }
    }
}
