//! Log lines that a guest can cause, kept from becoming a flood.

use std::time::Duration;

use crate::ticks::{ticks, ticks_of};

/// Lines let through at once before the limit holds.
const BURST: u32 = 8;
/// After that, one line per this time.
const INTERVAL: Duration = Duration::from_secs(5);

/// A token bucket for log lines; one per device and reactor.
#[derive(Clone, Debug)]
pub struct LogLimit {
    tokens: u32,
    refilled: u64,
    suppressed: u64,
}

impl Default for LogLimit {
    fn default() -> Self {
        Self::new()
    }
}

impl LogLimit {
    /// A full bucket.
    #[must_use]
    pub fn new() -> Self {
        Self {
            tokens: BURST,
            refilled: ticks(),
            suppressed: 0,
        }
    }

    /// Whether a line may be written now; if so, how many were left out since the last one.
    pub fn admit(&mut self) -> Option<u64> {
        let (now, interval) = (ticks(), ticks_of(INTERVAL).max(1));
        let earned = now.wrapping_sub(self.refilled) / interval;
        if earned > 0 {
            self.tokens = u32::try_from(earned).map_or(BURST, |earned| {
                self.tokens.saturating_add(earned).min(BURST)
            });
            self.refilled = now;
        }
        match self.tokens.checked_sub(1) {
            Some(rest) => {
                self.tokens = rest;
                Some(std::mem::take(&mut self.suppressed))
            }
            None => {
                self.suppressed += 1;
                None
            }
        }
    }
}

/// A warning about what a guest did, if its [`LogLimit`] admits it: `guest_warn!(limit, field = value, "text")`.
#[macro_export]
macro_rules! guest_warn {
    ($limit:expr, $($line:tt)*) => {
        if let Some(suppressed) = $limit.admit() {
            tracing::warn!(suppressed, $($line)*);
        }
    };
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_the_rest_is_counted() {
        let mut limit = LogLimit::new();
        let passed = (0..100).filter(|_| limit.admit().is_some()).count();
        assert_eq!(passed, BURST as usize);
        assert_eq!(limit.suppressed, 100 - u64::from(BURST));
        limit.refilled = ticks().wrapping_sub(ticks_of(INTERVAL));
        assert_eq!(limit.admit(), Some(100 - u64::from(BURST)));
        assert_eq!(limit.admit(), None);
    }
}
