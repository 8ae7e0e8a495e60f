//! Curves as pictures: SVG on a light ground, a colour and a mark for each curve, powers of ten.

use std::fs;
use std::path::Path;

use anyhow::{Context, anyhow};
use plotters::coord::Shift;
use plotters::coord::combinators::{BindKeyPoints, IntoLogRange};
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::*;
use serde::{Deserialize, Serialize};

const SIZE: (u32, u32) = (940, 520);
/// Its part on the right that names the curves.
const LEGEND: u32 = 150;
const DASH: u32 = 6;
const GAP: u32 = 4;
const FONT: &str = "sans-serif";
/// Colours that are told apart on white, also by who cannot tell red from green (Okabe and Ito).
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(110, 110, 110),
    RGBColor(0, 0, 0),
];
const GRID: RGBColor = RGBColor(225, 225, 225);
const TEXT: RGBColor = RGBColor(40, 40, 40);

/// An axis.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Axis {
    /// What it shows, with its unit.
    pub label: String,
    /// Powers of ten; else it begins at 0.
    pub is_logarithmic: bool,
}

/// A curve.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Curve {
    /// What it shows.
    pub name: String,
    /// Curves with the same number have the same colour.
    pub colour: usize,
    /// Whether its line is broken.
    pub is_dashed: bool,
    /// Its points, from left to right.
    pub points: Vec<(f64, f64)>,
}

/// See the module. What is along the bottom is always in powers of ten.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Picture {
    /// The name of its file, without ending.
    pub file: String,
    /// What it is about.
    pub title: String,
    /// What is along the bottom, with its unit.
    pub along: String,
    /// What is upwards.
    pub upwards: Axis,
    /// The curves.
    pub curves: Vec<Curve>,
}

impl Picture {
    /// Draws it into a directory, unless there is nothing to draw.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn draw(&self, directory: &Path) -> anyhow::Result<()> {
        let points = || self.curves.iter().flat_map(|curve| curve.points.iter().copied());
        let (Some(along), Some(upwards)) = (Span::of(points().map(|(x, _)| x)), Span::of(points().map(|(_, y)| y)))
        else {
            return Ok(());
        };
        let mut text = String::new();
        let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        let drawn = if self.upwards.is_logarithmic {
            let axis = upwards.powers().log_scale().with_key_points(upwards.steps());
            self.draw_on(&root, along, axis)
        } else {
            self.draw_on(&root, along, 0.0..upwards.most * 1.1)
        };
        drawn.map_err(|error| anyhow!("{} cannot be drawn: {error}", self.file))?;
        drop(root);
        let file = directory.join(format!("{}.svg", self.file));
        fs::write(&file, text).with_context(|| format!("{} cannot be written", file.display()))
    }

    fn draw_on<Y>(
        &self,
        root: &DrawingArea<SVGBackend<'_>, Shift>,
        along: Span,
        upwards: Y,
    ) -> Result<(), Box<dyn std::error::Error>>
    where
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(root)
            .caption(&self.title, (FONT, 20).into_font().color(&TEXT))
            .margin(14)
            .margin_right(LEGEND)
            .x_label_area_size(50)
            .y_label_area_size(78)
            .build_cartesian_2d(along.powers().log_scale().with_key_points(along.steps()), upwards)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .bold_line_style(GRID)
            .axis_style(TEXT)
            .label_style((FONT, 14).into_font().color(&TEXT))
            .axis_desc_style((FONT, 15).into_font().color(&TEXT))
            .x_desc(&self.along)
            .y_desc(&self.upwards.label)
            .x_label_formatter(&|value| short(*value))
            .y_label_formatter(&|value| short(*value))
            .draw()?;
        for curve in &self.curves {
            let points = || curve.points.iter().copied();
            if curve.is_dashed {
                chart.draw_series(DashedLineSeries::new(points(), DASH, GAP, curve.line()))?;
            } else {
                chart.draw_series(LineSeries::new(points(), curve.line()))?;
            }
            chart.draw_series(points().map(|point| Circle::new(point, 3, curve.line().filled())))?;
        }
        self.draw_legend(root)?;
        root.present()?;
        Ok(())
    }

    /// Beside the curves, so that it covers none.
    fn draw_legend(&self, root: &DrawingArea<SVGBackend<'_>, Shift>) -> Result<(), Box<dyn std::error::Error>> {
        let left = (SIZE.0 - LEGEND) as i32 + 10;
        for (curve, top) in self.curves.iter().zip((60..).step_by(22)) {
            let middle = left + 12;
            let gap = if curve.is_dashed { GAP as i32 } else { 0 };
            for (from, to) in [(left, middle - gap / 2), (middle + gap / 2, left + 24)] {
                root.draw(&PathElement::new(vec![(from, top), (to, top)], curve.line()))?;
            }
            root.draw(&Text::new(curve.name.clone(), (left + 32, top - 6), (FONT, 14).into_font().color(&TEXT)))?;
        }
        Ok(())
    }
}

impl Curve {
    fn line(&self) -> ShapeStyle {
        COLOURS[self.colour % COLOURS.len()].stroke_width(2)
    }
}

/// From the least to the most.
#[derive(Debug, Clone, Copy)]
struct Span {
    least: f64,
    most: f64,
}

impl Span {
    /// None: there is nothing above 0.
    fn of(values: impl Iterator<Item = f64> + Clone) -> Option<Self> {
        let values = values.filter(|value| *value > 0.0);
        Some(Self { least: values.clone().min_by(f64::total_cmp)?, most: values.max_by(f64::total_cmp)? })
    }

    /// A little more on both sides.
    fn powers(self) -> std::ops::Range<f64> {
        self.least / 1.25..self.most * 1.25
    }

    /// The places of labels: powers of ten, and twice and five times as much where these are few.
    fn steps(self) -> Vec<f64> {
        let range = self.powers();
        let between: &[f64] = if range.end / range.start > 1e3 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let exponents = range.start.log10().floor() as i32..=range.end.log10().ceil() as i32;
        let all = exponents.flat_map(|exponent| between.iter().map(move |step| step * 10_f64.powi(exponent)));
        all.filter(|step| range.contains(step)).collect()
    }
}

/// A number as short as it can be read: 0.5, 20, 3k, 1M.
fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        1e6.. => (value / 1e6, "M"),
        1e3.. => (value / 1e3, "k"),
        _ => (value, ""),
    };
    // Three places after the point, without what is 0 at the end.
    let text = format!("{value:.3}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let texts = [0.0, 0.05, 2.5, 30.0, 1_000.0, 2_500.0, 4_000_000.0].map(short);
        assert_eq!(texts, ["0", "0.05", "2.5", "30", "1k", "2.5k", "4M"]);
    }

    #[test]
    fn labels_are_at_round_numbers() {
        let steps = Span { least: 10.0, most: 100.0 }.steps();
        assert_eq!(steps, [10.0, 20.0, 50.0, 100.0]);
        let steps = Span { least: 10.0, most: 100_000.0 }.steps();
        assert_eq!(steps, [10.0, 100.0, 1_000.0, 10_000.0, 100_000.0]);
    }
}
