//! What a process costs, as `/proc` tells it.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::Context;

/// Clock ticks a second in `/proc/<pid>/stat`: the same on every Linux that Rust runs on.
const TICKS: f64 = 100.0;

/// A process that runs, with those that it started.
#[derive(Debug, Clone)]
pub struct Process {
    id: u32,
}

impl Process {
    /// The one we are in.
    pub fn this() -> Self {
        Self { id: std::process::id() }
    }

    /// Another one.
    pub fn of(id: u32) -> Self {
        Self { id }
    }

    /// This one and its children.
    pub fn with_children(&self) -> anyhow::Result<Vec<Self>> {
        let mut all = vec![self.clone()];
        for entry in fs::read_dir("/proc").context("/proc cannot be read")?.flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let process = Self { id };
            // Who ends meanwhile is no child.
            if process.read("stat").is_ok_and(|stat| parent(&stat) == Some(self.id)) {
                all.push(process);
            }
        }
        Ok(all)
    }

    /// Ends it at once, if it runs and we may.
    pub fn kill(&self) {
        let _ = Command::new("kill").args(["-KILL", &self.id.to_string()]).stderr(Stdio::null()).status();
    }

    /// Seconds of CPU time so far, user and system, all threads; to 10 ms.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let stat = self.read("stat")?;
        cpu_ticks(&stat).map(|ticks| ticks as f64 / TICKS).context("/proc/<pid>/stat has an unknown form")
    }

    /// Memory in use right now, in KiB.
    pub fn resident_kib(&self) -> anyhow::Result<u64> {
        self.status("VmRSS:")
    }

    /// Memory in use right now, in KiB, in which what is shared with others counts in part, so that
    /// the figures of several processes can be added.
    pub fn proportional_kib(&self) -> anyhow::Result<u64> {
        let rollup = self.read("smaps_rollup")?;
        kib(&rollup, "Pss:").context("/proc/<pid>/smaps_rollup has no Pss")
    }

    fn status(&self, key: &str) -> anyhow::Result<u64> {
        let status = self.read("status")?;
        kib(&status, key).with_context(|| format!("/proc/<pid>/status has no {key}"))
    }

    fn read(&self, file: &str) -> anyhow::Result<String> {
        let path = format!("/proc/{}/{file}", self.id);
        fs::read_to_string(&path).with_context(|| format!("{path} cannot be read"))
    }
}

/// Seconds of CPU time of the whole machine so far, what its host took from it included; to 10 ms.
///
/// # Errors
/// If the system does not tell.
pub fn machine_cpu_seconds() -> anyhow::Result<f64> {
    let stat = fs::read_to_string("/proc/stat").context("/proc/stat cannot be read")?;
    machine_ticks(&stat).map(|ticks| ticks as f64 / TICKS).context("/proc/stat has an unknown form")
}

/// All but what is idle: the fourth and fifth number. What guests take is part of the others.
fn machine_ticks(stat: &str) -> Option<u64> {
    let mut all = stat.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace().take(8).map(str::parse::<u64>);
    let busy = all.try_fold((0, 0), |(sum, index), ticks| {
        let ticks = if matches!(index, 3 | 4) { 0 } else { ticks.ok()? };
        Some((sum + ticks, index + 1))
    });
    busy.map(|(sum, _)| sum)
}

/// User and system time; the command, which comes before, is in parentheses and may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// Who started it.
fn parent(stat: &str) -> Option<u32> {
    let (_, after) = stat.rsplit_once(')')?;
    after.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn kib(status: &str, key: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(key))?.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 1200 34 0 0 20 0 4 0 100\n";
        assert_eq!(cpu_ticks(stat), Some(1234));
        assert_eq!(parent(stat), Some(1));
        assert_eq!(machine_ticks("cpu  1 2 4 1000 1000 8 16 32 64 128\ncpu0 1\n"), Some(63));
        assert_eq!(kib("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n", "VmRSS:"), Some(1024));
        assert!(Process::this().resident_kib().unwrap() > 0);
    }
}
