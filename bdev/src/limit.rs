//! How much of a disk may be used: SPDK's rate limits.
//!
//! ```text
//!  all reactors:   Arc<Limiter>     one token bucket per limit, as the time at which it has paid its debts: one atomic each
//!  one channel:    Gate             what waits for its turn, in order of arrival
//!                    first in line: has reserved its share of the buckets' time, waits for it by Op::Wait
//!                    all others:    wait for the one before
//! ```
//! **Accuracy.** Every request pushes each bucket's time on by what it costs there, and may go when that time *was* reached. So
//! nothing is lost or won by rounding, by time slices or by a reactor that looks late: time that has passed while somebody waited is
//! still to be had.
//!
//! **Fairness.** A channel has one reservation at a time, for one turn, so channels take turns however many requests each has.
//! With requests of different sizes a turn is as long as the longest request that waited lately: who has small ones
//! gets several in one turn (deficit round robin with reservations for deficits).
//!
//! **Cost.** Without a limit one flag is tested. With limits a request costs one compare-and-swap per limit, and two more entries
//! in the reactor's timers if it has to wait.

mod gate;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reactor::{tick_rate, ticks, ticks_of};

#[cfg(test)]
use gate::Next;
pub(crate) use gate::{Entry, Gate, Heads, Release, Turn};

use crate::io::IoKind;

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

/// What was not used is kept at least so long: for users with few requests, whose next one comes a little after its turn. In one
/// second it makes half a per cent.
const LEAST_BURST: Duration = Duration::from_millis(5);
/// A reactor that lets a request go too late makes up for at most this much.
const CATCH_UP: Duration = Duration::from_millis(250);
/// How long the longest request is remembered.
const MEMORY: Duration = Duration::from_secs(1);

/// Limits that a request comes under.
const LIMITS: usize = 4;

/// What a request, or several, take of each bucket's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost([u64; LIMITS]);

impl Cost {
    fn and(mut self, other: Self) -> Self {
        for (mine, its) in self.0.iter_mut().zip(other.0) {
            *mine = mine.saturating_add(its);
        }
        self
    }

    /// The time it takes where it takes most.
    fn longest(self) -> u64 {
        self.0.into_iter().max().unwrap_or(0)
    }

    /// As the times at which shares of the buckets begin: when a request of this cost may go.
    fn due(&self, cost: &Self) -> u64 {
        let concerned = self.0.iter().zip(cost.0).filter(|(_, cost)| *cost > 0);
        concerned.map(|(from, _)| *from).max().unwrap_or(0)
    }
}

/// A token bucket.
#[derive(Debug)]
struct Bucket {
    /// Ticks per request or byte, times 2³².
    price: u64,
    /// When it has paid for all that was taken. In the past: so much may be taken at once.
    ///
    /// Only a number that all agree on, nothing is published by it: relaxed order is enough.
    paid: AtomicU64,
}

impl Bucket {
    fn new(per_sec: u64, now: u64) -> Option<Self> {
        let price = (u128::from(tick_rate()) << 32).checked_div(u128::from(per_sec))?;
        Some(Self {
            price: u64::try_from(price).unwrap_or(u64::MAX),
            paid: AtomicU64::new(now),
        })
    }

    fn cost(&self, units: u64) -> u64 {
        let ticks = (u128::from(units) * u128::from(self.price) + (1 << 31)) >> 32;
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    /// Takes so much of its time, from `floor` on at the earliest; from when on it is.
    fn reserve(&self, cost: u64, floor: u64) -> u64 {
        let push = |paid: u64| Some(paid.max(floor).saturating_add(cost));
        match self
            .paid
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, push)
        {
            Ok(paid) | Err(paid) => paid.max(floor),
        }
    }

    fn refund(&self, cost: u64) {
        let pull = |paid: u64| Some(paid.saturating_sub(cost));
        let _ = self
            .paid
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, pull);
    }
}

/// Which way a request's data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    In,
    Out,
}

impl Way {
    /// `None` for requests that pass freely.
    #[inline]
    pub(crate) fn of(kind: IoKind) -> Option<Self> {
        match kind {
            IoKind::Read | IoKind::Compare => Some(Self::In),
            IoKind::Write => Some(Self::Out),
            IoKind::Flush | IoKind::Unmap | IoKind::WriteZeroes => None,
        }
    }
}

/// The limits of one disk at work: shared by all reactors ([`crate::set_local_limits`]).
#[derive(Debug)]
pub struct Limiter {
    /// Requests; bytes; bytes read; bytes written.
    buckets: [Option<Bucket>; LIMITS],
    /// How long what was not used is kept, in ticks.
    burst: u64,
    catch_up: u64,
    /// The longest request that waited lately, in ticks, and until when that is remembered. Wrong for a moment in a race, which
    /// makes one turn too short or too long.
    longest: AtomicU64,
    longest_until: AtomicU64,
}

impl Limiter {
    /// Limits that begin now, with no burst kept from before; `None` if nothing is limited.
    #[must_use]
    pub fn new(limits: &RateLimits) -> Option<Arc<Self>> {
        // Reactors know what time it was when their pass began.
        let now = ticks().saturating_sub(ticks_of(LEAST_BURST));
        Self::starting(limits, now).map(Arc::new)
    }

    fn starting(limits: &RateLimits, now: u64) -> Option<Self> {
        if !limits.is_set() {
            return None;
        }
        let bytes = |mbytes: u64| Bucket::new(mbytes.saturating_mul(1 << 20), now);
        Some(Self {
            buckets: [
                Bucket::new(limits.rw_ios_per_sec, now),
                bytes(limits.rw_mbytes_per_sec),
                bytes(limits.r_mbytes_per_sec),
                bytes(limits.w_mbytes_per_sec),
            ],
            burst: ticks_of(limits.burst.max(LEAST_BURST)),
            catch_up: ticks_of(CATCH_UP),
            longest: AtomicU64::new(0),
            longest_until: AtomicU64::new(0),
        })
    }

    /// Whether reads and writes have limits of their own, so that they must not wait for each other.
    fn is_split(&self) -> bool {
        matches!(&self.buckets, [_, _, reads, writes] if reads.is_some() || writes.is_some())
    }

    fn cost(&self, way: Way, bytes: u64) -> Cost {
        let units = match way {
            Way::In => [1, bytes, bytes, 0],
            Way::Out => [1, bytes, 0, bytes],
        };
        let mut cost = Cost::default();
        for ((place, bucket), units) in cost.0.iter_mut().zip(&self.buckets).zip(units) {
            *place = bucket.as_ref().map_or(0, |bucket| bucket.cost(units));
        }
        cost
    }

    /// From when on time may be taken at `now`: `since` is when the request in front was due, for those who were in line since then.
    fn floor(&self, now: u64, since: Option<u64>) -> u64 {
        let kept = now.saturating_sub(self.burst);
        match since {
            Some(since) => kept.min(since.max(now.saturating_sub(self.catch_up))),
            None => kept,
        }
    }

    /// Takes time from all buckets that the cost concerns; from when on it is, in each. Others begin at 0.
    fn reserve(&self, cost: &Cost, floor: u64) -> Cost {
        let mut from = Cost::default();
        for ((from, bucket), cost) in from.0.iter_mut().zip(&self.buckets).zip(cost.0) {
            if let Some(bucket) = bucket
                && cost > 0
            {
                *from = bucket.reserve(cost, floor);
            }
        }
        from
    }

    /// Gives back what a request has paid that does not go.
    pub(crate) fn refund(&self, cost: &Cost) {
        for (bucket, cost) in self.buckets.iter().zip(cost.0) {
            if let Some(bucket) = bucket
                && cost > 0
            {
                bucket.refund(cost);
            }
        }
    }

    /// Remembers how long a request is that has to wait.
    fn note(&self, cost: &Cost, now: u64) {
        let length = cost.longest();
        let longest = self.longest.load(Ordering::Relaxed);
        if length >= longest || now > self.longest_until.load(Ordering::Relaxed) {
            let until = now
                .saturating_add(length.saturating_mul(4))
                .saturating_add(ticks_of(MEMORY));
            self.longest.store(length, Ordering::Relaxed);
            self.longest_until.store(until, Ordering::Relaxed);
        }
    }

    /// How long a turn is that has more than one request.
    fn turn(&self) -> u64 {
        self.longest.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
