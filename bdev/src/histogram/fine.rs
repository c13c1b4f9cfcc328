//! SPDK's histogram: in ticks, ranges of powers of two, each divided into 2^granularity buckets.
//!
//! Range 0 has the values below 2^granularity, one per bucket; range *r* those of the *r*-th power of two after, 2^(r−1) per bucket. Ranges
//! below that of the least time and above that of the greatest are left out: what falls there goes into the first or the last bucket.

use reactor::tick_rate;

use crate::io::IoKind;

/// What to count, and how finely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistogramOptions {
    /// Only requests of this kind.
    pub kind: Option<IoKind>,
    /// Each range of a power of two is divided into 2 to this power buckets.
    pub granularity: u8,
    /// Times from here on are told apart, in nanoseconds.
    pub min_ns: u64,
    /// Times below this are told apart, in nanoseconds.
    pub max_ns: u64,
}

/// These options describe no histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistogramError {
    /// More memory than a histogram is worth: every reactor has its own.
    #[error("granularity {0} is too fine: give {max} at most", max = HistogramOptions::MAX_GRANULARITY)]
    TooFine(u8),
    /// Nothing in between.
    #[error("min_nsec {0} is not below max_nsec {1}")]
    Empty(u64, u64),
}

fn ticks_of_ns(nanos: u64) -> u64 {
    if nanos == u64::MAX {
        return nanos;
    }
    let ticks = u128::from(nanos) * u128::from(tick_rate()) / 1_000_000_000;
    u64::try_from(ticks).unwrap_or(u64::MAX)
}

impl HistogramOptions {
    /// The finest: 2 MiB of counters at most.
    pub const MAX_GRANULARITY: u8 = 12;

    /// Whether a histogram can be made of them.
    ///
    /// # Errors
    /// If it would be too large, or empty.
    pub fn check(&self) -> Result<(), HistogramError> {
        if self.granularity > Self::MAX_GRANULARITY {
            return Err(HistogramError::TooFine(self.granularity));
        }
        if ticks_of_ns(self.min_ns) >= ticks_of_ns(self.max_ns) {
            return Err(HistogramError::Empty(self.min_ns, self.max_ns));
        }
        Ok(())
    }

    fn range_of(&self, ticks: u64) -> u32 {
        let bits = u64::BITS - ticks.leading_zeros();
        bits.saturating_sub(u32::from(self.granularity))
    }
}

/// Counts of requests by the time they took, in ticks ([`reactor::tick_rate`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    options: HistogramOptions,
    granularity: u32,
    min_range: u32,
    max_range: u32,
    counts: Vec<u64>,
}

impl Histogram {
    /// An empty one. Of options that [`HistogramOptions::check`] refuses something is made that works.
    #[must_use]
    pub fn new(options: &HistogramOptions) -> Self {
        let mut options = *options;
        options.granularity = options.granularity.min(HistogramOptions::MAX_GRANULARITY);
        let granularity = u32::from(options.granularity);
        let min_range = options.range_of(ticks_of_ns(options.min_ns));
        let above = ticks_of_ns(options.max_ns).saturating_sub(1);
        let max_range = options.range_of(above).max(min_range);
        let ranges = (max_range - min_range + 1) as usize;
        Self {
            options,
            granularity,
            min_range,
            max_range,
            counts: vec![0; ranges << granularity],
        }
    }

    /// What it is made of.
    #[must_use]
    pub fn options(&self) -> &HistogramOptions {
        &self.options
    }

    /// The first range that it has.
    #[must_use]
    pub fn min_range(&self) -> u32 {
        self.min_range
    }

    /// The last range that it has.
    #[must_use]
    pub fn max_range(&self) -> u32 {
        self.max_range
    }

    /// Requests per bucket: 2^granularity for each range.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Counts a request that took so many ticks, if it is of the kind that is counted.
    pub fn tally(&mut self, kind: IoKind, ticks: u64) {
        if self.options.kind.is_some_and(|wanted| wanted != kind) {
            return;
        }
        let bucket = self.bucket(ticks);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count = count.wrapping_add(1);
        }
    }

    fn bucket(&self, ticks: u64) -> usize {
        let range = self.options.range_of(ticks);
        if range < self.min_range {
            return 0;
        }
        if range > self.max_range {
            return self.counts.len().saturating_sub(1);
        }
        let within = (ticks >> range.saturating_sub(1)) & ((1 << self.granularity) - 1);
        (((range - self.min_range) as usize) << self.granularity) + within as usize
    }

    /// Where a bucket begins, in ticks: the first at zero, since it has all that is below it too.
    fn begins(&self, bucket: usize) -> u64 {
        if bucket == 0 {
            return 0;
        }
        let range = self.min_range + (bucket >> self.granularity) as u32;
        let within = (bucket & ((1 << self.granularity) - 1)) as u64;
        match range.checked_sub(1) {
            None => within,
            Some(shift) => ((1 << self.granularity) + within) << shift,
        }
    }

    /// Adds another reactor's share, if it is of the same options.
    pub fn add(&mut self, other: &Self) {
        if self.options == other.options {
            for (mine, its) in self.counts.iter_mut().zip(&other.counts) {
                *mine = mine.wrapping_add(*its);
            }
        }
    }

    /// For each border, in ticks, how many requests took no longer, as well as the buckets tell: that in which it lies counts
    /// whole. After them, how many there are.
    #[must_use]
    pub fn cumulative(&self, borders: &[u64]) -> Vec<u64> {
        let upto = |border: u64| {
            let counts = self.counts.iter().enumerate();
            counts
                .take_while(|(bucket, _)| self.begins(*bucket) <= border)
                .fold(0u64, |sum, (_, count)| sum.wrapping_add(*count))
        };
        let borders = borders.iter().map(|border| upto(*border));
        borders.chain([upto(u64::MAX)]).collect()
    }
}

#[cfg(test)]
mod tests;
