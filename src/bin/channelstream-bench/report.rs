//! Figures for people, as a table, and for programs, as JSON.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

/// A table: a column for each thing that was measured, a line for each measure.
#[derive(Debug)]
pub struct Table {
    columns: Vec<String>,
    lines: Vec<(&'static str, Vec<String>)>,
}

impl Table {
    /// An empty one.
    pub fn new(columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { columns: columns.into_iter().map(Into::into).collect(), lines: Vec::new() }
    }

    /// Adds a line of numbers with so many decimals; those that are not known are shown as `-`.
    pub fn line<T: Into<Option<f64>>>(
        &mut self,
        measure: &'static str,
        decimals: usize,
        values: impl IntoIterator<Item = T>,
    ) {
        let show = |value: T| value.into().map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"));
        self.lines.push((measure, values.into_iter().map(show).collect()));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let measures = self.lines.iter().map(|(measure, _)| measure.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| {
                let cells = self.lines.iter().filter_map(|(_, cells)| cells.get(column)).map(String::len);
                cells.chain([self.columns[column].len()]).max().unwrap_or(0)
            })
            .collect();
        let head = ("", self.columns.clone());
        for (measure, cells) in [head].iter().chain(&self.lines) {
            write!(f, "{measure:measures$}")?;
            for (cell, width) in cells.iter().zip(&widths) {
                write!(f, "  {cell:>width$}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// KiB as MiB.
pub fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// Writes figures as JSON, if a file is wanted.
///
/// # Errors
/// If it cannot be written.
pub fn write_json(file: Option<&Path>, figures: &impl Serialize) -> anyhow::Result<()> {
    let Some(file) = file else { return Ok(()) };
    let mut text = serde_json::to_string_pretty(figures)?;
    text.push('\n');
    fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(["a", "long name"]);
        table.line("messages", 0, [Some(20_000.0), None]);
        table.line("s", 2, [1.0, 22.5]);
        let expected = "              a  long name\nmessages  20000          -\ns          1.00      22.50\n";
        assert_eq!(table.to_string(), expected);
    }
}
