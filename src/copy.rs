//! Moving house: copies all that one store holds into another one, of whatever engine, while no
//! server uses either. The copy is there as a whole or not at all.

use std::fmt;
use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;

use crate::store::{self, Archive, Database, Extent, StoreError, StoreOptions, Table};

/// Why nothing was copied, in a sentence for whoever typed the command.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The store that was to be copied.
    #[error("{}", sentence(.0, "--from"))]
    From(StoreError),
    /// The place that it was to be copied to.
    #[error("{}", sentence(.0, "--to"))]
    To(StoreError),
    /// Somebody owns one of them.
    #[error("a server is using the database {0}: stop it first, and those that stand by")]
    InUse(String),
    /// Both are one.
    #[error("`--from` and `--to` name the same database, {0}: there is nothing to do")]
    Same(String),
    /// The source is empty: perhaps not the one that was meant.
    #[error("the database {0} holds nothing that could be copied; see `--from`")]
    Nothing(String),
    /// The target is not empty.
    #[error("the database {0} holds something already ({1}): name a new file or an empty database; see `--to`")]
    Taken(String, Holdings),
    /// What arrived is not what was sent.
    #[error("the copy of {0} is not complete, and was not kept: {1} instead of {2}")]
    Incomplete(String, Holdings, Holdings),
    /// The last step failed.
    #[error(
        "the end of the copy was not acknowledged ({0}): all of it is there, or nothing. Run the same command again; \
         if it says that there is something already, that is the copy"
    )]
    Unclear(StoreError),
}

/// What a store says of itself, which speaks of the configuration, for one that an argument names.
fn sentence(error: &StoreError, argument: &str) -> String {
    match error {
        StoreError::Unusable(sentence) => sentence.replace("`database_url`", &format!("`{argument}`")),
        StoreError::Unavailable(reason) | StoreError::Refused(reason) => {
            format!("nothing was copied: {reason}; see `{argument}`")
        }
        StoreError::NotOurs => format!("nothing was copied: {error}; see `{argument}`"),
    }
}

/// How much a store holds, in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holdings(Extent);

impl fmt::Display for Holdings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for table in Table::ALL.into_iter().filter(|table| self.0.of(*table) > 0) {
            write!(f, "{table}: {}, ", Number(self.0.of(table)))?;
        }
        write!(f, "head: {}", self.0.head.0)
    }
}

/// How far a table was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Which one.
    pub table: Table,
    /// Rows that were copied.
    pub done: u64,
    /// All its rows.
    pub of: u64,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} of {}", self.table, Number(self.done), Number(self.of))
    }
}

/// What was copied, and what to do now.
#[derive(Debug)]
pub struct Copied {
    from: String,
    to: String,
    holdings: Holdings,
}

impl fmt::Display for Copied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, holdings } = self;
        write!(
            f,
            "copied from {from} to {to} ({holdings}); now set `database_url` to what `--to` says, start the server, and \
             start none on the old place any more"
        )
    }
}

/// Copies the store of one URL to that of another, which holds nothing, and tells of each page.
///
/// # Errors
/// See [`CopyError`]; what `to` names holds then what it held before.
pub async fn copy(from: &str, to: &str, mut tell: impl FnMut(Progress)) -> Result<Copied, CopyError> {
    let options = StoreOptions { create: false, ..StoreOptions::default() };
    let source = store::database(from, &options).await.map_err(CopyError::From)?;
    let mut archive = own(&*source, CopyError::From).await?;
    let extent = archive.extent().await.map_err(CopyError::From)?;
    if extent.is_blank() {
        return Err(CopyError::Nothing(source.name()));
    }
    let target = store::database(to, &StoreOptions::default()).await.map_err(CopyError::To)?;
    let place = source.place().await.map_err(CopyError::From)?;
    if place == target.place().await.map_err(CopyError::To)? {
        return Err(CopyError::Same(target.name()));
    }
    let mut copy = own(&*target, CopyError::To).await?;
    let found = copy.extent().await.map_err(CopyError::To)?;
    if !found.is_blank() {
        return Err(CopyError::Taken(target.name(), Holdings(found)));
    }
    copy.clear().await.map_err(CopyError::To)?;
    for table in Table::ALL {
        copy_table(&mut *archive, &mut *copy, table, extent.of(table), &mut tell).await?;
    }
    let arrived = Extent { head: extent.head, ..copy.extent().await.map_err(CopyError::To)? };
    if arrived != extent {
        return Err(CopyError::Incomplete(source.name(), Holdings(arrived), Holdings(extent)));
    }
    copy.finish(extent.head).await.map_err(CopyError::Unclear)?;
    // Nothing was changed there that could be lost.
    let _ = archive.close().await;
    Ok(Copied { from: source.name(), to: target.name(), holdings: Holdings(extent) })
}

async fn own(database: &dyn Database, error: fn(StoreError) -> CopyError) -> Result<Box<dyn Archive>, CopyError> {
    database.archive().await.map_err(error)?.ok_or_else(|| CopyError::InUse(database.name()))
}

async fn copy_table(
    source: &mut dyn Archive,
    target: &mut dyn Archive,
    table: Table,
    of: u64,
    tell: &mut impl FnMut(Progress),
) -> Result<(), CopyError> {
    let mut done = 0;
    tell(Progress { table, done, of });
    let mut pages = source.pages(table);
    while let Some(page) = pages.try_next().await.map_err(CopyError::From)? {
        target.add(&page).await.map_err(CopyError::To)?;
        done += page.rows();
        tell(Progress { table, done, of });
    }
    Ok(())
}

/// A number with commas, for people.
struct Number(u64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

/// Shows progress on standard error: on a terminal in a line for each table that changes as it goes
/// on, elsewhere in lines that come when a table is done, and now and then until it is.
pub struct Meter {
    in_place: bool,
    shown: Instant,
    /// Whether the line may still change.
    is_open: bool,
}

impl Meter {
    /// How often a line changes.
    const CHANGE: Duration = Duration::from_millis(100);
    /// How often a line comes where lines cannot change.
    const LINE: Duration = Duration::from_secs(5);

    /// Begins to show.
    pub fn on_stderr() -> Self {
        Self { in_place: stderr().is_terminal(), shown: Instant::now(), is_open: false }
    }

    /// Shows how far it is, unless it did a moment ago.
    pub fn show(&mut self, progress: Progress) {
        let is_done = progress.done == progress.of;
        let pause = if self.in_place { Self::CHANGE } else { Self::LINE };
        if !is_done && self.shown.elapsed() < pause {
            return;
        }
        self.shown = Instant::now();
        self.is_open = self.in_place && !is_done;
        // Nobody is helped by an end because nobody looks.
        let _ = match self.in_place {
            true => write!(stderr(), "\r\x1b[K{progress}{}", if is_done { "\n" } else { "" }),
            false => writeln!(stderr(), "{progress}"),
        };
    }
}

/// What is said next stands in a line of its own.
impl Drop for Meter {
    fn drop(&mut self) {
        if self.is_open {
            let _ = writeln!(stderr());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        let shown = [0, 999, 1_000, 12_345, 999_999, 1_234_567].map(|number| Number(number).to_string());
        assert_eq!(shown, ["0", "999", "1,000", "12,345", "999,999", "1,234,567"]);
    }
}
