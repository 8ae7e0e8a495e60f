//! Names and ids, parsed once at the edge; inside, a value of the type is proof that it is good.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

/// Most characters (code points) in a channel's name. Source: the stock protocol.
pub const MAX_CHANNEL_NAME: usize = 256;
/// Most characters (code points) in a user's name. Source: the stock protocol.
pub const MAX_USERNAME: usize = 512;

/// Why a text is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameError {
    /// Empty, or more than `max` characters.
    Length {
        /// The longest that would do.
        max: usize,
    },
    /// Holds U+0000, which Postgres cannot store.
    Nul,
}

fn check(text: &str, max: usize) -> Result<(), NameError> {
    // A character takes at most four bytes, so the count is only needed near the limit.
    if text.is_empty() || text.len() > max && text.chars().count() > max {
        return Err(NameError::Length { max });
    }
    if text.contains('\0') {
        return Err(NameError::Nul);
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes a text that is 1 to the limit of characters long and free of U+0000.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                check(text, $max)?;
                Ok(Self(text.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&$name> for $name {
            fn from(name: &$name) -> Self {
                name.clone()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A channel's name: 1 to 256 characters.
    ChannelName,
    MAX_CHANNEL_NAME
);
name!(
    /// A user's name: 1 to 512 characters.
    Username,
    MAX_USERNAME
);

/// The id by which a listener proves that the application let it in: its only credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub Uuid);

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The place of an open listener (socket, poll) among all that are open now; given out again
/// after the listener is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub u32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_count_code_points() {
        assert!(ChannelName::parse(&"ż".repeat(256)).is_ok());
        assert_eq!(ChannelName::parse(&"ż".repeat(257)), Err(NameError::Length { max: 256 }));
        assert_eq!(ChannelName::parse(""), Err(NameError::Length { max: 256 }));
        assert!(Username::parse(&"😀".repeat(512)).is_ok());
    }

    #[test]
    fn nul_is_refused_and_everything_else_kept() {
        assert_eq!(Username::parse("a\0"), Err(NameError::Nul));
        assert_eq!(Username::parse(" a/b ").map(|name| name.to_string()), Ok(" a/b ".into()));
    }
}
