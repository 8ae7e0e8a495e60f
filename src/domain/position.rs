//! Where in the log: positions, epochs, and the cursor that a listener keeps.

use std::fmt;
use std::sync::Arc;

/// The number of a logged event: 1, 2, 3 … in commit order over the whole server; 0 is before all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position(pub u64);

impl Position {
    /// The position after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A stretch of the log's numbering; a new one begins when old positions can't be trusted any more.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Epoch(Arc<str>);

/// The text is no epoch or no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotACursor;

impl Epoch {
    /// Takes 1 to 16 lower-case letters and digits.
    pub fn parse(text: &str) -> Result<Self, NotACursor> {
        let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if text.is_empty() || text.len() > 16 || !text.bytes().all(good) {
            return Err(NotACursor);
        }
        Ok(Self(text.into()))
    }

    /// The epoch as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A position as it travels: `"<epoch>-<position>"`, opaque to clients.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The numbering that the position belongs to.
    pub epoch: Epoch,
    /// Everything up to here was seen.
    pub position: Position,
}

impl Cursor {
    /// Reads what [`fmt::Display`] writes; positions stay within 63 bits, as the stores' do.
    pub fn parse(text: &str) -> Result<Self, NotACursor> {
        let (epoch, digits) = text.split_once('-').ok_or(NotACursor)?;
        let canonical = digits == "0" || !digits.starts_with('0');
        if !canonical || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NotACursor);
        }
        let position: u64 = digits.parse().map_err(|_| NotACursor)?;
        if i64::try_from(position).is_err() {
            return Err(NotACursor);
        }
        Ok(Self { epoch: Epoch::parse(epoch)?, position: Position(position) })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch.as_str(), self.position.0)
    }
}

/// All epochs of a log, oldest first, each with the head when it began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbering(Vec<(Epoch, Position)>);

impl Numbering {
    /// Takes the epochs in the order in which they began; the last one is in force.
    pub fn new(epochs: Vec<(Epoch, Position)>) -> Self {
        Self(epochs)
    }

    /// The position that a cursor names, if it can be trusted: of the epoch in force, up to the
    /// head; of an older one, up to where the next began.
    pub fn resolve(&self, cursor: &Cursor, head: Position) -> Option<Position> {
        let index = self.0.iter().position(|(epoch, _)| *epoch == cursor.epoch)?;
        let end = self.0.get(index + 1).map_or(head, |(_, began)| *began);
        (cursor.position <= end).then_some(cursor.position)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn malformed_cursors_are_refused() {
        for text in ["", "-", "a", "a-", "-1", "A-1", "a-01", "a-+1", "a-1 ", "a-1-2", "a-9223372036854775808"] {
            assert_eq!(Cursor::parse(text), Err(NotACursor), "{text:?}");
        }
    }

    #[test]
    fn cursors_of_older_epochs_are_good_up_to_the_next() {
        let epoch = |text| Epoch::parse(text).unwrap();
        let numbering = Numbering::new(vec![(epoch("a"), Position(0)), (epoch("b"), Position(10))]);
        let resolve = |text| numbering.resolve(&Cursor::parse(text).unwrap(), Position(20));
        assert_eq!(resolve("a-10"), Some(Position(10)));
        assert_eq!((resolve("a-11"), resolve("b-21"), resolve("c-1")), (None, None, None));
        assert_eq!(resolve("b-20"), Some(Position(20)));
    }

    proptest! {
        #[test]
        fn a_cursor_survives_the_wire(epoch in "[a-z0-9]{1,16}", position in 0..=i64::MAX as u64) {
            let cursor = Cursor { epoch: Epoch::parse(&epoch).unwrap(), position: Position(position) };
            prop_assert_eq!(Cursor::parse(&cursor.to_string()), Ok(cursor));
        }

        #[test]
        fn any_text_is_read_back_or_refused(text in ".{0,40}") {
            if let Ok(cursor) = Cursor::parse(&text) {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }
}
