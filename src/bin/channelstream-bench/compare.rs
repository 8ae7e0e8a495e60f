//! Puts contenders through the same scenario, in turns, and shows the medians side by side.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;
use serde::Serialize;

use crate::contender::{Contender, Kind, Setup};
use crate::figures::Figures;
use crate::report::write_json;

/// A scenario that any contender can be put through.
pub trait Scenario {
    /// What it does, with its options.
    fn title(&self) -> String;

    /// What it wants of a contender.
    fn setup(&self) -> Setup {
        Setup::default()
    }

    /// Puts one through it.
    ///
    /// # Errors
    /// If it cannot be driven, or does not do what it should.
    async fn measure(&self, contender: &Contender) -> anyhow::Result<Figures>;
}

/// Who is measured, and how often.
#[derive(Debug, Clone, Args)]
pub struct Comparison {
    /// Who are measured, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "ours")]
    pub contenders: Vec<Kind>,
    /// How often each is measured, in turns; medians are shown
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Whose figures the others' are divided by; without it the first
    #[arg(long, value_enum)]
    pub base: Option<Kind>,
    /// Also writes all figures here
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// A Channelstream server that runs already, instead of contenders that are started
    #[arg(long, requires = "secret", conflicts_with = "contenders")]
    pub url: Option<String>,
    /// Its secret
    #[arg(long, requires = "url")]
    pub secret: Option<String>,
    /// Its process id, if it runs here, to measure what it costs
    #[arg(long, requires = "url")]
    pub pid: Option<u32>,
}

/// All runs of a scenario.
#[derive(Debug, Serialize)]
pub struct Results {
    /// What was done.
    pub title: String,
    /// Whose figures the others' are divided by.
    pub base: Kind,
    /// In the order in which they were asked for.
    pub contenders: Vec<Kind>,
    /// Of each contender.
    pub medians: BTreeMap<String, Figures>,
    /// Of each contender, one a round.
    pub runs: BTreeMap<String, Vec<Figures>>,
    /// What went wrong.
    pub failures: Vec<String>,
}

/// Measures all contenders; where one fails the others are measured all the same.
pub async fn measure(scenario: &impl Scenario, comparison: &Comparison) -> Results {
    let mut runs: BTreeMap<String, Vec<Figures>> = BTreeMap::new();
    let mut failures: Vec<String> = Vec::new();
    for round in 0..comparison.rounds {
        for index in 0..comparison.contenders.len() {
            // Another one begins each time, in case it matters who comes after whom.
            let kind = comparison.contenders[(index + round as usize) % comparison.contenders.len()];
            match measure_one(scenario, comparison, kind).await {
                Ok(figures) => runs.entry(kind.to_string()).or_default().push(figures),
                Err(error) => failures.push(format!("{kind}, round {}: {error:#}", round + 1)),
            }
        }
    }
    let medians = runs.iter().map(|(kind, runs)| (kind.clone(), Figures::medians(runs))).collect();
    let contenders = comparison.contenders.clone();
    let base = comparison.base.unwrap_or(contenders[0]);
    Results { title: scenario.title(), base, contenders, medians, runs, failures }
}

async fn measure_one(scenario: &impl Scenario, comparison: &Comparison, kind: Kind) -> anyhow::Result<Figures> {
    let contender = match (&comparison.url, &comparison.secret) {
        (Some(url), Some(secret)) => Contender::running(url, secret, comparison.pid, &scenario.setup())?,
        _ => Contender::start(kind, &scenario.setup()).await?,
    };
    let measured = scenario.measure(&contender).await;
    for line in contender.complaints() {
        eprintln!("{kind}: {line}");
    }
    measured
}

impl Results {
    /// Prints them, and writes them to a file if one is wanted.
    ///
    /// # Errors
    /// If a contender could not be driven, or did not do what it should.
    pub fn report(&self, json: Option<&Path>) -> anyhow::Result<()> {
        println!("{}", self.markdown());
        write_json(json, self)?;
        if !self.failures.is_empty() {
            bail!("{}", self.failures.join("\n"));
        }
        Ok(())
    }

    /// A table: a line for each figure, a column for each contender; behind each figure its ratio to the
    /// base's.
    pub fn markdown(&self) -> String {
        let mut text = format!("{}\n\n|", self.title);
        let base = self.medians.get(&self.base.to_string());
        let names: Vec<String> = self.contenders.iter().map(ToString::to_string).collect();
        let alone = names.len() == 1;
        // Writing to a text cannot fail.
        for name in [""].into_iter().chain(names.iter().map(String::as_str)) {
            let _ = write!(text, " {name} |");
        }
        let _ = write!(text, "\n|---|{}\n", "---:|".repeat(names.len()));
        let longest = self.medians.values().max_by_key(|figures| figures.iter().count());
        for figure in longest.into_iter().flat_map(Figures::iter) {
            let _ = write!(text, "| {} |", figure.name);
            for name in &names {
                let value = self.medians.get(name).and_then(|figures| figures.get(&figure.name));
                let ratio = value.zip(base.and_then(|figures| figures.get(&figure.name)));
                let ratio = ratio.filter(|(_, base)| !alone && *base != 0.0).map(|(value, base)| value / base);
                let value = value.map_or_else(|| "-".to_owned(), |value| grouped(value, figure.decimals));
                let ratio = ratio.map_or_else(String::new, |ratio| format!(" ({ratio:.2}×)"));
                let _ = write!(text, " {value}{ratio} |");
            }
            text.push('\n');
        }
        text
    }
}

/// A number with commas between its thousands.
pub fn grouped(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_show_ratios() {
        let figures = |value: f64| {
            let mut figures = Figures::default();
            figures.add("messages/s", 1, value);
            figures
        };
        let medians = BTreeMap::from([("ours".to_owned(), figures(1_234_567.25)), ("nchan".to_owned(), figures(0.5))]);
        let results = Results {
            title: "what".to_owned(),
            base: Kind::Nchan,
            contenders: vec![Kind::Ours, Kind::Nchan, Kind::Limit],
            medians,
            runs: BTreeMap::new(),
            failures: Vec::new(),
        };
        let expected = "what\n\n|  | ours | nchan | limit |\n|---|---:|---:|---:|\n\
                        | messages/s | 1,234,567.2 (2469134.50×) | 0.5 (1.00×) | - |\n";
        assert_eq!(results.markdown(), expected);
    }

    #[test]
    fn thousands_are_separated() {
        assert_eq!([grouped(-123.0, 0), grouped(-1_234.5, 1), grouped(99.0, 2)], ["-123", "-1,234.5", "99.00"]);
    }
}
