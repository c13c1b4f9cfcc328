//! The two halves of a disk.

use std::sync::Arc;

use bitflags::bitflags;
use nix::errno::Errno;
use reactor::{Cx, Op};
use uuid::Uuid;

use crate::io::{Io, IoKind, IoStatus};

bitflags! {
    /// What a disk can do beyond reading.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Features: u32 {
        /// Takes writes.
        const WRITE = 1;
        /// Takes `Unmap`.
        const UNMAP = 2;
        /// Unmapped blocks read as zeroes.
        const UNMAP_ZEROES = 4;
        /// Takes `WriteZeroes` natively (a disk without it gets written zeroes by its channel, so it always works).
        const WRITE_ZEROES = 8;
        /// Has a volatile write cache: `Flush` and FUA mean something. Without it, completed means durable (or, for RAM,
        /// never durable).
        const WRITE_CACHE = 16;
    }
}

/// What a disk is at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BdevInfo {
    /// Its name, unique among all disks and aliases.
    pub name: String,
    /// SPDK's product name, such as "Malloc disk".
    pub product_name: &'static str,
    /// Its identity, kept over restarts where the operator gave one.
    pub uuid: Uuid,
    /// Block size in bytes: a power of two, 512 or more.
    pub block_size: u32,
    /// Smallest unit the medium writes without read-modify-write, in bytes.
    pub physical_block_size: u32,
    /// Length in blocks.
    pub num_blocks: u64,
    /// Abilities.
    pub features: Features,
}

impl BdevInfo {
    /// Length in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.num_blocks.saturating_mul(u64::from(self.block_size))
    }
}

/// A control operation on a disk was refused.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct BdevError {
    /// For the RPC's code.
    pub errno: Errno,
    /// What was wrong and what to do, for the operator.
    pub reason: String,
}

impl BdevError {
    /// An error with its reason.
    pub fn new(errno: Errno, reason: impl Into<String>) -> Self {
        Self {
            errno,
            reason: reason.into(),
        }
    }
}

/// The control half: shared by all threads, touched rarely.
///
/// Whoever deletes a disk lets go of the control half last, after all channels, on a thread that may wait: freeing RAM or
/// closing a device takes time.
pub trait Bdev: Send + Sync + std::fmt::Debug {
    /// What the disk is now. `num_blocks` may change ([`Bdev::rescan`], [`Bdev::resize`]); nothing else does.
    fn info(&self) -> BdevInfo;

    /// Opens the data half on the reactor that `cx` belongs to, uncounted. Device models use [`crate::open`].
    ///
    /// # Errors
    /// When the reactor has no room for another file.
    fn open(&self, cx: &mut Cx) -> Result<Box<dyn Channel>, BdevError>;

    /// Looks at the file or device again and takes over its present size; returns the new number of blocks.
    ///
    /// # Errors
    /// If it cannot be read or this kind of disk has nothing to look at.
    fn rescan(&self) -> Result<u64, BdevError> {
        Err(BdevError::new(
            Errno::EOPNOTSUPP,
            "this kind of disk cannot be rescanned",
        ))
    }

    /// Sets the number of blocks.
    ///
    /// # Errors
    /// If this kind of disk cannot be resized, or not to that size.
    fn resize(&self, _num_blocks: u64) -> Result<(), BdevError> {
        Err(BdevError::new(
            Errno::EOPNOTSUPP,
            "this kind of disk cannot be resized",
        ))
    }

    /// Members of `driver_specific` for `bdev_get_bdevs`, as (key, value) in SPDK's words.
    fn driver_specific(&self) -> Vec<(&'static str, DriverValue)>;
}

/// A value in `driver_specific`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DriverValue {
    /// A string.
    Text(String),
    /// A boolean.
    Bool(bool),
    /// A number.
    Number(u64),
}

/// How a submission went.
#[derive(Debug)]
pub enum Submitted {
    /// Ended already.
    Done(IoStatus),
    /// In the ring; the end comes as an event with the tag.
    Queued,
    /// No room; the request comes back untouched, to be submitted in a later pass (under any tag). Room comes when something
    /// that is in flight on this reactor ends.
    Full(Io),
}

/// How a completion went.
#[derive(Debug)]
pub enum Finished {
    /// Ended.
    Done(IoStatus),
    /// Went on (the rest of a short transfer, a second step): another event with the same tag will come.
    Queued,
    /// Must go on but there was no room: call [`Channel::finish`]'s counterpart [`Channel::resume`] in a later pass.
    Stalled(Op),
}

/// The data half: bound to its reactor and to one user there.
///
/// # Contract
///
/// A channel must reject: ranges beyond the disk's present end (`OutOfRange`), writes to a read-only disk (`ReadOnly`). The caller
/// *cannot* do these checks, because size changes reach the channel first. Checked arithmetic throughout.
///
/// A channel may assume: `segments.len() == blocks * block_size` for reads and writes, and that each tag has at most one
/// request at a time. It may not assume that segments are aligned or few (up to 1024).
///
/// A read of unwritten or unmapped blocks returns zeroes unless the disk says otherwise. A short transfer is resumed by the
/// channel. Requests in flight together may be done in any order. A flush covers all writes whose completion the channel has reported before, on every channel of the disk.
pub trait Channel {
    /// Starts a request for the poller that is running.
    fn submit(&mut self, cx: &mut Cx, tag: u64, io: Io) -> Submitted;

    /// Takes an operation's end.
    fn finish(&mut self, cx: &mut Cx, tag: u64, op: Op, result: Result<u32, Errno>) -> Finished;

    /// Tries again what [`Finished::Stalled`] handed out.
    fn resume(&mut self, cx: &mut Cx, tag: u64, op: Op) -> Finished {
        match cx.submit(tag, op) {
            Ok(()) => Finished::Queued,
            Err(op) => Finished::Stalled(op),
        }
    }

    /// Announces the request that will be submitted after the one submitted next, so that a RAM disk can bring its memory closer
    /// while it copies. Call it directly before the `submit` of the request in front. Costs nothing where it does not help,
    /// and promises nothing: the announced request may never come.
    fn prefetch(&self, _kind: IoKind, _lba: u64, _blocks: u64) {}

    /// The user wants its requests to end soon (a reset, an abort, a client that has gone), or only the one with this tag.
    /// What this channel holds back on purpose goes on in the next passes: what waits for its turn (rate limits) goes to the
    /// disk, what was delayed ends with its status, an injected hang ends as [`IoStatus::Aborted`]. What the disk
    /// works on is left alone. A channel over another one passes the wish on.
    fn expedite(&mut self, _cx: &mut Cx, _tag: Option<u64>) {}
}

/// A disk, shared.
pub type SharedBdev = Arc<dyn Bdev>;
