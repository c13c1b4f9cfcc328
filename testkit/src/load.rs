//! A load generator: keeps queues full for a time, and says how fast the device was and how long each command took.

mod device;
mod histogram;
mod run;

use std::time::Duration;

pub use histogram::Histogram;
pub use run::run;

/// What kind of device is behind the socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// NVMe over vfio-user.
    #[default]
    Nvme,
    /// virtio-blk over vfio-user.
    VirtioVfioUser {
        /// Packed rings.
        packed: bool,
    },
    /// virtio-blk over vhost-user.
    VirtioVhostUser {
        /// Packed rings.
        packed: bool,
    },
}

/// Why a load failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The NVMe driver failed.
    #[error(transparent)]
    Nvme(#[from] crate::nvme::Error),
    /// The virtio driver failed.
    #[error(transparent)]
    Virtio(#[from] crate::virtio::Error),
    /// The guest has no memory for it.
    #[error(transparent)]
    Ram(#[from] crate::ram::RamError),
    /// The load does not fit the device.
    #[error("{0}")]
    Load(String),
    /// The device did not complete a command for a long time.
    #[error("the device did not complete a command within {0:?}")]
    TimedOut(Duration),
}

/// A result of a load.
pub type Result<T> = std::result::Result<T, Error>;

/// What to do.
#[derive(Clone, Debug)]
pub struct Load {
    /// What to drive.
    pub target: Target,
    /// Namespace of NVMe.
    pub nsid: u32,
    /// Bytes per command, a multiple of the block size.
    pub block_size: u32,
    /// Commands in flight per queue.
    pub depth: u32,
    /// Queues, each driven by its own thread.
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
            target: Target::Nvme,
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
