//! The live state under the one lock: what a post, a connect, a replay and `/info` cost there. No
//! store, no sockets. `listeners` and `members` are those of one channel.

mod support;

use std::cell::RefCell;
use std::hint::black_box;

use channelstream::domain::event::Event;
use channelstream::domain::names::{ChannelName, ConnectionId};
use channelstream::domain::operation::Connect;
use channelstream::domain::position::Position;
use channelstream::domain::replay::Since;
use channelstream::domain::view::{ChannelsView, InfoOptions};
use channelstream::wire::reply;
use divan::Bencher;
use divan::counter::ItemsCount;

use support::{World, channel, connect, epoch, moment, post, take};

fn main() {
    divan::main();
}

/// One message is applied, and lies in the mailboxes of all listeners, which were empty.
#[divan::bench(args = [1, 100, 1_000, 10_000], sample_size = 1)]
fn post_to_listeners(bencher: Bencher, listeners: usize) {
    let (world, mailboxes) = World::with_listeners(listeners, false);
    let world = RefCell::new(world);
    bencher
        .counter(ItemsCount::new(listeners))
        .with_inputs(|| {
            mailboxes.iter().map(|mailbox| take(mailbox)).sum::<usize>();
            world.borrow().decide(&mut post(0, 1))
        })
        .bench_local_refs(|events| world.borrow_mut().apply(events));
}

/// The same with 100 messages at once: they become one piece.
#[divan::bench(args = [1_000], sample_size = 1)]
fn post_100_to_listeners(bencher: Bencher, listeners: usize) {
    let (world, mailboxes) = World::with_listeners(listeners, false);
    let world = RefCell::new(world);
    bencher
        .counter(ItemsCount::new(100 * listeners))
        .with_inputs(|| {
            mailboxes.iter().map(|mailbox| take(mailbox)).sum::<usize>();
            world.borrow().decide(&mut post(0, 100))
        })
        .bench_local_refs(|events| world.borrow_mut().apply(events));
}

/// A message is decided and applied in a channel that logs; nobody listens.
#[divan::bench]
fn post_logged(bencher: Bencher) {
    let mut world = World::new();
    world.perform(connect(0, [0], true));
    bencher.with_inputs(|| post(0, 1)).bench_local_values(|post| world.perform(post));
}

/// A user is let in to a channel with so many members, who are told; the answer lists them all.
#[divan::bench(args = [1, 100, 1_000], sample_size = 1)]
fn connect_to_members(bencher: Bencher, members: usize) {
    connect_as(bencher, members, |connect| connect);
}

/// The same, but the answer lists no users.
#[divan::bench(args = [1, 100, 1_000], sample_size = 1)]
fn connect_unlisted(bencher: Bencher, members: usize) {
    let info = InfoOptions { include_users: false, ..InfoOptions::default() };
    connect_as(bencher, members, |connect| Connect { info: info.clone(), ..connect });
}

fn connect_as(bencher: Bencher, members: usize, change: impl Fn(Connect) -> Connect) {
    let (world, mailboxes) = World::with_listeners(members, false);
    let state = RefCell::new((world, None::<ConnectionId>));
    bencher
        .with_inputs(|| {
            let (world, last) = &mut *state.borrow_mut();
            let ended = last.take().map(|id| Event::ConnectionEnded { id });
            world.apply(ended.as_slice());
            mailboxes.iter().map(|mailbox| take(mailbox)).sum::<usize>();
            change(connect(members, [0], false))
        })
        .bench_local_values(|connect| {
            let (world, last) = &mut *state.borrow_mut();
            let connected = world.perform(connect);
            *last = Some(connected.id);
            connected
        });
}

/// What a listener with so many channels has to read when it comes back.
#[divan::bench(args = [1, 10, 100])]
fn plan_replay(bencher: Bencher, channels: usize) {
    let (world, id) = returning(channels, 0);
    bencher.bench_local(|| world.live.router.plan_replay(black_box(id), &Since::Floors, moment()));
}

/// 100 missed messages, spread over so many channels, come from memory.
#[divan::bench(args = [1, 10, 100])]
fn replay_from_memory(bencher: Bencher, channels: usize) {
    const MISSED: usize = 100;
    let (mut world, id) = returning(channels, MISSED / channels);
    let plan = world.live.router.plan_replay(id, &Since::Floors, moment()).expect("a known connection");
    let router = &mut world.live.router;
    bencher
        .counter(ItemsCount::new(MISSED))
        .bench_local(|| router.missed_logged(black_box(&plan), Position(0), MISSED + 1, moment()));
}

fn returning(channels: usize, messages: usize) -> (World, ConnectionId) {
    let mut world = World::new();
    let id = world.perform(connect(0, 0..channels, true)).id;
    (0..channels).for_each(|index| drop(world.perform(post(index, messages))));
    (world, id)
}

fn view(world: &World, names: &[ChannelName]) -> ChannelsView {
    let glance = world.live.router.glance(names, &InfoOptions::default(), None, usize::MAX, moment());
    ChannelsView { channels: glance.channels, ..ChannelsView::default() }
}

/// `/info` about so many channels with 10 messages and a member each: the view, under the lock.
#[divan::bench(args = [1, 100, 1_000])]
fn info_view(bencher: Bencher, channels: usize) {
    let (world, _) = returning(channels, 10);
    let names: Vec<_> = (0..channels).map(channel).collect();
    bencher.counter(ItemsCount::new(channels)).bench_local(|| view(&world, black_box(&names)));
}

/// The same: the answer's text, without the lock.
#[divan::bench(args = [1, 100, 1_000])]
fn info_text(bencher: Bencher, channels: usize) {
    let (world, _) = returning(channels, 10);
    let names: Vec<_> = (0..channels).map(channel).collect();
    let view = view(&world, &names);
    bencher.counter(ItemsCount::new(channels)).bench_local(|| reply::channels(black_box(&view), &epoch()));
}
