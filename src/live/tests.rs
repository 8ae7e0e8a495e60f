use std::time::Duration;

use uuid::Uuid;

use super::*;
use crate::domain::message::{Audience, Message};
use crate::domain::names::Username;
use crate::domain::operation::PostOne;
use crate::domain::settings::ChannelSettings;
use crate::domain::timestamp::Timestamp;

fn moment() -> Moment {
    Moment { utc: Timestamp::parse("2026-01-01T00:00").unwrap().in_utc(), elapsed: Duration::ZERO }
}

fn room() -> ChannelName {
    ChannelName::parse("room").unwrap()
}

/// With a channel that stores nothing.
fn live() -> Live {
    let router = Router::new(Position::default(), Duration::from_secs(60), Uuid::new_v4);
    let mut live = Live::new(router, Epoch::parse("a1").unwrap(), 1 << 20);
    let kept = Event::ChannelKept { name: room(), uuid: Uuid::new_v4(), settings: ChannelSettings::default() };
    live.apply(&[kept], moment());
    live
}

fn post(uuid: u128) -> Post {
    let message = Message {
        uuid: Uuid::from_u128(uuid),
        channel: Some(room()),
        sender: Username::parse("ann").unwrap(),
        body: None,
        timestamp: Timestamp::utc(moment().utc),
        edited: None,
        audience: Audience::default(),
        no_history: false,
    };
    Post { messages: vec![PostOne { message: message.into(), uuid_given: false }], posted: Vec::new() }
}

/// What was shown in the room so far.
fn shown(live: &Live) -> Vec<u128> {
    let frames = live.router.channel(&room()).unwrap().recent.after(Tick(0));
    frames
        .map(|frame| match frame {
            Frame::Message { message, .. } => message.uuid.as_u128(),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

#[test]
fn what_nobody_stores_waits_only_for_what_shows_in_the_same_place() {
    let mut live = live();
    let elsewhere = live.depart(vec![Key::Channel(ChannelName::parse("elsewhere").unwrap())]);
    assert!(matches!(live.post(post(1), moment()), Posting::Shown(_)));
    let here = live.depart(vec![Key::Channel(room())]);
    let Posting::Parked { .. } = live.post(post(2), moment()) else { panic!("it does not wait") };
    live.arrive(elsewhere);
    assert!(!live.show_parked(u64::MAX, moment(), soon()));
    assert_eq!(shown(&live), [1]);
    live.arrive(here);
    assert!(!live.show_parked(u64::MAX, moment(), soon()));
    assert_eq!(shown(&live), [1, 2]);
}

#[test]
fn what_is_parked_is_not_overtaken_while_others_get_the_lock() {
    let mut live = live();
    let before = live.depart(vec![Key::Channel(room())]);
    let parked: Vec<Posting> = (1..=3).map(|uuid| live.post(post(uuid), moment())).collect();
    assert!(parked.iter().all(|posting| matches!(posting, Posting::Parked { .. })));
    live.arrive(before);
    // The time of the first hold is over at once.
    assert!(live.show_parked(u64::MAX, moment(), Instant::now()));
    let Posting::Parked { .. } = live.post(post(4), moment()) else { panic!("it overtook") };
    assert!(!live.show_parked(u64::MAX, moment(), soon()));
    assert!(matches!(live.post(post(5), moment()), Posting::Shown(_)));
    assert_eq!(shown(&live), [1, 2, 3, 4, 5]);
}

#[test]
fn what_has_waited_for_too_long_is_shown_alone() {
    let mut live = live();
    let stuck = live.depart(vec![Key::Channel(room())]);
    let Posting::Parked { .. } = live.post(post(1), moment()) else { panic!("it does not wait") };
    let Posting::Parked { number: second, mut answer, .. } = live.post(post(2), moment()) else {
        panic!("it does not wait")
    };
    live.free_parked(second);
    assert!(!live.show_parked(second + 1, moment(), soon()));
    assert!(matches!(answer.try_recv(), Ok(Unparked::Shown(_))));
    live.arrive(stuck);
    assert!(!live.show_parked(u64::MAX, moment(), soon()));
    assert_eq!(shown(&live), [2, 1]);
}

#[test]
fn more_than_one_hold_takes_is_shown_whole_and_nothing_comes_between() {
    let mut live = live();
    let mut many = post(0);
    many.messages = (1..=1_000).flat_map(|uuid| post(uuid).messages).collect();
    let places = many.shows_in();
    let Posting::Parked { mut answer, .. } = live.post_many(many, places) else { panic!("it is shown in one hold") };
    assert!(live.show_parked(u64::MAX, moment(), Instant::now()));
    assert!(answer.try_recv().is_err() && shown(&live).is_empty());
    let Posting::Parked { .. } = live.post(post(1_001), moment()) else { panic!("it overtook") };
    assert!(!live.show_parked(u64::MAX, moment(), soon()));
    let Ok(Unparked::Shown(posted)) = answer.try_recv() else { panic!("it is not shown") };
    assert!(posted.iter().map(|one| one.message.uuid.as_u128()).eq(1..=1_000));
    assert!(shown(&live).ends_with(&[999, 1_000, 1_001]));
}

#[test]
fn what_is_stored_by_now_goes_to_the_journal() {
    let mut live = live();
    let change = live.depart(vec![Key::Channel(room())]);
    let Posting::Parked { mut answer, .. } = live.post(post(1), moment()) else { panic!("it does not wait") };
    let settings = ChannelSettings { store_history: true, ..ChannelSettings::default() };
    live.apply(&[Event::ChannelKept { name: room(), uuid: Uuid::new_v4(), settings }], moment());
    live.arrive(change);
    assert!(!live.show_parked(u64::MAX, moment(), soon()));
    let Ok(Unparked::ForTheJournal { shown, rest }) = answer.try_recv() else { panic!("it is shown") };
    assert!(shown.is_empty() && rest.messages.len() == 1);
}

#[test]
fn what_was_waited_for_is_done_and_still_nothing_overtakes() {
    let mut live = live();
    let before = live.depart(vec![Key::Channel(room())]);
    let Posting::Parked { is_free: false, .. } = live.post(post(1), moment()) else { panic!("it does not wait") };
    // The journal gives the lock away before it comes to what is parked.
    live.arrive(before);
    let Posting::Parked { number, is_free: true, .. } = live.post(post(2), moment()) else { panic!("it overtook") };
    assert!(!live.show_parked(number + 1, moment(), soon()));
    assert_eq!(shown(&live), [1, 2]);
    assert!(matches!(live.post(post(3), moment()), Posting::Shown(_)));
}

#[test]
fn nothing_waits_for_what_is_parked_no_more() {
    let mut live = live();
    let stuck = live.depart(vec![Key::Channel(room())]);
    let mut many = post(0);
    many.messages = (1..=300).flat_map(|uuid| post(uuid).messages).collect();
    let places = many.shows_in();
    let Posting::Parked { number, .. } = live.post_many(many, places) else { panic!("it does not wait") };
    live.arrive(stuck);
    assert!(live.show_parked(u64::MAX, moment(), Instant::now()));
    live.free_parked(number);
    assert!(!live.show_parked(number + 1, moment(), soon()));
    assert!(matches!(live.post(post(301), moment()), Posting::Shown(_)));
}
