//! What can be run: one file a scenario. Those that any contender can be put through have `Options` that
//! are a [`compare::Scenario`]; the others have `Options` and `run`.

mod big_store;
mod fan_out;
mod publish;
mod reconnect_storm;

use clap::Subcommand;

use crate::compare::{self, Comparison, Results};

/// A scenario and its options.
#[derive(Debug, Subcommand)]
pub enum Scenario {
    FanOut(fan_out::Options),
    Publish(publish::Options),
    BigStore(big_store::Options),
    ReconnectStorm(reconnect_storm::Options),
}

impl Scenario {
    /// Runs it, prints its figures, and fails if a server did not do what it promises.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let json = self.comparison_mut().and_then(|comparison| comparison.json.clone());
        if let Some(results) = self.compare().await {
            return results.report(json.as_deref());
        }
        match self {
            Self::BigStore(options) => big_store::run(options).await,
            Self::ReconnectStorm(options) => reconnect_storm::run(options).await,
            Self::FanOut(_) | Self::Publish(_) => unreachable!("contenders are compared"),
        }
    }

    /// Puts all contenders through it that were asked for; none: it is not for contenders.
    pub async fn compare(&self) -> Option<Results> {
        match self {
            Self::FanOut(options) => Some(compare::measure(options, &options.comparison).await),
            Self::Publish(options) => Some(compare::measure(options, &options.comparison).await),
            Self::BigStore(_) | Self::ReconnectStorm(_) => None,
        }
    }

    /// Who is to be compared.
    pub fn comparison_mut(&mut self) -> Option<&mut Comparison> {
        match self {
            Self::FanOut(options) => Some(&mut options.comparison),
            Self::Publish(options) => Some(&mut options.comparison),
            Self::BigStore(_) | Self::ReconnectStorm(_) => None,
        }
    }
}
