//! Driving the queues.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use nvme_spec::command::RwCdw12;
use nvme_spec::{NvmOpcode, Sqe};

use super::{Histogram, Load, Report};
use crate::nvme::{Driver, Error, GuestRam, Options, PATIENCE, QueuePair, RamError, Result};

/// Runs a load against the controller behind a vfio-user socket.
///
/// # Errors
/// If the controller refuses something, or a command ends with an error.
pub fn run(socket: &Path, load: &Load) -> Result<Report> {
    let buffers = u64::from(load.block_size) * u64::from(load.depth) * u64::from(load.queues);
    let lists = u64::from(load.block_size / (512 * 4096) + 1) * 4096;
    let overhead = u64::from(load.queues) * u64::from(load.depth) * lists + (64 << 20);
    let ram = usize::try_from(buffers + overhead).map_err(|_| RamError::Exhausted(usize::MAX))?;
    let mut driver = Driver::connect(
        socket,
        &Options {
            ram,
            ..Options::default()
        },
    )?;
    let (block, blocks) = driver.geometry(load.nsid)?;
    if load.block_size == 0 || !load.block_size.is_multiple_of(block) {
        let text = format!(
            "{} bytes are no multiple of the block size {block}",
            load.block_size
        );
        return Err(Error::Protocol(text));
    }
    let per_command = load.block_size / block;
    let slots = blocks / u64::from(per_command);
    if slots == 0 {
        return Err(Error::Protocol(
            "the disk is smaller than one command".into(),
        ));
    }
    let mut workers = Vec::new();
    for index in 0..load.queues {
        let pair = driver.create_queue_pair(load.depth + 1, None)?;
        if !pair.is_mapped() {
            return Err(Error::Protocol("the doorbells cannot be mapped".into()));
        }
        workers.push(Worker::new(
            pair,
            driver.ram(),
            load,
            index,
            per_command,
            slots,
        )?);
    }
    let results: Vec<Result<(u64, Duration, Histogram)>> = std::thread::scope(|scope| {
        let threads: Vec<_> = workers
            .into_iter()
            .enumerate()
            .map(|(index, worker)| {
                let cpu = load.pin.get(index % load.pin.len().max(1)).copied();
                scope.spawn(move || worker.run(load.time, cpu))
            })
            .collect();
        let gone = || Err(Error::Protocol("a worker panicked".into()));
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
    pair: QueuePair,
    /// One command per identifier, its buffer fixed.
    commands: Vec<Sqe>,
    started: Vec<Instant>,
    slots: u64,
    per_command: u64,
    random: bool,
    read_percent: u64,
    seed: u64,
    next: u64,
}

impl Worker {
    fn new(
        pair: QueuePair,
        ram: &GuestRam,
        load: &Load,
        index: u16,
        per_command: u32,
        slots: u64,
    ) -> Result<Self> {
        let nlb_z = u16::try_from(per_command - 1)
            .map_err(|_| Error::Protocol("more than 65536 blocks per command".into()))?;
        let commands = (0..load.depth)
            .map(|cid| {
                let buffer = ram.alloc(load.block_size as usize, 4096)?;
                let (prp1, prp2) = ram.prps(buffer, load.block_size as usize)?;
                let mut sqe = Sqe::nvm(NvmOpcode::READ, load.nsid)
                    .with_prps(prp1, prp2)
                    .with_cid(u16::try_from(cid).unwrap_or(u16::MAX));
                sqe.cdw12 = RwCdw12::new().with_nlb_z(nlb_z).into_bits();
                Ok(sqe)
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            pair,
            started: vec![Instant::now(); commands.len()],
            commands,
            slots,
            per_command: u64::from(per_command),
            random: load.random,
            read_percent: u64::from(load.read_percent),
            seed: 0x9e37_79b9_7f4a_7c15 ^ (u64::from(index) << 32 | 1),
            next: slots / u64::from(load.queues.max(1)) * u64::from(index),
        })
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
    fn submit(&mut self, cid: usize, now: Instant) {
        let slot = if self.random {
            ((u128::from(self.random()) * u128::from(self.slots)) >> 64) as u64
        } else {
            self.next = (self.next + 1) % self.slots;
            self.next
        };
        let is_read = match self.read_percent {
            100.. => true,
            0 => false,
            percent => self.random() % 100 < percent,
        };
        let opcode = if is_read {
            NvmOpcode::READ
        } else {
            NvmOpcode::WRITE
        };
        let sqe = &mut self.commands[cid];
        sqe.cdw0 = sqe.cdw0.with_opcode(opcode.0);
        *sqe = sqe.with_slba(slot * self.per_command);
        self.started[cid] = now;
        self.pair.push(&self.commands[cid]);
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
        let (mut outstanding, mut last_seen) = (self.commands.len(), start);
        for cid in 0..self.commands.len() {
            self.submit(cid, start);
        }
        self.pair.ring();
        while outstanding > 0 {
            let mut taken = 0;
            let now = Instant::now();
            while let Some(cqe) = self.pair.poll() {
                taken += 1;
                let cid = usize::from(cqe.cid);
                if !cqe.status().is_success() {
                    return Err(Error::Status {
                        command: "read or write",
                        status: cqe.status(),
                    });
                }
                let Some(started) = self.started.get(cid) else {
                    return Err(Error::Protocol(format!("{cqe:?} answers no command")));
                };
                if now >= measure_from && now < end {
                    let nanos = now.duration_since(*started).as_nanos();
                    histogram.record(u64::try_from(nanos).unwrap_or(u64::MAX));
                }
                if now < end {
                    self.submit(cid, now);
                } else {
                    outstanding -= 1;
                }
            }
            if taken > 0 {
                self.pair.release();
                self.pair.ring();
                last_seen = now;
            } else if now.duration_since(last_seen) > PATIENCE {
                return Err(Error::TimedOut("complete a command"));
            }
        }
        Ok((histogram.count(), time, histogram))
    }
}
