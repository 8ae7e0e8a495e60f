//! The limit of open files. A listener takes one here and one in the server, which inherits our limit.

use std::fs;
use std::process::Command;

/// Sees to it that as many files may be open as the system lets us have, here and in what is started
/// from here. Whoever then still lacks some is told when a connection fails.
pub fn allow_all() {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    if let Some((soft, hard)) = limit(&limits)
        && soft < hard
    {
        let own = std::process::id().to_string();
        let raised = Command::new("prlimit").args(["--pid", &own, &format!("--nofile={hard}:{hard}")]).status();
        if !raised.is_ok_and(|status| status.success()) {
            eprintln!("only {soft} files may be open, and `prlimit` cannot change that: see `ulimit -n`");
        }
    }
}

/// How many files may be open, and how many that may be made.
fn limit(limits: &str) -> Option<(u64, u64)> {
    let mut words = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_ascii_whitespace();
    let mut next = || words.next()?.parse().ok();
    Some((next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_found() {
        let head = "Limit                     Soft Limit           Hard Limit           Units\n";
        let line = "Max open files            1024                 1048576              files\n";
        assert_eq!(limit(&format!("{head}{line}")), Some((1024, 1_048_576)));
        assert_eq!(limit(head), None);
    }
}
