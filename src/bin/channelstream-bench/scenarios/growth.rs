//! What grows that should not? CPU time of a delivery, with ten times as many listeners; and the time
//! that `/connect` takes, with a thousand times as many channels and users in the store.

use clap::Args;

use super::big_store;
use super::fan_out;
use super::with_defaults;
use crate::compare::{self, Comparison, Scenario};
use crate::contender::{Contender, Kind};
use crate::figures::Figures;

/// The figure of `fan-out` that is compared.
const CPU: &str = "saturated: server CPU, µs/delivery";

/// What should not grow: CPU of a delivery over listeners, `/connect` over what is stored
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Listeners of one channel: few and many
    #[arg(long, value_delimiter = ',', num_args = 2, default_value = "1000,10000")]
    listeners: Vec<usize>,
    /// Channels, and as many users, in the store: few and many
    #[arg(long, value_delimiter = ',', num_args = 2, default_value = "100,100000")]
    stored: Vec<u64>,
    /// Seconds of each saturated phase
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    #[command(flatten)]
    pub comparison: Comparison,
}

/// Runs it.
///
/// # Errors
/// If a server cannot be driven, or does not do what it should.
pub async fn run(options: Options) -> anyhow::Result<()> {
    compare::run(&options, &options.comparison).await?;
    if options.comparison.contenders.contains(&Kind::Ours) {
        big_store::compare_connects(&options.stored).await?;
    }
    Ok(())
}

impl Scenario for Options {
    fn title(&self) -> String {
        "growth: CPU time of a delivery over the number of listeners".to_owned()
    }

    async fn measure(&self, contender: &Contender) -> anyhow::Result<Figures> {
        let mut figures = Figures::default();
        let mut costs = Vec::new();
        for listeners in &self.listeners {
            let fan_out = fan_out::Options {
                listeners: *listeners,
                seconds: self.seconds,
                paced: 0,
                ..with_defaults::<fan_out::Options>()
            };
            let cpu = fan_out.measure(contender).await?.get(CPU);
            figures.add(format!("{listeners} listeners: server CPU, µs/delivery"), 3, cpu);
            costs.extend(cpu);
        }
        let ratio = costs.first().zip(costs.last()).map(|(few, many)| many / few);
        figures.add("many listeners / few", 2, ratio);
        Ok(figures)
    }
}
