//! What can be run: one file a scenario. Those that any contender can be put through have `Options` that
//! are a [`compare::Scenario`]; the others have `Options` and `run`.

mod big_store;
mod channels;
mod connect_storm;
#[cfg(feature = "charts")]
mod curves;
mod fan_out;
mod growth;
mod idle;
mod publish;
mod reconnect_storm;

use clap::{Args, Command, Subcommand};

use crate::compare;

/// A scenario and its options.
#[derive(Debug, Subcommand)]
pub enum Scenario {
    FanOut(fan_out::Options),
    Publish(publish::Options),
    Idle(idle::Options),
    Channels(channels::Options),
    ConnectStorm(connect_storm::Options),
    ReconnectStorm(reconnect_storm::Options),
    BigStore(big_store::Options),
    Growth(growth::Options),
    #[cfg(feature = "charts")]
    Curves(curves::Options),
}

impl Scenario {
    /// Runs it, prints its figures, and fails if a server did not do what it promises.
    pub async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::FanOut(options) => compare::run(&options, &options.comparison).await,
            Self::Publish(options) => compare::run(&options, &options.comparison).await,
            Self::Idle(options) => compare::run(&options, &options.comparison).await,
            Self::Channels(options) => compare::run(&options, &options.comparison).await,
            Self::ConnectStorm(options) => compare::run(&options, &options.comparison).await,
            Self::ReconnectStorm(options) => reconnect_storm::run(options).await,
            Self::BigStore(options) => big_store::run(options).await,
            Self::Growth(options) => growth::run(options).await,
            #[cfg(feature = "charts")]
            Self::Curves(options) => curves::run(options).await,
        }
    }
}

/// The options of a scenario as they are when nothing is said.
fn with_defaults<O: Args>() -> O {
    let mut matches = O::augment_args(Command::new("")).get_matches_from([""]);
    O::from_arg_matches_mut(&mut matches).expect("every option has a default")
}
