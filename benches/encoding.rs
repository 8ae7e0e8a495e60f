//! Encoding: frames as JSON text for listeners, and answers for back ends.

mod support;

use std::hint::black_box;

use channelstream::domain::frame::{Frame, Presence};
use channelstream::domain::operation::Posted;
use channelstream::domain::position::Position;
use channelstream::wire::{frame, reply};
use divan::Bencher;
use divan::counter::BytesCount;
use uuid::Uuid;

use support::{World, channel, connect, epoch, moment, post};

fn main() {
    divan::main();
}

/// A message of 200 bytes of text, with a cursor.
#[divan::bench]
fn message(bencher: Bencher) {
    let message = post(0, 1).messages.remove(0).message;
    encode(bencher, &Frame::Message { position: Some(Position(123_456)), message });
}

/// A user joins; the frame lists so many members.
#[divan::bench(args = [0, 100])]
fn presence(bencher: Bencher, members: usize) {
    let mut world = World::new();
    let connected = world.perform(connect(0, [0], false));
    let presence = Presence {
        uuid: Uuid::new_v4(),
        channel: channel(0),
        user: connected.user.clone(),
        joined: Some(connected.profile.clone()),
        members: vec![(connected.user, connected.profile); members],
        time: moment().utc,
    };
    encode(bencher, &Frame::Presence(presence.into()));
}

/// Into a buffer that has room.
fn encode(bencher: Bencher, shown: &Frame) {
    let epoch = epoch();
    let mut text = Vec::new();
    frame::write(shown, false, &epoch, &mut text);
    bencher.counter(BytesCount::new(text.len())).bench_local(|| {
        text.clear();
        frame::write(black_box(shown), false, &epoch, &mut text);
    });
}

/// The answer to `POST /message` with so many messages.
#[divan::bench(args = [1, 100])]
fn posted(bencher: Bencher, count: usize) {
    let of =
        |(index, message): (usize, _)| Posted { message, position: Some(Position(index as u64)), duplicate: false };
    let messages = post(0, count).messages.into_iter().map(|one| one.message);
    let posted: Vec<Posted> = messages.enumerate().map(of).collect();
    let epoch = epoch();
    bencher
        .counter(BytesCount::new(reply::posted(&posted, &epoch).len()))
        .bench_local(|| reply::posted(black_box(&posted), &epoch));
}
