//! When something was last written to a connection: a client that takes a little now and then is
//! slow, but not stuck.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

/// One connection's progress; a clone tells of the same connection.
#[derive(Debug, Clone)]
pub struct Progress(Arc<Mutex<Instant>>);

impl Progress {
    /// A connection that was just opened.
    pub fn start() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// Something is written now.
    pub fn note(&self) {
        *self.0.lock() = Instant::now();
    }

    /// When something was last written.
    pub fn last(&self) -> Instant {
        *self.0.lock()
    }
}
