//! The disk that takes its time: SPDK's "delay", over any other disk.
//!
//! A read or write ends as much later than the base ended it as was set: the average latency, and for one in a hundred, chosen at
//! random, the "p99" one. A compare is a read; flushes, unmaps and zeroes are not delayed (as SPDK). Changes
//! count for requests that the base ends from then on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use reactor::{Cx, Op, tick_rate, ticks};
use uuid::{Uuid, uuid};

use crate::io::{Io, IoKind, IoStatus};
use crate::over::Over;
use crate::tags::TagMap;
use crate::traits::{
    Bdev, BdevError, BdevInfo, Channel, DriverValue, Finished, SharedBdev, Submitted,
};

/// Identities that the operator does not give are derived from the base's under this one, as SPDK derives them.
const NAMESPACE: Uuid = uuid!("4009b574-6430-4f1b-bc40-ace811091027");

/// Which of the four latencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Latency {
    /// Most reads.
    AvgRead,
    /// One read in a hundred.
    P99Read,
    /// Most writes.
    AvgWrite,
    /// One write in a hundred.
    P99Write,
}

impl Latency {
    /// All, in the order of [`Latencies`].
    pub const ALL: [Self; 4] = [Self::AvgRead, Self::P99Read, Self::AvgWrite, Self::P99Write];
}

/// Latencies to add, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    /// Of most reads.
    pub avg_read: u64,
    /// Of one read in a hundred.
    pub p99_read: u64,
    /// Of most writes.
    pub avg_write: u64,
    /// Of one write in a hundred.
    pub p99_write: u64,
}

impl Latencies {
    fn get(&self, which: Latency) -> u64 {
        match which {
            Latency::AvgRead => self.avg_read,
            Latency::P99Read => self.p99_read,
            Latency::AvgWrite => self.avg_write,
            Latency::P99Write => self.p99_write,
        }
    }
}

/// Set by the control thread, loaded with every read and write. Nothing else is published with them.
#[derive(Debug, Default)]
struct Settings([AtomicU64; 4]);

impl Settings {
    fn cell(&self, which: Latency) -> &AtomicU64 {
        let [avg_read, p99_read, avg_write, p99_write] = &self.0;
        match which {
            Latency::AvgRead => avg_read,
            Latency::P99Read => p99_read,
            Latency::AvgWrite => avg_write,
            Latency::P99Write => p99_write,
        }
    }

    fn get(&self, which: Latency) -> u64 {
        self.cell(which).load(Ordering::Relaxed)
    }
}

/// A delay disk.
#[derive(Debug)]
pub struct Delay {
    over: Over,
    settings: Arc<Settings>,
}

/// Makes a delay disk over `base`.
///
/// Any latencies do: [`check`] is for those that somebody asks for.
///
/// # Errors
/// `EINVAL` for an empty name.
pub fn create(
    name: impl Into<String>,
    base: SharedBdev,
    uuid: Option<Uuid>,
    latencies: Latencies,
) -> Result<Arc<Delay>, BdevError> {
    let uuid = uuid.unwrap_or_else(|| Uuid::new_v5(&NAMESPACE, base.info().uuid.as_bytes()));
    let over = Over::new(name.into(), "delay", uuid, base)?;
    let settings = Arc::new(Settings::default());
    for which in Latency::ALL {
        settings
            .cell(which)
            .store(latencies.get(which), Ordering::Relaxed);
    }
    Ok(Arc::new(Delay { over, settings }))
}

/// Refuses what `bdev_delay_create` refuses; changing them later one by one allows more.
///
/// # Errors
/// `EINVAL` for a p99 latency below its average.
pub fn check(latencies: &Latencies) -> Result<(), BdevError> {
    let pairs = [
        ("read", latencies.avg_read, latencies.p99_read),
        ("write", latencies.avg_write, latencies.p99_write),
    ];
    for (what, average, p99) in pairs {
        if p99 < average {
            let reason = format!(
                "p99_{what}_latency {p99} is less than avg_{what}_latency {average}: give at least as much"
            );
            return Err(BdevError::new(Errno::EINVAL, reason));
        }
    }
    Ok(())
}

impl Delay {
    /// The latencies now.
    #[must_use]
    pub fn latencies(&self) -> Latencies {
        Latencies {
            avg_read: self.settings.get(Latency::AvgRead),
            p99_read: self.settings.get(Latency::P99Read),
            avg_write: self.settings.get(Latency::AvgWrite),
            p99_write: self.settings.get(Latency::P99Write),
        }
    }

    /// Sets one of them, in microseconds. (Any value, as SPDK.)
    pub fn set_latency(&self, which: Latency, microseconds: u64) {
        self.settings
            .cell(which)
            .store(microseconds, Ordering::Relaxed);
    }
}

impl Bdev for Delay {
    fn info(&self) -> BdevInfo {
        self.over.info()
    }

    fn open(&self, cx: &mut Cx) -> Result<Box<dyn Channel>, BdevError> {
        Ok(Box::new(DelayChannel {
            inner: self.over.open(cx)?,
            settings: Arc::clone(&self.settings),
            // Any seed but zero will do; channels should not choose alike.
            random: ticks() | 1,
            below: TagMap::default(),
            held: TagMap::default(),
        }))
    }

    fn rescan(&self) -> Result<u64, BdevError> {
        self.over.base().rescan()
    }

    fn resize(&self, num_blocks: u64) -> Result<(), BdevError> {
        self.over.base().resize(num_blocks)
    }

    fn driver_specific(&self) -> Vec<(&'static str, DriverValue)> {
        let latencies = self.latencies();
        let uuid = self.over.uuid().hyphenated().to_string();
        vec![
            ("name", DriverValue::Text(self.over.name().to_owned())),
            ("base_bdev_name", DriverValue::Text(self.over.base_name())),
            ("uuid", DriverValue::Text(uuid)),
            ("avg_read_latency", DriverValue::Number(latencies.avg_read)),
            ("p99_read_latency", DriverValue::Number(latencies.p99_read)),
            (
                "avg_write_latency",
                DriverValue::Number(latencies.avg_write),
            ),
            (
                "p99_write_latency",
                DriverValue::Number(latencies.p99_write),
            ),
        ]
    }
}

/// A request that has ended below.
struct Held {
    status: IoStatus,
    /// When it ends here, in ticks.
    until: u64,
}

struct DelayChannel {
    inner: Box<dyn Channel>,
    settings: Arc<Settings>,
    random: u64,
    /// The latency that requests with the base will have, in microseconds; none for those that will not be held.
    below: TagMap<u64>,
    held: TagMap<Held>,
}

impl DelayChannel {
    /// Draws a latency in microseconds.
    fn draw(&mut self, kind: IoKind) -> u64 {
        let (average, p99) = match kind {
            IoKind::Read | IoKind::Compare => (Latency::AvgRead, Latency::P99Read),
            IoKind::Write => (Latency::AvgWrite, Latency::P99Write),
            IoKind::Flush | IoKind::Unmap | IoKind::WriteZeroes => return 0,
        };
        // xorshift64: enough to choose one in a hundred.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let rare = self.random.is_multiple_of(100);
        self.settings.get(if rare { p99 } else { average })
    }

    fn hold(&mut self, cx: &mut Cx, tag: u64, status: IoStatus, latency: u64) -> Finished {
        let wanted = u128::from(latency) * u128::from(tick_rate()) / 1_000_000;
        let until = cx
            .now()
            .saturating_add(u64::try_from(wanted).unwrap_or(u64::MAX));
        match cx.submit(tag, Op::Wait { until }) {
            Ok(()) => {
                self.held.insert(tag, Held { status, until });
                Finished::Queued
            }
            // There is room for every wait.
            Err(_) => Finished::Done(status),
        }
    }

    /// Goes on where the base may have ended a request.
    fn below_ended(&mut self, cx: &mut Cx, tag: u64, finished: Finished) -> Finished {
        match finished {
            Finished::Done(status) => match self.below.remove(tag) {
                Some(latency) if latency > 0 => self.hold(cx, tag, status, latency),
                _ => Finished::Done(status),
            },
            other => other,
        }
    }
}

impl Channel for DelayChannel {
    fn submit(&mut self, cx: &mut Cx, tag: u64, io: Io) -> Submitted {
        let kind = io.kind;
        match self.inner.submit(cx, tag, io) {
            Submitted::Done(status) => match self.draw(kind) {
                0 => Submitted::Done(status),
                latency => match self.hold(cx, tag, status, latency) {
                    Finished::Done(status) => Submitted::Done(status),
                    Finished::Queued | Finished::Stalled(_) => Submitted::Queued,
                },
            },
            Submitted::Queued => {
                let latency = self.draw(kind);
                if latency > 0 {
                    self.below.insert(tag, latency);
                }
                Submitted::Queued
            }
            Submitted::Full(io) => Submitted::Full(io),
        }
    }

    fn finish(&mut self, cx: &mut Cx, tag: u64, op: Op, result: Result<u32, Errno>) -> Finished {
        // What is held here has ended below, so its wait is ours.
        let Some(held) = self.held.get(tag) else {
            let finished = self.inner.finish(cx, tag, op, result);
            return self.below_ended(cx, tag, finished);
        };
        let (status, until) = (held.status, held.until);
        // Waits may be ended early on behalf of others.
        if until > cx.now() && cx.submit(tag, Op::Wait { until }).is_ok() {
            return Finished::Queued;
        }
        self.held.remove(tag);
        Finished::Done(status)
    }

    fn resume(&mut self, cx: &mut Cx, tag: u64, op: Op) -> Finished {
        let finished = self.inner.resume(cx, tag, op);
        self.below_ended(cx, tag, finished)
    }

    fn prefetch(&self, kind: IoKind, lba: u64, blocks: u64) {
        self.inner.prefetch(kind, lba, blocks);
    }

    fn expedite(&mut self, cx: &mut Cx, tag: Option<u64>) {
        self.below.for_each(tag, |latency| *latency = 0);
        self.held.for_each(tag, |held| held.until = 0);
        cx.expire_waits(tag);
        self.inner.expedite(cx, tag);
    }
}

#[cfg(test)]
mod tests;
