//! The domain once more, as simple as can be: lists that are searched from end to end, no batches
//! and no store. It shares the language and the data types of requests and settings, nothing else.

use std::collections::BTreeSet;

use channelstream::domain::channel::Retained;
use channelstream::domain::draft::Refusal;
use channelstream::domain::names::{ChannelName, ConnectionId, Username};
use channelstream::domain::settings::{ChannelSettings, SettingsPatch};
use channelstream::domain::state::StateValue;
use channelstream::domain::user::INBOX_SIZE;

use super::server::{GRACE, RESUME_WINDOW, Server};
use super::step::{Request, Said, Since, State, Step};
use super::text::{SOMEBODY, connection_name, join, labelled, person_text, sentence, state_text, user};

/// Frames that a channel keeps.
const RECENT: usize = 100;

/// All there is, in lists that are searched from end to end.
#[derive(Debug, Default)]
pub struct Model {
    /// Seconds since the world began, and when the server was started.
    pub now: u64,
    pub started: u64,
    pub users: Vec<User>,
    pub channels: Vec<Channel>,
    pub connections: Vec<Connection>,
    /// Messages and deletions; edits only leave their positions.
    pub log: Vec<Entry>,
    pub head: u64,
    /// How many frames there were.
    pub frames: u64,
    pub posted: u64,
    pub delivered: u64,
    pub shown: Vec<(ConnectionId, String)>,
    /// Channels in which the present request says what was said before its time was over: of what
    /// else goes with that, deletions are still known to the request.
    pub said_again: Vec<ChannelName>,
}

#[derive(Debug)]
pub struct User {
    pub name: Username,
    pub state: State,
    pub public: Vec<String>,
    pub active: u64,
    pub created: u64,
    pub floors: Vec<Floor>,
    pub recent: Recent,
}

/// How far back a user may replay a channel.
#[derive(Debug)]
pub struct Floor {
    pub channel: ChannelName,
    pub position: u64,
    /// When the last connection of the user ended there.
    pub left: Option<u64>,
}

#[derive(Debug)]
pub struct Channel {
    pub name: ChannelName,
    pub settings: ChannelSettings,
    pub recent: Recent,
}

#[derive(Debug)]
pub struct Connection {
    pub id: ConnectionId,
    pub user: Username,
    /// In name order.
    pub channels: Vec<ChannelName>,
    pub listens: bool,
    /// Its socket was written no more than so many frames.
    pub stalled: Option<u64>,
    /// It was sent the first so many frames.
    pub seen: u64,
    pub expires: Option<u64>,
    pub dismissed: bool,
}

#[derive(Debug)]
pub struct Entry {
    pub position: u64,
    pub channel: Option<ChannelName>,
    pub name: Option<String>,
    /// Whose inboxes hold it.
    pub holders: Vec<Username>,
    /// None: its deletion.
    pub message: Option<Message>,
    /// Of a deletion: who may see it.
    pub audience: Audience,
    pub edit: Option<u64>,
    pub committed: u64,
    /// When the latest edit was committed.
    pub edit_committed: u64,
}

#[derive(Debug, Clone)]
pub struct Message {
    pub name: Option<String>,
    pub text: Option<String>,
    pub by: Username,
    pub dated: Option<i32>,
    pub edited: bool,
    pub audience: Audience,
}

#[derive(Debug, Clone, Default)]
pub struct Audience {
    pub only: Vec<Username>,
    pub except: Vec<Username>,
}

#[derive(Debug, Clone)]
pub enum Frame {
    Message {
        place: String,
        message: Message,
        position: Option<u64>,
    },
    /// `about`: the message that it is an edit of.
    Other {
        text: String,
        audience: Audience,
        about: Option<String>,
    },
}

/// Recent frames, each with its number.
#[derive(Debug, Default)]
pub struct Recent {
    /// With the number of each, and when it was shown.
    pub frames: Vec<(u64, u64, Frame)>,
    /// Those that had to go during the present batch: its requests see what was there before it.
    pub gone: Vec<(u64, u64, Frame)>,
}

impl Frame {
    /// Whether it is a message or an edit.
    fn has_content(&self) -> bool {
        matches!(self, Self::Message { .. } | Self::Other { about: Some(_), .. })
    }
}

impl Recent {
    fn push(&mut self, number: u64, now: u64, frame: &Frame, limit: usize) {
        self.frames.push((number, now, frame.clone()));
        self.cut(limit);
    }

    fn cut(&mut self, limit: usize) {
        self.gone.extend(self.frames.drain(..self.frames.len().saturating_sub(limit)));
    }

    /// Messages and edits go that were shown by then.
    fn expire(&mut self, over: u64) {
        let is_over = |(_, shown, frame): &(u64, u64, Frame)| *shown <= over && frame.has_content();
        let (gone, frames) = self.frames.drain(..).partition(is_over);
        self.frames = frames;
        self.gone.extend::<Vec<_>>(gone);
    }

    fn message(&self, name: &Option<String>) -> Option<Message> {
        let mut frames = self.gone.iter().chain(&self.frames).rev();
        frames.find_map(|(.., frame)| frame.message().filter(|message| message.name == *name)).cloned()
    }

    fn change(&mut self, changed: &Message) {
        for (.., frame) in self.gone.iter_mut().chain(&mut self.frames) {
            if let Frame::Message { message, .. } = frame
                && message.name == changed.name
            {
                *message = changed.clone();
            }
        }
    }

    fn remove(&mut self, name: &Option<String>) {
        self.gone.retain(|(.., frame)| !frame.is_about(name));
        self.frames.retain(|(.., frame)| !frame.is_about(name));
    }

    pub fn after(&self, seen: u64) -> impl Iterator<Item = &Frame> {
        self.frames.iter().filter(move |(number, ..)| *number > seen).map(|(.., frame)| frame)
    }
}

impl Audience {
    fn of(said: &Said) -> Self {
        Self { only: said.only.clone(), except: said.except.clone() }
    }

    pub fn admits(&self, user: &Username) -> bool {
        (self.only.is_empty() || self.only.contains(user)) && !self.except.contains(user)
    }
}

impl Message {
    pub fn text(&self, position: Option<u64>) -> String {
        let edited = if self.edited { " edited" } else { "" };
        said_text(&self.name, &self.text, Some(&self.by), self.dated) + edited + &position_text(position)
    }

    fn change(&mut self, said: &Said) {
        self.text = said.text.clone().or(self.text.take());
        self.by = said.by.clone().unwrap_or(self.by.clone());
        self.dated = said.dated.or(self.dated);
        self.edited = true;
    }
}

impl Floor {
    pub fn is_good(&self, now: u64) -> bool {
        self.left.is_none_or(|left| now < left + RESUME_WINDOW.as_secs())
    }
}

impl Entry {
    pub fn text(&self) -> String {
        let message = self.message.as_ref().expect("a message").text(Some(self.position));
        let edit = self.edit.map(|edit| format!("~{edit}")).unwrap_or_default();
        message.trim_start().to_owned() + &edit
    }

    fn is_for(&self, user: &Username) -> bool {
        self.message.as_ref().is_some_and(|message| message.audience.admits(user))
    }
}

impl Frame {
    pub fn text(&self) -> String {
        match self {
            Self::Message { place, message, position } => format!("{place}: message{}", message.text(*position)),
            Self::Other { text, .. } => text.clone(),
        }
    }

    pub fn admits(&self, user: &Username) -> bool {
        match self {
            Self::Message { message, .. } => message.audience.admits(user),
            Self::Other { audience, .. } => audience.admits(user),
        }
    }

    fn message(&self) -> Option<&Message> {
        match self {
            Self::Message { message, .. } => Some(message),
            Self::Other { .. } => None,
        }
    }

    fn is_about(&self, name: &Option<String>) -> bool {
        match self {
            Self::Message { message, .. } => message.name == *name,
            Self::Other { about, .. } => about.is_some() && about == name,
        }
    }
}

fn said_text(name: &Option<String>, text: &Option<String>, by: Option<&Username>, dated: Option<i32>) -> String {
    let name = name.as_ref().map(|name| format!(" {name}"));
    let text = text.as_ref().map(|text| format!(" '{text}'"));
    let by = by.filter(|by| by.as_str() != SOMEBODY).map(|by| format!(" by {by}"));
    let dated = dated.map(|year| format!(" dated {year}"));
    [name, text, by, dated].into_iter().flatten().collect()
}

fn position_text(position: Option<u64>) -> String {
    position.map(|position| format!(" #{position}")).unwrap_or_default()
}

fn place_text(channel: &Option<ChannelName>) -> String {
    channel.as_ref().map_or("private".to_owned(), ToString::to_string)
}

/// Sets keys to values; gives those that really changed.
fn merge(state: &mut State, given: &State) -> State {
    let mut changed = State::new();
    for (key, value) in given {
        match state.iter_mut().find(|(known, _)| known == key) {
            Some((_, old)) if old == value => continue,
            Some((_, old)) => *old = value.clone(),
            None if *value == StateValue::Null => continue,
            None => state.push((key.clone(), value.clone())),
        }
        changed.push((key.clone(), value.clone()));
    }
    changed
}

pub fn pairs(state: &State) -> impl Iterator<Item = (&str, &StateValue)> {
    state.iter().map(|(key, value)| (key.as_str(), value))
}

// What may be asked of it.
impl Model {
    fn user(&mut self, name: &Username) -> Option<&mut User> {
        self.users.iter_mut().find(|known| known.name == *name)
    }

    fn channel(&mut self, name: &ChannelName) -> Option<&mut Channel> {
        self.channels.iter_mut().find(|known| known.name == *name)
    }

    fn connection(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|known| known.id == id)
    }

    fn settings(&mut self, name: &ChannelName) -> Option<ChannelSettings> {
        self.channel(name).map(|known| known.settings.clone())
    }

    pub fn connections_of(&self, user: &Username) -> impl Iterator<Item = &Connection> {
        self.connections.iter().filter(move |known| known.user == *user)
    }

    pub fn members(&self, channel: &ChannelName) -> impl Iterator<Item = &Connection> {
        self.connections.iter().filter(move |known| known.channels.contains(channel))
    }

    fn is_present(&self, user: &Username, channel: &ChannelName) -> bool {
        self.members(channel).any(|known| known.user == *user)
    }

    /// Connections that are over by now, in the order in which they are.
    pub fn over(&self) -> Vec<ConnectionId> {
        let over = self.connections.iter().filter_map(|known| Some((known.expires?, known.id)));
        let mut over: Vec<_> = over.filter(|(expires, _)| *expires <= self.now).collect();
        over.sort();
        over.into_iter().map(|(_, id)| id).collect()
    }

    pub fn messages_in(&self, channel: &ChannelName) -> impl Iterator<Item = &Entry> {
        self.log.iter().filter(move |entry| entry.channel.as_ref() == Some(channel) && entry.message.is_some())
    }

    pub fn retained(&self, mine: impl Fn(&Entry) -> bool) -> Retained {
        let (messages, deletions): (Vec<&Entry>, Vec<&Entry>) =
            self.log.iter().filter(|entry| mine(entry)).partition(|entry| entry.message.is_some());
        Retained { messages: messages.len() as u32, deletions: deletions.len() as u32 }
    }

    /// A message, or its deletion.
    fn held(&mut self, said: &Said) -> Option<&mut Entry> {
        said.name.as_ref()?;
        let ttl = said.channel.as_ref().and_then(|name| self.settings(name)?.history_ttl);
        let over = ttl.and_then(|ttl| self.now.checked_sub(u64::from(ttl)));
        // A message whose time is over is gone, whatever the log still holds.
        let is_over = |entry: &Entry| entry.message.is_some() && over.is_some_and(|over| entry.committed <= over);
        let mut held = self.log.iter_mut().filter(|entry| entry.name == said.name && entry.channel == said.channel);
        held.find(|entry| !is_over(entry))
    }

    /// A message that is among the recent frames.
    fn recent_message(&mut self, said: &Said) -> Option<Message> {
        match &said.channel {
            Some(name) => self.channel(name)?.recent.message(&said.name),
            None => said.only.iter().find_map(|name| self.user(name)?.recent.message(&said.name)),
        }
    }

    /// The known users that something private is for.
    fn recipients(&mut self, audience: &Audience) -> Vec<Username> {
        let mut recipients: Vec<Username> = Vec::new();
        for name in &audience.only {
            if audience.admits(name) && !recipients.contains(name) && self.user(name).is_some() {
                recipients.push(name.clone());
            }
        }
        recipients
    }

    pub fn view<'a>(&self, names: impl Iterator<Item = &'a ChannelName>, viewer: Option<&Username>) -> String {
        let (mut parts, mut people) = (Vec::new(), BTreeSet::new());
        for known in names.filter_map(|name| self.channels.iter().find(|known| known.name == *name)) {
            let users: BTreeSet<&Username> = self.members(&known.name).map(|member| &member.user).collect();
            let logged: Vec<&Entry> = self.messages_in(&known.name).collect();
            let newest = logged.iter().rev().take(known.settings.history_size as usize).rev();
            let in_time = |entry: &Entry| {
                known.settings.history_ttl.is_none_or(|ttl| entry.committed + u64::from(ttl) > self.now)
            };
            let visible = newest.filter(|entry| in_time(entry) && viewer.is_none_or(|viewer| entry.is_for(viewer)));
            let history = labelled(":", visible.map(|entry| entry.text()));
            let (members, of) = (self.members(&known.name).count(), labelled(" of", &users));
            parts.push(format!("{} {members}c {}u{of}{history}", known.name, users.len()));
            people.extend(users);
        }
        let state = |name: &Username| {
            let known = self.users.iter().find(|known| known.name == *name).expect("a member is known");
            person_text(name, &state_text(pairs(&known.state)))
        };
        parts.push(labelled("users", people.into_iter().map(state)));
        sentence(parts)
    }

    fn profile(&mut self, name: &Username) -> String {
        let known = self.user(name).expect("a known user");
        sentence([format!("{{{}}}", state_text(pairs(&known.state))), labelled("public", &known.public)])
    }

    fn public_state(&mut self, name: &Username) -> String {
        let known = self.user(name).expect("a known user");
        state_text(pairs(&known.state).filter(|(key, _)| known.public.iter().any(|public| public == key)))
    }
}

// What is asked of it.
impl Model {
    pub fn request(&mut self, request: &Request, over: &[ConnectionId]) -> Result<String, Refusal> {
        match request {
            Request::Connect { user, id, channels, state, fresh, public, settings, since } => {
                if self.connection(*id).is_some_and(|known| known.user != *user) {
                    return Err(Refusal::ForeignConnection);
                }
                let floor = since.map(|since| self.position_of(since)).transpose()?;
                self.connect(user, *id, state, fresh, public);
                for name in channels {
                    self.subscribe(*id, name, settings);
                }
                if let Some(position) = floor {
                    channels.iter().for_each(|name| self.set_floor(user, name, position));
                }
                let mut channels = channels.clone();
                channels.sort();
                let mut different = channels.clone();
                different.dedup();
                let view = self.view(different.iter(), Some(user));
                let who = format!("{} is {user} {}", connection_name(*id), self.profile(user));
                Ok(sentence([who, labelled("in", channels), view, format!("head {}", self.head)]))
            }
            Request::Subscribe { id, channels, settings } => {
                let before = self.connection(*id).ok_or(Refusal::UnknownConnection)?.channels.clone();
                for name in channels {
                    self.subscribe(*id, name, settings);
                }
                let added: BTreeSet<_> = channels.iter().filter(|name| !before.contains(name)).collect();
                Ok(sentence([labelled("added", added), self.membership(*id)]))
            }
            Request::Unsubscribe { id, channels } => {
                let known = self.connection(*id).ok_or(Refusal::UnknownConnection)?;
                let removed: BTreeSet<_> = channels.iter().filter(|name| known.channels.contains(name)).collect();
                let user = known.user.clone();
                known.channels.retain(|name| !removed.contains(name));
                removed.iter().for_each(|name| self.left(&user, name, true));
                Ok(sentence([labelled("removed", removed), self.membership(*id)]))
            }
            Request::ChangeState { user, state, public } => self.change_state(user, state, public),
            Request::Configure { channel, settings } => {
                self.configure(channel, settings);
                let connections = self.members(channel).count();
                let users: BTreeSet<&Username> = self.members(channel).map(|member| &member.user).collect();
                Ok(format!("{channel} {connections}c {}u", users.len()))
            }
            Request::Post(messages) => {
                let answers: Vec<String> = messages.iter().filter_map(|said| self.post(said)).collect();
                for name in std::mem::take(&mut self.said_again) {
                    self.expire_log(&name, true);
                }
                Ok(join(answers))
            }
            Request::Edit(edits) => Ok(join(edits.iter().map(|said| self.edit(said)))),
            Request::Delete(deletions) => Ok(join(deletions.iter().map(|said| self.delete(said)))),
            Request::Sweep => {
                over.iter().for_each(|id| self.end(*id));
                Ok(String::new())
            }
            Request::ExpireFloors => Ok(String::new()),
            Request::ExpireMessages => {
                let names: Vec<ChannelName> = self.channels.iter().map(|known| known.name.clone()).collect();
                for name in names {
                    if self.is_past_its_time(&name) {
                        self.expire_log(&name, true);
                    }
                }
                Ok(String::new())
            }
            Request::ForgetUser(name) => {
                if self.user(name).is_none() {
                    return Ok("unknown".to_owned());
                }
                let ids: Vec<ConnectionId> = self.connections_of(name).map(|known| known.id).collect();
                ids.into_iter().for_each(|id| self.end(id));
                self.users.retain(|known| known.name != *name);
                self.leave_inbox(name, |_| true);
                Ok("gone".to_owned())
            }
            Request::ForgetChannel(name) => Ok(self.forget_channel(name).to_owned()),
            Request::Forget { users, idle } => {
                let forgotten = users.iter().filter(|name| self.forget(name, *idle)).count();
                Ok(forgotten.to_string())
            }
        }
    }

    fn connect(&mut self, user: &Username, id: ConnectionId, state: &State, fresh: &State, public: &[String]) {
        if self.user(user).is_none() {
            let mut known = User {
                name: user.clone(),
                state: State::new(),
                public: Vec::new(),
                active: 0,
                created: self.head,
                floors: Vec::new(),
                recent: Recent::default(),
            };
            merge(&mut known.state, fresh);
            self.users.push(known);
        }
        let now = self.now;
        let known = self.user(user).expect("just added");
        merge(&mut known.state, state);
        known.public = public.to_vec();
        known.active = now;
        match self.connection(id) {
            Some(known) => {
                known.dismissed = false;
                known.expires = (!known.listens).then_some(now + GRACE.as_secs());
            }
            None => self.connections.push(Connection {
                id,
                user: user.clone(),
                channels: Vec::new(),
                listens: false,
                stalled: None,
                seen: self.frames,
                expires: Some(now + GRACE.as_secs()),
                dismissed: false,
            }),
        }
    }

    fn subscribe(&mut self, id: ConnectionId, name: &ChannelName, settings: &SettingsPatch) {
        let known = self.connection(id).expect("a known connection");
        if known.channels.contains(name) {
            return;
        }
        let user = known.user.clone();
        if self.channel(name).is_none() {
            self.configure(name, &Some(settings.clone()));
        }
        let is_new = !self.is_present(&user, name);
        self.hold_floor(&user, name);
        let known = self.connection(id).expect("a known connection");
        known.channels.push(name.clone());
        known.channels.sort();
        if is_new {
            self.show_presence(name, &user, true);
        }
    }

    /// The head is the floor of a user that has none.
    fn hold_floor(&mut self, user: &Username, channel: &ChannelName) {
        let (head, now) = (self.head, self.now);
        let floors = &mut self.user(user).expect("a connected user is known").floors;
        floors.retain(|floor| floor.is_good(now));
        match floors.iter_mut().find(|floor| floor.channel == *channel) {
            Some(floor) => floor.left = None,
            None => floors.push(Floor { channel: channel.clone(), position: head, left: None }),
        }
    }

    fn set_floor(&mut self, user: &Username, channel: &ChannelName, position: u64) {
        let floors = &mut self.user(user).expect("a connected user is known").floors;
        floors.iter_mut().find(|floor| floor.channel == *channel).expect("it is there").position = position;
    }

    fn position_of(&self, since: Since) -> Result<u64, Refusal> {
        match since {
            Since::Earliest => Ok(0),
            Since::Cursor(position) => position.filter(|position| *position <= self.head).ok_or(Refusal::UnknownCursor),
            Since::Time(time) if time >= self.now => Ok(self.head),
            Since::Time(time) => {
                let said = self.log.iter().map(|entry| (entry.committed, entry.position));
                let edits = self.log.iter().filter_map(|entry| Some((entry.edit_committed, entry.edit?)));
                let by_then = said.chain(edits).filter(|(committed, _)| *committed <= time);
                Ok(by_then.map(|(_, position)| position).max().unwrap_or_default())
            }
        }
    }

    /// A connection of a user is no more in a channel; `asked`: because the application said so.
    fn left(&mut self, user: &Username, name: &ChannelName, asked: bool) {
        if self.is_present(user, name) {
            return;
        }
        let now = self.now;
        let floors = &mut self.user(user).expect("a connected user is known").floors;
        if asked {
            floors.retain(|floor| floor.channel != *name);
        }
        floors.iter_mut().filter(|floor| floor.channel == *name).for_each(|floor| floor.left = Some(now));
        self.show_presence(name, user, false);
    }

    fn end(&mut self, id: ConnectionId) {
        let index = self.connections.iter().position(|known| known.id == id).expect("a known connection");
        let gone = self.connections.remove(index);
        gone.channels.iter().for_each(|name| self.left(&gone.user, name, false));
        let now = self.now;
        self.user(&gone.user).expect("a connected user is known").active = now;
        if gone.listens {
            self.shown.push((id, if gone.dismissed { "dismissed" } else { "over" }.to_owned()));
        }
    }

    fn membership(&mut self, id: ConnectionId) -> String {
        let known = self.connection(id).expect("a known connection");
        let (channels, user) = (known.channels.clone(), known.user.clone());
        sentence([labelled("in", &channels), self.view(channels.iter(), Some(&user))])
    }

    fn configure(&mut self, name: &ChannelName, settings: &Option<SettingsPatch>) {
        if self.channel(name).is_none() {
            let settings = ChannelSettings::default();
            self.channels.push(Channel { name: name.clone(), settings, recent: Recent::default() });
        }
        let known = self.channel(name).expect("just added");
        if let Some(patch) = settings {
            known.settings = patch.applied_to(&known.settings);
        }
        if !known.settings.store_frames {
            known.recent = Recent::default();
        }
    }

    fn change_state(
        &mut self,
        name: &Username,
        state: &State,
        public: &Option<Vec<String>>,
    ) -> Result<String, Refusal> {
        let now = self.now;
        let known = self.user(name).ok_or(Refusal::UnknownUser)?;
        let changed = merge(&mut known.state, state);
        let public = public.clone().unwrap_or(known.public.clone());
        if !changed.is_empty() || known.public != public {
            known.active = now;
        }
        known.public = public.clone();
        let told = state_text(pairs(&changed).filter(|(key, _)| public.iter().any(|public| public == key)));
        let channels: BTreeSet<ChannelName> =
            self.connections_of(name).flat_map(|known| known.channels.iter().cloned()).collect();
        for channel in channels.iter().filter(|_| !told.is_empty()) {
            if self.settings(channel).is_some_and(|settings| settings.notify_state) {
                let text = format!("{channel}: state of {name} {told} {{{}}}", self.public_state(name));
                self.show(channel, Frame::Other { text, audience: Audience::default(), about: None });
            }
        }
        let changed = Some(state_text(pairs(&changed))).filter(|text| !text.is_empty());
        Ok(sentence([labelled("changed", changed), self.profile(name)]))
    }

    /// The answer; none if it has no target.
    fn post(&mut self, said: &Said) -> Option<String> {
        let message = Message {
            name: said.name.clone(),
            text: said.text.clone(),
            by: said.by.clone().unwrap_or_else(|| user(SOMEBODY)),
            dated: said.dated,
            edited: false,
            audience: Audience::of(said),
        };
        let mut holders = Vec::new();
        let mut is_logged = match &said.channel {
            Some(name) => {
                self.settings(name).is_some_and(|settings| settings.store_history && settings.history_size > 0)
            }
            None if said.only.is_empty() => return None,
            None => {
                holders = self.recipients(&message.audience);
                !holders.is_empty()
            }
        };
        is_logged &= !said.unlogged;
        if let Some(entry) = self.held(said) {
            let stored = entry.message.as_ref().unwrap_or(&message);
            return Some(stored.text(Some(entry.position)).trim_start().to_owned() + " duplicate");
        }
        // It was said before, but its time is over.
        if let Some(name) = said.channel.as_ref().filter(|_| is_logged && said.name.is_some())
            && self.log.iter().any(|entry| entry.name == said.name && entry.channel == said.channel)
        {
            self.expire_log(name, false);
            self.said_again.push(name.clone());
        }
        let position = is_logged.then(|| self.next_position());
        if let Some(position) = position {
            self.log.push(Entry {
                position,
                channel: said.channel.clone(),
                name: said.name.clone(),
                holders: holders.clone(),
                message: Some(message.clone()),
                audience: Audience::default(),
                edit: None,
                committed: self.now,
                edit_committed: 0,
            });
        }
        self.posted += 1;
        let answer = message.text(position).trim_start().to_owned();
        let frame = Frame::Message { place: place_text(&said.channel), message, position };
        self.delivered += match &said.channel {
            Some(name) => self.show(name, frame),
            None => self.show_privately(&holders, frame),
        };
        Some(answer)
    }

    /// Whether the log holds anything of a channel that is past its time.
    fn is_past_its_time(&mut self, name: &ChannelName) -> bool {
        let over = self.over_by(name);
        self.log
            .iter()
            .any(|entry| entry.channel.as_ref() == Some(name) && over.is_some_and(|over| entry.committed <= over))
    }

    /// What was committed in a channel up to this is past its time.
    fn over_by(&mut self, name: &ChannelName) -> Option<u64> {
        let ttl = self.settings(name)?.history_ttl?;
        self.now.checked_sub(u64::from(ttl))
    }

    /// The log forgets all of a channel that is past its time, or all but deletions.
    fn expire_log(&mut self, name: &ChannelName, deletions: bool) {
        let Some(over) = self.over_by(name) else { return };
        let goes = |entry: &Entry| entry.committed <= over && (deletions || entry.message.is_some());
        self.log.retain(|entry| entry.channel.as_ref() != Some(name) || !goes(entry));
        self.expire(std::slice::from_ref(name));
    }

    fn edit(&mut self, said: &Said) -> String {
        if said.channel.is_none() && said.only.is_empty() {
            return said.name.clone().unwrap_or_default();
        }
        let (next, now) = (self.head + 1, self.now);
        let (message, position) = match self.held(said).filter(|entry| entry.message.is_some()) {
            Some(entry) => {
                (entry.edit, entry.edit_committed) = (Some(next), now);
                let message = entry.message.as_mut().expect("a message");
                message.change(said);
                (Some(message.clone()), Some(self.next_position()))
            }
            None => {
                let mut recent = self.recent_message(said);
                recent.iter_mut().for_each(|message| message.change(said));
                (recent, None)
            }
        };
        let audience = message.as_ref().map_or(Audience::of(said), |message| message.audience.clone());
        let what = said_text(&said.name, &said.text, said.by.as_ref(), said.dated);
        let text = format!("{}: edit{what}{}", place_text(&said.channel), position_text(position));
        let frame = Frame::Other { text, audience: audience.clone(), about: said.name.clone() };
        let change = |recent: &mut Recent| message.iter().for_each(|message| recent.change(message));
        self.announce(said, &audience, frame, change);
        said.name.clone().unwrap_or_default() + &position_text(position)
    }

    fn delete(&mut self, said: &Said) -> String {
        if said.channel.is_none() && said.only.is_empty() {
            return said.name.clone().unwrap_or_default();
        }
        let settings = said.channel.as_ref().and_then(|name| self.settings(name));
        let stores = settings.is_some_and(|settings| settings.store_history && settings.history_size > 0);
        let index = self.log.iter().rposition(|entry| entry.name == said.name && entry.channel == said.channel);
        let entry = index.map(|index| self.log.remove(index));
        let position = (stores || entry.is_some()).then(|| self.next_position());
        let audience = match &entry {
            Some(entry) => entry.message.as_ref().map_or(&entry.audience, |message| &message.audience).clone(),
            None => self.recent_message(said).map_or(Audience::of(said), |message| message.audience),
        };
        if let Some(position) = position {
            self.log.push(Entry {
                position,
                channel: said.channel.clone(),
                name: said.name.clone(),
                holders: entry.map(|entry| entry.holders).unwrap_or_default(),
                message: None,
                audience: audience.clone(),
                edit: None,
                committed: self.now,
                edit_committed: 0,
            });
        }
        let name = said.name.clone().unwrap_or_default();
        let text = format!("{}: delete {name}{}", place_text(&said.channel), position_text(position));
        let frame = Frame::Other { text, audience: audience.clone(), about: None };
        self.announce(said, &audience, frame, |recent| recent.remove(&said.name));
        name + &position_text(position)
    }

    /// Changes the recent frames and shows what changed them.
    fn announce(&mut self, said: &Said, audience: &Audience, frame: Frame, change: impl Fn(&mut Recent)) {
        match &said.channel {
            Some(name) => {
                if let Some(known) = self.channel(name) {
                    change(&mut known.recent);
                    self.show(name, frame);
                }
            }
            None => {
                let users = self.recipients(audience);
                for name in &users {
                    change(&mut self.user(name).expect("a known user").recent);
                }
                self.show_privately(&users, frame);
            }
        }
    }

    pub fn trim_channel(&mut self, name: &ChannelName, keep: Retained) {
        let kept = self.settings(name).expect("a known channel").kept();
        let past = self.past(keep, kept, |entry| entry.channel.as_ref() == Some(name));
        self.log.retain(|entry| !past.contains(&entry.position));
    }

    pub fn trim_inbox(&mut self, name: &Username, keep: Retained) {
        let past = self.past(keep, INBOX_SIZE, |entry| entry.holders.contains(name));
        self.leave_inbox(name, |entry| past.contains(&entry.position));
    }

    /// Positions of all that is older than the newest messages to keep, and of deletions that are
    /// older than those to keep.
    fn past(&self, keep: Retained, kept: u32, mine: impl Fn(&Entry) -> bool) -> Vec<u64> {
        let retained = self.retained(&mine);
        assert!(keep.messages >= kept.min(retained.messages), "of {retained:?} only {keep:?} stay");
        let mine: Vec<&Entry> = self.log.iter().filter(|entry| mine(entry)).collect();
        let newest_gone = |keep: u32, is_message: bool| {
            let such = mine.iter().rev().filter(|entry| entry.message.is_some() == is_message);
            such.map(|entry| entry.position).nth(keep as usize).unwrap_or_default()
        };
        let (all, deletions) = (newest_gone(keep.messages, true), newest_gone(keep.deletions, false));
        let limit = |entry: &Entry| if entry.message.is_some() { all } else { all.max(deletions) };
        mine.iter().filter(|entry| entry.position <= limit(entry)).map(|entry| entry.position).collect()
    }

    fn leave_inbox(&mut self, name: &Username, leaves: impl Fn(&Entry) -> bool) {
        for entry in &mut self.log {
            if leaves(entry) {
                entry.holders.retain(|holder| holder != name);
            }
        }
        self.log.retain(|entry| entry.channel.is_some() || !entry.holders.is_empty());
    }

    fn forget(&mut self, name: &Username, idle: u64) -> bool {
        let is_connected = self.connections_of(name).next().is_some();
        let now = self.now;
        if is_connected || self.user(name).is_none_or(|known| known.active + idle > now) {
            return false;
        }
        self.users.retain(|known| known.name != *name);
        self.leave_inbox(name, |_| true);
        true
    }

    fn forget_channel(&mut self, name: &ChannelName) -> &'static str {
        let Some(settings) = self.settings(name) else { return "unknown" };
        // Everybody is told of everybody else, while they are all there.
        let members: BTreeSet<Username> = self.members(name).map(|member| member.user.clone()).collect();
        for member in members.iter().filter(|_| settings.notify_presence) {
            let text = format!("{name}: parted {member}");
            let audience = Audience { only: Vec::new(), except: vec![member.clone()] };
            self.show(name, Frame::Other { text, audience, about: None });
        }
        self.channels.retain(|known| known.name != *name);
        self.connections.iter_mut().for_each(|known| known.channels.retain(|channel| channel != name));
        self.users.iter_mut().for_each(|known| known.floors.retain(|floor| floor.channel != *name));
        self.log.retain(|entry| entry.channel.as_ref() != Some(name));
        "gone"
    }

    fn next_position(&mut self) -> u64 {
        self.head += 1;
        self.head
    }
}

// What is shown.
impl Model {
    fn show_presence(&mut self, channel: &ChannelName, name: &Username, joined: bool) {
        let settings = self.settings(channel).expect("a known channel");
        if !settings.notify_presence {
            return;
        }
        let mut among = Vec::new();
        if settings.broadcast_presence_with_user_lists {
            let members: BTreeSet<Username> = self.members(channel).map(|member| member.user.clone()).collect();
            among.extend(members.iter().map(|member| person_text(member, &self.public_state(member))));
        }
        let state = if joined { self.public_state(name) } else { String::new() };
        let (what, who) = (if joined { "joined" } else { "parted" }, person_text(name, &state));
        among.sort();
        let text = format!("{channel}: {what} {who}{}", labelled(" among", among));
        let audience = Audience { only: Vec::new(), except: vec![name.clone()] };
        self.show(channel, Frame::Other { text, audience, about: None });
    }

    /// Gives the number of connections that it went to.
    fn show(&mut self, channel: &ChannelName, frame: Frame) -> u64 {
        self.frames += 1;
        let (number, now) = (self.frames, self.now);
        let Some(known) = self.channel(channel) else { return 0 };
        if known.settings.store_frames {
            known.recent.push(number, now, &frame, RECENT);
        }
        self.deliver(&frame, |member| member.channels.contains(channel) && frame.admits(&member.user))
    }

    fn show_privately(&mut self, users: &[Username], frame: Frame) -> u64 {
        self.frames += 1;
        let (number, now) = (self.frames, self.now);
        for name in users {
            let known = self.user(name).expect("a known user");
            known.recent.push(number, now, &frame, INBOX_SIZE as usize);
        }
        self.deliver(&frame, |member| users.contains(&member.user))
    }

    fn deliver(&mut self, frame: &Frame, to: impl Fn(&Connection) -> bool) -> u64 {
        let to: Vec<&Connection> = self.connections.iter().filter(|known| to(known)).collect();
        let listens = to.iter().filter(|known| known.listens && known.stalled.is_none());
        self.shown.extend(listens.map(|known| (known.id, frame.text())));
        to.len() as u64
    }
}

// Who listens.
impl Model {
    pub fn take(&mut self, step: &Step) {
        match *step {
            Step::Listen(id) => self.listen(id),
            Step::Flicker(id) => {
                self.depart(id, GRACE.as_secs());
                let expires = self.now + GRACE.as_secs();
                if let Some(known) = self.connection(id) {
                    known.expires = known.expires.filter(|_| known.dismissed).or(Some(expires));
                    let channels = known.channels.clone();
                    self.expire(&channels);
                }
            }
            Step::Stall(id) => {
                let frames = self.frames;
                if let Some(known) = self.connection(id).filter(|known| known.listens) {
                    known.stalled.get_or_insert(frames);
                }
            }
            Step::Drop(id) => self.depart(id, GRACE.as_secs()),
            Step::Close(id) => self.depart(id, 0),
            Step::Dismiss(id) => {
                let now = self.now;
                if let Some(known) = self.connection(id) {
                    known.dismissed = true;
                    known.expires = Some(known.expires.map_or(now, |expires| expires.min(now)));
                }
            }
            Step::Later(seconds) => self.now += seconds,
            Step::Restart => {
                self.started = self.now;
                (self.posted, self.delivered) = (0, 0);
                self.users.iter_mut().for_each(|known| known.recent = Recent::default());
                self.channels.iter_mut().for_each(|known| known.recent = Recent::default());
                for known in &mut self.connections {
                    (known.listens, known.stalled, known.dismissed) = (false, None, false);
                    (known.seen, known.expires) = (self.frames, Some(self.now + GRACE.as_secs()));
                }
            }
            Step::Ask(_) | Step::Pass(_) | Step::Show(_) => panic!("elsewhere"),
        }
    }

    fn listen(&mut self, id: ConnectionId) {
        self.depart(id, GRACE.as_secs());
        let Some(known) = self.connection(id) else {
            return self.shown.push((id, "unknown".to_owned()));
        };
        (known.listens, known.stalled) = (true, None);
        known.expires = known.expires.filter(|_| known.dismissed);
        let (seen, user, channels) = (known.seen, known.user.clone(), known.channels.clone());
        self.expire(&channels);
        let mut missed = Vec::new();
        for name in &channels {
            let recent = &self.channel(name).expect("a known channel").recent;
            missed.extend(recent.after(seen).filter(|frame| frame.admits(&user)).map(Frame::text));
        }
        let recent = &self.user(&user).expect("a known user").recent;
        missed.extend(recent.after(seen).map(Frame::text));
        self.shown.extend(missed.into_iter().map(|text| (id, format!("catchup {text}"))));
    }

    /// Messages whose time is over are not caught up.
    fn expire(&mut self, channels: &[ChannelName]) {
        let now = self.now;
        for name in channels {
            let known = self.channel(name).expect("a known channel");
            if let Some(over) = known.settings.history_ttl.and_then(|ttl| now.checked_sub(u64::from(ttl))) {
                known.recent.expire(over);
            }
        }
    }

    /// Its socket is gone; it is over in so many seconds.
    fn depart(&mut self, id: ConnectionId, grace: u64) {
        let (now, frames) = (self.now, self.frames);
        if let Some(known) = self.connection(id).filter(|known| known.listens) {
            known.listens = false;
            known.seen = known.stalled.take().unwrap_or(frames);
            known.expires = Some(known.expires.map_or(now + grace, |expires| expires.min(now + grace)));
        }
    }

    /// Recent frames are in memory only, and go with what they belong to.
    pub fn forget_frames(&mut self, server: &Server) {
        for known in &mut self.users {
            known.recent.cut(server.router.user(&known.name).map_or(0, |_| INBOX_SIZE as usize));
            known.recent.gone.clear();
        }
        for known in &mut self.channels {
            known.recent.cut(server.router.channel(&known.name).map_or(0, |_| RECENT));
            known.recent.gone.clear();
        }
    }
}
