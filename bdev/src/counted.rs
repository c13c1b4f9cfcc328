//! The channel that device models use: a back-end's channel, counted.
//!
//! # Time
//!
//! A request that goes through the ring is timed from the pass that submitted it to the pass that saw its end, by the clock that
//! each pass reads anyway ([`Cx::now`]): exact to one pass. A request that ends inside `submit` would show no time by that
//! clock, and reading a better one twice costs as much as the request itself: so one read and write in [`SAMPLE`] is
//! timed exactly and stands for those that follow. Other kinds are rare and always timed; all are while the operator has a
//! histogram.
//!
//! # Limits
//!
//! Under rate limits ([`crate::set_local_limits`]) a request passes the channel's [`Gate`] first. One that has to wait is
//! `Queued`, and its end comes as for any other: the wait's completion takes it to the disk. Its time counts from its arrival.

use std::rc::Rc;

use nix::errno::Errno;
use reactor::{Cx, Op, ticks};

use crate::io::{Io, IoKind, IoStatus};
use crate::limit::{Entry, Gate, Release, Turn, Way};
use crate::stats::{Counters, Extras, Registry};
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
        gate: None,
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
    /// Once there has been a limit.
    gate: Option<Box<Gate>>,
}

impl Counted {
    fn sample(&mut self, kind: IoKind) -> Option<&mut Sample> {
        match kind {
            IoKind::Read => Some(&mut self.reads),
            IoKind::Write => Some(&mut self.writes),
            IoKind::Compare | IoKind::Flush | IoKind::Unmap | IoKind::WriteZeroes => None,
        }
    }

    #[inline]
    fn bytes_of(&self, io: &Io) -> u64 {
        match io.kind {
            IoKind::Flush => 0,
            _ => io.blocks.wrapping_mul(self.block_size),
        }
    }

    /// Submits a request that has passed the limits.
    #[inline]
    fn pass(&mut self, cx: &mut Cx, tag: u64, io: Io) -> Submitted {
        let kind = io.kind;
        let bytes = self.bytes_of(&io);
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
                if !self.counters.extras().is_empty() {
                    // Whoever wants to know it all gets it exactly.
                    sample.left = 0;
                    self.counters.note(kind, latency, true);
                }
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
                self.flies(cx, tag, kind, bytes);
            }
            Submitted::Full(_) => {}
        }
        submitted
    }

    /// A request goes on after its submission.
    #[inline]
    fn flies(&mut self, cx: &Cx, tag: u64, kind: IoKind, bytes: u64) {
        let started = cx.now();
        let flight = Flight {
            kind,
            bytes,
            started,
        };
        self.in_flight.insert(tag, flight);
        self.counters.started(started);
    }

    #[inline]
    fn finished(&mut self, cx: &Cx, tag: u64, finished: Finished) -> Finished {
        if let Finished::Done(status) = finished
            && let Some(flight) = self.in_flight.remove(tag)
        {
            self.counters.ended(cx.now(), 1);
            let latency = cx.now().saturating_sub(flight.started);
            if !self.counters.extras().is_empty() {
                self.counters.note(flight.kind, latency, false);
            }
            if status == IoStatus::Ok {
                let bucket = self.counters.bucket(latency);
                let (kind, bytes) = (flight.kind, flight.bytes);
                self.counters.count(kind, bytes, latency, bucket);
            } else {
                self.counters.count_failure(status);
            }
        }
        finished
    }

    /// Submits a request to a disk with limits.
    #[cold]
    fn submit_limited(&mut self, cx: &mut Cx, tag: u64, io: Io) -> Submitted {
        let (kind, bytes) = (io.kind, self.bytes_of(&io));
        let Some(way) = Way::of(kind) else {
            return self.pass(cx, tag, io);
        };
        let gate = self.gate.get_or_insert_with(|| {
            let gate = Box::<Gate>::default();
            self.counters.add_gate(gate.heads());
            gate
        });
        let (now, poller) = (cx.now(), cx.poller());
        let entry = self.counters.with_limits(|limiter, version| match limiter {
            Some(limiter) => gate.enter((limiter, version), now, way, (tag, io), poller),
            None => Entry::Go(io, Default::default()),
        });
        match entry {
            Entry::Go(io, paid) => {
                let submitted = self.pass(cx, tag, io);
                if matches!(submitted, Submitted::Full(_)) {
                    self.counters.with_limits(|limiter, _| {
                        if let Some(limiter) = limiter {
                            limiter.refund(&paid);
                        }
                    });
                }
                submitted
            }
            Entry::Held(next) => {
                self.flies(cx, tag, kind, bytes);
                self.counters.hold();
                if let Some(next) = next {
                    wait(cx, next.tag, next.due);
                }
                Submitted::Queued
            }
        }
    }

    /// A wait has ended: of a request that is held here, or of one that the disk below holds (`None`).
    #[cold]
    fn turn(&mut self, cx: &mut Cx, tag: u64) -> Option<Finished> {
        let gate = self.gate.as_mut()?;
        let now = cx.now();
        let turn = self
            .counters
            .with_limits(|limiter, version| gate.leave((limiter, version), now, tag));
        match turn {
            Turn::Unknown => None,
            Turn::Wait(due) => {
                wait(cx, tag, due);
                Some(Finished::Queued)
            }
            Turn::Go(io, next) => {
                if let Some(next) = next {
                    wait(cx, next.tag, next.due);
                }
                Some(match self.inner.submit(cx, tag, io) {
                    Submitted::Done(status) => {
                        self.counters.let_go(1);
                        Finished::Done(status)
                    }
                    Submitted::Queued => {
                        self.counters.let_go(1);
                        Finished::Queued
                    }
                    Submitted::Full(io) => {
                        if let Some(gate) = &mut self.gate {
                            gate.keep(tag, io);
                        }
                        // A later pass: nothing has ended yet that could make room.
                        wait(cx, tag, now.saturating_add(1));
                        Finished::Queued
                    }
                })
            }
        }
    }
}

/// Starts the wait of a request. Waits are no affair of the ring and always find room.
fn wait(cx: &mut Cx, tag: u64, until: u64) {
    let _ = cx.submit(tag, Op::Wait { until });
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.counters.ended(ticks(), self.in_flight.len());
        if let Some(gate) = &self.gate {
            self.counters.let_go(gate.len());
        }
    }
}

impl Channel for Counted {
    #[inline]
    fn submit(&mut self, cx: &mut Cx, tag: u64, io: Io) -> Submitted {
        if self.counters.extras().contains(Extras::LIMITS) {
            return self.submit_limited(cx, tag, io);
        }
        self.pass(cx, tag, io)
    }

    fn finish(&mut self, cx: &mut Cx, tag: u64, op: Op, result: Result<u32, Errno>) -> Finished {
        let turn = match op {
            Op::Wait { .. } => self.turn(cx, tag),
            _ => None,
        };
        let finished = match turn {
            Some(finished) => finished,
            None => self.inner.finish(cx, tag, op, result),
        };
        self.finished(cx, tag, finished)
    }

    fn resume(&mut self, cx: &mut Cx, tag: u64, op: Op) -> Finished {
        let finished = self.inner.resume(cx, tag, op);
        self.finished(cx, tag, finished)
    }

    fn expedite(&mut self, cx: &mut Cx, tag: Option<u64>) {
        if let Some(gate) = &mut self.gate {
            let now = cx.now();
            self.counters.with_limits(|limiter, _| {
                gate.release(limiter, now, tag, |release| match release {
                    Release::Start(next) => wait(cx, next.tag, next.due),
                    Release::End(tag) => cx.expire_waits(Some(tag)),
                });
            });
        }
        self.inner.expedite(cx, tag);
    }

    #[inline]
    fn prefetch(&self, kind: IoKind, lba: u64, blocks: u64) {
        self.inner.prefetch(kind, lba, blocks);
    }
}

#[cfg(test)]
mod tests;
