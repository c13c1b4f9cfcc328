//! What happened between two pictures of the daemon.

use crate::cli::units::lossy;
use crate::telemetry::{
    BdevTelemetry, ControllerTelemetry, OpTelemetry, QueueTelemetry, ReactorTelemetry, Telemetry,
};

/// A picture and the one before it.
#[derive(Clone, Debug, Default)]
pub(super) struct Picture {
    pub(super) now: Telemetry,
    before: Option<Telemetry>,
}

/// Requests and bytes per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Flow {
    pub(super) reads: f64,
    pub(super) writes: f64,
    /// All kinds of requests.
    pub(super) requests: f64,
    pub(super) read_bytes: f64,
    pub(super) written_bytes: f64,
}

impl Flow {
    fn add(&mut self, other: &Self) {
        self.reads += other.reads;
        self.writes += other.writes;
        self.requests += other.requests;
        self.read_bytes += other.read_bytes;
        self.written_bytes += other.written_bytes;
    }
}

/// How long requests of an interval took, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Latency {
    counts: Vec<u64>,
}

impl Picture {
    /// Takes in the next picture. One of another daemon is not compared with its predecessor's.
    pub(super) fn update(&mut self, next: Telemetry) {
        let same =
            self.now.pid == next.pid && self.now.ticks < next.ticks && self.now.tick_rate > 0;
        let former = std::mem::replace(&mut self.now, next);
        self.before = same.then_some(former);
    }

    /// Whether there are rates.
    pub(super) fn has_rates(&self) -> bool {
        self.before.is_some()
    }

    /// Between the pictures; 0 if there is one only.
    pub(super) fn seconds(&self) -> f64 {
        let Some(before) = &self.before else {
            return 0.0;
        };
        let ticks = self.now.ticks.saturating_sub(before.ticks);
        lossy(ticks) / lossy(self.now.tick_rate.max(1))
    }

    fn per_second(&self, now: u64, before: u64) -> f64 {
        let seconds = self.seconds();
        if seconds <= 0.0 {
            return 0.0;
        }
        lossy(since(now, before)) / seconds
    }

    /// Busy ticks and all ticks of the interval; of the reactor's life if there is one picture only.
    pub(super) fn reactor_time(&self, reactor: &ReactorTelemetry) -> (u64, u64) {
        let before = self.reactor_before(reactor);
        let (was_busy, was_idle) = before.map_or((0, 0), |before| (before.busy, before.idle));
        let busy = since(reactor.busy, was_busy);
        (busy, busy.saturating_add(since(reactor.idle, was_idle)))
    }

    /// System calls on the ring per second.
    pub(super) fn enters(&self, reactor: &ReactorTelemetry) -> f64 {
        let before = self.reactor_before(reactor);
        before.map_or(0.0, |before| self.per_second(reactor.enters, before.enters))
    }

    /// Runs of a poller per second, and those that found work.
    pub(super) fn poller(&self, reactor: &ReactorTelemetry, index: usize) -> (f64, f64) {
        let now = reactor.pollers.get(index);
        let pollers = self.reactor_before(reactor).map(|before| &before.pollers);
        let before = now.zip(pollers).and_then(|(now, pollers)| {
            let mut pollers = pollers.iter();
            pollers.find(|it| it.id == now.id && it.name == now.name)
        });
        now.zip(before).map_or((0.0, 0.0), |(now, before)| {
            let runs = self.per_second(now.run_count, before.run_count);
            (runs, self.per_second(now.busy_count, before.busy_count))
        })
    }

    fn reactor_before(&self, reactor: &ReactorTelemetry) -> Option<&ReactorTelemetry> {
        let mut reactors = self.before.as_ref()?.reactors.iter();
        reactors.find(|before| before.lcore == reactor.lcore)
    }

    pub(super) fn bdev(&self, bdev: &BdevTelemetry) -> Flow {
        let Some(before) = self.bdev_before(bdev) else {
            return Flow::default();
        };
        let kinds = bdev.kinds().into_iter().zip(before.kinds());
        let requests = kinds.map(|((_, now), (_, before))| self.per_second(now.ops, before.ops));
        Flow {
            reads: self.per_second(bdev.read.ops, before.read.ops),
            writes: self.per_second(bdev.write.ops, before.write.ops),
            requests: requests.sum(),
            read_bytes: self.per_second(bdev.read.bytes, before.read.bytes),
            written_bytes: self.per_second(bdev.write.bytes, before.write.bytes),
        }
    }

    /// All bdevs together. A disk that stands on another counts beside it.
    pub(super) fn all_bdevs(&self) -> Flow {
        let mut sum = Flow::default();
        for bdev in &self.now.bdevs {
            sum.add(&self.bdev(bdev));
        }
        sum
    }

    /// Of reads and writes together.
    pub(super) fn latency(&self, bdev: &BdevTelemetry) -> Latency {
        let mut latency = self.read_latency(bdev);
        latency.add(&self.write_latency(bdev));
        latency
    }

    pub(super) fn read_latency(&self, bdev: &BdevTelemetry) -> Latency {
        let before = self.bdev_before(bdev);
        before.map_or_else(Latency::default, |before| {
            Latency::between(&bdev.read, &before.read)
        })
    }

    pub(super) fn write_latency(&self, bdev: &BdevTelemetry) -> Latency {
        let before = self.bdev_before(bdev);
        before.map_or_else(Latency::default, |before| {
            Latency::between(&bdev.write, &before.write)
        })
    }

    fn bdev_before(&self, bdev: &BdevTelemetry) -> Option<&BdevTelemetry> {
        let mut bdevs = self.before.as_ref()?.bdevs.iter();
        bdevs.find(|before| before.name == bdev.name)
    }

    /// A guest's commands, over all its queues.
    pub(super) fn controller(&self, controller: &ControllerTelemetry) -> Flow {
        let before = self.controller_before(controller);
        before.map_or_else(Flow::default, |before| {
            let (now, before) = (&controller.total, &before.total);
            Flow {
                reads: self.per_second(now.read_ops, before.read_ops),
                writes: self.per_second(now.write_ops, before.write_ops),
                requests: self.per_second(now.commands, before.commands),
                read_bytes: self.per_second(now.read_bytes, before.read_bytes),
                written_bytes: self.per_second(now.written_bytes, before.written_bytes),
            }
        })
    }

    pub(super) fn interrupts(&self, controller: &ControllerTelemetry) -> f64 {
        let before = self.controller_before(controller);
        before.map_or(0.0, |before| {
            self.per_second(controller.total.interrupts, before.total.interrupts)
        })
    }

    /// One queue's commands, and its interrupts per second.
    pub(super) fn queue(
        &self,
        controller: &ControllerTelemetry,
        queue: &QueueTelemetry,
    ) -> (Flow, f64) {
        let before = self.controller_before(controller);
        // Another guest's queue of the same number is another queue.
        let before = before
            .filter(|before| before.connections == controller.connections)
            .and_then(|before| before.queues.iter().find(|before| before.qid == queue.qid));
        before.map_or((Flow::default(), 0.0), |before| {
            let (now, before) = (&queue.counters, &before.counters);
            let flow = Flow {
                reads: self.per_second(now.read_ops, before.read_ops),
                writes: self.per_second(now.write_ops, before.write_ops),
                requests: self.per_second(now.commands, before.commands),
                read_bytes: self.per_second(now.read_bytes, before.read_bytes),
                written_bytes: self.per_second(now.written_bytes, before.written_bytes),
            };
            (flow, self.per_second(now.interrupts, before.interrupts))
        })
    }

    fn controller_before(&self, controller: &ControllerTelemetry) -> Option<&ControllerTelemetry> {
        let mut controllers = self.before.as_ref()?.controllers.iter();
        controllers.find(|before| before.kind == controller.kind && before.name == controller.name)
    }
}

impl Latency {
    fn between(now: &OpTelemetry, before: &OpTelemetry) -> Self {
        // Fewer than before: they were set back in between, and count from there.
        let reset = now.ops < before.ops;
        let zeros = std::iter::repeat(&0);
        let before = before.buckets.iter().chain(zeros);
        let counts = now.buckets.iter().zip(before);
        let counts =
            counts.map(|(now, before)| now.saturating_sub(if reset { 0 } else { *before }));
        Self {
            counts: counts.collect(),
        }
    }

    fn add(&mut self, other: &Self) {
        let length = self.counts.len().max(other.counts.len());
        self.counts.resize(length, 0);
        for (count, other) in self.counts.iter_mut().zip(&other.counts) {
            *count = count.saturating_add(*other);
        }
    }

    /// The time within which this share (0 to 1) of the requests ended, in nanoseconds: evenly spread in its bucket. `None` if
    /// there were none.
    pub(super) fn quantile(&self, share: f64, bounds: &[u64]) -> Option<f64> {
        let total: u64 = self.counts.iter().copied().fold(0, u64::saturating_add);
        if total == 0 {
            return None;
        }
        let wanted = lossy(total) * share;
        let (mut below, mut lower) = (0.0, 0.0);
        for (index, count) in self.counts.iter().enumerate() {
            let count = lossy(*count);
            // Of the last bucket it is known only where it begins.
            let upper = bounds.get(index).map_or(lower, |bound| lossy(*bound));
            if count > 0.0 && below + count >= wanted {
                let within = ((wanted - below) / count).clamp(0.0, 1.0);
                return Some(lower + (upper - lower) * within);
            }
            below += count;
            lower = upper;
        }
        Some(lower)
    }
}

/// The growth of a counter that may have been set back.
fn since(now: u64, before: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}

#[cfg(test)]
mod tests;
