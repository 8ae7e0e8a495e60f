//! Texts that must not be printed: secrets, and a database address with its password.

use std::fmt;
use std::str::FromStr;

use subtle::ConstantTimeEq;

/// A text that prints as `Secret(..)` and compares in constant time (its length is no secret).
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Wraps any text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for what needs it; never for a log or an answer.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Tells in constant time whether `candidate` is the secret.
    pub fn matches(&self, candidate: &str) -> bool {
        self.0.as_bytes().ct_eq(candidate.as_bytes()).into()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(&other.0)
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

/// Address of the store: begins with `sqlite:`, `postgres://` or `postgresql://`.
///
/// Prints without user, password and options. What follows the scheme is left to the store to
/// check.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The whole address, password and all; never for a log or an answer.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text is not the address of a store we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a database address begins with `sqlite:`, `postgres://` or `postgresql://`")]
pub struct UnknownDatabase;

impl FromStr for DatabaseUrl {
    type Err = UnknownDatabase;

    fn from_str(text: &str) -> Result<Self, UnknownDatabase> {
        let known = ["sqlite:", "postgres://", "postgresql://"];
        let rest = known.iter().find_map(|scheme| text.strip_prefix(scheme));
        match rest {
            Some(rest) if !rest.is_empty() && !rest.contains(char::is_control) => Ok(Self(text.to_owned())),
            _ => Err(UnknownDatabase),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = match self.0.split_once("://") {
            Some((scheme, rest)) if scheme != "sqlite" => {
                let place = match (rest.rsplit_once('@'), rest.split_once('?')) {
                    (None, None) => rest,
                    (Some((_user_and_password, place)), None) => place,
                    (None, Some((place, _options))) => place,
                    // An `@` in an option and a `?` in a password look the same.
                    (Some(_), Some(_)) => "..",
                };
                &format!("{scheme}://{place}")
            }
            _ => &self.0,
        };
        fmt::Debug::fmt(shown, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_print() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(..)");
    }

    #[test]
    fn a_secret_matches_only_itself() {
        let secret = Secret::new("hunter2");
        assert!(secret.matches("hunter2") && secret == Secret::new("hunter2"));
        assert!(!secret.matches("hunter") && !secret.matches("hunter3") && !secret.matches(""));
    }

    #[test]
    fn a_database_address_prints_without_its_password() {
        let shown = |text: &str| format!("{:?}", text.parse::<DatabaseUrl>().unwrap());
        assert_eq!(shown("sqlite://a/b.db?mode=rwc"), "\"sqlite://a/b.db?mode=rwc\"");
        assert_eq!(shown("sqlite::memory:"), "\"sqlite::memory:\"");
        assert_eq!(shown("postgres://me:p/@ss@host/db"), "\"postgres://host/db\"");
        assert_eq!(shown("postgresql://host/db?password=p@ss"), "\"postgresql://..\"");
        assert_eq!(shown("postgres://host:5432/db?password=pass"), "\"postgres://host:5432/db\"");
    }

    #[test]
    fn other_databases_are_refused() {
        for text in ["", "sqlite:", "mysql://host/db", "channelstream.db", "postgres:host", "sqlite://a\nb"] {
            assert_eq!(text.parse::<DatabaseUrl>(), Err(UnknownDatabase), "{text}");
        }
    }
}
