//! The channel that device models use: a back-end's channel, counted.
//!
//! # Time
//!
//! A request that goes through the ring is timed from the pass that submitted it to the pass that saw its end, by the clock that
//! each pass reads anyway ([`Cx::now`]): exact to one pass. A request that ends inside `submit` would show no time by that
//! clock, and reading a better one twice costs as much as the request itself: so one read and write in [`SAMPLE`] is
//! timed exactly and stands for those that follow. Other kinds are rare and always timed.

use std::rc::Rc;

use nix::errno::Errno;
use reactor::{Cx, Op, ticks};

use crate::io::{Io, IoKind, IoStatus};
use crate::stats::{Counters, Registry};
use crate::tags::TagMap;
use crate::traits::{BdevError, Channel, Finished, SharedBdev, Submitted};

/// One in this many reads (and writes) that end at once is timed.
const SAMPLE: u32 = 32;

/// Opens `bdev` for one user on the reactor that `cx` belongs to, with its requests counted in [`crate::local_stats`].
///
/// # Errors
/// As [`crate::Bdev::open`].
pub fn open(bdev: &SharedBdev, cx: &mut Cx) -> Result<Box<dyn Channel>, BdevError> {
    let inner = bdev.open(cx)?;
    let block_size = bdev.info().block_size;
    let counters = cx.local::<Registry>().enter(bdev);
    Ok(Box::new(Counted {
        inner,
        counters,
        block_size: u64::from(block_size),
        in_flight: TagMap::default(),
        reads: Sample::default(),
        writes: Sample::default(),
    }))
}

/// The last time measured, and for how many more requests it stands.
#[derive(Default)]
struct Sample {
    left: u32,
    latency: u64,
    bucket: usize,
}

impl Sample {
    /// When this request began, if it is one to be timed.
    #[inline]
    fn start(&mut self) -> Option<u64> {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                None
            }
            None => Some(ticks()),
        }
    }

    /// The time of a request that has ended, and its bucket.
    #[inline]
    fn end(&mut self, started: Option<u64>, counters: &Counters) -> (u64, usize) {
        if let Some(started) = started {
            self.latency = ticks().saturating_sub(started);
            self.bucket = counters.bucket(self.latency);
            self.left = SAMPLE - 1;
        }
        (self.latency, self.bucket)
    }
}

struct Flight {
    kind: IoKind,
    bytes: u64,
    started: u64,
}

struct Counted {
    inner: Box<dyn Channel>,
    counters: Rc<Counters>,
    block_size: u64,
    in_flight: TagMap<Flight>,
    reads: Sample,
    writes: Sample,
}

impl Counted {
    fn sample(&mut self, kind: IoKind) -> Option<&mut Sample> {
        match kind {
            IoKind::Read => Some(&mut self.reads),
            IoKind::Write => Some(&mut self.writes),
            IoKind::Compare | IoKind::Flush | IoKind::Unmap | IoKind::WriteZeroes => None,
        }
    }

    fn finished(&mut self, cx: &Cx, tag: u64, finished: Finished) -> Finished {
        if let Finished::Done(status) = finished
            && let Some(flight) = self.in_flight.remove(tag)
        {
            self.counters.ended(1);
            if status == IoStatus::Ok {
                let latency = cx.now().saturating_sub(flight.started);
                let bucket = self.counters.bucket(latency);
                let (kind, bytes) = (flight.kind, flight.bytes);
                self.counters.count(kind, bytes, latency, bucket);
            } else {
                self.counters.count_failure(status);
            }
        }
        finished
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.counters.ended(self.in_flight.len());
    }
}

impl Channel for Counted {
    #[inline]
    fn submit(&mut self, cx: &mut Cx, tag: u64, io: Io) -> Submitted {
        let kind = io.kind;
        let bytes = match kind {
            IoKind::Flush => 0,
            _ => io.blocks.wrapping_mul(self.block_size),
        };
        let started = match self.sample(kind) {
            Some(sample) => sample.start(),
            None => Some(ticks()),
        };
        let submitted = self.inner.submit(cx, tag, io);
        match submitted {
            Submitted::Done(status) => {
                let sample = match kind {
                    IoKind::Read => &mut self.reads,
                    IoKind::Write => &mut self.writes,
                    _ => &mut Sample::default(),
                };
                let (latency, bucket) = sample.end(started, &self.counters);
                if status == IoStatus::Ok {
                    self.counters.count(kind, bytes, latency, bucket);
                } else {
                    self.counters.count_failure(status);
                }
            }
            Submitted::Queued => {
                if let Some(sample) = self.sample(kind) {
                    sample.left = SAMPLE;
                }
                let started = cx.now();
                let flight = Flight {
                    kind,
                    bytes,
                    started,
                };
                self.in_flight.insert(tag, flight);
                self.counters.started();
            }
            Submitted::Full(_) => {}
        }
        submitted
    }

    fn finish(&mut self, cx: &mut Cx, tag: u64, op: Op, result: Result<u32, Errno>) -> Finished {
        let finished = self.inner.finish(cx, tag, op, result);
        self.finished(cx, tag, finished)
    }

    fn resume(&mut self, cx: &mut Cx, tag: u64, op: Op) -> Finished {
        let finished = self.inner.resume(cx, tag, op);
        self.finished(cx, tag, finished)
    }

    fn expedite(&mut self, cx: &mut Cx, tag: Option<u64>) {
        self.inner.expedite(cx, tag);
    }

    #[inline]
    fn prefetch(&self, kind: IoKind, lba: u64, blocks: u64) {
        self.inner.prefetch(kind, lba, blocks);
    }
}

#[cfg(test)]
mod tests;
