//! When something was last written to a connection: a client that takes a little now and then is
//! slow, but not stuck.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

/// Times are counted from here.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// One connection's progress; a clone tells of the same connection.
#[derive(Debug, Clone)]
pub struct Progress(Arc<AtomicU64>);

impl Progress {
    /// A connection that was just opened.
    pub fn start() -> Self {
        let progress = Self(Arc::default());
        progress.note();
        progress
    }

    /// Something is written now.
    pub fn note(&self) {
        let nanoseconds = START.elapsed().as_nanos();
        self.0.store(u64::try_from(nanoseconds).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// When something was last written.
    pub fn last(&self) -> Instant {
        *START + Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}
