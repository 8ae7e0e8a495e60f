//! The one list of settings: name, default, what is accepted, and why it is there.
//!
//! What checks a configuration, writes the example file and documents the settings all read this
//! table, so a setting that is not here does not exist. It holds no values; those are in
//! [`super::Config`].

use std::fmt;
use std::ops::RangeInclusive;

/// One setting.
#[derive(Debug)]
pub struct Key {
    /// As written in the file; in capitals after `CHANNELSTREAM_` in the environment.
    pub name: &'static str,
    /// As it would be written in the file; empty for what may be left empty.
    pub default: &'static str,
    /// What a value has to look like.
    pub accepts: Accepts,
    /// What it is for, its unit, and the reason for its default; lines of at most 100 characters.
    pub explanation: &'static str,
}

/// What a value, or each entry of a list, has to look like. Its text completes "which is not …".
#[derive(Debug)]
pub enum Accepts {
    /// `true` or `false`.
    Truth,
    /// A whole number.
    Whole(RangeInclusive<u64>),
    /// A whole number where 0 stands for "no limit", else from 1 up to this.
    Limit(u64),
    /// Seconds, with decimals if wanted.
    Seconds(RangeInclusive<f64>),
    /// Days where 0 stands for "never", else within these, with decimals if wanted.
    Days(RangeInclusive<f64>),
    /// A size in bytes.
    Bytes(RangeInclusive<u64>),
    /// A text of at most this many characters.
    Text(usize),
    /// The same, but not to be shown, not even in an error.
    Secret(usize),
    /// A list, separated by commas or line breaks, of what the words say.
    List(&'static str),
    /// Something else, in words.
    Words(&'static str),
    /// The same, but not to be shown, not even in an error.
    SecretWords(&'static str),
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Every setting, in the order in which the example file shows them.
pub const KEYS: &[Key] = &[
    Key {
        name: "host",
        default: "0.0.0.0",
        accepts: Accepts::Words("an IP address or a host name"),
        explanation: "\
Address the server listens on. 0.0.0.0 is every IPv4 address of the machine, :: every IPv6 one (on
most systems IPv4 as well), 127.0.0.1 only this machine, for a server behind a local proxy.",
    },
    Key {
        name: "port",
        default: "8000",
        accepts: Accepts::Whole(0..=65535),
        explanation: "Port the server listens on. 0: any free one, which the log then tells.",
    },
    Key {
        name: "secret",
        default: "secret",
        accepts: Accepts::Secret(1024),
        explanation: "\
Shared with the back ends, which sign their requests with it. Who knows it may do everything.
The default is known to everybody: change it.",
    },
    Key {
        name: "admin_user",
        default: "admin",
        accepts: Accepts::Text(256),
        explanation: "Name to sign in to the admin panel with.",
    },
    Key {
        name: "admin_secret",
        default: "admin_secret",
        accepts: Accepts::Secret(1024),
        explanation: "\
Password to sign in to the admin panel with. The default is known to everybody: change it.",
    },
    Key {
        name: "cookie_secret",
        default: "",
        accepts: Accepts::Secret(1024),
        explanation: "\
Signs the cookie of the admin panel. Empty: a random one each time the server starts, which signs
everybody out; fill it in to keep sessions, or to share them between servers.",
    },
    Key {
        name: "allow_posting_from",
        default: "127.0.0.1",
        accepts: Accepts::List("an IP address or a network such as 10.0.0.0/8"),
        explanation: "\
Addresses and networks that back ends may call from, separated by commas: 127.0.0.1, ::1,
10.0.0.0/8. 0.0.0.0: everybody. It is the other end of the TCP connection that counts, so behind a
proxy this is the proxy's address.",
    },
    Key {
        name: "allow_cors",
        default: "",
        accepts: Accepts::List("a host name or an origin such as https://example.com:8443 (an empty list allows all)"),
        explanation: "\
Sites whose pages may read our answers, separated by commas. A host name allows its sub-domains too;
a scheme or a port counts where one is written. Empty: every site.",
    },
    Key {
        name: "validate_requests",
        default: "true",
        accepts: Accepts::Truth,
        explanation: "\
Whether a signature expires after 60 seconds. false: only for signers that count time from another
year; a signature that leaks is then good for ever.",
    },
    Key {
        name: "enforce_https",
        default: "false",
        accepts: Accepts::Truth,
        explanation: "\
Whether to refuse what did not come by https, as told by the header X-Url-Scheme or X-Scheme of the
proxy.",
    },
    Key {
        name: "http_scheme",
        default: "",
        accepts: Accepts::Words("`http` or `https`"),
        explanation: "\
Scheme of the links that the server makes: http or https. Empty, or where a proxy sends X-Url-Scheme
or X-Scheme: that of the request.",
    },
    Key {
        name: "debug",
        default: "false",
        accepts: Accepts::Truth,
        explanation: "Whether to log at DEBUG at least, whatever log_level says.",
    },
    Key {
        name: "log_level",
        default: "INFO",
        accepts: Accepts::Words("one of CRITICAL, ERROR, WARNING, INFO, DEBUG, TRACE"),
        explanation: "\
What to log: CRITICAL, ERROR, WARNING, INFO, DEBUG or TRACE. CRITICAL is the same as ERROR.",
    },
    Key {
        name: "log_format",
        default: "text",
        accepts: Accepts::Words("`text` or `json`"),
        explanation: "\
text: lines for people. json: a JSON object a line, for what collects logs.",
    },
    Key {
        name: "database_url",
        default: "sqlite://channelstream.db",
        accepts: Accepts::SecretWords("an address that begins with `sqlite:` or `postgres://`"),
        explanation: "\
Where to keep what has to survive a restart: sqlite://channelstream.db, a file in the working
directory, sqlite:///var/lib/channelstream.db, or postgres://user:password@host/database, where
?sslmode=verify-full and the like may follow.",
    },
    Key {
        name: "sqlite_synchronous",
        default: "full",
        accepts: Accepts::Words("`full` or `normal`"),
        explanation: "\
full: what was acknowledged survives a power cut. normal: faster, but a power cut may lose the last
commits; nothing breaks, and listeners are told that their cursors ended. SQLite only.",
    },
    Key {
        name: "postgres_pool_size",
        default: "4",
        accepts: Accepts::Whole(1..=1000),
        explanation: "\
Connections to a Postgres database that read, made when they are needed; one more writes. Most is
served from memory, so that more are rarely of use.",
    },
    Key {
        name: "postgres_timeout",
        default: "5",
        accepts: Accepts::Seconds(0.1..=600.0),
        explanation: "\
Seconds that a Postgres database may take to accept a connection or to answer, before the connection
counts as broken and another one is made.",
    },
    Key {
        name: "gc_conns_after",
        default: "15",
        accepts: Accepts::Seconds(0.1..=86_400.0),
        explanation: "\
Seconds that a connection without a listener is kept. Long enough for a page to come back after a
lost socket or a restart of the server; its user counts as present for as long.",
    },
    Key {
        name: "resume_window",
        default: "86400",
        accepts: Accepts::Seconds(0.0..=31_536_000.0),
        explanation: "\
Seconds during which a user whose connections are all gone may come back with a new one and still
get what was missed. A day: a laptop that was closed overnight.",
    },
    Key {
        name: "forget_users_after",
        default: "30",
        accepts: Accepts::Days(0.01..=36_500.0),
        explanation: "\
Days without activity or connection after which a user's state and private messages are deleted.
0: never, so that the store grows with every user there ever was.",
    },
    Key {
        name: "heartbeat_interval",
        default: "5",
        accepts: Accepts::Seconds(1.0..=3600.0),
        explanation: "\
Seconds between heartbeats to a listener. They keep its connection open: stay below the idle timeout
of every proxy on the way.",
    },
    Key {
        name: "commit_timeout",
        default: "2",
        accepts: Accepts::Seconds(0.1..=60.0),
        explanation: "\
Seconds that a request waits for the store before it is answered with 503. Back ends have to wait
longer than this, or they give up on what was kept.",
    },
    Key {
        name: "request_timeout",
        default: "10",
        accepts: Accepts::Seconds(0.1..=300.0),
        explanation: "\
Seconds that a client has to send the head of a request, and again to send its body. It keeps slow
clients from holding sockets.",
    },
    Key {
        name: "drain_seconds",
        default: "10",
        accepts: Accepts::Seconds(0.0..=600.0),
        explanation: "\
Seconds over which listeners are told to leave when the server stops, so that they do not all come
back at the same moment.",
    },
    Key {
        name: "max_body_bytes",
        default: "8 MiB",
        accepts: Accepts::Bytes(KIB..=GIB),
        explanation: "\
Largest request body; a larger one is answered with 413. It bounds the memory a request takes.",
    },
    Key {
        name: "max_queue_bytes",
        default: "1 MiB",
        accepts: Accepts::Bytes(KIB..=GIB),
        explanation: "\
Most that may wait for one listener, besides what is being written to it; eight times as much for
one that goes on reading. One that falls further behind is closed and catches up later, so that a
slow listener costs bounded memory.",
    },
    Key {
        name: "tail_memory",
        default: "256 MiB",
        accepts: Accepts::Bytes(0..=1024 * GIB),
        explanation: "\
Memory for the newest part of the log, all channels and inboxes together, from which returning
listeners are served without asking the store. Each takes at most 256 KiB; the least recently used
go first. 0: the store is always asked.",
    },
    Key {
        name: "max_connections",
        default: "0",
        accepts: Accepts::Limit(10_000_000),
        explanation: "\
Most listeners at a time; more are answered with 503. 0: as many as the operating system allows.",
    },
    Key {
        name: "attach_rate",
        default: "20",
        accepts: Accepts::Limit(1_000_000),
        explanation: "\
Openings of one connection id a second; more are answered with 429. It stops a page that reconnects
in a loop. 0: no limit.",
    },
    Key {
        name: "metrics_token",
        default: "",
        accepts: Accepts::SecretWords("1 to 1024 ASCII letters, digits and signs without blanks"),
        explanation: "\
Lets a monitoring system read /metrics with the header `Authorization: Bearer <metrics_token>`.
Empty: only with a signature or an admin session, so that figures are not for everybody.",
    },
];

/// Keys that files written for the Python server may hold and that mean nothing here.
pub const WITHOUT_MEANING: &[&str] =
    &["signature_checker", "demo", "demo_app_url", "gc_channels_after", "wake_connections_after"];

impl Key {
    /// Finds a setting by its exact name.
    pub fn find(name: &str) -> Option<&'static Key> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// Finds the setting whose name looks most like a mistyped one, if any does.
    pub fn closest_to(mistyped: &str) -> Option<&'static Key> {
        let mistyped: Vec<char> = mistyped.to_lowercase().replace('-', "_").chars().take(100).collect();
        let with_distance = KEYS.iter().map(|key| (distance(&mistyped, key.name), key));
        let (distance, key) = with_distance.min_by_key(|(distance, _)| *distance)?;
        (distance <= (key.name.len() / 4).max(1)).then_some(key)
    }

    /// Says in a sentence what it takes.
    pub fn takes(&self) -> String {
        let verb = match (&self.accepts, self.default.is_empty()) {
            (Accepts::List(_), _) => "Each entry is",
            (_, true) => "Takes nothing or",
            (_, false) => "Takes",
        };
        format!("{verb} {}.", self.accepts)
    }
}

impl Accepts {
    /// Whether a value must stay out of errors.
    pub fn is_secret(&self) -> bool {
        matches!(self, Accepts::Secret(_) | Accepts::SecretWords(_))
    }
}

impl fmt::Display for Accepts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Accepts::Truth => write!(formatter, "`true` or `false`"),
            Accepts::Whole(range) => {
                write!(formatter, "a whole number from {} to {}", range.start(), range.end())
            }
            Accepts::Limit(most) => {
                write!(formatter, "0 for no limit or a whole number from 1 to {most}")
            }
            Accepts::Seconds(range) => {
                write!(formatter, "a number of seconds from {} to {}", range.start(), range.end())
            }
            Accepts::Days(range) => {
                write!(formatter, "0 for never or a number of days from {} to {}", range.start(), range.end())
            }
            Accepts::Bytes(range) => {
                let (least, most) = (Size(*range.start()), Size(*range.end()));
                write!(formatter, "a size from {least} to {most}, written like 8388608, 256 KiB or 8 MiB")
            }
            Accepts::Text(most) | Accepts::Secret(most) => {
                write!(formatter, "a text of 1 to {most} characters without control characters")
            }
            Accepts::List(words) | Accepts::Words(words) | Accepts::SecretWords(words) => formatter.write_str(words),
        }
    }
}

/// Bytes, shown in the largest unit that divides them.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fitting = [(GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")]
            .into_iter()
            .find(|(unit, _)| self.0 > 0 && self.0.is_multiple_of(*unit));
        match fitting {
            Some((unit, name)) => write!(formatter, "{} {name}", self.0 / unit),
            None => write!(formatter, "{}", self.0),
        }
    }
}

/// Counts the characters to insert, remove, replace or swap with their neighbour to get from one
/// text to the other.
fn distance(from: &[char], to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=to.len()).collect()];
    for i in 1..=from.len() {
        let mut row = vec![i];
        for j in 1..=to.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_explained() {
        for (index, key) in KEYS.iter().enumerate() {
            assert!(KEYS[..index].iter().all(|earlier| earlier.name != key.name), "{}", key.name);
            assert!(!WITHOUT_MEANING.contains(&key.name), "{}", key.name);
            assert!(key.explanation.ends_with('.'), "{}", key.name);
            assert!(key.explanation.lines().all(|line| line.chars().count() <= 100), "{}", key.name);
        }
    }

    #[test]
    fn mistyped_names_find_their_key() {
        let closest = |mistyped| Key::closest_to(mistyped).map(|key| key.name);
        assert_eq!(closest("prot"), Some("port"));
        assert_eq!(closest("poort"), Some("port"));
        assert_eq!(closest("max-body-bytes"), Some("max_body_bytes"));
        assert_eq!(closest("Cookie_Secert"), Some("cookie_secret"));
        assert_eq!(closest("SERVICE_HOST"), None);
        assert_eq!(closest(""), None);
    }

    #[test]
    fn sizes_are_shown_in_the_largest_unit() {
        assert_eq!(
            Accepts::Bytes(0..=3 * GIB).to_string(),
            "a size from 0 to 3 GiB, written like 8388608, 256 KiB or 8 MiB"
        );
        assert_eq!(Size(1000).to_string(), "1000");
        assert_eq!(Size(1536).to_string(), "1536");
    }
}
