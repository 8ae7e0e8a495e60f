//! A router, driven as the journal drives it, with a fake store and a fake clock.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use channelstream::domain::draft::{Draft, Found, Refusal, Undecided};
use channelstream::domain::event::Event;
use channelstream::domain::frame::Tick;
use channelstream::domain::listen::Departure;
use channelstream::domain::message::{Audience, Body, Deletion, Edit, Message};
use channelstream::domain::names::{ChannelName, ConnectionId, ListenerId, Username};
use channelstream::domain::operation::{
    ChangeState, Configure, Connect, Delete, EditMessages, ExpireFloors, ExpireMessages, ForgetChannel,
    ForgetIdleUsers, ForgetUser, Operation, Post, PostOne, Subscribe, Sweep, Trim, Unsubscribe,
};
use channelstream::domain::position::{Cursor, Epoch, Numbering, Position};
use channelstream::domain::router::{Effect, Needs, Recipients, Router};
use channelstream::domain::state::{PublicKeys, UserState};
use channelstream::domain::timestamp::{Moment, Timestamp};
use channelstream::domain::user::{Floor, FloorAt};
use channelstream::domain::view::{ChannelsView, InfoOptions, Showing};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::step::{Request, Said, Show, Since, State, Step};
use super::store::Store;
use super::text::{
    SOMEBODY, clock, connected_text, deleted_text, edited_text, frame_text, join, labelled, posted_text, profile_text,
    settings_text, state_report_text, subscribed_text, unsubscribed_text, user, uuid, view_text,
};

/// How long a connection lasts without a listener.
pub const GRACE: Duration = Duration::from_secs(15);
/// How long a floor lasts after the user's last connection left.
pub const RESUME_WINDOW: Duration = Duration::from_secs(60);

/// A router, what it stands on, and who listens.
pub struct Server {
    pub router: Router,
    pub store: Store,
    /// Since the world began; the server may have started later.
    pub now: Duration,
    started: Duration,
    listeners: Vec<Option<Open>>,
    /// What was shown, and to whom.
    pub shown: Vec<(Vec<ConnectionId>, String)>,
}

/// An open socket.
#[derive(Debug, Clone, Copy)]
struct Open {
    id: ConnectionId,
    /// It was written nothing later than this.
    stalled: Option<Tick>,
}

/// What came of one batch.
#[derive(Debug)]
pub struct Outcome {
    /// One answer a request that left the queue, in order.
    pub answers: Vec<Result<String, Refusal>>,
    /// All that was decided.
    pub events: Vec<Event>,
}

/// A request while it is being decided.
trait Asked {
    fn needs(&self, router: &Router, needs: &mut Needs);
    fn decide(&mut self, router: &Router, draft: &mut Draft) -> Result<(), Undecided>;
    fn answer(self: Box<Self>, router: &Router, moment: Moment) -> String;
}

/// Looks at channels, each once.
pub fn look_at(
    router: &Router,
    mut names: Vec<ChannelName>,
    options: &InfoOptions,
    viewer: Option<Username>,
    moment: Moment,
) -> ChannelsView {
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    let mut view = ChannelsView::default();
    let mut showing = Showing { names, options: options.clone(), viewer, done: 0 };
    while router.show(&mut showing, &mut view, moment) {}
    view
}

struct Told<O: Operation>(O, fn(O::Outcome, &Router) -> String);

impl<O: Operation> Asked for Told<O> {
    fn needs(&self, router: &Router, needs: &mut Needs) {
        self.0.needs(router, needs);
    }

    fn decide(&mut self, router: &Router, draft: &mut Draft) -> Result<(), Undecided> {
        loop {
            match self.0.decide(router, draft) {
                Err(Undecided::More) => {}
                result => return result,
            }
        }
    }

    fn answer(self: Box<Self>, router: &Router, moment: Moment) -> String {
        let mut outcome = self.0.outcome(router, moment);
        while O::look(&mut outcome, router, moment) {}
        (self.1)(outcome, router)
    }
}

fn new_router(head: Position) -> Router {
    let mut router = Router::new(head, GRACE, next_uuid);
    router.set_resume_window(RESUME_WINDOW);
    router.set_numbering(Numbering::new(vec![(epoch("e"), Position(0))]));
    router
}

impl Server {
    pub fn new() -> Self {
        Self {
            router: new_router(Position(0)),
            store: Store::default(),
            now: Duration::ZERO,
            started: Duration::ZERO,
            listeners: Vec::new(),
            shown: Vec::new(),
        }
    }

    pub fn moment(&self) -> Moment {
        Moment { utc: clock() + self.now, elapsed: self.now - self.started }
    }

    /// Does what is no operation.
    pub fn take(&mut self, step: &Step) {
        match *step {
            Step::Listen(id) => self.listen(id),
            Step::Flicker(id) => self.flicker(id),
            Step::Stall(id) => {
                if let (Some(listener), tick) = (self.router.listener_of(id), self.router.tick()) {
                    let open = self.listeners[listener.0 as usize].as_mut().expect("it is open");
                    open.stalled.get_or_insert(tick);
                }
            }
            Step::Drop(id) => self.depart(id, Departure::Lost),
            Step::Close(id) => self.depart(id, Departure::Closed),
            Step::Dismiss(id) => _ = self.router.dismiss(id, self.moment()),
            Step::Later(seconds) => self.now += Duration::from_secs(seconds),
            Step::Pass(seconds) => {
                for _ in 0..seconds {
                    self.now += Duration::from_secs(1);
                    if self.router.is_anything_due(self.moment()) {
                        self.batch(&mut VecDeque::from([Request::Sweep]), |_| {});
                    }
                }
            }
            Step::Restart => self.restart(),
            Step::Ask(_) | Step::Show(_) => panic!("elsewhere"),
        }
    }

    fn listen(&mut self, id: ConnectionId) {
        self.depart(id, Departure::Lost);
        let slot = self.listeners.iter().position(Option::is_none).unwrap_or(self.listeners.len());
        let Some(missed) = self.router.attach(id, ListenerId(slot as u32), self.moment()) else {
            return self.shown.push((vec![id], "unknown".to_owned()));
        };
        self.listeners.resize(self.listeners.len().max(slot + 1), None);
        self.listeners[slot] = Some(Open { id, stalled: None });
        for frame in missed {
            self.shown.push((vec![id], format!("catchup {}", frame_text(&frame))));
        }
    }

    fn flicker(&mut self, id: ConnectionId) {
        self.depart(id, Departure::Lost);
        let Some(connection) = self.router.connection(id) else { return };
        let (seen, shown) = (connection.seen, self.shown.len());
        self.listen(id);
        self.shown.truncate(shown);
        let listener = self.router.listener_of(id).expect("it just opened");
        self.listeners[listener.0 as usize] = Some(Open { id, stalled: Some(seen) });
        self.depart(id, Departure::Lost);
    }

    fn depart(&mut self, id: ConnectionId, how: Departure) {
        let Some(listener) = self.router.listener_of(id) else { return };
        let open = self.listeners[listener.0 as usize].take().expect("it is open");
        let seen = open.stalled.unwrap_or(self.router.tick());
        self.router.detach(id, listener, seen, how, self.moment());
    }

    /// Starts anew on the same store, as the hub does, but without recalling what listeners missed.
    fn restart(&mut self) {
        self.started = self.now;
        self.listeners.clear();
        self.router = new_router(self.store.head);
        let moment = self.moment();
        for (id, user, channels) in self.store.connections.clone() {
            if !self.router.knows_user(&user) {
                self.router.load_user(&user, self.store.user(&user), moment);
            }
            for name in channels.iter().filter(|name| self.router.channel(name).is_none()).collect::<Vec<_>>() {
                self.router.load_channel(name, self.store.channel(name), moment);
            }
            self.router.restore(id, &user, &channels.into_iter().collect::<Vec<_>>(), moment);
        }
    }

    /// Decides, commits and applies what waits, up to what has to wait for the next batch. A
    /// message alone that nothing stores is shown at once. `meanwhile`: what happens while the
    /// store is busy.
    pub fn batch(&mut self, waiting: &mut VecDeque<Request>, meanwhile: impl FnOnce(&mut Self)) -> Outcome {
        let moment = self.moment();
        let mut asked: Vec<Box<dyn Asked>> = waiting.iter().map(|request| self.operation(request)).collect();
        let alone = asked.len() == 1 && self.is_ephemeral(&waiting[0]);
        let found = if alone { Found::default() } else { self.load(&asked, moment) };
        let mut draft = Draft::new(&self.router, moment, &found);
        let mut answers = Vec::new();
        let mut ranges = VecDeque::new();
        for one in &mut asked {
            draft.begin();
            let start = draft.event_count();
            match one.decide(&self.router, &mut draft) {
                Ok(()) => answers.push(Ok(String::new())),
                Err(Undecided::Refused(refusal)) => {
                    draft.take_back();
                    answers.push(Err(refusal));
                }
                Err(Undecided::Later | Undecided::More) => {
                    draft.take_back();
                    break;
                }
            }
            ranges.push_back(start..draft.event_count());
        }
        assert!(!answers.is_empty(), "the first of a batch never waits");
        waiting.drain(..answers.len());
        let asked_for = draft.event_count();
        if !alone && self.router.has_overfull() {
            draft.begin();
            Trim.decide(&self.router, &mut draft).expect("trimming waits for nobody");
        }
        let (events, reloads) = draft.finish();
        self.store.commit(&events, moment);
        let reloaded: Vec<_> = reloads.iter().filter_map(|name| Some((name, self.store.channel(name)?))).collect();
        meanwhile(self);
        for (one, answer) in asked.into_iter().zip(&mut answers) {
            self.apply(&events[ranges.pop_front().expect("one an answer")], moment);
            if let Ok(answer) = answer {
                *answer = one.answer(&self.router, moment);
            }
        }
        self.apply(&events[asked_for..], moment);
        for (name, channel) in reloaded {
            self.router.reload_history(name, channel);
        }
        if !alone {
            self.router.unload_idle(moment);
        }
        Outcome { answers, events }
    }

    fn load(&mut self, asked: &[Box<dyn Asked>], moment: Moment) -> Found {
        let mut needs = Needs::default();
        asked.iter().for_each(|one| one.needs(&self.router, &mut needs));
        self.router.retain_missing(&mut needs, moment);
        for name in &needs.channels {
            self.router.load_channel(name, self.store.channel(name), moment);
        }
        for name in &needs.users {
            self.router.load_user(name, self.store.user(name), moment);
        }
        Found { held: self.store.held(&needs), positions: self.store.positions_at(&needs) }
    }

    fn apply(&mut self, events: &[Event], moment: Moment) {
        for event in events {
            let mut effects = Vec::new();
            self.router.apply(event, moment, &mut effects);
            effects.into_iter().for_each(|effect| self.effect(effect));
        }
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Show { frame, to, tick } => {
                assert!(tick <= self.router.tick());
                let listeners = match to {
                    Recipients::Members { channel, except } => {
                        assert!(except.is_sorted());
                        let channel = self.router.channel(&channel).expect("it has members");
                        channel.members.listeners().filter(|listener| !except.contains(listener)).collect()
                    }
                    Recipients::Only(listeners) => listeners,
                };
                let open = |listener: ListenerId| self.listeners[listener.0 as usize].expect("who is shown it listens");
                let open: Vec<Open> = listeners.into_iter().map(open).collect();
                let mut ids: Vec<_> = open.iter().filter(|open| open.stalled.is_none()).map(|open| open.id).collect();
                ids.sort();
                assert!(ids.is_sorted_by(|one, two| one < two), "shown twice: {frame:?}");
                if !ids.is_empty() {
                    self.shown.push((ids, frame_text(&frame)));
                }
            }
            Effect::End { listener, dismissed } => {
                let open = self.listeners[listener.0 as usize].take().expect("what ends was open");
                self.shown.push((vec![open.id], if dismissed { "dismissed" } else { "over" }.to_owned()));
                // The socket's task says so afterwards, when its connection is unknown.
                self.router.detach(open.id, listener, self.router.tick(), Departure::Lost, self.moment());
            }
        }
    }

    fn is_ephemeral(&self, request: &Request) -> bool {
        matches!(request, Request::Post(said) if Post::is_ephemeral(&self.post(said).messages, &self.router))
    }

    fn post(&self, said: &[Said]) -> Post {
        let messages = said.iter().map(|said| PostOne {
            message: Arc::new(Message {
                uuid: said.name.as_deref().map_or_else(next_uuid, uuid),
                channel: said.channel.clone(),
                sender: said.by.clone().unwrap_or_else(|| user(SOMEBODY)),
                body: said.text.as_deref().map(body),
                timestamp: said.time().unwrap_or(self.moment().timestamp()),
                edited: None,
                audience: said.audience(),
                no_history: said.unlogged,
            }),
            uuid_given: said.name.is_some(),
        });
        Post { messages: messages.collect(), posted: Vec::new() }
    }

    fn operation(&self, request: &Request) -> Box<dyn Asked> {
        match request.clone() {
            Request::Connect { user, id, channels, state, fresh, public, settings, since } => Box::new(Told(
                Connect {
                    user,
                    user_uuid: next_uuid(),
                    id,
                    channel_uuids: channels.iter().map(|_| next_uuid()).collect(),
                    fresh_user_state: user_state(&fresh),
                    user_state: user_state(&state),
                    public_keys: public_keys(&public),
                    channel_configs: channels.iter().map(|name| (name.clone(), settings.clone())).collect(),
                    channels,
                    since: since.map(floor_at),
                    info: InfoOptions::default(),
                },
                connected_text,
            )),
            Request::Subscribe { id, channels, settings } => Box::new(Told(
                Subscribe {
                    id,
                    channel_uuids: channels.iter().map(|_| next_uuid()).collect(),
                    channel_configs: channels.iter().map(|name| (name.clone(), settings.clone())).collect(),
                    channels,
                    info: InfoOptions::default(),
                    added: Vec::new(),
                },
                subscribed_text,
            )),
            Request::Unsubscribe { id, channels } => Box::new(Told(
                Unsubscribe { id, channels, info: InfoOptions::default(), removed: Vec::new() },
                unsubscribed_text,
            )),
            Request::ChangeState { user, state, public } => Box::new(Told(
                ChangeState {
                    user,
                    state: user_state(&state),
                    public_keys: public.as_deref().map(public_keys),
                    changed: Vec::new(),
                },
                |told, _| state_report_text(told),
            )),
            Request::Configure { channel, settings } => {
                Box::new(Told(Configure { channels: vec![(channel, next_uuid(), settings)] }, |told, router| {
                    view_text(&told.view, router)
                }))
            }
            Request::Post(said) => Box::new(Told(self.post(&said), |told, _| posted_text(told))),
            Request::Edit(said) => {
                let edits = said.iter().map(|said| {
                    Arc::new(Edit {
                        uuid: uuid(said.name.as_deref().expect("which message")),
                        channel: said.channel.clone(),
                        sender: said.by.clone(),
                        body: said.text.as_deref().map(body),
                        timestamp: said.time(),
                        edited: self.moment().timestamp(),
                        audience: said.audience(),
                        no_history: said.unlogged,
                    })
                });
                Box::new(Told(EditMessages { edits: edits.collect(), positions: Vec::new() }, |told, _| {
                    edited_text(told)
                }))
            }
            Request::Delete(said) => {
                let deletions = said.iter().map(|said| {
                    Arc::new(Deletion {
                        uuid: uuid(said.name.as_deref().expect("which message")),
                        channel: said.channel.clone(),
                        audience: said.audience(),
                        no_history: said.unlogged,
                    })
                });
                Box::new(Told(Delete { deletions: deletions.collect(), positions: Vec::new() }, |told, _| {
                    deleted_text(told)
                }))
            }
            Request::Sweep => Box::new(Told(Sweep, |(), _| String::new())),
            Request::ExpireFloors => Box::new(Told(ExpireFloors, |(), _| String::new())),
            Request::ExpireMessages => {
                let channels = self.store.expired_channels(self.moment());
                Box::new(Told(ExpireMessages { channels }, |(), _| String::new()))
            }
            Request::ForgetUser(user) => Box::new(Told(ForgetUser { user, found: false }, |told, _| found_text(told))),
            Request::ForgetChannel(channel) => {
                Box::new(Told(ForgetChannel { channel, found: false }, |told, _| found_text(told)))
            }
            Request::Forget { users, idle } => {
                let idle_since = self.moment().utc - Duration::from_secs(idle);
                Box::new(Told(ForgetIdleUsers { users, idle_since, forgotten: 0 }, |count, _| count.to_string()))
            }
        }
    }

    pub fn describe(&self, show: &Show) -> String {
        match show {
            Show::Channels { names, viewer, options } => {
                let view = look_at(&self.router, names.clone(), options, viewer.clone(), self.moment());
                if view.channels.is_empty() { format!("no {}", join(names)) } else { view_text(&view, &self.router) }
            }
            Show::Settings(name) => match self.router.channel(name) {
                Some(channel) => format!("{name}: {}", settings_text(&channel.settings)),
                None => format!("no {name}"),
            },
            Show::User(name) => match self.router.user(name) {
                Some(user) => format!("{name}: {}", profile_text(&user.profile)),
                None => format!("no {name}"),
            },
            Show::Floors(name) => {
                let known = self.router.user(name).into_iter().flat_map(|user| user.floors.keys());
                let floor = |channel| Some((channel, self.router.floor(name, channel, self.moment().utc)?));
                let mut floors: Vec<_> = known.filter_map(floor).collect();
                floors.sort_by_key(|(channel, _)| *channel);
                let text = |(channel, floor): &(&_, Floor)| {
                    format!(
                        "{channel} after #{}{}",
                        floor.position.0,
                        if floor.left.is_some() { " (left)" } else { "" }
                    )
                };
                match floors.is_empty() {
                    true => format!("no floors of {name}"),
                    false => labelled(&format!("floors of {name}:"), floors.iter().map(text)),
                }
            }
            Show::Totals => {
                let totals = self.router.totals();
                format!("posted {}, delivered {}", totals.posted, totals.delivered)
            }
            Show::Head => format!("head {}", self.router.head().0),
        }
    }
}

impl Said {
    fn audience(&self) -> Audience {
        Audience { only: self.only.clone().into(), except: self.except.clone().into() }
    }

    fn time(&self) -> Option<Timestamp> {
        self.dated.map(|year| Timestamp::parse(&format!("{year}-01-01T00:00")).expect("a time"))
    }
}

fn user_state(pairs: &State) -> UserState {
    let mut state = UserState::default();
    pairs.iter().for_each(|(key, value)| state.set(key, value.clone()));
    state
}

fn public_keys(keys: &[String]) -> PublicKeys {
    keys.iter().map(|key| key.as_str().into()).collect()
}

fn found_text(found: bool) -> String {
    if found { "gone" } else { "unknown" }.to_owned()
}

fn epoch(text: &str) -> Epoch {
    Epoch::parse(text).expect("an epoch")
}

fn floor_at(since: Since) -> FloorAt {
    match since {
        Since::Earliest => FloorAt::Earliest,
        Since::Cursor(Some(position)) => FloorAt::Cursor(Cursor { epoch: epoch("e"), position: Position(position) }),
        Since::Cursor(None) => FloorAt::Cursor(Cursor { epoch: epoch("x"), position: Position(0) }),
        Since::Time(seconds) => FloorAt::Time(clock() + Duration::from_secs(seconds)),
    }
}

fn next_uuid() -> Uuid {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    Uuid::from_u128(COUNT.fetch_add(1, Ordering::Relaxed).into())
}

fn body(text: &str) -> Body {
    RawValue::from_string(format!("{text:?}")).expect("a JSON text").into()
}
