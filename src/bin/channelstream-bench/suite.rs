//! Everything that `docs/performance.md` shows, with one command: scenarios with their contenders, and
//! what we want of ourselves compared to the others.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, Parser};
use serde::Serialize;

use crate::compare::{Results, grouped};
use crate::contender::Kind;
use crate::contender::Kind::{History, Limit, LimitQ, Nchan, Nchan1, Original, Ours, Postgres};
use crate::report::write_json;
use crate::scenarios::Scenario;

/// A name, and the command line that measures it.
const SCENARIOS: [(&str, &str); 9] = [
    (
        "fan-out-1000",
        "fan-out --listeners 1000 --contenders ours,history,postgres,nchan,nchan1,limit,limit-q,original --base nchan1",
    ),
    ("fan-out-100", "fan-out --listeners 100 --contenders ours,nchan,nchan1,limit,limit-q,original --base nchan1"),
    ("fan-out-5000", "fan-out --listeners 5000 --contenders ours,nchan,nchan1,limit,limit-q --base nchan1 --paced 100"),
    ("publish-1", "publish --contenders ours,history,postgres,nchan,nchan1,limit,original --base nchan1"),
    ("publish-100", "publish --batch 100 --publishers 16 --contenders ours,history,postgres,original --base original"),
    ("idle", "idle --contenders ours,nchan1 --base nchan1"),
    ("connect-storm", "connect-storm --contenders ours,nchan1,original --base nchan1"),
    ("channels", "channels --contenders ours,nchan1 --base nchan1"),
    ("growth", "growth --contenders ours,nchan1"),
];

/// What is wanted: `figure` of `who` in a scenario, divided by that of the best of `against`, or as it is.
struct Target {
    scenario: &'static str,
    figure: &'static str,
    who: Kind,
    against: &'static [Kind],
    must: Option<Bound>,
    aim: Option<Bound>,
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}
use Bound::{AtLeast, AtMost};

const RIVALS: &[Kind] = &[Nchan, Nchan1, Original];
const RATE: &str = "saturated: deliveries/s";
const COST: &str = "saturated: server CPU, µs/delivery";
const SINGLE_P50: &str = "one at a time: delivery p50, ms";
const SINGLE_P99: &str = "one at a time: delivery p99, ms";
const SINGLE_COST: &str = "one at a time: server CPU, µs/delivery";
const POSTS: &str = "POSTs/s";
const MESSAGE_COST: &str = "server CPU, µs/message";

#[rustfmt::skip] // a table
const TARGETS: &[Target] = &[
    wanted("fan-out-1000", RATE, Ours, &[Nchan], Some(AtLeast(1.5)), None),
    wanted("fan-out-1000", RATE, Ours, &[Original], Some(AtLeast(25.0)), None),
    wanted("fan-out-1000", RATE, Ours, &[LimitQ], None, Some(AtLeast(0.4))),
    wanted("fan-out-1000", COST, Ours, &[Nchan1], Some(AtMost(0.5)), None),
    wanted("fan-out-1000", COST, Ours, &[], None, Some(AtMost(0.6))),
    wanted("fan-out-100", RATE, Ours, RIVALS, Some(AtLeast(1.3)), None),
    wanted("fan-out-100", RATE, Ours, &[LimitQ], None, Some(AtLeast(0.6))),
    wanted("fan-out-5000", RATE, Ours, RIVALS, Some(AtLeast(1.5)), None),
    wanted("fan-out-5000", RATE, Ours, &[LimitQ], None, Some(AtLeast(0.4))),
    wanted("fan-out-1000", SINGLE_P50, Ours, &[Nchan1], Some(AtMost(1.0)), None),
    wanted("fan-out-1000", SINGLE_P50, Ours, &[Original], Some(AtMost(1.0 / 3.0)), None),
    wanted("fan-out-1000", SINGLE_P50, Ours, &[Limit], None, Some(AtMost(1.1))),
    wanted("fan-out-1000", SINGLE_P99, Ours, &[Limit], None, Some(AtMost(1.3))),
    wanted("fan-out-1000", SINGLE_COST, Ours, &[Limit], Some(AtMost(1.2)), None),
    wanted("fan-out-1000", RATE, History, &[Ours], Some(AtLeast(0.8)), Some(AtLeast(1.0))),
    wanted("fan-out-1000", RATE, Postgres, &[Ours], Some(AtLeast(0.8)), Some(AtLeast(1.0))),
    wanted("fan-out-1000", SINGLE_P50, History, &[Ours], Some(AtMost(1.0 / 0.8)), None),
    wanted("fan-out-1000", SINGLE_P50, Postgres, &[Ours], Some(AtMost(1.0 / 0.8)), None),
    wanted("publish-1", POSTS, Ours, &[Nchan1], Some(AtLeast(1.0)), None),
    wanted("publish-1", POSTS, Ours, &[Original], Some(AtLeast(28.0)), None),
    wanted("publish-1", POSTS, Ours, &[Limit], None, Some(AtLeast(0.85))),
    wanted("publish-1", POSTS, History, &[Nchan1], Some(AtLeast(0.75)), None),
    wanted("publish-1", POSTS, History, &[Original], Some(AtLeast(20.0)), None),
    wanted("publish-1", POSTS, History, &[Limit], None, Some(AtLeast(0.7))),
    wanted("publish-1", POSTS, Postgres, &[Nchan1], Some(AtLeast(0.75)), None),
    wanted("publish-1", POSTS, Postgres, &[Original], Some(AtLeast(20.0)), None),
    wanted("publish-100", POSTS, History, &[Original], Some(AtLeast(20.0)), Some(AtLeast(30.0))),
    wanted("publish-100", MESSAGE_COST, History, &[], Some(AtMost(9.0)), Some(AtMost(6.5))),
    wanted("idle", "memory each connected, KiB", Ours, &[], Some(AtMost(4.0)), Some(AtMost(2.0))),
    wanted("idle", "memory each after a burst of 10 kB each, KiB", Ours, &[], Some(AtMost(4.0)), Some(AtMost(2.0))),
    wanted("idle", "server CPU while silent, % of a core", Ours, &[Nchan1], Some(AtMost(1.0)), None),
    wanted("idle", "server CPU while silent, % of a core", Ours, &[], None, Some(AtMost(1.3))),
    wanted("connect-storm", "until all have everything, s", Ours, &[Nchan1], Some(AtMost(1.2)), Some(AtMost(1.0))),
    wanted("connect-storm", "until all have everything, s", Ours, &[Original], Some(AtMost(1.0 / 8.0)), None),
    wanted("connect-storm", "errors", Ours, &[], Some(AtMost(0.0)), None),
    wanted("channels", "memory each with 100000, KiB", Ours, &[], Some(AtMost(9000.0 / 1024.0)), Some(AtMost(6500.0 / 1024.0))),
    wanted("growth", "many listeners / few", Ours, &[], Some(AtMost(1.5)), None),
];

const fn wanted(
    scenario: &'static str,
    figure: &'static str,
    who: Kind,
    against: &'static [Kind],
    must: Option<Bound>,
    aim: Option<Bound>,
) -> Target {
    Target { scenario, figure, who, against, must, aim }
}

/// Measures everything and prints it as Markdown
#[derive(Debug, Args)]
pub struct Options {
    /// How often each contender is measured, in turns
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Only the scenarios of these names
    #[arg(long, value_delimiter = ',', value_parser = SCENARIOS.map(|(name, _)| name))]
    only: Vec<String>,
    /// Contenders that are left out, besides those that are not there
    #[arg(long, value_enum, value_delimiter = ',')]
    without: Vec<Kind>,
    /// Also writes all figures here
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Serialize)]
struct Measured {
    name: &'static str,
    command: &'static str,
    results: Results,
}

/// Runs it.
///
/// # Errors
/// If a contender could not be driven, or did not do what it should; all else is measured all the same.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let mut all = Vec::new();
    for (name, command) in SCENARIOS {
        if !options.only.is_empty() && !options.only.iter().any(|wanted| wanted == name) {
            continue;
        }
        let mut line = Line::try_parse_from(["channelstream-bench"].into_iter().chain(command.split(' ')))
            .with_context(|| format!("{name} cannot be parsed"))?;
        let comparison = line.scenario.comparison_mut().context("a suite has contenders")?;
        comparison.rounds = options.rounds;
        comparison.contenders.retain(|kind| !options.without.contains(kind) && is_there(*kind));
        if comparison.contenders.is_empty() {
            continue;
        }
        let results = line.scenario.compare().await.context("a suite has contenders")?;
        println!("### {name}\n\n    channelstream-bench {command} --rounds {}\n", options.rounds);
        println!("{}", results.markdown());
        all.push(Measured { name, command, results });
        // Written each time, so that what was measured is not lost with what comes.
        write_json(options.json.as_deref(), &all)?;
    }
    print_targets(&all);
    let failures: Vec<&str> = all.iter().flat_map(|each| &each.results.failures).map(String::as_str).collect();
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    Ok(())
}

fn is_there(kind: Kind) -> bool {
    let missing = kind.missing();
    if let Some(missing) = &missing {
        eprintln!("{kind} is left out: {missing}");
    }
    missing.is_none()
}

fn print_targets(all: &[Measured]) {
    println!("### Targets\n\n| scenario | figure | who | divided by | measured | must | aim | |");
    println!("|---|---|---|---|---:|---:|---:|---|");
    for target in TARGETS {
        let Some(measured) = all.iter().find(|each| each.name == target.scenario) else { continue };
        let Some(value) = target.value(&measured.results) else { continue };
        let against: Vec<String> = target.against.iter().map(ToString::to_string).collect();
        let bound = |bound: Option<Bound>| bound.map(|bound| bound.to_string()).unwrap_or_default();
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            target.scenario,
            target.figure,
            target.who,
            against.join(" or "),
            grouped(value, 2),
            bound(target.must),
            bound(target.aim),
            target.verdict(value),
        );
    }
}

impl Target {
    fn value(&self, results: &Results) -> Option<f64> {
        let of = |kind: &Kind| results.medians.get(&kind.to_string())?.get(self.figure);
        let mine = of(&self.who)?;
        if self.against.is_empty() {
            return Some(mine);
        }
        let others = self.against.iter().filter_map(of);
        let best = match self.must.or(self.aim)? {
            AtLeast(_) => others.reduce(f64::max),
            AtMost(_) => others.reduce(f64::min),
        };
        Some(mine / best?)
    }

    fn verdict(&self, value: f64) -> &'static str {
        match (self.must, self.aim) {
            (_, Some(aim)) if aim.is_met(value) => "aim met",
            (Some(must), _) if !must.is_met(value) => "**missed**",
            (Some(_), _) => "met",
            (None, _) => "aim missed",
        }
    }
}

impl Bound {
    fn is_met(self, value: f64) -> bool {
        match self {
            AtLeast(least) => value >= least,
            AtMost(most) => value <= most,
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AtLeast(least) => write!(f, "≥ {}", grouped(*least, 2)),
            AtMost(most) => write!(f, "≤ {}", grouped(*most, 2)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suite_can_be_parsed_and_targets_name_it() {
        for (name, command) in SCENARIOS {
            let line = Line::try_parse_from(["channelstream-bench"].into_iter().chain(command.split(' ')));
            let mut scenario = line.unwrap_or_else(|error| panic!("{name}: {error}")).scenario;
            let contenders = scenario.comparison_mut().unwrap().contenders.clone();
            for target in TARGETS.iter().filter(|target| target.scenario == name) {
                assert!(contenders.contains(&target.who), "{name}: {}", target.who);
            }
        }
        for target in TARGETS {
            assert!(SCENARIOS.iter().any(|(name, _)| *name == target.scenario), "{}", target.scenario);
        }
    }
}
