//! What can be run: one file a scenario. Those that any contender can be put through have `Options` that
//! are a [`compare::Scenario`]; the others have `Options` and `run`.

mod big_store;
mod channels;
mod connect_growth;
mod connect_storm;
#[cfg(feature = "charts")]
mod curves;
mod fan_out;
mod growth;
mod idle;
mod locks;
mod publish;
mod reconnect_storm;

use clap::{Args, Command, Subcommand};

use crate::compare::{self, Comparison, Results};

/// A scenario and its options.
#[derive(Debug, Subcommand)]
pub enum Scenario {
    FanOut(fan_out::Options),
    Publish(publish::Options),
    Idle(idle::Options),
    Channels(channels::Options),
    ConnectStorm(connect_storm::Options),
    Locks(locks::Options),
    ReconnectStorm(reconnect_storm::Options),
    BigStore(big_store::Options),
    Growth(growth::Options),
    ConnectGrowth(connect_growth::Options),
    #[cfg(feature = "charts")]
    Curves(curves::Options),
}

impl Scenario {
    /// Runs it, prints its figures, and fails if a server did not do what it promises.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let json = self.comparison_mut().and_then(|comparison| comparison.json.clone());
        if let Some(results) = self.compare().await {
            return results.report(json.as_deref());
        }
        match self {
            Self::Locks(options) => locks::run(options).await,
            Self::ReconnectStorm(options) => reconnect_storm::run(options).await,
            Self::BigStore(options) => big_store::run(options).await,
            Self::ConnectGrowth(options) => connect_growth::run(options).await,
            #[cfg(feature = "charts")]
            Self::Curves(options) => curves::run(options).await,
            _ => unreachable!("contenders are compared"),
        }
    }

    /// Puts all contenders through it that were asked for; none: it is not for contenders.
    pub async fn compare(&self) -> Option<Results> {
        match self {
            Self::FanOut(options) => Some(compare::measure(options, &options.comparison).await),
            Self::Publish(options) => Some(compare::measure(options, &options.comparison).await),
            Self::Idle(options) => Some(compare::measure(options, &options.comparison).await),
            Self::Channels(options) => Some(compare::measure(options, &options.comparison).await),
            Self::ConnectStorm(options) => Some(compare::measure(options, &options.comparison).await),
            Self::Growth(options) => Some(compare::measure(options, &options.comparison).await),
            _ => None,
        }
    }

    /// Who is to be compared.
    pub fn comparison_mut(&mut self) -> Option<&mut Comparison> {
        match self {
            Self::FanOut(options) => Some(&mut options.comparison),
            Self::Publish(options) => Some(&mut options.comparison),
            Self::Idle(options) => Some(&mut options.comparison),
            Self::Channels(options) => Some(&mut options.comparison),
            Self::ConnectStorm(options) => Some(&mut options.comparison),
            Self::Growth(options) => Some(&mut options.comparison),
            _ => None,
        }
    }
}

/// The options of a scenario as they are when nothing is said.
fn with_defaults<O: Args>() -> O {
    let mut matches = O::augment_args(Command::new("")).get_matches_from([""]);
    O::from_arg_matches_mut(&mut matches).expect("every option has a default")
}
