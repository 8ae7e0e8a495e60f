//! Heartbeats: every listener whose connection stays open gets one each interval, but not all at
//! the same moment, and without a timer for each.

use std::sync::Weak;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::hub::Hub;

/// How often some listeners get theirs, if the interval is long.
const STEP: Duration = Duration::from_millis(100);
/// Fewest parts: the first heartbeat may come early by one of them.
const FEWEST_PARTS: u32 = 8;
/// Most parts, however long the interval is: each takes a little memory.
const MOST_PARTS: u32 = 1_000;

/// Runs as long as there is the hub. `every`: the time between two heartbeats of a listener.
pub async fn run(hub: Weak<Hub>, every: Duration) {
    let parts = u32::try_from(every.as_millis() / STEP.as_millis()).unwrap_or(u32::MAX).clamp(FEWEST_PARTS, MOST_PARTS);
    let mut step = interval((every / parts).max(Duration::from_millis(1)));
    step.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for part in (0..parts).cycle() {
        step.tick().await;
        let Some(hub) = hub.upgrade() else { return };
        hub.beat(part as usize, parts as usize);
    }
}
