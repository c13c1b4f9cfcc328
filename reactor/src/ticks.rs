//! A cheap clock: the time stamp counter where it is usable, else the monotonic clock in nanoseconds.
#![allow(unsafe_code, reason = "reads the time stamp counter")]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Now, in ticks since an arbitrary start.
#[inline]
#[must_use]
pub fn ticks() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: `rdtsc` has no preconditions on x86-64.
    unsafe {
        std::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }
}

/// Ticks per second, measured once (takes 2 ms the first time on x86).
#[must_use]
pub fn tick_rate() -> u64 {
    static RATE: OnceLock<u64> = OnceLock::new();
    *RATE.get_or_init(|| {
        if !cfg!(target_arch = "x86_64") {
            return 1_000_000_000;
        }
        let (start, first) = (Instant::now(), ticks());
        while start.elapsed() < Duration::from_millis(2) {
            std::hint::spin_loop();
        }
        let (elapsed, last) = (start.elapsed(), ticks());
        let rate = u128::from(last - first) * 1_000_000_000 / elapsed.as_nanos().max(1);
        u64::try_from(rate).unwrap_or(1_000_000_000).max(1_000_000)
    })
}

/// A duration in ticks.
#[must_use]
pub fn ticks_of(duration: Duration) -> u64 {
    let ticks = duration.as_nanos() * u128::from(tick_rate()) / 1_000_000_000;
    u64::try_from(ticks).unwrap_or(u64::MAX)
}
