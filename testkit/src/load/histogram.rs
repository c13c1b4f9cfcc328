//! Latencies in logarithmic buckets: constant memory, 3 % resolution.

use std::time::Duration;

/// Buckets per power of two.
const STEPS: u32 = 32;
const STEP_BITS: u32 = STEPS.ilog2();

/// Counts of durations by size.
#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: vec![0; (STEPS * 64) as usize],
            count: 0,
        }
    }
}

fn bucket(nanos: u64) -> usize {
    if nanos < u64::from(STEPS) {
        return nanos as usize;
    }
    let shift = nanos.ilog2() - STEP_BITS;
    ((shift + 1) * STEPS) as usize + ((nanos >> shift) as usize & (STEPS as usize - 1))
}

/// The largest duration that falls into a bucket.
fn ceiling(bucket: usize) -> u64 {
    let (shift, step) = (bucket as u32 / STEPS, bucket as u64 % u64::from(STEPS));
    match shift.checked_sub(1) {
        None => step,
        Some(shift) => ((u64::from(STEPS) + step + 1) << shift) - 1,
    }
}

impl Histogram {
    /// Counts one duration in nanoseconds.
    #[inline]
    pub fn record(&mut self, nanos: u64) {
        if let Some(count) = self.buckets.get_mut(bucket(nanos)) {
            *count += 1;
            self.count += 1;
        }
    }

    /// Adds another's counts.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The duration that `percent` of all did not exceed.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Duration {
        let wanted = (self.count as f64 * percent / 100.0).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_nanos(ceiling(index));
            }
        }
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_ordered_and_narrow() {
        let mut last = 0;
        for nanos in (0..100_000u64).chain((17..40).map(|bit| 1 << bit)) {
            let index = bucket(nanos);
            assert!(index >= last);
            last = index;
            assert!(ceiling(index) >= nanos);
            assert!((ceiling(index) - nanos) as f64 <= nanos as f64 / 32.0 + 1.0);
        }
        assert!(bucket(u64::MAX) < (STEPS * 64) as usize);
    }

    #[test]
    fn percentiles_find_the_ranks() {
        let mut histogram = Histogram::default();
        for nanos in 1..=1000 {
            histogram.record(nanos);
        }
        let p50 = histogram.percentile(50.0).as_nanos();
        assert!((500..=516).contains(&p50), "{p50}");
        assert!(histogram.percentile(100.0).as_nanos() >= 1000);
        let mut other = Histogram::default();
        other.record(1_000_000);
        histogram.merge(&other);
        assert_eq!(histogram.count(), 1001);
        assert!(histogram.percentile(100.0).as_nanos() >= 1_000_000);
    }
}
