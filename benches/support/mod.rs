//! What the benchmarks share: a small world in memory, made by requests as back ends send them.

// Each benchmark is a crate of its own and needs only some of this.
#![allow(dead_code)]

use std::sync::Arc;
use std::time::Duration;

use channelstream::domain::draft::{Draft, Found};
use channelstream::domain::event::Event;
use channelstream::domain::names::{ChannelName, ConnectionId};
use channelstream::domain::operation::{Connect, Operation, Post};
use channelstream::domain::position::{Epoch, Position};
use channelstream::domain::router::Router;
use channelstream::domain::timestamp::{Moment, from_micros};
use channelstream::live::Live;
use channelstream::mailbox::{Mail, Mailbox};
use channelstream::wire::request;
use futures_util::FutureExt;
use serde_json::json;
use uuid::Uuid;

/// Bytes of text in a message.
pub const TEXT: usize = 200;

/// Some time in 2026.
pub fn moment() -> Moment {
    Moment { utc: from_micros(1_780_000_000_000_000), elapsed: Duration::from_secs(10) }
}

/// An epoch.
pub fn epoch() -> Epoch {
    Epoch::parse("0badc0de").expect("an epoch")
}

/// The name of a channel.
pub fn channel(index: usize) -> ChannelName {
    ChannelName::parse(&format!("channel-{index}")).expect("a name")
}

/// The body of `POST /message` with so many messages for one channel.
pub fn messages(channel: usize, count: usize) -> Vec<u8> {
    let one = |index| {
        let message = json!({ "n": index, "text": "x".repeat(TEXT) });
        json!({ "user": "author", "channel": format!("channel-{channel}"), "message": message })
    };
    serde_json::to_vec(&(0..count).map(one).collect::<Vec<_>>()).expect("JSON")
}

/// Messages for one channel, to be posted.
pub fn post(channel: usize, count: usize) -> Post {
    request::post(&messages(channel, count), moment().timestamp()).expect("a valid request")
}

/// A user to be let in to channels; new ones store history if `durable`.
pub fn connect(user: usize, channels: impl IntoIterator<Item = usize>, durable: bool) -> Connect {
    let names: Vec<String> = channels.into_iter().map(|index| format!("channel-{index}")).collect();
    let settings: serde_json::Map<_, _> =
        names.iter().map(|name| (name.clone(), json!({ "store_history": durable, "notify_presence": true }))).collect();
    let body = json!({
        "username": format!("user-{user}"),
        "channels": names,
        "fresh_user_state": { "name": format!("User {user}"), "age": 30 },
        "state_public_keys": ["name"],
        "channel_configs": settings,
    });
    request::connect(body.to_string().as_bytes()).expect("a valid request")
}

/// The live state, without a journal: what is decided is applied at once.
pub struct World {
    /// Router and mailboxes.
    pub live: Live,
}

impl World {
    /// Nobody is there.
    pub fn new() -> Self {
        let router = Router::new(Position(0), Duration::from_secs(60), Uuid::new_v4);
        // Mailboxes are emptied by the benchmarks, not by sockets: they may hold any amount.
        Self { live: Live::new(router, epoch(), usize::MAX) }
    }

    /// So many listeners in channel 0, a user each; with their mailboxes.
    pub fn with_listeners(count: usize, durable: bool) -> (Self, Vec<Arc<Mailbox>>) {
        let mut world = Self::new();
        let mailboxes = (0..count)
            .map(|user| {
                let id = world.perform(connect(user, [0], durable)).id;
                world.listen(id)
            })
            .collect();
        (world, mailboxes)
    }

    /// Decides a request and applies it.
    pub fn perform<O: Operation>(&mut self, mut operation: O) -> O::Outcome {
        let events = self.decide(&mut operation);
        self.apply(&events);
        operation.outcome(&self.live.router, moment())
    }

    /// What a request leads to.
    pub fn decide(&self, operation: &mut impl Operation) -> Vec<Event> {
        let found = Found::default();
        let mut draft = Draft::new(&self.live.router, moment(), &found);
        draft.begin();
        operation.decide(&self.live.router, &mut draft).expect("nothing is in its way");
        draft.finish().0
    }

    /// Applies events, fills mailboxes and wakes listeners.
    pub fn apply(&mut self, events: &[Event]) {
        self.live.apply(events, moment());
        self.live.hand_out().wake();
    }

    /// Opens the listener of a connection.
    pub fn listen(&mut self, id: ConnectionId) -> Arc<Mailbox> {
        self.live.attach(id, None, moment()).expect("a known connection").mailbox
    }
}

/// Takes what waits in a mailbox; says how many pieces that were.
pub fn take(mailbox: &Mailbox) -> usize {
    match mailbox.mail().now_or_never() {
        Some(Mail::Pieces(pieces)) => pieces.len(),
        Some(Mail::Beat | Mail::Closed(_)) | None => 0,
    }
}
