//! When a queue interrupts the driver.

use std::time::Duration;

use reactor::{tick_rate, ticks_of};

use crate::blk::Coalescing;
use crate::device::Interrupt;
use crate::queue::Ring;

/// How long requests are counted before the delay follows their rate.
const WINDOW: Duration = Duration::from_millis(10);

/// The interrupt of one queue, with coalescing as SPDK does it: from a rate of requests on, two interrupts are a time apart that grows
/// with the rate.
#[derive(Debug)]
pub(super) struct Signal {
    interrupt: Option<Interrupt>,
    /// Requests have ended since the driver was last told, or found not to want it.
    waiting: bool,
    pace: Option<Pace>,
}

#[derive(Debug)]
struct Pace {
    coalescing: Coalescing,
    window: u64,
    /// When the present window began, and how many requests have ended in it.
    since: u64,
    count: u64,
    /// Time between two interrupts, in ticks.
    delay: u64,
    /// No interrupt before.
    next: u64,
}

impl Pace {
    fn new(coalescing: Coalescing) -> Self {
        Self {
            coalescing,
            window: ticks_of(WINDOW).max(1),
            since: 0,
            count: 0,
            delay: 0,
            next: 0,
        }
    }

    /// Follows the rate, if it is time.
    fn follow(&mut self, now: u64) {
        let elapsed = now.wrapping_sub(self.since);
        if elapsed < self.window {
            return;
        }
        let count = u128::from(std::mem::take(&mut self.count));
        let rate = count * u128::from(tick_rate()) / u128::from(elapsed);
        let threshold = u128::from(self.coalescing.iops_threshold.max(1));
        let over = rate.saturating_sub(threshold);
        let delay_us = u128::from(self.coalescing.delay_us) * over / threshold;
        let most = Duration::from_secs(1).as_micros();
        let delay = Duration::from_micros(u64::try_from(delay_us.min(most)).unwrap_or(u64::MAX));
        (self.since, self.delay) = (now, ticks_of(delay));
    }
}

impl Signal {
    pub(super) fn new(interrupt: Option<Interrupt>, coalescing: Coalescing) -> Self {
        let mut signal = Self {
            interrupt,
            waiting: false,
            pace: None,
        };
        signal.configure(coalescing);
        signal
    }

    /// Follows a change of the settings.
    pub(super) fn configure(&mut self, coalescing: Coalescing) {
        self.pace = (coalescing.delay_us > 0).then(|| Pace::new(coalescing));
    }

    /// Another interrupt from here on. What ended while there was none is told by it.
    pub(super) fn rebind(&mut self, interrupt: Option<Interrupt>) {
        self.interrupt = interrupt;
    }

    /// A request has ended.
    #[inline]
    pub(super) fn note(&mut self) {
        self.waiting = true;
        if let Some(pace) = &mut self.pace {
            pace.count += 1;
        }
    }

    /// The ring was found in memory: asks it about interrupts in any case. The process before may have died between a used entry and its
    /// interrupt, and what ended while the ring was away has been told to nobody.
    pub(super) fn ask(&mut self) {
        self.waiting = true;
    }

    /// Signals if something is to be signalled now and the driver wants it; whether it did.
    #[inline]
    pub(super) fn flush(&mut self, now: u64, ring: &mut impl Ring) -> bool {
        self.waiting && self.signal(now, ring)
    }

    fn signal(&mut self, now: u64, ring: &mut impl Ring) -> bool {
        let Some(interrupt) = &self.interrupt else {
            return false;
        };
        if let Some(pace) = &mut self.pace {
            pace.follow(now);
            if now < pace.next {
                return false;
            }
        }
        self.waiting = false;
        if !ring.wants_interrupt() {
            return false;
        }
        interrupt.signal();
        if let Some(pace) = &mut self.pace {
            pace.next = now.saturating_add(pace.delay);
        }
        true
    }

    /// When a held interrupt must be raised, in ticks.
    pub(super) fn deadline(&self) -> Option<u64> {
        let pace = self.pace.as_ref()?;
        (self.waiting && self.interrupt.is_some()).then_some(pace.next)
    }
}

#[cfg(test)]
mod tests;
