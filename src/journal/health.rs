//! How the store does, as the journal sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// The last thing that it was asked for failed.
    failed: AtomicBool,
    /// Since when an answer is awaited.
    asked: Mutex<Option<Instant>>,
    /// Another server has taken it.
    lost: AtomicBool,
}

/// An answer is awaited for as long as this lives.
pub(super) struct Asked(Arc<Health>);

impl Drop for Asked {
    fn drop(&mut self) {
        *self.0.asked.lock() = None;
    }
}

impl Health {
    /// The store is asked for something, until the guard is dropped.
    pub(super) fn ask(self: &Arc<Self>) -> Asked {
        *self.asked.lock() = Some(Instant::now());
        Asked(self.clone())
    }

    pub(super) fn set_failed(&self, failed: bool) {
        self.failed.store(failed, Ordering::Relaxed);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    pub(super) fn set_lost(&self) {
        self.lost.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Whether an answer has been awaited for longer than that.
    pub(super) fn is_silent_for(&self, patience: Duration) -> bool {
        self.asked.lock().is_some_and(|asked| asked.elapsed() > patience)
    }
}
