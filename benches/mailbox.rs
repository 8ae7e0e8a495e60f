//! A listener's mailbox: putting a piece in, and taking all that waits. One listener; see `router`
//! for many.

mod support;

use std::sync::Arc;

use channelstream::domain::frame::Tick;
use channelstream::mailbox::Mailbox;
use channelstream::piece::Piece;
use divan::Bencher;
use divan::counter::ItemsCount;

use support::take;

fn main() {
    divan::main();
}

fn piece() -> Arc<Piece> {
    Piece::new(&format!("[\"{}\"]", "x".repeat(support::TEXT)), Tick(1), None)
}

/// Puts so many pieces in, wakes the listener, and takes them.
#[divan::bench(args = [1, 10, 100])]
fn push_and_take(bencher: Bencher, pieces: usize) {
    let mailbox = Mailbox::new(Tick(0));
    let piece = piece();
    bencher.counter(ItemsCount::new(pieces)).bench_local(|| {
        for _ in 0..pieces {
            if let Some(waker) = mailbox.push(&piece, usize::MAX) {
                waker.wake();
            }
        }
        take(&mailbox)
    });
}

/// A new mailbox, filled once.
#[divan::bench]
fn first_push(bencher: Bencher) {
    let piece = piece();
    bencher.with_inputs(|| Mailbox::new(Tick(0))).bench_local_refs(|mailbox| mailbox.push(&piece, usize::MAX));
}

/// Looks into an empty one.
#[divan::bench]
fn take_nothing(bencher: Bencher) {
    let mailbox = Mailbox::new(Tick(0));
    bencher.bench_local(|| take(&mailbox));
}
