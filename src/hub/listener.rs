//! An open listener, as the transports see it.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::backlog::Backlog;
use super::core::{CannotListen, Hub};
use crate::domain::frame::Tick;
use crate::domain::listen::Departure;
use crate::domain::names::{ConnectionId, ListenerId};
use crate::domain::replay::Since;
use crate::mailbox::{Closing, Mail, Mailbox};
use crate::outlet::Outlet;
use crate::piece::Pieces;
use crate::progress::Progress;

/// How somebody listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A websocket.
    Websocket,
    /// Server-sent events.
    Sse,
    /// One long poll, after which another one may come.
    LongPoll,
}

impl Transport {
    /// Its name in figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Websocket => "websocket",
            Self::Sse => "sse",
            Self::LongPoll => "long_poll",
        }
    }

    /// Whether its openings are counted against the allowed rate: polls come one after the other by
    /// their nature.
    fn is_limited(self) -> bool {
        self != Self::LongPoll
    }
}

/// An open listener; dropping it ends it.
pub struct Listener {
    hub: Arc<Hub>,
    id: ConnectionId,
    listener: ListenerId,
    mailbox: Arc<Mailbox>,
    how: Departure,
    transport: Transport,
}

impl Hub {
    /// Begins to listen on a connection; whoever listened on it before is closed. `since`: where
    /// to continue, for a listener that keeps a cursor.
    ///
    /// # Errors
    /// See [`CannotListen`].
    pub fn listen(
        self: &Arc<Self>,
        id: ConnectionId,
        since: Option<&Since>,
        transport: Transport,
    ) -> Result<(Listener, Backlog), CannotListen> {
        let attached = self.attach(id, since, transport.is_limited())?;
        let mailbox = attached.mailbox.clone();
        let plan = since.cloned().zip(attached.plan);
        let backlog = Backlog::new(self.clone(), id, mailbox, plan, attached.missed, attached.tick);
        let listener = Listener {
            hub: self.clone(),
            id,
            listener: attached.listener,
            mailbox: attached.mailbox,
            how: Departure::Lost,
            transport,
        };
        self.metrics.listeners.of(transport.name()).inc();
        Ok((listener, backlog))
    }
}

impl Listener {
    /// What is written to the listener's connection, which stays open: for judging whether it is
    /// too slow, and for heartbeats.
    pub fn watch(&self, progress: Progress) {
        self.mailbox.watch(progress);
    }

    /// Waits for mail; dropping the wait loses nothing.
    pub async fn mail(&self) -> Mail {
        self.mailbox.mail().await
    }

    /// See [`Mailbox::poll_mail`].
    pub fn poll_mail(&self, empty: &mut Pieces, context: &mut Context<'_>) -> Poll<Mail> {
        self.mailbox.poll_mail(empty, context)
    }

    /// See [`Mailbox::poll_mail_or_lend`].
    pub fn poll_mail_or_lend(&self, outlet: &mut Option<Outlet>, context: &mut Context<'_>) -> Poll<Mail> {
        self.mailbox.poll_mail_or_lend(outlet, context)
    }

    /// See [`Mailbox::poll_outlet`].
    pub fn poll_outlet(&self, context: &mut Context<'_>) -> Poll<Outlet> {
        self.mailbox.poll_outlet(context)
    }

    /// Everything up to `tick` was sent.
    pub fn mark_written(&self, tick: Tick) {
        self.mailbox.mark_written(tick);
    }

    /// Takes no more, for a reason that its transport found out.
    pub fn close(&self, closing: Closing) {
        self.mailbox.close(closing);
    }

    /// The client closed its socket, so that the connection is over.
    pub fn closed_by_client(&mut self) {
        self.how = Departure::Closed;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.hub.detach(self.id, self.listener, self.how);
        let metrics = &self.hub.metrics;
        metrics.listeners.of(self.transport.name()).dec();
        let reason = match (self.mailbox.closing(), self.how) {
            (Some(closing), _) => closing.name(),
            (None, Departure::Closed) => "client",
            // That is how polls end.
            (None, _) if self.transport == Transport::LongPoll => return,
            (None, _) => "lost",
        };
        metrics.listeners_closed.of(reason).inc();
    }
}
