//! What a disk has done: the numbers behind `bdev_get_iostat`.
//!
//! One set of plain counters per disk and reactor, shared by all channels of the disk there, so it outlives each of them and
//! counts never go back. A reader asks each reactor by message and adds the answers up.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use reactor::Cx;

use crate::io::IoKind;
use crate::traits::{Bdev, SharedBdev};

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

/// What a disk has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    /// Requests of any kind that ended otherwise, whoever's fault it was; compares that found a difference too.
    pub failed: u64,
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
        self.failed = self.failed.wrapping_add(other.failed);
    }
}

/// What [`reset_local_stats`] forgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatsReset {
    /// Everything.
    All,
    /// Longest and shortest times.
    MaxMin,
    /// The number of failures.
    Errors,
}

/// The counters of one disk on one reactor.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    ops: [Cell<OpStats>; 6],
    failed: Cell<u64>,
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

impl Counters {
    #[inline]
    pub(crate) fn count(&self, kind: IoKind, bytes: u64, latency: u64) {
        let Some(cell) = self.ops.get(index(kind)) else {
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

    pub(crate) fn count_failure(&self) {
        self.failed.set(self.failed.get().wrapping_add(1));
    }

    fn of(&self, kind: IoKind) -> OpStats {
        self.ops.get(index(kind)).map(Cell::get).unwrap_or_default()
    }

    fn snapshot(&self) -> IoStats {
        IoStats {
            read: self.of(IoKind::Read),
            write: self.of(IoKind::Write),
            compare: self.of(IoKind::Compare),
            unmap: self.of(IoKind::Unmap),
            write_zeroes: self.of(IoKind::WriteZeroes),
            flush: self.of(IoKind::Flush),
            failed: self.failed.get(),
        }
    }

    fn reset(&self, what: StatsReset) {
        if matches!(what, StatsReset::All | StatsReset::Errors) {
            self.failed.set(0);
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
        let counters = Rc::new(Counters::default());
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
