//! What a process costs, as `/proc` tells it.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;

/// Clock ticks a second in `/proc/<pid>/stat`: the same on every Linux that Rust runs on.
const TICKS: f64 = 100.0;

/// A process that runs.
#[derive(Debug, Clone)]
pub struct Process {
    directory: PathBuf,
}

impl Process {
    /// The one we are in.
    pub fn this() -> Self {
        Self { directory: "/proc/self".into() }
    }

    /// Another one.
    pub fn of(id: u32) -> Self {
        Self { directory: format!("/proc/{id}").into() }
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

    /// Most memory that was in use at any time, in KiB.
    pub fn peak_kib(&self) -> anyhow::Result<u64> {
        self.status("VmHWM:")
    }

    fn status(&self, key: &str) -> anyhow::Result<u64> {
        let status = self.read("status")?;
        kib(&status, key).with_context(|| format!("/proc/<pid>/status has no {key}"))
    }

    fn read(&self, file: &str) -> anyhow::Result<String> {
        let path = self.directory.join(file);
        fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))
    }
}

/// User and system time; the command, which comes before, is in parentheses and may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
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
        assert_eq!(kib("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n", "VmRSS:"), Some(1024));
        assert!(Process::this().resident_kib().unwrap() > 0);
    }
}
