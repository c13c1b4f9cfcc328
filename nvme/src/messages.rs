//! What a controller and its shards say to each other.
//!
//! Each side owns a receiver and looks into it once per pass; a sender wakes the other's reactor after sending. Order
//! between one controller and one shard is kept. Every request that changes queues is answered exactly once.

use std::sync::Arc;

use bdev::IoStatus;
use bdev::Traffic;
use guest_memory::DmaMap;
use nvme_spec::Status;
use pci::Vector;
use reactor::Ack;

use crate::handle::Gather;
use crate::namespace::NamespaceSet;

/// The two pages of Doorbell Buffer Config (Base 2.0, 5.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShadowDoorbells {
    /// Guest-physical address of the shadow doorbell buffer; page aligned.
    pub(crate) doorbells: u64,
    /// Guest-physical address of the EventIdx buffer; page aligned.
    pub(crate) event_indexes: u64,
}

/// Controller to shard.
#[derive(Clone, Debug)]
pub(crate) enum ToShard {
    /// Make a completion queue. Answer: [`FromShard::CqCreated`].
    CreateCq {
        qid: u16,
        base: u64,
        entries: u32,
        vector: Option<VectorBinding>,
    },
    /// Make a submission queue on a completion queue of this shard. Answer: [`FromShard::SqCreated`].
    CreateSq {
        qid: u16,
        cqid: u16,
        base: u64,
        entries: u32,
    },
    /// Stop fetching from a submission queue, let its commands end, remove it. Answer: [`FromShard::SqDeleted`].
    DeleteSq { qid: u16 },
    /// Remove a completion queue that no submission queue uses. Answer: [`FromShard::CqDeleted`].
    DeleteCq { qid: u16 },
    /// Use this map from here on. No answer: the old map's leases are the answer.
    Map(Arc<DmaMap>),
    /// Use these namespaces from here on; drop the ack when channels to disks that left are closed.
    Namespaces(Arc<NamespaceSet>, Ack),
    /// Try to abort a command. Answer: [`FromShard::Aborted`].
    Abort { sqid: u16, cid: u16, admin_cid: u16 },
    /// Interrupt coalescing (feature 08h): per vector, threshold in entries (0 = off) and time in 100 µs units.
    Coalescing { threshold: u16, time_100us: u16 },
    /// Interrupt vector configuration (feature 09h): whether this vector ignores coalescing.
    CoalescingDisable { vector: u16, disabled: bool },
    /// Memory page size (CC.MPS) for everything from here on: 2^(12 + `mps`) bytes. Sent at each enable, before any queue.
    PageSize { mps: u8 },
    /// Signal this for completion queue `qid` from here on: the guest switched between MSI-X and the INTx pin.
    Vector { qid: u16, vector: VectorBinding },
    /// Volatile write cache (feature 06h): while off, every write is as if FUA were set.
    WriteCache { enabled: bool },
    /// Use shadow doorbells, or stop using them.
    ShadowDoorbells(Option<ShadowDoorbells>),
    /// Vectors that may not interrupt, one bit each: INTMS/INTMC while the pin is in use, zero with MSI-X.
    InterruptMask(u32),
    /// The pin is in use and the guest has ended its interrupt: raise it again for every queue with entries that wait.
    PinUnmasked,
    /// Tell the counters, if they have changed. Answer: [`FromShard::Counters`], before whatever is said later.
    Count,
    /// Add your queues and namespaces.
    Describe(Arc<Gather>),
    /// Drop this: every order before it has been carried out.
    Barrier(Ack),
    /// Controller reset: stop fetching, let commands end without posting completions, drop all queues and leases.
    /// Answer: [`FromShard::Stopped`].
    Stop,
    /// As `Stop`, then remove the poller. Answer: [`FromShard::Stopped`], the last message.
    Exit,
}

/// How a completion queue interrupts.
#[derive(Clone, Debug)]
pub(crate) struct VectorBinding {
    /// Its number, for coalescing settings.
    pub(crate) index: u16,
    /// What to signal.
    pub(crate) vector: Vector,
}

/// Something for the error information log (Base 2.0, 5.16.1.2) and, where the text asks, an asynchronous event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommandError {
    pub(crate) sqid: u16,
    pub(crate) cid: u16,
    pub(crate) status: Status,
    pub(crate) nsid: u32,
    pub(crate) lba: u64,
    /// Byte (bits 7:0) and bit (10:8) of the command's field at fault; FFFFh if none.
    pub(crate) parameter_location: u16,
}

/// Counters of a shard since its start, for SMART data and statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ShardCounters {
    pub(crate) traffic: Traffic,
    pub(crate) interrupts: u64,
    /// Ticks in which a command was outstanding.
    pub(crate) busy: u64,
}

/// What is wrong with a disk (Base 2.0c, 5.16.1.3, Critical Warning).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MediaFault {
    /// It fails one command after the other.
    Failing,
    /// It could be written, and cannot any more.
    ReadOnly,
}

impl ShardCounters {
    /// Adds another's counts.
    pub(crate) fn add(&mut self, more: &Self) {
        self.traffic.add(&more.traffic);
        self.interrupts = self.interrupts.saturating_add(more.interrupts);
        self.busy = self.busy.saturating_add(more.busy);
    }
}

/// Shard to controller. Each carries the shard's index.
#[derive(Debug)]
pub(crate) enum FromShard {
    CqCreated {
        qid: u16,
        status: Status,
    },
    SqCreated {
        qid: u16,
        status: Status,
    },
    SqDeleted {
        qid: u16,
    },
    CqDeleted {
        qid: u16,
    },
    /// `aborted` is false if the command was not found or could not be stopped.
    Aborted {
        admin_cid: u16,
        aborted: bool,
    },
    /// Every shard has passed the [`ToShard::Barrier`] sent for this admin command; said by the barrier itself.
    Settled {
        admin_cid: u16,
        /// Which life of the admin queue it belongs to.
        generation: u64,
    },
    /// Every shard has the present namespaces; said by a barrier.
    NamespacesShown,
    /// All queues and leases are gone.
    Stopped {
        shard: usize,
    },
    /// A command ended with an error worth the log.
    Error(CommandError),
    /// A disk has got, or lost, a fault.
    Media {
        shard: usize,
        nsid: u32,
        fault: Option<MediaFault>,
    },
    /// A disk failed a command, with so many others not told of since the last one that was.
    DiskError {
        bdev: String,
        nsid: u32,
        lba: u64,
        cause: IoStatus,
        suppressed: u64,
    },
    /// The guest wrote a doorbell value outside the queue (an asynchronous event of type error).
    InvalidDoorbell {
        qid: u16,
    },
    /// The client's memory was truncated under us, or a ring is unusable: the controller must fail (CSTS.CFS).
    Fatal {
        cause: &'static str,
    },
    /// The shard no longer exists, whether it was asked to exit or died; sent by the guard around it, always the last
    /// message. Whatever it still owed will never be answered.
    Gone {
        shard: usize,
    },
    /// Counters so far; sent when they changed, not more often than once per 100 ms.
    Counters {
        shard: usize,
        counters: ShardCounters,
    },
}
