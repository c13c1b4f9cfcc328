//! What a device and its workers say to each other.
//!
//! Each side owns a receiver and looks into it once per pass; a sender wakes the other's reactor after sending. Order between the
//! device and one worker is kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bdev::{IoStatus, SharedBdev};
use guest_memory::DmaMap;
use reactor::Ack;

use super::config::{Coalescing, Shown};
use super::handle::Gather;
use crate::device::{Interrupt, QueueSetup, RingState};

/// Device to worker.
#[derive(Debug)]
pub(crate) enum ToWorker {
    /// Serve a queue.
    Start { index: u16, setup: Box<QueueSetup> },
    /// End a queue. Answer: [`FromWorker::Stopped`].
    Stop { index: u16 },
    /// Interrupt for a queue like this from here on.
    Interrupt {
        index: u16,
        interrupt: Option<Interrupt>,
    },
    /// Use this map from here on. No answer: the old map's leases are the answer.
    Map(Arc<DmaMap>),
    /// Use this disk from here on; drop the ack when the channel to the former one is closed.
    Disk(Option<Target>, Ack),
    /// The disk has so many blocks.
    Resized(u64),
    /// Hold interrupts back like this.
    Coalescing(Coalescing),
    /// Add your queues.
    Describe(Arc<Gather>),
    /// End everything without used entries, and yourself. Answer: [`FromWorker::Gone`].
    Exit,
}

/// Worker to device.
#[derive(Debug)]
pub(crate) enum FromWorker {
    /// A queue has ended.
    Stopped { index: u16, state: RingState },
    /// The driver broke the rules (`None`: its memory is gone).
    Broken { index: Option<u16>, cause: String },
    /// A disk failed a request, with so many others not told of since the last one that was.
    DiskError {
        bdev: String,
        sector: u64,
        cause: IoStatus,
        suppressed: u64,
    },
    /// The worker and all that it held are gone.
    Gone { worker: usize },
}

/// A disk with what is known of it.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) bdev: SharedBdev,
    pub(crate) shown: Shown,
}

/// What every request must see at once when the driver changes it, on whatever reactor: the device stores it before the driver's
/// access is answered, so a request that is made available after that finds it (the ring's index is loaded with acquire order). A
/// message could come a pass too late.
#[derive(Debug, Default)]
pub(crate) struct Mode(AtomicU32);

impl Mode {
    /// A write is durable before it is answered.
    pub(crate) const WRITE_THROUGH: u32 = 1;
    /// The driver may discard.
    pub(crate) const DISCARD: u32 = 2;
    /// The driver may write zeroes.
    pub(crate) const WRITE_ZEROES: u32 = 4;
    /// The driver may ask for the life time.
    pub(crate) const LIFETIME: u32 = 8;

    pub(crate) fn set(&self, bits: u32) {
        self.0.store(bits, Ordering::Release);
    }

    #[inline]
    pub(crate) fn has(&self, bit: u32) -> bool {
        self.0.load(Ordering::Acquire) & bit != 0
    }
}
