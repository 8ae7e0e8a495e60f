//! The router's lock: a mutex that knows how long it is held, and what for. Everybody waits for whoever
//! holds it, so no operation may hold it for more than about a millisecond, however big the server is.
//! These figures say whether that is true. A hold costs two looks at the clock, about 50 ns together.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tracing::debug;

/// Who has much to do under the lock lets others have it after this time, where it can.
pub const SLICE: Duration = Duration::from_micros(500);

/// A hold of this time or longer is logged.
const LONG: Duration = Duration::from_millis(5);
/// How many classes of holds there are: shorter than 1, 2, 4 … 32,768 µs, and all others.
const CLASSES: usize = 17;

/// What the lock is held for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A request sets out for the journal.
    Depart,
    /// The journal looks at what requests need.
    Need,
    /// The journal brings into memory what it has read.
    Load,
    /// The journal decides requests.
    Decide,
    /// The journal applies what was decided, and hands it out.
    Apply,
    /// The journal lets requests go that failed.
    Fail,
    /// The journal lets tails reach further back.
    Tails,
    /// Messages are shown of which nothing is stored.
    Post,
    /// A connection begins to listen.
    Attach,
    /// A connection listens no more.
    Detach,
    /// What a listener missed is looked for.
    Replay,
    /// A back end or an operator looks at channels and users.
    Look,
    /// Everything that takes the time of a look at one thing.
    Glance,
}

/// All of them, in their order.
const PURPOSES: [Purpose; 13] = [
    Purpose::Depart,
    Purpose::Need,
    Purpose::Load,
    Purpose::Decide,
    Purpose::Apply,
    Purpose::Fail,
    Purpose::Tails,
    Purpose::Post,
    Purpose::Attach,
    Purpose::Detach,
    Purpose::Replay,
    Purpose::Look,
    Purpose::Glance,
];

impl Purpose {
    /// Its name in logs and figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Depart => "depart",
            Self::Need => "need",
            Self::Load => "load",
            Self::Decide => "decide",
            Self::Apply => "apply",
            Self::Fail => "fail",
            Self::Tails => "tails",
            Self::Post => "post",
            Self::Attach => "attach",
            Self::Detach => "detach",
            Self::Replay => "replay",
            Self::Look => "look",
            Self::Glance => "glance",
        }
    }
}

/// How long the lock was held for one purpose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// How often it was held.
    pub count: u64,
    /// All holds together.
    pub total: Duration,
    /// The longest hold.
    pub longest: Duration,
    /// How many holds were shorter than 1, 2, 4 … 32,768 µs but not than the limit before, and how many
    /// were longer than all these.
    pub classes: [u64; CLASSES],
}

impl Times {
    fn note(&mut self, held: Duration) {
        self.count += 1;
        self.total += held;
        self.longest = self.longest.max(held);
        self.classes[class(held)] += 1;
    }

    /// How many holds took at least 1,024 µs.
    pub fn long(&self) -> u64 {
        self.classes[class(Duration::from_micros(1024))..].iter().sum()
    }
}

/// The class of a hold.
fn class(held: Duration) -> usize {
    let bits = u128::BITS - held.as_micros().leading_zeros();
    (bits as usize).min(CLASSES - 1)
}

/// How long the lock was held, by purpose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LockTimes([Times; PURPOSES.len()]);

impl LockTimes {
    /// Each purpose that it was held for.
    pub fn iter(&self) -> impl Iterator<Item = (Purpose, &Times)> {
        PURPOSES.into_iter().zip(&self.0).filter(|(_, times)| times.count > 0)
    }
}

/// In one line: of each purpose how often, and the longest; the worst come first.
impl fmt::Display for LockTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all: Vec<(Purpose, &Times)> = self.iter().collect();
        all.sort_by_key(|(_, times)| std::cmp::Reverse(times.longest));
        for (index, (purpose, times)) in all.into_iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            let longest = times.longest.as_secs_f64() * 1e3;
            write!(f, "{separator}{} {longest:.3} ms ({} of {} ≥ 1 ms)", purpose.name(), times.long(), times.count)?;
        }
        Ok(())
    }
}

/// See the module.
pub struct Lock<T>(Mutex<Timed<T>>);

/// What the lock guards. Whoever notes a time holds the lock anyway.
struct Timed<T> {
    value: T,
    times: LockTimes,
}

impl<T> Lock<T> {
    /// Guards a value.
    pub fn new(value: T) -> Self {
        Self(Mutex::new(Timed { value, times: LockTimes::default() }))
    }

    /// Waits for the lock and holds it until the guard is dropped.
    pub fn lock(&self, purpose: Purpose) -> Guard<'_, T> {
        let timed = self.0.lock();
        Guard { timed, purpose, since: Instant::now(), report: Report(None) }
    }

    /// How long it was held so far.
    pub fn times(&self) -> LockTimes {
        self.0.lock().times.clone()
    }

    /// The same, and counts from zero again: for measuring one thing.
    pub fn take_times(&self) -> LockTimes {
        std::mem::take(&mut self.0.lock().times)
    }
}

/// The lock is held.
pub struct Guard<'a, T> {
    timed: MutexGuard<'a, Timed<T>>,
    purpose: Purpose,
    since: Instant,
    /// Comes last, so that it is dropped when the lock has been given back.
    report: Report,
}

impl<T> Guard<'_, T> {
    /// How long it has been held.
    pub fn held(&self) -> Duration {
        self.since.elapsed()
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.timed.value
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.timed.value
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        let held = self.held();
        self.timed.times.0[self.purpose as usize].note(held);
        if held >= LONG {
            self.report = Report(Some((self.purpose, held)));
        }
    }
}

/// Logs a hold when it is dropped: nobody waits for that.
struct Report(Option<(Purpose, Duration)>);

impl Drop for Report {
    fn drop(&mut self) {
        if let Some((purpose, held)) = self.0 {
            let milliseconds = held.as_secs_f64() * 1e3;
            debug!(purpose = purpose.name(), milliseconds, "the router's lock was held for long");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_are_noted_by_purpose() {
        let lock = Lock::new(1);
        *lock.lock(Purpose::Apply) += 1;
        assert_eq!(*lock.lock(Purpose::Glance), 2);
        drop(lock.lock(Purpose::Glance));
        let counts: Vec<_> = lock.times().iter().map(|(purpose, times)| (purpose, times.count)).collect();
        assert_eq!(counts, [(Purpose::Apply, 1), (Purpose::Glance, 2)]);
        assert_eq!(lock.take_times().iter().count(), 2);
        assert_eq!(lock.times(), LockTimes::default());
    }

    #[test]
    fn classes_double() {
        let micros = |micros| class(Duration::from_micros(micros));
        assert_eq!([0, 1, 2, 3, 4, 1023, 1024].map(micros), [0, 1, 2, 2, 3, 10, 11]);
        assert_eq!((micros(32_767), micros(32_768), micros(u64::MAX)), (15, 16, 16));
        let mut times = Times::default();
        for micros in [900, 1023, 1024, 70_000] {
            times.note(Duration::from_micros(micros));
        }
        assert_eq!((times.count, times.long(), times.longest), (4, 2, Duration::from_millis(70)));
    }

    #[test]
    fn every_purpose_has_its_place() {
        assert!(PURPOSES.iter().enumerate().all(|(index, purpose)| *purpose as usize == index));
    }

    #[test]
    fn the_worst_comes_first() {
        let mut times = LockTimes::default();
        times.0[Purpose::Need as usize].note(Duration::from_micros(1_500));
        times.0[Purpose::Look as usize].note(Duration::from_millis(3));
        assert_eq!(times.to_string(), "look 3.000 ms (1 of 1 ≥ 1 ms), need 1.500 ms (1 of 1 ≥ 1 ms)");
    }
}
