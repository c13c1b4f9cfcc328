//! How much of a disk may be used: SPDK's rate limits.

use std::time::Duration;

/// The limits of one disk, for all its users together; zero is none. Reads, compares and writes count; flushes, unmaps and write
/// zeroes move no data and pass freely, as in SPDK.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// Requests per second.
    pub rw_ios_per_sec: u64,
    /// MiB per second, reads and writes together.
    pub rw_mbytes_per_sec: u64,
    /// MiB per second of reads.
    pub r_mbytes_per_sec: u64,
    /// MiB per second of writes.
    pub w_mbytes_per_sec: u64,
    /// What was not used is kept for so long, and may then be used at once. Zero is a few milliseconds.
    pub burst: Duration,
}

impl RateLimits {
    /// Whether anything is limited.
    #[must_use]
    pub fn is_set(&self) -> bool {
        let Self {
            rw_ios_per_sec,
            rw_mbytes_per_sec,
            r_mbytes_per_sec,
            w_mbytes_per_sec,
            burst: _,
        } = *self;
        [
            rw_ios_per_sec,
            rw_mbytes_per_sec,
            r_mbytes_per_sec,
            w_mbytes_per_sec,
        ]
        .iter()
        .any(|limit| *limit > 0)
    }
}
