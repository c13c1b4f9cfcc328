//! Driving the queues.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::device::{Device, Queue};
use super::{Error, Histogram, Load, Report, Result};
use crate::nvme::PATIENCE;

/// Runs a load against the device behind a socket.
///
/// # Errors
/// If the device refuses something, or a command ends with an error.
pub fn run(socket: &Path, load: &Load) -> Result<Report> {
    let mut device = Device::connect(socket, load)?;
    let blocks = device.blocks;
    let queues = std::mem::take(&mut device.queues);
    let workers = (0..).zip(queues);
    let workers = workers.map(|(index, queue)| Worker::new(queue, load, index, blocks));
    let workers: Vec<Worker> = workers.collect();
    let results: Vec<Result<(u64, Duration, Histogram)>> = std::thread::scope(|scope| {
        let threads: Vec<_> = workers
            .into_iter()
            .enumerate()
            .map(|(index, worker)| {
                let cpu = load.pin.get(index % load.pin.len().max(1)).copied();
                scope.spawn(move || worker.run(load.time, cpu))
            })
            .collect();
        let gone = || Err(Error::Load("a worker panicked".into()));
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| gone()))
            .collect()
    });
    let mut report = Report {
        commands: 0,
        elapsed: Duration::ZERO,
        block_size: load.block_size,
        latency: Histogram::default(),
    };
    for result in results {
        let (commands, elapsed, latency) = result?;
        report.commands += commands;
        report.elapsed = report.elapsed.max(elapsed);
        report.latency.merge(&latency);
    }
    Ok(report)
}

struct Worker {
    queue: Box<dyn Queue>,
    depth: u32,
    /// When the request in each slot was submitted.
    started: Vec<Instant>,
    blocks: u64,
    random: bool,
    read_percent: u64,
    seed: u64,
    next: u64,
}

impl Worker {
    fn new(queue: Box<dyn Queue>, load: &Load, index: u16, blocks: u64) -> Self {
        Self {
            queue,
            depth: load.depth,
            started: vec![Instant::now(); load.depth as usize],
            blocks,
            random: load.random,
            read_percent: u64::from(load.read_percent),
            seed: 0x9e37_79b9_7f4a_7c15 ^ (u64::from(index) << 32 | 1),
            next: blocks / u64::from(load.queues.max(1)) * u64::from(index),
        }
    }

    /// xorshift64*: good enough to spread addresses, and two nanoseconds cheap.
    #[inline]
    fn random(&mut self) -> u64 {
        self.seed ^= self.seed >> 12;
        self.seed ^= self.seed << 25;
        self.seed ^= self.seed >> 27;
        self.seed.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    #[inline]
    fn submit(&mut self, now: Instant) -> Result<()> {
        let block = if self.random {
            ((u128::from(self.random()) * u128::from(self.blocks)) >> 64) as u64
        } else {
            self.next = (self.next + 1) % self.blocks;
            self.next
        };
        let is_read = match self.read_percent {
            100.. => true,
            0 => false,
            percent => self.random() % 100 < percent,
        };
        let slot = self.queue.submit(!is_read, block)?;
        if slot >= self.started.len() {
            self.started.resize(slot + 1, now);
        }
        self.started[slot] = now;
        Ok(())
    }

    fn run(mut self, time: Duration, cpu: Option<usize>) -> Result<(u64, Duration, Histogram)> {
        if let Some(cpu) = cpu {
            let mut set = CpuSet::new();
            // A processor that does not exist leaves the thread where it is.
            let _ = set
                .set(cpu)
                .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
        }
        let start = Instant::now();
        let measure_from = start + time / 10;
        let end = measure_from + time;
        let mut histogram = Histogram::default();
        let (mut outstanding, mut last_seen) = (self.depth, start);
        for _ in 0..self.depth {
            self.submit(start)?;
        }
        self.queue.kick()?;
        while outstanding > 0 {
            let mut taken = 0;
            let now = Instant::now();
            while let Some(slot) = self.queue.poll()? {
                taken += 1;
                if now >= measure_from && now < end {
                    let nanos = now.duration_since(self.started[slot]).as_nanos();
                    histogram.record(u64::try_from(nanos).unwrap_or(u64::MAX));
                }
                if now < end {
                    self.submit(now)?;
                } else {
                    outstanding -= 1;
                }
            }
            if taken > 0 {
                self.queue.kick()?;
                last_seen = now;
            } else if now.duration_since(last_seen) > PATIENCE {
                return Err(Error::TimedOut(PATIENCE));
            }
        }
        Ok((histogram.count(), time, histogram))
    }
}
