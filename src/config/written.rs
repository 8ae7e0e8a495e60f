//! What was written: each setting's text and where it stands, before anything is made of it.
//!
//! Every source (file, environment, arguments of `make-config`) ends up here under the same rules,
//! so that one check and one wording of errors serve all. What the texts mean is
//! [`super::Config`]'s part.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::access::BadEntry;
use super::keys::{Accepts, Key, WITHOUT_MEANING};

/// Why the server cannot start with this configuration: one sentence with the place, the key, the
/// reason and what to write instead. Never shows the value of a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    /// Takes the sentence.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

/// Where a text comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A line of a file.
    File {
        /// The file's name as it was given.
        name: String,
        /// The line of the key, counted from 1.
        line: usize,
    },
    /// The environment.
    Environment,
    /// What `make-config` was told to write.
    Override,
}

impl Source {
    /// Names a setting as one finds it there.
    pub fn subject(&self, name: &str) -> String {
        match self {
            Source::File { name: file, line } => format!("{file}:{line}: `{name}`"),
            Source::Environment => format!("environment variable `{}`", variable(name)),
            Source::Override => format!("make-config: `{name}`"),
        }
    }

    fn refuse_unknown(&self, name: &str) -> ConfigError {
        let shown: String = name.chars().take(60).flat_map(char::escape_debug).collect();
        let hint = match (Key::closest_to(name), self) {
            (Some(key), Source::Environment) => format!("did you mean `{}`?", variable(key.name)),
            (Some(key), _) => format!("did you mean `{}`?", key.name),
            (None, Source::Environment) => "unset it (if Kubernetes set it: `enableServiceLinks: false`)".to_owned(),
            (None, _) => "`channelstream make-config` shows all there are".to_owned(),
        };
        ConfigError::new(format!("{} is not a setting of this server; {hint}", self.subject(&shown)))
    }
}

/// Every text that was given, by setting; what was not given has its default.
#[derive(Debug, Default)]
pub struct Written {
    given: BTreeMap<&'static str, (String, Source)>,
    /// What the operator should know although the server starts.
    pub warnings: Vec<String>,
}

impl Written {
    /// Takes a setting's text in place of an earlier one. Blanks around it do not count.
    ///
    /// # Errors
    ///
    /// When there is no such setting. One that only the Python server has is left out with a
    /// warning.
    pub fn set(&mut self, name: &str, text: &str, source: Source) -> Result<(), ConfigError> {
        if WITHOUT_MEANING.contains(&name) {
            self.warnings.push(format!("{} has no meaning in this server and is ignored", source.subject(name)));
            return Ok(());
        }
        let key = Key::find(name).ok_or_else(|| source.refuse_unknown(name))?;
        self.given.insert(key.name, (text.trim().to_owned(), source));
        Ok(())
    }

    /// Takes all variables that begin with `CHANNELSTREAM_`, except `CHANNELSTREAM_INI`, which
    /// names the file.
    ///
    /// # Errors
    ///
    /// When there is no such setting.
    pub fn set_from_environment(
        &mut self,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<(), ConfigError> {
        for (variable, text) in variables {
            match variable.strip_prefix("CHANNELSTREAM_") {
                None | Some("INI") => {}
                Some(name) => self.set(&name.to_lowercase(), &text, Source::Environment)?,
            }
        }
        Ok(())
    }

    /// The text of a setting, given or default.
    pub fn text(&self, key: &Key) -> &str {
        self.given.get(key.name).map_or(key.default, |(text, _)| text)
    }

    /// Reads a setting that needs a value.
    ///
    /// # Errors
    ///
    /// When it is empty, goes on in a second line, or `read` makes nothing of it.
    pub fn value<T>(&self, name: &str, read: impl Fn(&str, &Accepts) -> Option<T>) -> Result<T, ConfigError> {
        let key = key(name);
        let text = self.text(key);
        if text.is_empty() {
            return Err(self.refuse(key, "is empty; give it a value or leave it out"));
        }
        if text.contains('\n') {
            let reason = "goes on in the next line; begin that line without blanks if it is another key";
            return Err(self.refuse(key, reason));
        }
        read(text, &key.accepts).ok_or_else(|| {
            let value =
                if key.accepts.is_secret() { "has a value (not shown here)" } else { &format!("is {},", shown(text)) };
            self.refuse(key, &format!("{value} which is not {}", key.accepts))
        })
    }

    /// Reads a setting that may be empty.
    ///
    /// # Errors
    ///
    /// As [`Self::value`], but for being empty.
    pub fn optional<T>(
        &self,
        name: &str,
        read: impl Fn(&str, &Accepts) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        if self.text(key(name)).is_empty() {
            return Ok(None);
        }
        self.value(name, read).map(Some)
    }

    /// Reads a setting that is a list and may span lines; it may be empty where its default is.
    ///
    /// # Errors
    ///
    /// When it has no entry although it needs one, or has one that does not fit.
    pub fn list<L: FromStr<Err = BadEntry>>(&self, name: &str) -> Result<L, ConfigError> {
        let key = key(name);
        let text = self.text(key);
        if !key.default.is_empty() && text.split([',', '\n']).all(|entry| entry.trim().is_empty()) {
            return Err(self.refuse(key, "is empty; give it a value or leave it out"));
        }
        text.parse().map_err(|BadEntry(entry)| {
            let entry = shown(&entry);
            self.refuse(key, &format!("lists {entry}, which is not {}", key.accepts))
        })
    }

    fn refuse(&self, key: &Key, reason: &str) -> ConfigError {
        let subject = match self.given.get(key.name) {
            Some((_, source)) => source.subject(key.name),
            None => format!("`{}`", key.name),
        };
        ConfigError::new(format!("{subject} {reason}"))
    }
}

/// The variable in the environment that stands for a setting.
pub fn variable(name: &str) -> String {
    format!("CHANNELSTREAM_{}", name.to_uppercase())
}

fn key(name: &str) -> &'static Key {
    Key::find(name).expect("a setting that is read is in the table; a test reads all")
}

/// Quotes a value, control characters escaped, cut where it gets long.
fn shown(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}
