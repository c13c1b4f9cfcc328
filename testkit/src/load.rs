//! A load generator: keeps queues full for a time, and says how fast the device was and how long each command took.

mod histogram;
mod run;

use std::time::Duration;

pub use histogram::Histogram;
pub use run::run;

/// What to do.
#[derive(Clone, Debug)]
pub struct Load {
    /// Namespace.
    pub nsid: u32,
    /// Bytes per command, a multiple of the block size.
    pub block_size: u32,
    /// Commands in flight per queue.
    pub depth: u32,
    /// Queue pairs, each driven by its own thread.
    pub queues: u16,
    /// Percentage of reads, 0 to 100.
    pub read_percent: u8,
    /// Random addresses; else each queue goes through its own part of the disk.
    pub random: bool,
    /// How long to measure, after one tenth of it to warm up.
    pub time: Duration,
    /// Processors to pin the queues' threads to, used in turn; empty leaves them to the system.
    pub pin: Vec<usize>,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            nsid: 1,
            block_size: 4096,
            depth: 32,
            queues: 1,
            read_percent: 100,
            random: true,
            time: Duration::from_secs(3),
            pin: Vec::new(),
        }
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Report {
    /// Commands that ended in the measured time.
    pub commands: u64,
    /// The measured time.
    pub elapsed: Duration,
    /// Bytes per command.
    pub block_size: u32,
    /// Latencies of all measured commands.
    pub latency: Histogram,
}

impl Report {
    /// Commands per second.
    #[must_use]
    pub fn iops(&self) -> f64 {
        self.commands as f64 / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }

    /// Bytes per second.
    #[must_use]
    pub fn bandwidth(&self) -> f64 {
        self.iops() * f64::from(self.block_size)
    }
}
