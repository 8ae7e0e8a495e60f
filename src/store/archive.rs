//! A store as rows: what travels when a store is copied, the same for every engine. The columns are
//! those of the layout in `migrations`, where they are explained; nothing is made of them here.

use std::fmt;

use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use uuid::Uuid;

use crate::domain::position::Position;

/// Most rows of a page: fewer make more round trips, more make none any faster.
const PAGE_ROWS: usize = 5_000;
/// Bytes at which a page ends. It may have one row more than that, and a row has one body.
const PAGE_BYTES: usize = 4 << 20;

/// What a store consists of, besides its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // each is what it says
pub enum Table {
    Epochs,
    Channels,
    Users,
    Log,
    Inbox,
    Connections,
    Subscriptions,
    Memberships,
    ForgottenUsers,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Epochs,
        Self::Channels,
        Self::Users,
        Self::Log,
        Self::Inbox,
        Self::Connections,
        Self::Subscriptions,
        Self::Memberships,
        Self::ForgottenUsers,
    ];
}

/// What an operator calls its rows.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Epochs => "epochs",
            Self::Channels => "channels",
            Self::Users => "users",
            Self::Log => "log entries",
            Self::Inbox => "inbox entries",
            Self::Connections => "connections",
            Self::Subscriptions => "subscriptions",
            Self::Memberships => "memberships",
            Self::ForgottenUsers => "forgotten users",
        })
    }
}

/// How much a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The position of its newest logged event.
    pub head: Position,
    /// How many rows each table has, in the order of [`Table::ALL`].
    pub rows: [u64; Table::ALL.len()],
}

impl Extent {
    /// Takes what databases count.
    pub(super) fn new(head: i64, rows: [i64; Table::ALL.len()]) -> Self {
        Self { head: Position(head as u64), rows: rows.map(|rows| rows as u64) }
    }

    /// How many rows a table has.
    pub fn of(&self, table: Table) -> u64 {
        self.rows[table as usize]
    }

    /// Whether there is nothing but what a new store has got: one epoch, if it was opened already.
    pub fn is_blank(&self) -> bool {
        let at_first = |table| if table == Table::Epochs { 1 } else { 0 };
        self.head == Position::default() && Table::ALL.iter().all(|table| self.of(*table) <= at_first(*table))
    }
}

/// Consecutive rows of one table, bounded in number and bytes.
#[derive(Debug)]
#[allow(missing_docs)] // one for each table
pub enum Page {
    Epochs(Vec<EpochRow>),
    Channels(Vec<ChannelRow>),
    Users(Vec<UserRow>),
    Log(Vec<LogRow>),
    Inbox(Vec<InboxRow>),
    Connections(Vec<ConnectionRow>),
    Subscriptions(Vec<SubscriptionRow>),
    Memberships(Vec<MembershipRow>),
    ForgottenUsers(Vec<ForgottenUserRow>),
}

impl Page {
    /// How many rows it has.
    pub fn rows(&self) -> u64 {
        let rows = match self {
            Self::Epochs(rows) => rows.len(),
            Self::Channels(rows) => rows.len(),
            Self::Users(rows) => rows.len(),
            Self::Log(rows) => rows.len(),
            Self::Inbox(rows) => rows.len(),
            Self::Connections(rows) => rows.len(),
            Self::Subscriptions(rows) => rows.len(),
            Self::Memberships(rows) => rows.len(),
            Self::ForgottenUsers(rows) => rows.len(),
        };
        rows as u64
    }
}

#[derive(Debug)]
pub struct EpochRow {
    pub number: i64,
    pub id: String,
    pub after: i64,
}

#[derive(Debug)]
pub struct ChannelRow {
    pub id: i64,
    pub name: String,
    pub uuid: Uuid,
    pub notify_presence: bool,
    pub store_history: bool,
    pub history_size: i64,
    pub broadcast_presence_with_user_lists: bool,
    pub notify_state: bool,
    pub store_frames: bool,
    pub replay_size: i64,
    pub history_ttl: Option<i64>,
    pub last_active: i64,
    pub trimmed: i64,
    pub deleted: Option<i64>,
}

#[derive(Debug)]
pub struct UserRow {
    pub id: i64,
    pub name: String,
    pub uuid: Uuid,
    pub state: String,
    pub public_keys: String,
    pub created: i64,
    pub last_active: i64,
    pub trimmed: i64,
}

#[derive(Debug)]
pub struct LogRow {
    pub position: i64,
    pub channel: Option<i64>,
    pub kind: i64,
    pub uuid: Uuid,
    pub about: Option<i64>,
    pub edit: Option<i64>,
    pub sender: Option<String>,
    pub timestamp: Option<String>,
    pub edited: Option<String>,
    pub audience: Option<String>,
    pub body: Option<String>,
    pub committed: i64,
}

#[derive(Debug)]
pub struct InboxRow {
    pub user: i64,
    pub position: i64,
}

#[derive(Debug)]
pub struct ConnectionRow {
    pub id: Uuid,
    pub user: i64,
    pub opened: i64,
    pub head: i64,
}

#[derive(Debug)]
pub struct SubscriptionRow {
    pub connection: Uuid,
    pub channel: i64,
}

#[derive(Debug)]
pub struct MembershipRow {
    pub user: i64,
    pub channel: i64,
    pub floor: i64,
    pub left: Option<i64>,
}

#[derive(Debug)]
pub struct ForgottenUserRow {
    pub name: String,
    pub trimmed: i64,
}

/// A row of one of the tables.
pub(super) trait Row: Sized + Send {
    /// The page that rows make.
    fn page(rows: Vec<Self>) -> Page;

    /// How long its texts are.
    fn text_bytes(&self) -> usize {
        0
    }
}

/// How long texts are that may be there or not.
fn bytes<const N: usize>(texts: [&Option<String>; N]) -> usize {
    texts.into_iter().flatten().map(String::len).sum()
}

impl Row for EpochRow {
    fn page(rows: Vec<Self>) -> Page {
        Page::Epochs(rows)
    }
}

impl Row for ChannelRow {
    fn page(rows: Vec<Self>) -> Page {
        Page::Channels(rows)
    }

    fn text_bytes(&self) -> usize {
        self.name.len()
    }
}

impl Row for UserRow {
    fn page(rows: Vec<Self>) -> Page {
        Page::Users(rows)
    }

    fn text_bytes(&self) -> usize {
        self.name.len() + self.state.len() + self.public_keys.len()
    }
}

impl Row for LogRow {
    fn page(rows: Vec<Self>) -> Page {
        Page::Log(rows)
    }

    fn text_bytes(&self) -> usize {
        bytes([&self.sender, &self.timestamp, &self.edited, &self.audience, &self.body])
    }
}

impl Row for InboxRow {
    fn page(rows: Vec<Self>) -> Page {
        Page::Inbox(rows)
    }
}

impl Row for ConnectionRow {
    fn page(rows: Vec<Self>) -> Page {
        Page::Connections(rows)
    }
}

impl Row for SubscriptionRow {
    fn page(rows: Vec<Self>) -> Page {
        Page::Subscriptions(rows)
    }
}

impl Row for MembershipRow {
    fn page(rows: Vec<Self>) -> Page {
        Page::Memberships(rows)
    }
}

impl Row for ForgottenUserRow {
    fn page(rows: Vec<Self>) -> Page {
        Page::ForgottenUsers(rows)
    }

    fn text_bytes(&self) -> usize {
        self.name.len()
    }
}

/// Makes pages of rows as they are read.
pub(super) fn gather<'a, R: Row + 'a, E: Send + 'a>(
    rows: impl Stream<Item = Result<R, E>> + Send + Unpin + 'a,
) -> impl Stream<Item = Result<Page, E>> + Send + 'a {
    stream::try_unfold(rows.fuse(), |mut rows| async {
        let (mut page, mut bytes) = (Vec::new(), 0);
        while page.len() < PAGE_ROWS && bytes < PAGE_BYTES {
            let Some(row) = rows.try_next().await? else { break };
            bytes += size_of::<R>() + row.text_bytes();
            page.push(row);
        }
        Ok((!page.is_empty()).then(|| (R::page(page), rows)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sizes(rows: impl Iterator<Item = LogRow> + Send) -> Vec<u64> {
        let pages = gather::<_, ()>(stream::iter(rows.map(Ok)));
        pages.map_ok(|page| page.rows()).try_collect().await.unwrap()
    }

    fn entry(body: usize) -> LogRow {
        LogRow {
            position: 1,
            channel: None,
            kind: 0,
            uuid: Uuid::nil(),
            about: None,
            edit: None,
            sender: None,
            timestamp: None,
            edited: None,
            audience: None,
            body: Some("b".repeat(body)),
            committed: 1,
        }
    }

    #[tokio::test]
    async fn pages_are_bounded_in_rows_and_bytes() {
        assert_eq!(sizes(std::iter::empty()).await, [0; 0]);
        assert_eq!(sizes((0..5_000).map(|_| entry(2))).await, [5_000]);
        assert_eq!(sizes((0..12_000).map(|_| entry(2))).await, [5_000, 5_000, 2_000]);
        assert_eq!(sizes((0..5).map(|_| entry(3 << 20))).await, [2, 2, 1]);
        assert_eq!(sizes((0..2).map(|_| entry(9 << 20))).await, [1, 1]);
    }
}
