//! What a disk has done: the numbers behind `bdev_get_iostat`.
//!
//! One set of plain counters per disk and reactor, shared by all channels of the disk there, so it outlives each of them and
//! counts never go back. A reader asks each reactor by message and adds the answers up.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use nix::errno::Errno;
use reactor::{Cx, tick_rate};

use crate::histogram::{BUCKETS, LatencyHistogram, bucket_of};
use crate::io::{IoKind, IoStatus};
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

/// The counters of one disk on one reactor.
#[derive(Debug)]
pub(crate) struct Counters {
    ops: [Cell<OpStats>; 6],
    /// How long reads and writes took, by bucket.
    latency: [[Cell<u64>; BUCKETS]; 2],
    failures: Cell<Failures>,
    in_flight: Cell<u64>,
    held: Cell<u64>,
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
    pub(crate) fn started(&self) {
        step(&self.in_flight);
    }

    /// Such requests have ended, or their channel has been closed over them.
    #[inline]
    pub(crate) fn ended(&self, count: u64) {
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
    registry
        .find(bdev)
        .map(|counters| counters.snapshot())
        .unwrap_or_default()
}

/// Forgets a part of what [`local_stats`] tells.
pub fn reset_local_stats(bdev: &SharedBdev, cx: &mut Cx, what: StatsReset) {
    if let Some(counters) = cx.local::<Registry>().find(bdev) {
        counters.reset(what);
    }
}

#[cfg(test)]
mod tests;
