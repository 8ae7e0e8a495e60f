//! Reads the configuration file: the ini dialect of Python's configparser, with line numbers.
//!
//! The `configparser` crate reads the values. It tells no lines, lets a repeated key win and takes
//! keys outside any section, so an outline of the file, made by the same rules, is checked first.
//! Only the section `[channelstream]` is looked at.
//!
//! As in Python, `%%` in a value means `%`, and `%(` would refer to another key, which is refused
//! here. A single `%`, which Python refuses, stays as it is: addresses of databases have it in
//! passwords.

use std::path::Path;

use configparser::ini::Ini;

use super::written::{ConfigError, Source, Written};

/// The section that is ours.
pub const SECTION: &str = "channelstream";

const COMMENT_SIGNS: [char; 2] = ['#', ';'];

/// Reads the file at `path` into `written`.
///
/// # Errors
///
/// When it cannot be read, is not UTF-8 (a byte order mark is fine), and as [`read_text`].
pub fn read(path: &Path, written: &mut Written) -> Result<(), ConfigError> {
    let name = path.display();
    let bytes = std::fs::read(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => ConfigError::new(format!(
            "{name}: there is no such file; `channelstream make-config` prints one to begin with"
        )),
        _ => ConfigError::new(format!("{name}: cannot be read ({error}); give the path of a readable file")),
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        ConfigError::new(format!("{name}:{line}: is not UTF-8 text; save the file in that encoding"))
    })?;
    read_text(&name.to_string(), &text, written)
}

/// Reads the text of a file called `name` into `written`.
///
/// # Errors
///
/// For a line that makes no sense, a key outside any section, unknown or repeated, and where
/// `[channelstream]` is missing.
pub fn read_text(name: &str, text: &str, written: &mut Written) -> Result<(), ConfigError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let outline = Outline::of(text).map_err(|(line, reason)| ConfigError::new(format!("{name}:{line}: {reason}")))?;
    if !outline.has_our_section {
        return Err(ConfigError::new(format!(
            "{name}: there is no section `[{SECTION}]`; put that line above the keys"
        )));
    }
    if let Some(line) = outline.python_defaults {
        written
            .warnings
            .push(format!("{name}:{line}: the section `[DEFAULT]` is ignored; move its keys to `[{SECTION}]`"));
    }

    let values = values(text).map_err(|error| ConfigError::new(format!("{name}: {error}")))?;
    for (key, line) in outline.keys {
        let value = values.get(SECTION, &key).unwrap_or_default();
        let source = Source::File { name: name.to_owned(), line };
        let value = without_escapes(&value).ok_or_else(|| {
            let subject = source.subject(&key);
            ConfigError::new(format!(
                "{subject} contains `%(`, which refers to another key; \
                 write the value out, or `%%(` for these signs"
            ))
        })?;
        written.set(&key, &value, source)?;
    }
    Ok(())
}

/// Writes a value so that it is read back as it is: `%` doubled, further lines indented.
pub fn escaped(value: &str) -> String {
    let lines: Vec<&str> = value.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("\n    ").replace('%', "%%")
}

fn without_escapes(value: &str) -> Option<String> {
    let mut plain = String::with_capacity(value.len());
    let mut letters = value.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter == '%' && letters.next_if_eq(&'%').is_none() && letters.peek() == Some(&'(') {
            return None;
        }
        plain.push(letter);
    }
    Some(plain)
}

fn values(text: &str) -> Result<Ini, String> {
    let mut ini = Ini::new();
    ini.set_multiline(true);
    ini.set_comment_symbols(&COMMENT_SIGNS);
    // Without this a secret would end at its first `#` or `;`.
    ini.set_inline_comment_symbols(Some(&[]));
    ini.read(text.to_owned())?;
    Ok(ini)
}

/// Where things stand in a file.
#[derive(Debug, Default)]
struct Outline {
    has_our_section: bool,
    /// Line of a section whose keys Python would add to ours.
    python_defaults: Option<usize>,
    /// The keys of our section in lower case, each with its line.
    keys: Vec<(String, usize)>,
}

/// The line that makes no sense, and why.
type BadLine = (usize, String);

impl Outline {
    fn of(text: &str) -> Result<Self, BadLine> {
        let mut outline = Self::default();
        let mut section: Option<String> = None;
        // How far the last key is indented: a line indented further goes on with its value.
        let mut key_indent = None;
        for (number, raw) in (1..).zip(text.lines()) {
            let line = raw.trim();
            if line.is_empty() || line.starts_with(COMMENT_SIGNS) {
                continue;
            }
            let indent = raw.len() - raw.trim_start().len();
            let continues = key_indent.is_some_and(|key_indent| indent > key_indent);
            let in_ours = section.as_deref() == Some(SECTION);

            if line.starts_with('[') {
                if in_ours && continues {
                    // The crate takes it for a section, Python for a part of the value.
                    let reason = "a value may not go on with `[`; write it in the line above";
                    return Err((number, reason.to_owned()));
                }
                section = Some(outline.add_section(number, line)?);
                key_indent = None;
            } else if !continues {
                if section.is_none() {
                    let reason = format!("this line is in no section; put `[{SECTION}]` above it");
                    return Err((number, reason));
                }
                if in_ours {
                    outline.add_key(number, line)?;
                }
                key_indent = Some(indent);
            }
        }
        Ok(outline)
    }

    /// Answers the section's name in lower case.
    fn add_section(&mut self, number: usize, line: &str) -> Result<String, BadLine> {
        let Some(end) = line.rfind(']') else {
            let reason = "the name of the section lacks its closing `]`";
            return Err((number, reason.to_owned()));
        };
        let written = line[1..end].trim();
        let name = written.to_lowercase();
        self.has_our_section |= name == SECTION;
        if written == "DEFAULT" {
            self.python_defaults = Some(number);
        }
        Ok(name)
    }

    fn add_key(&mut self, number: usize, line: &str) -> Result<(), BadLine> {
        let Some(end) = line.find(['=', ':']) else {
            // The line itself is not shown: it may be the rest of a secret.
            let reason = "this line has no `=`; \
                          write `key = value`, or begin it with blanks to continue the value above";
            return Err((number, reason.to_owned()));
        };
        let key = line[..end].trim().to_lowercase();
        if key.is_empty() {
            let reason = "there is no key before the `=`; write `key = value`";
            return Err((number, reason.to_owned()));
        }
        if let Some((_, first)) = self.keys.iter().find(|(earlier, _)| *earlier == key) {
            let reason = format!("`{key}` is there already in line {first}; remove one of the two");
            return Err((number, reason));
        }
        self.keys.push((key, number));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::Write;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn error(text: &str) -> String {
        read_text("a.ini", text, &mut Written::default()).unwrap_err().to_string()
    }

    #[test]
    fn a_file_is_needed_and_has_to_be_text() {
        let error = |path: &Path| read(path, &mut Written::default()).unwrap_err().to_string();
        let missing = error(Path::new("/nowhere/a.ini"));
        assert!(missing.starts_with("/nowhere/a.ini: there is no such file"), "{missing}");
        assert!(error(Path::new("/")).starts_with("/: cannot be read ("));

        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"[channelstream]\nsecret = \xff").unwrap();
        assert!(error(file.path()).contains(":2: is not UTF-8 text"));
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"\xef\xbb\xbf[channelstream]\r\nport = 81\r\n").unwrap();
        let mut written = Written::default();
        read(file.path(), &mut written).unwrap();
        assert_eq!(written.value("port", |text, _| Some(text.to_owned())), Ok("81".to_owned()));
    }

    #[test]
    fn our_section_has_to_be_there() {
        assert!(error("").starts_with("a.ini: there is no section `[channelstream]`"));
        assert!(error("[other]\nport = 1").starts_with("a.ini: there is no section"));
        assert!(error("# c\nport = 80\n[channelstream]").starts_with("a.ini:2: this line is in no section"));
    }

    #[test]
    fn lines_that_make_no_sense_are_refused() {
        assert!(error("[channelstream]\nport 80").starts_with("a.ini:2: this line has no `=`"));
        assert!(error("[channelstream]\n= 80").starts_with("a.ini:2: there is no key"));
        assert!(error("[channelstream").starts_with("a.ini:1: the name of the section lacks"));
        assert!(error("[channelstream]\nallow_cors = a,\n  [::1]").starts_with("a.ini:3: a value may not go on"));
    }

    #[test]
    fn a_key_is_given_once() {
        let text = "[channelstream]\nport = 1\nhost = a\nPORT = 2";
        assert_eq!(error(text), "a.ini:4: `port` is there already in line 2; remove one of the two");
    }

    #[test]
    fn other_sections_are_left_alone() {
        let text = "[a]\nport\nport = x = y\nport = 2\n[channelstream]\nport = 1\n[b]\nnonsense";
        let mut written = Written::default();
        read_text("a.ini", text, &mut written).unwrap();
        assert_eq!(written.value("port", |text, _| Some(text.to_owned())), Ok("1".to_owned()));
        assert_eq!(written.warnings, Vec::<String>::new());
    }

    #[test]
    fn the_section_python_adds_to_others_is_warned_of() {
        let mut written = Written::default();
        read_text("a.ini", "[DEFAULT]\nport = 1\n[channelstream]", &mut written).unwrap();
        assert_eq!(
            written.warnings,
            ["a.ini:1: the section `[DEFAULT]` is ignored; move its keys to `[channelstream]`"]
        );
    }

    /// Blanks, perhaps a section or key, and signs that mean something.
    const LINE: &str = "( |\t|  )?(\\[channelstream\\]|\\[b\\]|port|HOST|é)?( |=|:|#|;|%|x){0,3}";

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = read_text("a.ini", &text, &mut Written::default());
            let text = format!("[channelstream]\n{text}");
            let _ = read_text("a.ini", &text, &mut Written::default());
        }

        #[test]
        fn the_outline_has_the_keys_that_are_read(lines in vec(LINE, 0..12)) {
            let text = lines.join("\n");
            if let (Ok(outline), Ok(ini)) = (Outline::of(&text), values(&text)) {
                let map = ini.get_map().unwrap_or_default();
                let read = map.get(SECTION);
                prop_assert_eq!(outline.has_our_section, read.is_some());
                let read: BTreeSet<_> = read.into_iter().flat_map(|keys| keys.keys()).collect();
                let found: BTreeSet<_> = outline.keys.iter().map(|(key, _)| key).collect();
                prop_assert_eq!(found, read);
            }
        }

        #[test]
        fn what_is_escaped_is_read_back(value in "[a-z%(#;=: ]{0,12}") {
            let mut written = Written::default();
            let text = format!("[channelstream]\ncookie_secret = {}", escaped(&value));
            read_text("a.ini", &text, &mut written).unwrap();
            let read = written.optional("cookie_secret", |text, _| Some(text.to_owned()));
            prop_assert_eq!(read.unwrap().unwrap_or_default(), value.trim());
        }
    }
}
