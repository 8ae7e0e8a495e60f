//! What every request of a back end costs before anything is decided: its signature is verified and
//! its JSON is read.

mod support;

use std::hint::black_box;

use channelstream::signature::Signer;
use channelstream::wire::request;
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use serde_json::json;

use support::{messages, moment};

fn main() {
    divan::main();
}

const NOW: u32 = 1_780_000_000;

/// A good signature.
#[divan::bench]
fn verify(bencher: Bencher) {
    let signer = Signer::new("secret");
    let token = signer.sign("channelstream", NOW.into());
    bencher.bench_local(|| signer.verify(black_box(&token), NOW.into(), Some(60)));
}

/// The body of `POST /message` with so many messages.
#[divan::bench(args = [1, 100])]
fn post(bencher: Bencher, count: usize) {
    let body = messages(0, count);
    let now = moment().timestamp();
    bencher
        .counter(ItemsCount::new(count))
        .counter(BytesCount::of_slice(&body))
        .bench_local(|| request::post(black_box(&body), now));
}

/// The body of `/connect` with so many channels.
#[divan::bench(args = [1, 100])]
fn connect(bencher: Bencher, channels: usize) {
    let names: Vec<String> = (0..channels).map(|index| format!("channel-{index}")).collect();
    let body = json!({ "username": "user", "channels": names, "fresh_user_state": { "name": "User" } }).to_string();
    bencher.counter(BytesCount::of_str(&body)).bench_local(|| request::connect(black_box(body.as_bytes())));
}
