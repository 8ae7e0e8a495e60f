//! Order between what goes through the journal and messages of which nothing is stored: what shows in one
//! place is shown in the order in which it came, whichever way it takes. Messages that have to wait for
//! something in the journal are parked here. Whoever comes while they are let go, in several holds of the
//! lock, is parked behind them.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use hashbrown::HashMap;
use tokio::sync::oneshot;

use crate::domain::draft::Key;
use crate::domain::operation::{Post, PostOne, Posted};

/// Most messages of a parked post that are shown before it is asked what time it is.
const TOGETHER: usize = 256;
/// Most posts that are parked at a time.
const MAX_PARKED: usize = 8_192;

/// The number of a request that is on its way to the store; they go in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// See the module.
#[derive(Debug, Default)]
pub struct Order {
    /// Requests that are on their way to the store.
    under_way: BTreeSet<Ticket>,
    /// The last request that shows something in a place; some may be done already.
    shown_in: HashMap<Key, Ticket>,
    next_ticket: u64,
    parked: VecDeque<Parked>,
    next_number: u64,
    /// Some that are parked may wait for nothing but their turn.
    is_unparking: bool,
}

/// A post of which nothing is stored.
#[derive(Debug)]
struct Parked {
    number: u64,
    /// What is not shown yet.
    post: Post,
    shown: Vec<Posted>,
    /// The last request that has to be shown first, besides what was parked before.
    behind: Option<Ticket>,
    answer: oneshot::Sender<Unparked>,
}

/// What became of a post that was parked.
#[derive(Debug)]
pub enum Unparked {
    /// It was shown.
    Shown(Vec<Posted>),
    /// What it waited for has changed that nothing of it is stored: the journal has to decide.
    ForTheJournal {
        /// What was shown before that.
        shown: Vec<Posted>,
        /// All else.
        rest: Post,
    },
}

impl Order {
    /// A request goes to the journal that shows something in these places.
    pub fn depart(&mut self, places: Vec<Key>) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.under_way.insert(ticket);
        self.shown_in.extend(places.into_iter().map(|place| (place, ticket)));
        ticket
    }

    /// A request was applied, or never will be.
    pub fn arrive(&mut self, ticket: Ticket) {
        self.under_way.remove(&ticket);
        self.is_unparking |= !self.parked.is_empty();
        if self.under_way.is_empty() {
            self.shown_in.clear();
        }
    }

    /// The last request under way that shows something in any of these places. Mostly nothing is under way,
    /// and then it is not asked where.
    pub fn last_before(&self, places: impl FnOnce() -> Vec<Key>) -> Option<Ticket> {
        let first_under_way = *self.under_way.first()?;
        let last = *places().iter().filter_map(|place| self.shown_in.get(place)).max()?;
        (last >= first_under_way).then_some(last)
    }

    /// Whether some that are parked may wait for nothing but their turn, so that nothing may overtake them.
    pub fn is_unparking(&self) -> bool {
        self.is_unparking
    }

    /// Parks a post until a request has arrived and it is its turn. Gives the number to show it by before
    /// that, and the answer; none: too many are parked.
    pub fn park(&mut self, post: Post, behind: Option<Ticket>) -> Option<(u64, oneshot::Receiver<Unparked>)> {
        if self.parked.len() >= MAX_PARKED {
            return None;
        }
        let (answer, answered) = oneshot::channel();
        let number = self.next_number;
        self.next_number += 1;
        self.parked.push_back(Parked { number, post, shown: Vec::new(), behind, answer });
        Some((number, answered))
    }

    /// A post waits for no request any more, whatever comes of that.
    pub fn free(&mut self, number: u64) {
        if let Ok(index) = self.parked.binary_search_by_key(&number, |parked| parked.number) {
            self.parked[index].behind = None;
        }
    }

    /// The number after the last that was parked.
    pub fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Shows posts parked before a number that wait for no request any more, in their order; true if there
    /// are more of them `until` when it may go on. `show` gives messages back about which the journal has to
    /// decide.
    pub fn unpark(
        &mut self,
        before: u64,
        until: Instant,
        show: &mut impl FnMut(Post) -> Result<Vec<Posted>, Post>,
    ) -> bool {
        let first_under_way = self.under_way.first().copied();
        let (mut waiting, mut more) = (VecDeque::new(), false);
        self.is_unparking = false;
        for parked in std::mem::take(&mut self.parked) {
            let is_free = parked.behind.is_none_or(|behind| first_under_way.is_none_or(|first| behind < first));
            let is_meant = is_free && parked.number < before;
            let mut left = Some(parked);
            while is_meant && let Some(parked) = left.take_if(|_| Instant::now() < until) {
                left = parked.show_some(show);
            }
            more |= is_meant && left.is_some();
            self.is_unparking |= is_free && left.is_some();
            waiting.extend(left);
        }
        self.parked = waiting;
        more
    }
}

impl Parked {
    /// Shows its next few messages; gives itself back if there are more.
    fn show_some(mut self, show: &mut impl FnMut(Post) -> Result<Vec<Posted>, Post>) -> Option<Self> {
        let count = self.post.messages.len().min(TOGETHER);
        let some: Vec<PostOne> = self.post.messages.drain(..count).collect();
        let unparked = match show(Post { messages: some, posted: Vec::new() }) {
            Ok(posted) => {
                self.shown.extend(posted);
                if !self.post.messages.is_empty() {
                    return Some(self);
                }
                Unparked::Shown(self.shown)
            }
            Err(mut rest) => {
                rest.messages.append(&mut self.post.messages);
                Unparked::ForTheJournal { shown: self.shown, rest }
            }
        };
        // Whoever posted it may be gone; what was shown was posted all the same.
        let _ = self.answer.send(unparked);
        None
    }
}
