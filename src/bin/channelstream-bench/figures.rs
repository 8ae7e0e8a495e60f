//! What a scenario measures: figures in their order, each with a name; and the medians of several runs.

use serde::ser::{Serialize, SerializeMap, Serializer};

/// One number.
#[derive(Debug, Clone)]
pub struct Figure {
    /// What it is and its unit, as people read it.
    pub name: String,
    /// None: it could not be measured.
    pub value: Option<f64>,
    /// How many decimals are shown.
    pub decimals: usize,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    figures: Vec<Figure>,
}

impl Figures {
    /// Adds one.
    pub fn add(&mut self, name: impl Into<String>, decimals: usize, value: impl Into<Option<f64>>) {
        self.figures.push(Figure { name: name.into(), value: value.into(), decimals });
    }

    /// All in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Figure> {
        self.figures.iter()
    }

    /// The number of that name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.name == name)?.value
    }

    /// The median of each figure over several runs of the same scenario, those that were not measured left
    /// out.
    pub fn medians(runs: &[Self]) -> Self {
        let mut medians = Self::default();
        for figure in runs.iter().max_by_key(|run| run.figures.len()).into_iter().flat_map(Self::iter) {
            let value = median(runs.iter().filter_map(|run| run.get(&figure.name)).collect());
            medians.add(&figure.name, figure.decimals, value);
        }
        medians
    }
}

impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.figures.len()))?;
        for figure in &self.figures {
            map.serialize_entry(&figure.name, &figure.value)?;
        }
        map.end()
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    Some(if values.len() % 2 == 1 { upper } else { f64::midpoint(values[values.len() / 2 - 1], upper) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_leave_out_what_is_missing() {
        let run = |a: f64, b: Option<f64>| {
            let mut figures = Figures::default();
            figures.add("a", 0, a);
            figures.add("b", 1, b);
            figures
        };
        let medians = Figures::medians(&[run(3.0, None), run(1.0, Some(2.0)), Figures::default(), run(9.0, Some(4.0))]);
        assert_eq!((medians.get("a"), medians.get("b"), medians.get("c")), (Some(3.0), Some(3.0), None));
        assert_eq!(serde_json::to_string(&medians).unwrap(), r#"{"a":3.0,"b":3.0}"#);
    }
}
