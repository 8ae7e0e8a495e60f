//! The storage seam: what every engine does. The trait speaks of events and of what is in memory.
//! It is meant to stay small: extend it when an operation needs something that memory cannot hold,
//! and then for all engines at once, with a test in the contract suite.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::NaiveDateTime;
use futures_util::Stream;
use hashbrown::{HashMap, HashSet};
use uuid::Uuid;

use super::archive::{Extent, Page, Table};
use crate::domain::channel::Channel;
use crate::domain::draft::HeldByUuid;
use crate::domain::event::Event;
use crate::domain::history::Logged;
use crate::domain::names::{ChannelName, ConnectionId, Username};
use crate::domain::position::{Epoch, Numbering, Position};
use crate::domain::replay::Doubt;
pub use crate::domain::replay::ReplayPage;
use crate::domain::tail::{Place, TailPart};
use crate::domain::user::User;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, or did not answer; whether a commit took place is not known.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// It refuses what it was given, and nothing of it took place.
    #[error("the store refuses this: {0}")]
    Refused(String),
    /// It was written to by another server: this one must stop.
    #[error("the store is not ours any more: its log was continued by somebody else")]
    NotOurs,
    /// It cannot be used at all: the message says why and what to do.
    #[error("{0}")]
    Unusable(String),
}

/// What the server finds when it takes a store over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The numbering in force.
    pub epoch: Epoch,
    /// The position of the newest logged event.
    pub head: Position,
    /// The commit time of the newest entry that the log still holds; commit times never decrease.
    pub latest: NaiveDateTime,
    /// All epochs, for judging cursors.
    pub numbering: Numbering,
}

/// One page of what a listener has missed.
#[derive(Debug)]
pub struct ReplayQuery<'a> {
    /// Whose inbox.
    pub user: &'a Username,
    /// Channels, each with the position to begin after.
    pub channels: Vec<(&'a ChannelName, Position)>,
    /// The position to begin after in the inbox.
    pub inbox: Position,
    /// What was read already.
    pub after: Position,
    /// The end.
    pub through: Position,
    /// When it is asked, for what is past its time.
    pub at: NaiveDateTime,
    /// Most entries.
    pub limit: u32,
    /// The page ends once its bodies have as many bytes.
    pub max_bytes: u32,
}

/// Which messages of a channel or an inbox are to be read.
#[derive(Debug)]
pub struct HistoryQuery<'a> {
    /// Where.
    pub place: &'a Place,
    /// Only those after this; then the oldest come first into the page, and otherwise the newest.
    pub after: Option<Position>,
    /// Only those before this.
    pub before: Option<Position>,
    /// Only those up to this.
    pub through: Position,
    /// When it is asked, for what is past its time.
    pub at: NaiveDateTime,
    /// Most messages.
    pub limit: u32,
    /// Most bytes of bodies, but for a single larger one.
    pub max_bytes: u64,
}

/// See [`HistoryQuery`].
#[derive(Debug, Default)]
pub struct HistoryPage {
    /// With their present content, oldest first.
    pub messages: Vec<Logged>,
    /// Whether the query fits more of them.
    pub has_more: bool,
}

/// What is committed together, in one transaction.
#[derive(Debug)]
pub struct Batch {
    /// Its identity, to find out whether an unclear commit took place.
    pub id: Uuid,
    /// The head that it builds on.
    pub before: Position,
    /// The head afterwards.
    pub head: Position,
    /// When it was decided: the commit time of its log entries.
    pub at: NaiveDateTime,
    /// What happened, in order; those that do not last are passed over.
    pub events: Vec<Event>,
}

/// A connection that was alive when the server stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredConnection {
    /// Its id.
    pub id: ConnectionId,
    /// Whose it is.
    pub user: Username,
    /// Its channels.
    pub channels: Vec<ChannelName>,
    /// Up to where it has seen the log: where it stood when the application let it in, or at an
    /// orderly stop.
    pub head: Position,
}

/// How much is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreTotals {
    /// Channels.
    pub channels: u64,
    /// Users.
    pub users: u64,
}

/// Where a store is: its tables are there and up to date, but another server may own it.
#[async_trait]
pub trait Database: Send + Sync {
    /// Becomes the owner of the store, unless another server is. `shown`: up to where this process
    /// showed its log before, if it did; where the store has less, a new epoch begins.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it cannot be reached now; [`StoreError::Unusable`] if trying
    /// again is useless.
    async fn take_over(&self, shown: Position) -> Result<Option<(Arc<dyn Store>, Start)>, StoreError>;

    /// Becomes the owner of the store, unless another server is, in order to copy it or to copy
    /// something into it. The store itself takes no note of that.
    ///
    /// # Errors
    /// As [`Database::take_over`].
    async fn archive(&self) -> Result<Option<Box<dyn Archive>>, StoreError>;

    /// Which store it is, the same however it is reached.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn place(&self) -> Result<String, StoreError>;

    /// Begins a new numbering, unless another server owns the store: after it was put back to an
    /// older state, cursors of the newer one must not be taken for what is numbered now. Gives the
    /// new epoch and the head after which it begins; older cursors stay good up to there.
    ///
    /// # Errors
    /// As [`Database::take_over`].
    async fn begin_epoch(&self) -> Result<Option<(Epoch, Position)>, StoreError>;

    /// How an operator knows it; without secrets.
    fn name(&self) -> String;
}

/// The pages of one table, in order.
pub type Pages<'a> = Pin<Box<dyn Stream<Item = Result<Page, StoreError>> + Send + 'a>>;

/// A store as rows and nothing else, all of it in one transaction: reading sees one state of it, and
/// what is added is there with [`Archive::finish`], or not at all.
#[async_trait]
pub trait Archive: Send {
    /// How much there is.
    async fn extent(&mut self) -> Result<Extent, StoreError>;

    /// Reads a table.
    fn pages(&mut self, table: Table) -> Pages<'_>;

    /// Takes out what a new store has got: its first epoch.
    async fn clear(&mut self) -> Result<(), StoreError>;

    /// Adds rows, with the ids that they have.
    async fn add(&mut self, page: &Page) -> Result<(), StoreError>;

    /// Sets the head, begins a new epoch there, and keeps all that was added. Ids go on behind those
    /// that are there.
    async fn finish(self: Box<Self>, head: Position) -> Result<(), StoreError>;

    /// Lets the store go without having changed it.
    async fn close(self: Box<Self>) -> Result<(), StoreError>;
}

/// Durable memory. One server owns a store, and one task of it writes.
#[async_trait]
pub trait Store: Send + Sync {
    /// Keeps a batch, all of it or nothing.
    ///
    /// # Errors
    /// [`StoreError::Refused`]: nothing was kept. [`StoreError::Unavailable`]: unclear, see
    /// [`Store::settle`].
    async fn commit(&self, batch: &Batch) -> Result<(), StoreError>;

    /// After an unclear commit: whether that batch is in the store. Once this answers, the batch
    /// can no longer get in.
    ///
    /// # Errors
    /// [`StoreError::NotOurs`] if another server took the store.
    async fn settle(&self, batch: Uuid) -> Result<bool, StoreError>;

    /// Whether the store can be reached and is ours; asked while there is nothing to commit.
    /// Connections that broke are made again.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] and [`StoreError::NotOurs`].
    async fn check(&self) -> Result<(), StoreError>;

    /// The channels of these names that exist, with history and without members.
    async fn channels(&self, names: &HashSet<ChannelName>) -> Result<HashMap<ChannelName, Channel>, StoreError>;

    /// The same without histories, for who does not want to show them.
    async fn bare_channels(&self, names: &HashSet<ChannelName>) -> Result<HashMap<ChannelName, Channel>, StoreError>;

    /// The users of these names that exist, without connections.
    async fn users(&self, names: &HashSet<Username>) -> Result<HashMap<Username, User>, StoreError>;

    /// The messages and deletions of these uuids that the log holds.
    async fn held(&self, uuids: &HashSet<Uuid>) -> Result<HeldByUuid, StoreError>;

    /// Of each of these times (UTC) the position of the newest entry that the log holds which was
    /// committed by then; 0 if there is none. Commit times never decrease along the log, which may
    /// be long: this must not read all of it.
    async fn positions_at(
        &self,
        times: &HashSet<NaiveDateTime>,
    ) -> Result<HashMap<NaiveDateTime, Position>, StoreError>;

    /// What a listener has missed: messages with their present content, and edits and deletions of
    /// messages from before.
    async fn replay(&self, query: &ReplayQuery<'_>) -> Result<ReplayPage, StoreError>;

    /// Of these stretches, those where the log holds anything, or did before it was trimmed.
    async fn holding(&self, user: &Username, doubts: &[Doubt]) -> Result<Vec<Doubt>, StoreError>;

    /// The newest part of what the log holds of places, in the order in which they are given: of
    /// the entries up to a position the newest `limit`, or fewer, so that their bodies together
    /// have no more than `bytes`; messages with their present content, edits with that of their
    /// message, all whether or not it is past its time. A place that does not exist holds nothing.
    async fn tails(&self, places: &[(Place, Position)], limit: u32, bytes: u32) -> Result<Vec<TailPart>, StoreError>;

    /// A page of the messages that the log holds of a channel or an inbox, for whatever audience;
    /// none if there is no such channel or user.
    async fn history(&self, query: &HistoryQuery<'_>) -> Result<Option<HistoryPage>, StoreError>;

    /// Channels in order of creation, after the one of that number, with their numbers.
    async fn channel_names(&self, after: i64, limit: u32) -> Result<Vec<(i64, ChannelName)>, StoreError>;

    /// All connections that did not end.
    async fn connections(&self) -> Result<Vec<StoredConnection>, StoreError>;

    /// Before an orderly stop: up to where connections have seen the log.
    async fn note_seen(&self, seen: &[(ConnectionId, Position)]) -> Result<(), StoreError>;

    /// Channels that hold messages which are past their time at `at`.
    async fn expired_channels(&self, at: NaiveDateTime, limit: u32) -> Result<Vec<ChannelName>, StoreError>;

    /// Users without connections and without activity since then.
    async fn idle_users(&self, since: NaiveDateTime, limit: u32) -> Result<Vec<Username>, StoreError>;

    /// How many bytes it takes where it is kept.
    async fn size(&self) -> Result<u64, StoreError>;

    /// How much is stored.
    async fn totals(&self) -> Result<StoreTotals, StoreError>;

    /// Says that the server stops in good order, and lets the store go.
    async fn close(&self) -> Result<(), StoreError>;
}

/// How safe a SQLite commit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synchronous {
    /// A power cut loses nothing that was acknowledged.
    Full,
    /// Faster; a power cut may lose the last commits, never corrupt.
    Normal,
}

/// How a store is opened.
#[derive(Debug, Clone, Copy)]
pub struct StoreOptions {
    /// For SQLite.
    pub synchronous: Synchronous,
    /// Connections that read, beside the one that writes; for Postgres.
    pub readers: u32,
    /// How long one request to the database may take until its connection counts as broken; for
    /// Postgres.
    pub timeout: Duration,
    /// Whether a store is made where there is none.
    pub create: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { synchronous: Synchronous::Full, readers: 4, timeout: Duration::from_secs(5), create: true }
    }
}

impl From<Synchronous> for StoreOptions {
    fn from(synchronous: Synchronous) -> Self {
        Self { synchronous, ..Self::default() }
    }
}
