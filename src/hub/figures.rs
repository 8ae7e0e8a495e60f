//! How much there is at the moment, for operators: what is found out by looking, not by counting.

use super::core::Hub;
use crate::domain::position::Position;
use crate::lock::Purpose;

/// See the module.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    /// Connection ids that are valid.
    pub connections: usize,
    /// Channels in memory.
    pub channels: usize,
    /// Users in memory.
    pub users: usize,
    /// Up to where the log was applied.
    pub head: Position,
    /// Bytes of log tails in memory.
    pub tail_bytes: usize,
    /// Frames put before listeners since the start, counted once for each listener.
    pub deliveries: u64,
    /// Pieces that wait in all mailboxes.
    pub waiting_pieces: usize,
    /// Bytes that wait in all mailboxes.
    pub waiting_bytes: usize,
    /// Bytes that wait in the fullest.
    pub fullest_bytes: usize,
    /// Requests that the journal has not taken yet.
    pub journal_requests: usize,
    /// Bytes of requests that the journal has not answered yet.
    pub journal_bytes: usize,
}

impl Hub {
    /// How much there is at the moment.
    pub fn figures(&self) -> Figures {
        let mut figures = self.glance();
        (figures.journal_requests, figures.journal_bytes) = self.journal.waiting();
        for mailbox in self.mailboxes().flatten() {
            let (pieces, bytes) = mailbox.waiting();
            figures.waiting_pieces += pieces;
            figures.waiting_bytes += bytes;
            figures.fullest_bytes = figures.fullest_bytes.max(bytes);
        }
        figures
    }

    /// What the router knows.
    fn glance(&self) -> Figures {
        let live = self.live.lock(Purpose::Glance);
        let (channels, users) = live.router.resident();
        Figures {
            connections: live.router.connection_count(),
            channels,
            users,
            head: live.router.head(),
            tail_bytes: live.router.tail_bytes(),
            deliveries: live.deliveries(),
            ..Figures::default()
        }
    }

    /// How many bytes the store takes; none: it is stuck.
    pub async fn store_size(&self) -> Option<u64> {
        if self.is_store_stuck() {
            return None;
        }
        self.store.size().await.ok()
    }
}
