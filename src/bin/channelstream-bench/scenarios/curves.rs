//! How figures change with size: runs other scenarios at many sizes, and draws curves. What was
//! measured stays beside the pictures, so that they can be drawn anew.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};

use super::{channels, fan_out, publish, with_defaults};
use crate::chart::{Axis, Curve, Picture};
use crate::compare::{self, Comparison, Scenario};
use crate::contender::Kind;
use crate::figures::Figures;
use crate::report::write_json;

/// What was measured, in the directory of the pictures.
const FILE: &str = "curves.json";
const LISTENERS: [usize; 7] = [10, 30, 100, 300, 1_000, 3_000, 10_000];
const CHANNELS: [usize; 5] = [1_000, 3_000, 10_000, 30_000, 100_000];
const BATCHES: [u32; 7] = [1, 3, 10, 30, 100, 300, 1_000];
/// With a thousand messages each, more would keep a durable store busy for longer than a request may wait.
const PUBLISHERS: u32 = 16;
/// More listeners would keep the original busy for minutes.
const ORIGINAL_LISTENERS: usize = 1_000;

/// Curves over listeners, channels and batch sizes, as pictures
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Where pictures and figures are put
    #[arg(long, value_name = "DIR", default_value = "docs/pictures")]
    directory: PathBuf,
    /// Measure these; the other pictures stay as they are
    #[arg(long, value_enum, value_delimiter = ',', default_value = "listeners,channels,batches")]
    over: Vec<Over>,
    /// Measure nothing: draw what was measured before
    #[arg(long)]
    redraw: bool,
    /// Seconds of each phase
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Who are measured, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "ours,history,nchan,limit-q")]
    contenders: Vec<Kind>,
    /// How often each is measured; medians are drawn
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

/// Who did not do what they should, and have no point there.
type Failures = RefCell<Vec<String>>;

/// What is along the bottom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Over {
    /// Deliveries and latency over listeners of one channel
    Listeners,
    /// Memory over channels
    Channels,
    /// Messages over those in one POST
    Batches,
}

/// Runs it.
///
/// # Errors
/// If something cannot be measured or written.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let directory = &options.directory;
    fs::create_dir_all(directory).with_context(|| format!("{} cannot be made", directory.display()))?;
    let mut pictures = read(&directory.join(FILE))?;
    let failures = RefCell::default();
    if options.redraw && pictures.is_empty() {
        bail!("nothing was measured yet");
    }
    if !options.redraw {
        for over in &options.over {
            for picture in options.measure(*over, &failures).await? {
                pictures.retain(|old| old.file != picture.file);
                pictures.push(picture);
            }
            write_json(Some(&directory.join(FILE)), &pictures)?;
        }
    }
    for picture in &pictures {
        picture.draw(directory)?;
        println!("{}", directory.join(format!("{}.svg", picture.file)).display());
    }
    let failures = failures.into_inner();
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<Vec<Picture>> {
    match fs::read(file) {
        Ok(text) => serde_json::from_slice(&text).with_context(|| format!("{} has an unknown form", file.display())),
        Err(_) => Ok(Vec::new()),
    }
}

impl Options {
    async fn measure(&self, over: Over, failures: &Failures) -> anyhow::Result<Vec<Picture>> {
        match over {
            Over::Listeners => self.over_listeners(failures).await,
            Over::Channels => self.over_channels(failures).await,
            Over::Batches => self.over_batches(failures).await,
        }
    }

    async fn over_listeners(&self, failures: &Failures) -> anyhow::Result<Vec<Picture>> {
        let mut runs = Runs::default();
        for listeners in LISTENERS {
            let fan_out = fan_out::Options {
                listeners,
                seconds: self.seconds,
                paced: 100,
                ..with_defaults::<fan_out::Options>()
            };
            let able = |kind| kind != Kind::Original || listeners <= ORIGINAL_LISTENERS;
            runs.add(listeners as f64, self.run(&fan_out, able, failures).await?);
        }
        let along = "listeners of one channel";
        Ok(vec![
            Picture {
                file: "deliveries".to_owned(),
                title: "How much one server delivers: 200-byte messages, as fast as it can".to_owned(),
                along: along.to_owned(),
                upwards: Axis { label: "deliveries a second".to_owned(), is_logarithmic: true },
                curves: runs.curves(&[("saturated: deliveries/s", "")]),
            },
            Picture {
                file: "latency".to_owned(),
                title: "How long a message takes: one at a time, to all listeners".to_owned(),
                along: along.to_owned(),
                upwards: Axis { label: "milliseconds from POST to listener".to_owned(), is_logarithmic: true },
                curves: runs.curves(&[
                    ("one at a time: delivery p50, ms", " p50"),
                    ("one at a time: delivery p99, ms", " p99"),
                ]),
            },
        ])
    }

    async fn over_channels(&self, failures: &Failures) -> anyhow::Result<Vec<Picture>> {
        let channels = channels::Options { channels: CHANNELS.to_vec(), ..with_defaults::<channels::Options>() };
        // Here all of ours store history; the bare programs have one channel.
        let able = |kind| matches!(kind, Kind::Ours | Kind::Original | Kind::Nchan | Kind::Nchan1);
        let measured = self.run(&channels, able, failures).await?;
        let mut runs = Runs::default();
        for count in CHANNELS {
            let of = |(kind, figures): &(Kind, Figures)| {
                let mut each = Figures::default();
                each.add("each", 0, figures.get(&channels::each(count)));
                (*kind, each)
            };
            runs.add(count as f64, measured.iter().map(of).collect());
        }
        Ok(vec![Picture {
            file: "channels".to_owned(),
            title: "Memory of a channel that remembers 10 messages of 200 bytes".to_owned(),
            along: "channels".to_owned(),
            upwards: Axis { label: "KiB each".to_owned(), is_logarithmic: false },
            curves: runs.curves(&[("each", "")]),
        }])
    }

    async fn over_batches(&self, failures: &Failures) -> anyhow::Result<Vec<Picture>> {
        let mut runs = Runs::default();
        for batch in BATCHES {
            let publish = publish::Options {
                batch,
                publishers: PUBLISHERS,
                seconds: self.seconds,
                ..with_defaults::<publish::Options>()
            };
            runs.add(f64::from(batch), self.run(&publish, |_| true, failures).await?);
        }
        Ok(vec![Picture {
            file: "publishing".to_owned(),
            title: "How much one server takes: 200-byte messages, 16 publishers".to_owned(),
            along: "messages in one POST".to_owned(),
            upwards: Axis { label: "messages a second".to_owned(), is_logarithmic: true },
            curves: runs.curves(&[("messages/s", "")]),
        }])
    }

    /// Puts those through a scenario who are able to; gives the medians of each.
    async fn run(
        &self,
        scenario: &impl Scenario,
        able: impl Fn(Kind) -> bool,
        failures: &Failures,
    ) -> anyhow::Result<Vec<(Kind, Figures)>> {
        let contenders: Vec<Kind> = self.contenders.iter().copied().filter(|kind| able(*kind)).collect();
        if contenders.is_empty() {
            return Ok(Vec::new());
        }
        let comparison =
            Comparison { contenders: contenders.clone(), rounds: self.rounds, ..with_defaults::<Comparison>() };
        let results = compare::measure(scenario, &comparison).await;
        println!("{}", results.markdown());
        let title = scenario.title();
        failures.borrow_mut().extend(results.failures.iter().map(|failure| format!("{title}: {failure}")));
        let medians = |kind: Kind| Some((kind, results.medians.get(&kind.to_string())?.clone()));
        Ok(contenders.into_iter().filter_map(medians).collect())
    }
}

/// What was measured at each place along the bottom.
#[derive(Debug, Default)]
struct Runs(Vec<(f64, Vec<(Kind, Figures)>)>);

impl Runs {
    fn add(&mut self, along: f64, measured: Vec<(Kind, Figures)>) {
        self.0.push((along, measured));
    }

    /// A curve for each contender and each figure, given with what is added to the contender's name;
    /// those of the second are dashed.
    fn curves(&self, figures: &[(&str, &str)]) -> Vec<Curve> {
        let mut curves: Vec<Curve> = Vec::new();
        for (along, measured) in &self.0 {
            for (kind, values) in measured {
                for (index, (figure, added)) in figures.iter().enumerate() {
                    let Some(value) = values.get(figure) else { continue };
                    let name = format!("{kind}{added}");
                    match curves.iter_mut().find(|curve| curve.name == name) {
                        Some(curve) => curve.points.push((*along, value)),
                        None => curves.push(Curve {
                            name,
                            colour: *kind as usize,
                            is_dashed: index > 0,
                            points: vec![(*along, value)],
                        }),
                    }
                }
            }
        }
        curves
    }
}
