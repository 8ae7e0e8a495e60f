//! A listener's mailbox: putting a piece in, and taking all that waits. One listener; see `router`
//! for many.

mod support;

use std::sync::Arc;

use channelstream::domain::frame::Tick;
use channelstream::mailbox::{Call, Mailbox};
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
    let mailbox = Arc::new(Mailbox::new(Tick(0)));
    let piece = piece();
    bencher.counter(ItemsCount::new(pieces)).bench_local(|| {
        for _ in 0..pieces {
            if let Some(Call::Wake(task)) = mailbox.push(&piece, usize::MAX) {
                task.wake();
            }
        }
        take(&mailbox)
    });
}

/// A new mailbox, filled once.
#[divan::bench]
fn first_push(bencher: Bencher) {
    let piece = piece();
    bencher
        .with_inputs(|| Arc::new(Mailbox::new(Tick(0))))
        .bench_local_refs(|mailbox| mailbox.push(&piece, usize::MAX));
}

/// Looks into an empty one.
#[divan::bench]
fn take_nothing(bencher: Bencher) {
    let mailbox = Arc::new(Mailbox::new(Tick(0)));
    bencher.bench_local(|| take(&mailbox));
}
