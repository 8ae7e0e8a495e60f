//! The sweeper: what has to be done because time passes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::hub::Hub;

/// How often connections are looked at. Source: the stock server.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How often messages are looked for that are past their time: nobody is shown them meanwhile.
const EXPIRE_EVERY: Duration = Duration::from_secs(5);
/// How often users are looked at: far more often than any sensible limit of days.
const FORGET_EVERY: Duration = Duration::from_secs(600);

/// Runs until it is dropped. `forget_users_after`: none keeps users for ever.
pub async fn run(hub: Arc<Hub>, forget_users_after: Option<Duration>) {
    let mut sweep = interval(SWEEP_EVERY);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut expire = interval(EXPIRE_EVERY);
    expire.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut forget = interval(FORGET_EVERY);
    loop {
        tokio::select! {
            _ = sweep.tick() => hub.sweep().await,
            _ = expire.tick() => hub.expire_messages().await,
            _ = forget.tick() => {
                hub.expire_floors().await;
                if let Some(after) = forget_users_after {
                    hub.forget_users(after).await;
                }
            }
        }
    }
}
