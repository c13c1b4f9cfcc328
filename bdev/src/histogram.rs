//! How long requests took: counts by latency.
//!
//! [`LatencyHistogram`] is always on and coarse, in nanoseconds, so that it costs one conversion and one addition per request.
//! [`Histogram`] is SPDK's: in ticks, as fine as the operator wants it, while he wants it.

mod fine;

pub use fine::{Histogram, HistogramError, HistogramOptions};

/// Each power of two of nanoseconds is divided into so many buckets (as a power of two): none is wider than a quarter of its values.
const SUB_SHIFT: u32 = 2;
/// Everything below 2 to this power is in the first bucket: 64 ns, less than the fastest RAM disk takes.
const FIRST_SHIFT: u32 = 6;
/// Everything from 2 to this power on is in the last bucket: 34 s.
const LAST_SHIFT: u32 = 35;
const BOUNDS: usize = (((LAST_SHIFT - FIRST_SHIFT) << SUB_SHIFT) + 1) as usize;
/// The buckets of a [`LatencyHistogram`].
pub(crate) const BUCKETS: usize = BOUNDS + 1;

static BOUNDS_NS: [u64; BOUNDS] = {
    let mut bounds = [0; BOUNDS];
    let mut index = 0;
    while index < BOUNDS {
        let octave = (index as u32) >> SUB_SHIFT;
        let sub = (index as u64) & ((1 << SUB_SHIFT) - 1);
        bounds[index] = ((1 << SUB_SHIFT) + sub) << (octave + FIRST_SHIFT - SUB_SHIFT);
        index += 1;
    }
    bounds
};

/// The bucket of a time.
#[inline]
pub(crate) fn bucket_of(nanos: u64) -> usize {
    if nanos < 1 << FIRST_SHIFT {
        return 0;
    }
    // In units of a bucket of its own octave the time is between 4 and 7.
    let octave = nanos.ilog2();
    let bucket = (octave - FIRST_SHIFT) as u64 * (1 << SUB_SHIFT) + (nanos >> (octave - SUB_SHIFT))
        - (1 << SUB_SHIFT)
        + 1;
    usize::try_from(bucket).map_or(BUCKETS - 1, |bucket| bucket.min(BUCKETS - 1))
}

/// Counts of requests by the time they took, in nanoseconds: log-linear, four buckets for each power of two from 64 ns to 34 s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatencyHistogram {
    counts: [u64; BUCKETS],
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self {
            counts: [0; BUCKETS],
        }
    }
}

impl LatencyHistogram {
    /// The bounds between buckets, ascending: bucket *i* of [`LatencyHistogram::counts`] has times below the *i*-th of them (and not
    /// below the one before); one last bucket has all longer times.
    #[must_use]
    pub fn bounds_ns() -> &'static [u64] {
        &BOUNDS_NS
    }

    /// Requests per bucket, one more than there are bounds.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// All requests.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts
            .iter()
            .fold(0, |sum, count| sum.wrapping_add(*count))
    }

    /// The time that so many per cent of the requests did not exceed, in nanoseconds, as well as the buckets tell: off by a
    /// quarter at most. Zero if there were none.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> u64 {
        let total = self.total();
        if total == 0 {
            return 0;
        }
        let rank = (percent.clamp(0.0, 100.0) / 100.0 * total as f64).max(f64::MIN_POSITIVE);
        let mut below = 0u64;
        for (index, count) in self.counts.iter().enumerate() {
            let upto = below.wrapping_add(*count);
            if *count > 0 && upto as f64 >= rank {
                let low = index.checked_sub(1).and_then(|it| BOUNDS_NS.get(it));
                let low = low.copied().unwrap_or(0);
                let high = BOUNDS_NS.get(index).copied().unwrap_or(low);
                let part = (rank - below as f64) / *count as f64;
                return low + ((high - low) as f64 * part) as u64;
            }
            below = upto;
        }
        BOUNDS_NS.last().copied().unwrap_or(0)
    }

    /// Adds another share.
    pub fn add(&mut self, other: &Self) {
        for (mine, its) in self.counts.iter_mut().zip(&other.counts) {
            *mine = mine.wrapping_add(*its);
        }
    }

    /// Takes away what was counted before: what remains is an interval. If counting began anew in between, it is since then.
    pub fn sub(&mut self, earlier: &Self) {
        if self
            .counts
            .iter()
            .zip(&earlier.counts)
            .any(|(now, then)| now < then)
        {
            return;
        }
        for (now, then) in self.counts.iter_mut().zip(&earlier.counts) {
            *now = now.wrapping_sub(*then);
        }
    }

    /// Counts one time.
    pub fn record(&mut self, nanos: u64) {
        if let Some(count) = self.counts.get_mut(bucket_of(nanos)) {
            *count = count.wrapping_add(1);
        }
    }

    pub(crate) fn set(&mut self, bucket: usize, count: u64) {
        if let Some(place) = self.counts.get_mut(bucket) {
            *place = count;
        }
    }
}

#[cfg(test)]
mod tests;
