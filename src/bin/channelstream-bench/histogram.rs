//! Durations counted by size, so that millions cost no memory: exact to 1.6 %, the largest exactly.

use std::time::Duration;

/// Values below this have a bucket each; above, each doubling is cut into half as many.
const FINE: u64 = 128;
const HALF: u64 = FINE / 2;

/// See the module.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

impl Histogram {
    /// Counts a duration in nanoseconds.
    pub fn record(&mut self, nanoseconds: u64) {
        let bucket = bucket(nanoseconds);
        if bucket >= self.buckets.len() {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.count += 1;
        self.max = self.max.max(nanoseconds);
    }

    /// Counts a duration.
    pub fn record_duration(&mut self, duration: Duration) {
        self.record(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds what another one counted.
    pub fn add(&mut self, other: &Self) {
        if self.buckets.len() < other.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The duration in milliseconds that `share` of all do not exceed; 0 if there are none.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        let rank = (self.count as f64 * share).ceil().max(1.0) as u64;
        let mut counted = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            counted += count;
            if counted >= rank {
                return milliseconds(middle(bucket).min(self.max));
            }
        }
        milliseconds(self.max)
    }

    /// The longest in milliseconds.
    pub fn max_ms(&self) -> f64 {
        milliseconds(self.max)
    }
}

fn milliseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

fn bucket(value: u64) -> usize {
    let shift = u64::from((FINE.leading_zeros() + 1).saturating_sub(value.leading_zeros()));
    (shift * HALF + (value >> shift)) as usize
}

fn middle(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < FINE {
        return bucket;
    }
    let shift = bucket / HALF - 1;
    let lowest = (bucket - shift * HALF) << shift;
    lowest + (1 << shift) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_adjacent_and_fine() {
        let mut before = 0;
        for value in 0..1_000_000 {
            let bucket = bucket(value);
            assert!(bucket == before || bucket == before + 1, "{value}");
            let middle = middle(bucket) as f64;
            assert!((middle - value as f64).abs() <= value as f64 / 64.0, "{value} in {middle}");
            before = bucket;
        }
        assert!(bucket(u64::MAX) < 4_000);
    }

    #[test]
    fn quantiles_count_what_was_recorded() {
        let (mut low, mut high) = (Histogram::default(), Histogram::default());
        assert_eq!(low.quantile_ms(0.5), 0.0);
        for milliseconds in 1..=50 {
            low.record(milliseconds * 1_000_000);
            high.record_duration(Duration::from_millis(50 + milliseconds));
        }
        low.add(&high);
        assert!((low.quantile_ms(0.5) - 50.0).abs() < 1.0);
        assert!((low.quantile_ms(0.99) - 99.0).abs() < 2.0);
        assert_eq!(low.max_ms(), 100.0);
    }
}
