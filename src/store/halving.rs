//! Finds the newest log entry that was committed by a time: commit times never decrease, so halving
//! finds it without an index; for many times together, in as many steps as for one.

/// Where the answer for one time lies: all up to `low` was committed by then, all after `high` later.
struct Span {
    time: i64,
    low: i64,
    high: i64,
    newest: i64,
}

impl Span {
    fn middle(&self) -> i64 {
        self.low + (self.high - self.low + 1) / 2
    }
}

/// See the module.
pub(super) struct Halving(Vec<Span>);

impl Halving {
    /// Nothing is known but the head of the log.
    pub(super) fn new(times: impl IntoIterator<Item = i64>, head: i64) -> Self {
        Self(times.into_iter().map(|time| Span { time, low: 0, high: head, newest: 0 }).collect())
    }

    /// What has to be known next: the newest entry after one position and up to another, by the number
    /// of the time; nothing at the end.
    pub(super) fn wanted(&self) -> Vec<(i64, i64, i64)> {
        let open = self.0.iter().enumerate().filter(|(_, span)| span.low < span.high);
        open.map(|(number, span)| (number as i64, span.low, span.middle())).collect()
    }

    /// What was found: number, position and commit time. Where nothing was found there is nothing.
    pub(super) fn narrow(&mut self, wanted: &[(i64, i64, i64)], found: impl IntoIterator<Item = (i64, i64, i64)>) {
        // As if nothing had been found: the next step begins at the middle.
        for (number, _, middle) in wanted {
            self.0[*number as usize].low = *middle;
        }
        for (number, position, committed) in found {
            let span = &mut self.0[number as usize];
            if committed > span.time {
                let at = wanted.binary_search_by_key(&number, |(other, ..)| *other);
                (span.low, span.high) = (at.map_or(0, |at| wanted[at].1), position - 1);
            } else {
                span.newest = position;
            }
        }
    }

    /// The newest entries, in the order of the times; 0 is before all.
    pub(super) fn newest(self) -> impl Iterator<Item = i64> {
        self.0.into_iter().map(|span| span.newest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_finds_what_a_search_through_all_finds(
            mut log in prop::collection::btree_map(1i64..60, 0i64..20, 0..20),
            times in prop::collection::vec(-1i64..21, 0..8),
        ) {
            let mut latest = 0;
            for committed in log.values_mut() {
                latest = latest.max(*committed);
                *committed = latest;
            }
            let head = log.keys().last().copied().unwrap_or(0) + 3;
            let mut halving = Halving::new(times.iter().copied(), head);
            loop {
                let wanted = halving.wanted();
                if wanted.is_empty() {
                    break;
                }
                let found = wanted.iter().filter_map(|(number, low, middle)| {
                    let (position, committed) = log.range(low + 1..=*middle).next_back()?;
                    Some((*number, *position, *committed))
                });
                let found: Vec<_> = found.collect();
                halving.narrow(&wanted, found);
            }
            for (time, newest) in times.iter().zip(halving.newest()) {
                let expected = log.iter().rev().find(|(_, committed)| *committed <= time);
                prop_assert_eq!(newest, expected.map_or(0, |(position, _)| *position));
            }
        }
    }
}
