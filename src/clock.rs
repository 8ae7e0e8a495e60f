//! The clock: the one place that tells the time to all others.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use chrono::{NaiveDateTime, Utc};
use parking_lot::Mutex;

use crate::domain::timestamp::Moment;

/// The time, never going back, not even over a restart.
#[derive(Debug)]
pub struct Clock {
    started: Instant,
    latest: Mutex<NaiveDateTime>,
}

impl Clock {
    /// Starts now; it never tells a time before `latest`, the newest that the store has seen.
    pub fn start(latest: NaiveDateTime) -> Self {
        Self { started: Instant::now(), latest: Mutex::new(latest) }
    }

    /// Now.
    pub fn now(&self) -> Moment {
        let mut latest = self.latest.lock();
        *latest = Utc::now().naive_utc().max(*latest);
        Moment { utc: *latest, elapsed: self.started.elapsed() }
    }
}

/// The system's clock, wherever it goes: for comparing with the clocks of others, in seconds since
/// 1970.
pub fn unix_seconds() -> i64 {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    i64::try_from(seconds).unwrap_or(i64::MAX)
}
