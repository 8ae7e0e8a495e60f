//! What a stretch of time costs: the contender, the load generator, and whoever else is busy.

use std::time::Instant;

use anyhow::Context;

use crate::contender::Contender;
use crate::figures::Figures;
use crate::process::{Process, machine_cpu_seconds};

/// Measures from its start to its end.
pub struct Meter<'a> {
    contender: &'a Contender,
    started: Instant,
    server: Option<f64>,
    generator: f64,
    machine: f64,
}

impl<'a> Meter<'a> {
    /// Begins.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn start(contender: &'a Contender) -> anyhow::Result<Self> {
        let (generator, machine) = (Process::this().cpu_seconds()?, machine_cpu_seconds()?);
        Ok(Self { contender, started: Instant::now(), server: contender.cpu_seconds(), generator, machine })
    }

    /// Seconds since it began.
    pub fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Ends, and adds what that cost for each of `count` things which are called `unit`; `phase` stands
    /// before the figures' names. Others' CPU is that of a database, or a sign that the run was disturbed.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn finish(self, phase: &str, unit: &str, count: f64, figures: &mut Figures) -> anyhow::Result<()> {
        let seconds = self.seconds();
        let server = self.contender.cpu_seconds().zip(self.server).map(|(after, before)| after - before);
        let generator = Process::this().cpu_seconds()? - self.generator;
        let machine = machine_cpu_seconds().context("the machine's time")? - self.machine;
        let others = server.map(|server| (machine - server - generator).max(0.0));
        for (who, cpu) in [("server", server), ("generator", Some(generator))] {
            figures.add(format!("{phase}{who} CPU, µs/{unit}"), 3, cpu.map(|cpu| cpu * 1e6 / count));
            figures.add(format!("{phase}{who} CPU, cores"), 2, cpu.map(|cpu| cpu / seconds));
        }
        figures.add(format!("{phase}others' CPU, cores"), 2, others.map(|cpu| cpu / seconds));
        Ok(())
    }
}
