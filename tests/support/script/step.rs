//! The lines of a scenario, read.

use channelstream::domain::names::{ChannelName, ConnectionId, Username};
use channelstream::domain::settings::SettingsPatch;
use channelstream::domain::state::StateValue;
use channelstream::domain::view::InfoOptions;

use super::text::{channel, connection, user};

/// What one line asks for.
#[derive(Debug, Clone)]
pub enum Step {
    Ask(Request),
    Listen(ConnectionId),
    Flicker(ConnectionId),
    Stall(ConnectionId),
    Drop(ConnectionId),
    Close(ConnectionId),
    Dismiss(ConnectionId),
    Pass(u64),
    Later(u64),
    Restart,
    Show(Show),
}

/// What is decided in batches.
#[derive(Debug, Clone)]
pub enum Request {
    Connect {
        user: Username,
        id: ConnectionId,
        channels: Vec<ChannelName>,
        state: State,
        fresh: State,
        public: Vec<String>,
        settings: SettingsPatch,
        since: Option<Since>,
    },
    Subscribe {
        id: ConnectionId,
        channels: Vec<ChannelName>,
        settings: SettingsPatch,
    },
    Unsubscribe {
        id: ConnectionId,
        channels: Vec<ChannelName>,
    },
    ChangeState {
        user: Username,
        state: State,
        public: Option<Vec<String>>,
    },
    Configure {
        channel: ChannelName,
        settings: Option<SettingsPatch>,
    },
    Post(Vec<Said>),
    Edit(Vec<Said>),
    Delete(Vec<Said>),
    Sweep,
    ExpireFloors,
    ExpireMessages,
    ForgetUser(Username),
    ForgetChannel(ChannelName),
    Forget {
        users: Vec<Username>,
        idle: u64,
    },
}

/// Where floors are put.
#[derive(Debug, Clone, Copy)]
pub enum Since {
    Earliest,
    /// A cursor; of another epoch, if there is no position.
    Cursor(Option<u64>),
    /// Seconds since the world began.
    Time(u64),
}

/// Keys and values in the order given.
pub type State = Vec<(String, StateValue)>;

/// One message, edit or deletion of a request.
#[derive(Debug, Clone)]
pub struct Said {
    pub channel: Option<ChannelName>,
    pub only: Vec<Username>,
    pub except: Vec<Username>,
    /// The message's uuid, if the back end chose it.
    pub name: Option<String>,
    pub text: Option<String>,
    pub by: Option<Username>,
    /// The year that the back end dates it to.
    pub dated: Option<i32>,
    pub unlogged: bool,
}

/// What a line wants to be printed.
#[derive(Debug, Clone)]
pub enum Show {
    Channels { names: Vec<ChannelName>, viewer: Option<Username>, options: InfoOptions },
    Settings(ChannelName),
    User(Username),
    Floors(Username),
    Totals,
    Head,
}

/// Reads one line that is an operation.
pub fn request(line: &str) -> Request {
    match parse(line) {
        Step::Ask(request) => request,
        step => panic!("no operation: {step:?}"),
    }
}

/// Reads one line.
pub fn parse(line: &str) -> Step {
    let line = line.trim_start_matches(['&', '~', '?', ' ']).trim_end();
    let words = words(line);
    let first = Clauses::of(words.split(|word| word == ";").next().unwrap_or_default());
    let head: Vec<&str> = first.head.iter().map(String::as_str).collect();
    let several = || words.split(|word| word == ";").map(|words| said(&Clauses::of(words))).collect();
    let settings = || first.list("configured").map(settings).unwrap_or_default();
    let channels = |keyword| first.list(keyword).unwrap_or_default().iter().map(|name| channel(name)).collect();
    let public = || {
        let keys = first.list("public")?;
        Some(keys.iter().filter(|key| *key != "nothing").cloned().collect::<Vec<_>>())
    };
    match head[..] {
        [name, "connects", id] => Step::Ask(Request::Connect {
            user: user(name),
            id: connection(id),
            channels: channels("to"),
            state: state(first.list("with").unwrap_or_default()),
            fresh: state(first.list("fresh").unwrap_or_default()),
            public: public().unwrap_or_default(),
            settings: settings(),
            since: first.list("since").map(|words| since(&words[0])),
        }),
        [id, "subscribes"] => {
            Step::Ask(Request::Subscribe { id: connection(id), channels: channels("to"), settings: settings() })
        }
        [id, "unsubscribes"] => Step::Ask(Request::Unsubscribe { id: connection(id), channels: channels("from") }),
        [name, "sets", ..] => {
            Step::Ask(Request::ChangeState { user: user(name), state: state(&first.head[2..]), public: public() })
        }
        ["configure", name, ..] => {
            Step::Ask(Request::Configure { channel: channel(name), settings: Some(self::settings(&first.head[2..])) })
        }
        ["create", name] => Step::Ask(Request::Configure { channel: channel(name), settings: None }),
        ["post", ..] => Step::Ask(Request::Post(several())),
        ["edit", ..] => Step::Ask(Request::Edit(several())),
        ["delete", "user", name] => Step::Ask(Request::ForgetUser(user(name))),
        ["delete", "channel", name] => Step::Ask(Request::ForgetChannel(channel(name))),
        ["delete", ..] => Step::Ask(Request::Delete(several())),
        ["expire", "floors"] => Step::Ask(Request::ExpireFloors),
        ["expire", "messages"] => Step::Ask(Request::ExpireMessages),
        ["sweep"] => Step::Ask(Request::Sweep),
        ["forget", ..] => Step::Ask(Request::Forget {
            users: first.head[1..].iter().map(|name| user(name)).collect(),
            idle: first.list("idle").expect("how long")[0].parse().expect("seconds"),
        }),
        [id, "listens"] => Step::Listen(connection(id)),
        [id, "flickers"] => Step::Flicker(connection(id)),
        [id, "stalls"] => Step::Stall(connection(id)),
        [id, "drops"] => Step::Drop(connection(id)),
        [id, "closes"] => Step::Close(connection(id)),
        [id, "is", "dismissed"] => Step::Dismiss(connection(id)),
        [seconds, "seconds", "later"] => Step::Later(seconds.parse().expect("seconds")),
        [seconds, "seconds", "pass"] => Step::Pass(seconds.parse().expect("seconds")),
        ["restart"] => Step::Restart,
        ["show", "totals"] => Step::Show(Show::Totals),
        ["show", "head"] => Step::Show(Show::Head),
        ["show", "floors", name] => Step::Show(Show::Floors(user(name.trim_start_matches('@')))),
        ["show", "settings", name] => Step::Show(Show::Settings(channel(name))),
        ["show", name] if name.starts_with('@') => Step::Show(Show::User(user(&name[1..]))),
        ["show", ..] => {
            let without = first.list("without").unwrap_or_default();
            let excluded = without.iter().filter_map(|word| word.strip_prefix('@'));
            Step::Show(Show::Channels {
                names: first.head[1..].iter().map(|name| channel(name)).collect(),
                viewer: first.list("for").map(|names| user(&names[0])),
                options: InfoOptions {
                    include_users: !without.contains(&"users".to_owned()),
                    include_history: !without.contains(&"history".to_owned()),
                    exclude_channels: excluded.map(channel).collect(),
                    ..InfoOptions::default()
                },
            })
        }
        _ => panic!("what does this mean: {line}"),
    }
}

const KEYWORDS: &str =
    "to from in as by only except dated unlogged with fresh public configured idle for without since";

/// A line's words: what stands before the first keyword, and what stands behind each.
struct Clauses {
    head: Vec<String>,
    quoted: Option<String>,
    behind: Vec<(String, Vec<String>)>,
}

impl Clauses {
    fn of(words: &[String]) -> Self {
        let mut clauses = Self { head: Vec::new(), quoted: None, behind: Vec::new() };
        for word in words {
            if let Some(text) = word.strip_prefix('\'') {
                clauses.quoted = Some(text.trim_end_matches('\'').to_owned());
            } else if KEYWORDS.split(' ').any(|keyword| keyword == word) {
                clauses.behind.push((word.clone(), Vec::new()));
            } else {
                clauses.behind.last_mut().map_or(&mut clauses.head, |(_, list)| list).push(word.clone());
            }
        }
        clauses
    }

    fn list(&self, keyword: &str) -> Option<&[String]> {
        self.behind.iter().find(|(word, _)| word == keyword).map(|(_, list)| list.as_slice())
    }
}

/// Words end at blanks and commas that are not quoted; a semicolon is a word.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for letter in line.chars() {
        quoted ^= letter == '\'';
        match letter {
            ' ' | ',' if !quoted => words.push(String::new()),
            ';' if !quoted => words.extend([";".to_owned(), String::new()]),
            _ => words.last_mut().expect("one at least").push(letter),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn said(clauses: &Clauses) -> Said {
    let list = |keyword| clauses.list(keyword).unwrap_or_default();
    let users = |keyword| list(keyword).iter().map(|name| user(name)).collect::<Vec<_>>();
    let target = [list("to"), list("in")].concat();
    let (private, channels): (Vec<String>, Vec<String>) = target.into_iter().partition(|name| name.starts_with('@'));
    let mut only = users("only");
    only.extend(private.iter().map(|name| user(&name[1..])));
    let named = clauses.head.last().filter(|word| !["post", "edit", "delete"].contains(&word.as_str()));
    Said {
        channel: channels.first().map(|name| channel(name)),
        only,
        except: users("except"),
        name: list("as").first().or(named).cloned(),
        text: clauses.quoted.clone(),
        by: users("by").pop(),
        dated: list("dated").first().map(|year| year.parse().expect("a year")),
        unlogged: clauses.list("unlogged").is_some(),
    }
}

fn settings(words: &[String]) -> SettingsPatch {
    let mut patch = SettingsPatch::default();
    for word in words {
        let number = |text: &str| text.parse::<u32>().expect("a number");
        match word.split_once('=').unwrap_or((word, "")) {
            ("presence", _) => patch.notify_presence = Some(true),
            ("lists", _) => patch.broadcast_presence_with_user_lists = Some(true),
            ("state", _) => patch.notify_state = Some(true),
            ("frames", text) => patch.store_frames = Some(text == "on"),
            ("history", "") => patch.store_history = Some(true),
            ("history", text) => (patch.store_history, patch.history_size) = (Some(true), Some(number(text))),
            ("size", text) => patch.history_size = Some(number(text)),
            ("replay", text) => patch.replay_size = Some(number(text)),
            ("ttl", "none") => patch.history_ttl = Some(None),
            ("ttl", text) => patch.history_ttl = Some(Some(number(text))),
            _ => panic!("no setting: {word}"),
        }
    }
    patch
}

fn since(word: &str) -> Since {
    let number = |text: &str| text.parse::<u64>().expect("a number");
    match word {
        "earliest" => Since::Earliest,
        "elsewhere" => Since::Cursor(None),
        _ => match word.strip_prefix('#') {
            Some(position) => Since::Cursor(Some(number(position))),
            None => Since::Time(number(word.trim_end_matches('s'))),
        },
    }
}

fn state(words: &[String]) -> State {
    let value = |text: &str| match text {
        "null" => StateValue::Null,
        "true" | "false" => StateValue::Bool(text == "true"),
        _ if text.starts_with('\'') => StateValue::Text(text.trim_matches('\'').into()),
        _ => StateValue::Number(text.into()),
    };
    let pair = |word: &String| word.split_once('=').map(|(key, text)| (key.to_owned(), value(text)));
    words.iter().map(|word| pair(word).expect("key=value")).collect()
}
