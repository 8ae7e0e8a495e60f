//! What grows that should not? CPU time of a delivery, with ten times as many listeners.

use clap::Args;

use super::fan_out;
use super::with_defaults;
use crate::compare::{Comparison, Scenario};
use crate::contender::Contender;
use crate::figures::Figures;

/// The figure of `fan-out` that is compared.
const CPU: &str = "saturated: server CPU, µs/delivery";

/// What should not grow: CPU time of a delivery over listeners
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Listeners of one channel: few and many
    #[arg(long, value_delimiter = ',', num_args = 2, default_value = "1000,10000")]
    listeners: Vec<usize>,
    /// Seconds of each saturated phase
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    #[command(flatten)]
    pub comparison: Comparison,
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
