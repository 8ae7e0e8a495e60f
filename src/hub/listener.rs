//! An open listener, as the transports see it.

use std::sync::Arc;

use axum::extract::ws::Utf8Bytes;

use super::core::{CannotListen, Hub};
use crate::domain::frame::{Frame, Tick};
use crate::domain::listen::Departure;
use crate::domain::names::{ConnectionId, ListenerId};
use crate::mailbox::{Mail, Mailbox};
use crate::wire::frame;

/// Missed frames are put into arrays of about this size.
const MAX_PIECE_BYTES: usize = 256 * 1024;

/// An open listener; dropping it ends it.
pub struct Listener {
    hub: Arc<Hub>,
    id: ConnectionId,
    listener: ListenerId,
    mailbox: Arc<Mailbox>,
    how: Departure,
}

/// What a listener missed before it came: shown before all mail.
pub struct Missed {
    hub: Arc<Hub>,
    frames: std::vec::IntoIter<Frame>,
    tick: Tick,
}

impl Hub {
    /// Begins to listen on a connection; whoever listened on it before is closed. `limited`:
    /// whether openings are counted against the allowed rate.
    ///
    /// # Errors
    /// See [`CannotListen`].
    pub fn listen(self: &Arc<Self>, id: ConnectionId, limited: bool) -> Result<(Listener, Missed), CannotListen> {
        let attached = self.attach(id, limited)?;
        let missed = Missed { hub: self.clone(), frames: attached.missed.into_iter(), tick: attached.tick };
        let listener = Listener {
            hub: self.clone(),
            id,
            listener: attached.listener,
            mailbox: attached.mailbox,
            how: Departure::Lost,
        };
        Ok((listener, missed))
    }
}

impl Missed {
    /// Up to where the listener has seen everything once all pieces were sent.
    pub fn tick(&self) -> Tick {
        self.tick
    }
}

/// Arrays of frames, each of a size that a slow client can take.
impl Iterator for Missed {
    type Item = Utf8Bytes;

    fn next(&mut self) -> Option<Utf8Bytes> {
        let mut text = Vec::new();
        while text.len() < MAX_PIECE_BYTES
            && let Some(missed) = self.frames.next()
        {
            text.push(if text.is_empty() { b'[' } else { b',' });
            frame::write(&missed, true, self.hub.epoch(), &mut text);
        }
        if text.is_empty() {
            return None;
        }
        text.push(b']');
        Some(String::from_utf8(text).expect("JSON is UTF-8").into())
    }
}

impl Listener {
    /// Waits for mail; dropping the wait loses nothing.
    pub async fn mail(&self) -> Mail {
        self.mailbox.mail().await
    }

    /// Everything up to `tick` was sent.
    pub fn mark_written(&self, tick: Tick) {
        self.mailbox.mark_written(tick);
    }

    /// The client closed its socket, so that the connection is over.
    pub fn closed_by_client(&mut self) {
        self.how = Departure::Closed;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.hub.detach(self.id, self.listener, self.how);
    }
}
