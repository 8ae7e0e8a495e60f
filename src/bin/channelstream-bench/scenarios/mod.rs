//! What can be run: one file a scenario. Each has `Options`, read from the command line, and `run`.

mod big_store;
mod fan_out;
mod locks;
mod reconnect_storm;

use clap::Subcommand;

/// A scenario and its options.
#[derive(Debug, Subcommand)]
pub enum Scenario {
    FanOut(fan_out::Options),
    BigStore(big_store::Options),
    Locks(locks::Options),
    ReconnectStorm(reconnect_storm::Options),
}

impl Scenario {
    /// Runs it, prints its figures, and fails if the server did not do what it promises.
    pub async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::FanOut(options) => fan_out::run(options).await,
            Self::BigStore(options) => big_store::run(options).await,
            Self::Locks(options) => locks::run(options).await,
            Self::ReconnectStorm(options) => reconnect_storm::run(options).await,
        }
    }
}
