//! What a disk has done: the numbers behind `bdev_get_iostat`.
//!
//! One set of plain counters per disk and reactor, shared by all channels of the disk there, so it outlives each of them and
//! counts never go back. A reader asks each reactor by message and adds the answers up.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Weak};

use bitflags::bitflags;
use nix::errno::Errno;
use reactor::{Cx, tick_rate, ticks};

use crate::histogram::{BUCKETS, Histogram, HistogramOptions, LatencyHistogram, bucket_of};
use crate::io::{IoKind, IoStatus};
use crate::limit::{Heads, Limiter};
use crate::traits::{Bdev, SharedBdev};
use crate::uring::AIO_PRODUCT;

/// What was done of one kind of request. Times are in ticks ([`reactor::tick_rate`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpStats {
    /// Requests that ended well.
    pub ops: u64,
    /// Their bytes; zero for flushes.
    pub bytes: u64,
    /// The sum of their times from submission to completion.
    pub latency_ticks: u64,
    /// The longest time.
    pub max_latency_ticks: u64,
    /// The shortest time, [`u64::MAX`] if there is none yet.
    pub min_latency_ticks: u64,
}

impl Default for OpStats {
    fn default() -> Self {
        Self {
            ops: 0,
            bytes: 0,
            latency_ticks: 0,
            max_latency_ticks: 0,
            min_latency_ticks: u64::MAX,
        }
    }
}

impl OpStats {
    fn add(&mut self, other: &Self) {
        self.ops = self.ops.wrapping_add(other.ops);
        self.bytes = self.bytes.wrapping_add(other.bytes);
        self.latency_ticks = self.latency_ticks.wrapping_add(other.latency_ticks);
        self.max_latency_ticks = self.max_latency_ticks.max(other.max_latency_ticks);
        self.min_latency_ticks = self.min_latency_ticks.min(other.min_latency_ticks);
    }
}

/// Requests that did not end well, by SPDK's names for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// The disk or the system below refused or failed, or the request was none for this disk.
    pub failed: u64,
    /// An NVMe status of its own.
    pub nvme_error: u64,
    /// No memory (or no resources) for it.
    pub nomem: u64,
    /// A compare found a difference.
    pub miscompare: u64,
    /// Ended by its user's wish.
    pub aborted: u64,
    /// As `failed`, of an AIO disk.
    pub aio_error: u64,
}

impl Failures {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.named()
            .iter()
            .fold(0, |sum, (_, count)| sum.wrapping_add(*count))
    }

    /// With the names of SPDK's `io_error`, in its order.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 6] {
        [
            ("failed", self.failed),
            ("nvme_error", self.nvme_error),
            ("nomem", self.nomem),
            ("miscompare", self.miscompare),
            ("aborted", self.aborted),
            ("aio_error", self.aio_error),
        ]
    }

    /// The count that a status belongs to; none for [`IoStatus::Ok`].
    fn count_of(&mut self, status: IoStatus, is_aio: bool) -> Option<&mut u64> {
        Some(match status {
            IoStatus::Ok => return None,
            IoStatus::Miscompare => &mut self.miscompare,
            IoStatus::Aborted => &mut self.aborted,
            IoStatus::Nvme { .. } => &mut self.nvme_error,
            IoStatus::Failed(Errno::ENOMEM | Errno::EAGAIN) => &mut self.nomem,
            IoStatus::Failed(_) | IoStatus::NoSpace | IoStatus::BadMemory if is_aio => {
                &mut self.aio_error
            }
            IoStatus::Failed(_)
            | IoStatus::NoSpace
            | IoStatus::BadMemory
            | IoStatus::OutOfRange
            | IoStatus::Unsupported
            | IoStatus::ReadOnly => &mut self.failed,
        })
    }

    fn add(&mut self, other: &Self) {
        self.failed = self.failed.wrapping_add(other.failed);
        self.nvme_error = self.nvme_error.wrapping_add(other.nvme_error);
        self.nomem = self.nomem.wrapping_add(other.nomem);
        self.miscompare = self.miscompare.wrapping_add(other.miscompare);
        self.aborted = self.aborted.wrapping_add(other.aborted);
        self.aio_error = self.aio_error.wrapping_add(other.aio_error);
    }
}

/// What a disk has done, and is at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IoStats {
    /// Reads.
    pub read: OpStats,
    /// Writes, without [`IoStats::write_zeroes`].
    pub write: OpStats,
    /// Compares that found no difference.
    pub compare: OpStats,
    /// Unmaps.
    pub unmap: OpStats,
    /// Write zeroes.
    pub write_zeroes: OpStats,
    /// Flushes.
    pub flush: OpStats,
    /// How long the reads took.
    pub read_latency: LatencyHistogram,
    /// How long the writes took.
    pub write_latency: LatencyHistogram,
    /// Requests of any kind that ended otherwise, whoever's fault it was; compares that found a difference too.
    pub failures: Failures,
    /// Requests that have not ended, those held back included: at this moment, not a sum over time.
    pub in_flight: u64,
    /// Those of them that wait for their turn under a rate limit.
    pub held: u64,
    /// Channels that are open.
    pub channels: u64,
    /// Ticks in which any request was in flight, while that is watched ([`watch_local_depth`]).
    pub busy_ticks: u64,
    /// The sum of the ticks that requests were in flight, while that is watched.
    pub weighted_ticks: u64,
}

impl IoStats {
    /// Adds another reactor's share.
    pub fn add(&mut self, other: &Self) {
        self.read.add(&other.read);
        self.write.add(&other.write);
        self.compare.add(&other.compare);
        self.unmap.add(&other.unmap);
        self.write_zeroes.add(&other.write_zeroes);
        self.flush.add(&other.flush);
        self.read_latency.add(&other.read_latency);
        self.write_latency.add(&other.write_latency);
        self.failures.add(&other.failures);
        self.in_flight = self.in_flight.wrapping_add(other.in_flight);
        self.held = self.held.wrapping_add(other.held);
        self.channels = self.channels.wrapping_add(other.channels);
        self.busy_ticks = self.busy_ticks.wrapping_add(other.busy_ticks);
        self.weighted_ticks = self.weighted_ticks.wrapping_add(other.weighted_ticks);
    }
}

/// What [`reset_local_stats`] forgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatsReset {
    /// Everything but what is in flight.
    All,
    /// Longest and shortest times.
    MaxMin,
    /// The number of failures.
    Errors,
}

bitflags! {
    /// What costs only while it is switched on.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Extras: u8 {
        /// Rate limits.
        const LIMITS = 1;
        /// A histogram of the operator's.
        const HISTOGRAM = 2;
        /// How many requests are in flight, over time.
        const DEPTH = 4;
    }
}

/// How many requests were in flight, over time.
#[derive(Clone, Copy, Debug, Default)]
struct Depth {
    /// Up to when it is summed up.
    upto: u64,
    busy: u64,
    weighted: u64,
}

/// The rate limits, and who waits under them.
#[derive(Debug, Default)]
struct Limits {
    limiter: Option<Arc<Limiter>>,
    version: u64,
    /// Of the channels that hold something back, or have.
    gates: Vec<std::rc::Weak<Heads>>,
}

/// The counters of one disk on one reactor.
#[derive(Debug)]
pub(crate) struct Counters {
    ops: [Cell<OpStats>; 6],
    /// How long reads and writes took, by bucket.
    latency: [[Cell<u64>; BUCKETS]; 2],
    failures: Cell<Failures>,
    in_flight: Cell<u64>,
    held: Cell<u64>,
    /// What is switched on.
    extras: Cell<Extras>,
    depth: Cell<Depth>,
    limits: RefCell<Limits>,
    histogram: RefCell<Option<Histogram>>,
    /// Nanoseconds per tick, times 2³².
    nanos: u64,
    is_aio: bool,
}

fn index(kind: IoKind) -> usize {
    match kind {
        IoKind::Read => 0,
        IoKind::Write => 1,
        IoKind::Flush => 2,
        IoKind::Unmap => 3,
        IoKind::WriteZeroes => 4,
        IoKind::Compare => 5,
    }
}

fn step(cell: &Cell<u64>) {
    cell.set(cell.get().wrapping_add(1));
}

fn step_back(cell: &Cell<u64>, by: u64) {
    cell.set(cell.get().saturating_sub(by));
}

impl Counters {
    pub(crate) fn new(bdev: &SharedBdev) -> Self {
        Self::of_product(bdev.info().product_name)
    }

    fn of_product(product_name: &str) -> Self {
        let nanos = (1_000_000_000u128 << 32) / u128::from(tick_rate());
        Self {
            ops: Default::default(),
            latency: std::array::from_fn(|_| std::array::from_fn(|_| Cell::new(0))),
            failures: Cell::default(),
            in_flight: Cell::new(0),
            held: Cell::new(0),
            extras: Cell::new(Extras::empty()),
            depth: Cell::default(),
            limits: RefCell::default(),
            histogram: RefCell::default(),
            nanos: u64::try_from(nanos).unwrap_or(u64::MAX),
            is_aio: product_name == AIO_PRODUCT,
        }
    }

    /// The bucket of a time in ticks.
    #[inline]
    pub(crate) fn bucket(&self, ticks: u64) -> usize {
        let nanos = (u128::from(ticks) * u128::from(self.nanos)) >> 32;
        bucket_of(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Counts a request that ended well. `bucket` is that of its time.
    #[inline]
    pub(crate) fn count(&self, kind: IoKind, bytes: u64, latency: u64, bucket: usize) {
        let index = index(kind);
        if let Some(count) = self.latency.get(index).and_then(|it| it.get(bucket)) {
            step(count);
        }
        let Some(cell) = self.ops.get(index) else {
            return;
        };
        let mut stats = cell.get();
        stats.add(&OpStats {
            ops: 1,
            bytes,
            latency_ticks: latency,
            max_latency_ticks: latency,
            min_latency_ticks: latency,
        });
        cell.set(stats);
    }

    #[inline]
    pub(crate) fn extras(&self) -> Extras {
        self.extras.get()
    }

    /// A request of any outcome, for what the operator has switched on; `at_once` if it was never in flight.
    #[cold]
    pub(crate) fn note(&self, kind: IoKind, latency: u64, at_once: bool) {
        if let Some(histogram) = &mut *self.histogram.borrow_mut() {
            histogram.tally(kind, latency);
        }
        if at_once && self.extras().contains(Extras::DEPTH) {
            let mut depth = self.depth.get();
            depth.weighted = depth.weighted.wrapping_add(latency);
            if self.in_flight.get() == 0 {
                depth.busy = depth.busy.wrapping_add(latency);
            }
            self.depth.set(depth);
        }
    }

    /// Sums the depth up to `now`, before it changes.
    #[cold]
    fn sum_depth(&self, now: u64) {
        let mut depth = self.depth.get();
        let passed = now.saturating_sub(depth.upto);
        let in_flight = self.in_flight.get();
        depth.weighted = depth.weighted.wrapping_add(passed.wrapping_mul(in_flight));
        if in_flight > 0 {
            depth.busy = depth.busy.wrapping_add(passed);
        }
        depth.upto = depth.upto.max(now);
        self.depth.set(depth);
    }

    /// The limits and their version.
    pub(crate) fn with_limits<R>(&self, with: impl FnOnce(Option<&Limiter>, u64) -> R) -> R {
        let limits = self.limits.borrow();
        with(limits.limiter.as_deref(), limits.version)
    }

    /// A channel will hold requests back.
    pub(crate) fn add_gate(&self, heads: &Rc<Heads>) {
        let gates = &mut self.limits.borrow_mut().gates;
        gates.retain(|gate| gate.strong_count() > 0);
        gates.push(Rc::downgrade(heads));
    }

    pub(crate) fn hold(&self) {
        step(&self.held);
    }

    pub(crate) fn let_go(&self, count: u64) {
        step_back(&self.held, count);
    }

    fn switch(&self, extra: Extras, on: bool) {
        let mut extras = self.extras.get();
        extras.set(extra, on);
        self.extras.set(extras);
    }

    fn set_limits(&self, cx: &mut Cx, limiter: Option<Arc<Limiter>>) {
        self.switch(Extras::LIMITS, limiter.is_some());
        let mut limits = self.limits.borrow_mut();
        limits.limiter = limiter;
        limits.version = limits.version.wrapping_add(1);
        for heads in limits.gates.iter().filter_map(std::rc::Weak::upgrade) {
            for (poller, tag) in heads.iter().filter_map(Cell::get) {
                cx.expire_waits_of(poller, Some(tag));
            }
        }
    }

    fn set_histogram(&self, options: Option<&HistogramOptions>) {
        self.switch(Extras::HISTOGRAM, options.is_some());
        let mut histogram = self.histogram.borrow_mut();
        let is_same = histogram.as_ref().map(Histogram::options) == options;
        if !is_same {
            *histogram = options.map(Histogram::new);
        }
    }

    fn watch_depth(&self, now: u64, on: bool) {
        if on && !self.extras().contains(Extras::DEPTH) {
            self.depth.set(Depth {
                upto: now,
                ..Depth::default()
            });
        }
        self.switch(Extras::DEPTH, on);
    }

    #[cold]
    pub(crate) fn count_failure(&self, status: IoStatus) {
        let mut failures = self.failures.get();
        if let Some(count) = failures.count_of(status, self.is_aio) {
            *count = count.wrapping_add(1);
        }
        self.failures.set(failures);
    }

    /// A request goes on after its submission.
    #[inline]
    pub(crate) fn started(&self, now: u64) {
        if self.extras().contains(Extras::DEPTH) {
            self.sum_depth(now);
        }
        step(&self.in_flight);
    }

    /// Such requests have ended, or their channel has been closed over them.
    #[inline]
    pub(crate) fn ended(&self, now: u64, count: u64) {
        if self.extras().contains(Extras::DEPTH) {
            self.sum_depth(now);
        }
        step_back(&self.in_flight, count);
    }

    fn of(&self, kind: IoKind) -> OpStats {
        self.ops.get(index(kind)).map(Cell::get).unwrap_or_default()
    }

    fn latency_of(&self, kind: IoKind) -> LatencyHistogram {
        let mut histogram = LatencyHistogram::default();
        for (bucket, count) in self
            .latency
            .get(index(kind))
            .into_iter()
            .flatten()
            .enumerate()
        {
            histogram.set(bucket, count.get());
        }
        histogram
    }

    fn snapshot(&self) -> IoStats {
        if self.extras().contains(Extras::DEPTH) {
            self.sum_depth(ticks());
        }
        let depth = self.depth.get();
        IoStats {
            read: self.of(IoKind::Read),
            write: self.of(IoKind::Write),
            compare: self.of(IoKind::Compare),
            unmap: self.of(IoKind::Unmap),
            write_zeroes: self.of(IoKind::WriteZeroes),
            flush: self.of(IoKind::Flush),
            read_latency: self.latency_of(IoKind::Read),
            write_latency: self.latency_of(IoKind::Write),
            failures: self.failures.get(),
            in_flight: self.in_flight.get(),
            held: self.held.get(),
            channels: 0,
            busy_ticks: depth.busy,
            weighted_ticks: depth.weighted,
        }
    }

    fn reset(&self, what: StatsReset) {
        if matches!(what, StatsReset::All | StatsReset::Errors) {
            self.failures.take();
        }
        if what == StatsReset::All {
            self.latency.iter().flatten().for_each(|count| count.set(0));
        }
        for cell in &self.ops {
            match what {
                StatsReset::All => cell.set(OpStats::default()),
                StatsReset::MaxMin => cell.set(OpStats {
                    max_latency_ticks: 0,
                    min_latency_ticks: u64::MAX,
                    ..cell.get()
                }),
                StatsReset::Errors => {}
            }
        }
    }
}

/// A reactor's counters, one entry per disk that was ever opened there and still exists.
#[derive(Default)]
pub(crate) struct Registry {
    disks: Vec<(Weak<dyn Bdev>, Rc<Counters>)>,
}

impl Registry {
    fn find(&self, bdev: &SharedBdev) -> Option<&Rc<Counters>> {
        // A weak reference keeps its address from being used again, so the address is an identity.
        let address = Arc::as_ptr(bdev).cast::<()>();
        let mut disks = self.disks.iter();
        disks
            .find(|(weak, _)| weak.as_ptr().cast::<()>() == address)
            .map(|(_, counters)| counters)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.disks.len()
    }

    /// The counters of `bdev` on this reactor, made on first use; those of disks that are gone are forgotten.
    pub(crate) fn enter(&mut self, bdev: &SharedBdev) -> Rc<Counters> {
        if let Some(counters) = self.find(bdev) {
            return Rc::clone(counters);
        }
        self.disks.retain(|(weak, _)| weak.strong_count() > 0);
        let counters = Rc::new(Counters::new(bdev));
        self.disks
            .push((Arc::downgrade(bdev), Rc::clone(&counters)));
        counters
    }
}

/// What the channels of [`crate::open`] have done to `bdev` on the reactor that `cx` belongs to, those already closed included.
#[must_use]
pub fn local_stats(bdev: &SharedBdev, cx: &mut Cx) -> IoStats {
    let registry = cx.local::<Registry>();
    let Some(counters) = registry.find(bdev) else {
        return IoStats::default();
    };
    // Each channel has a reference, and so has the registry.
    let references = Rc::strong_count(counters) as u64;
    IoStats {
        channels: references.saturating_sub(1),
        ..counters.snapshot()
    }
}

/// Forgets a part of what [`local_stats`] tells.
pub fn reset_local_stats(bdev: &SharedBdev, cx: &mut Cx, what: StatsReset) {
    if let Some(counters) = cx.local::<Registry>().find(bdev) {
        counters.reset(what);
    }
}

/// Puts `bdev` under these limits on the reactor that `cx` belongs to, or under none. The same [`Limiter`] is to be given to all
/// reactors, so that they share it. What waits now waits for its turn under the new limits.
pub fn set_local_limits(bdev: &SharedBdev, cx: &mut Cx, limiter: Option<Arc<Limiter>>) {
    let counters = cx.local::<Registry>().enter(bdev);
    counters.set_limits(cx, limiter);
}

/// Starts a histogram of `bdev` on the reactor that `cx` belongs to, or ends it. One with the same options goes on.
pub fn set_local_histogram(bdev: &SharedBdev, cx: &mut Cx, options: Option<&HistogramOptions>) {
    cx.local::<Registry>().enter(bdev).set_histogram(options);
}

/// What the histogram of [`set_local_histogram`] has counted; `None` without one.
#[must_use]
pub fn local_histogram(bdev: &SharedBdev, cx: &mut Cx) -> Option<Histogram> {
    let counters = cx.local::<Registry>().find(bdev)?;
    counters.histogram.borrow().clone()
}

/// Whether to watch how many requests to `bdev` are in flight on the reactor that `cx` belongs to: [`IoStats::busy_ticks`] and
/// [`IoStats::weighted_ticks`]. Starts from zero.
pub fn watch_local_depth(bdev: &SharedBdev, cx: &mut Cx, on: bool) {
    cx.local::<Registry>().enter(bdev).watch_depth(ticks(), on);
}

#[cfg(test)]
mod tests;
