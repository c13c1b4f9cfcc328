//! The data half: a state machine between requests and ring operations.
//!
//! Most requests are one operation and need no memory of their own. What else a request needs is kept by its tag in `side`.
//! [`UringChannel::begin`] and [`UringChannel::step`] decide, and touch no ring; the [`Channel`] methods submit what they decided.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use guest_memory::{HostBuffer, Segments};
use nix::errno::Errno;
use reactor::{Cx, FallocateMode, Op, RingFile};

use super::bounce::{BUFFER, Pool};
use super::claim::give_up;
use super::open::{Opened, Unmap, remember_release};
use super::statx::Align;
use crate::disk::{Disk, Extent};
use crate::io::{Io, IoKind, IoStatus};
use crate::tags::TagMap;
use crate::traits::{Channel, Features, Finished, Submitted};

/// Most segments that the kernel takes in one operation (`IOV_MAX`).
const MAX_SEGMENTS: usize = 1024;
/// How often a request is tried again when the kernel says "not now". Each try is a round through the ring.
const RETRIES: u32 = 10_000;

/// What all channels of a disk share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) disk: Disk,
    pub(super) fd: Arc<OwnedFd>,
    path: PathBuf,
    align: Option<Align>,
    unmap: Unmap,
    /// Set when the kernel turns out not to do what [`Shared::unmap`] says, or to zero ranges.
    no_unmap: AtomicBool,
    no_zero_range: AtomicBool,
    /// Set when the file was found to end before the disk does, until the next rescan: said once.
    pub(super) shrunk: AtomicBool,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Operations of a user that went away without waiting for them still hold the file: then the claim ends with them.
        if Arc::strong_count(&self.fd) == 1 {
            give_up(self.fd.as_fd());
            remember_release(&self.fd);
        }
    }
}

impl Shared {
    pub(super) fn new(disk: Disk, opened: Opened, path: PathBuf) -> Self {
        Self {
            disk,
            fd: Arc::new(opened.fd),
            path,
            align: opened.align,
            unmap: opened.unmap,
            no_unmap: AtomicBool::new(false),
            no_zero_range: AtomicBool::new(false),
            shrunk: AtomicBool::new(false),
        }
    }

    /// The file ends where the disk does not.
    fn ends_early(&self, offset: u64) -> IoStatus {
        if !self.shrunk.swap(true, Ordering::Relaxed) {
            tracing::error!(
                bdev = self.disk.name(),
                file = %self.path.display(),
                offset,
                "the file is shorter than the disk: it was truncated; restore its size, or rescan the bdev to shrink the disk"
            );
        }
        IoStatus::OutOfRange
    }

    /// The kernel refused to do `op` on this file at all: it is not asked again.
    fn refuses(&self, op: &Op) {
        let (what, flag) = match op {
            Op::Fallocate {
                mode: FallocateMode::ZeroRange,
                ..
            } => (
                "zero ranges: zeroes are written instead",
                &self.no_zero_range,
            ),
            _ => ("give blocks back", &self.no_unmap),
        };
        if !flag.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                bdev = self.disk.name(),
                file = %self.path.display(),
                "its file system or device does not {what}"
            );
        }
    }
}

/// What a request needs beyond its operation.
#[derive(Debug)]
enum Work {
    /// Nothing but the count of retries.
    Plain,
    /// Data pass through a buffer of the pool, which is in the operation.
    Bounced(Bounced),
    /// Unmap or write zeroes by the kernel's own means.
    Clear(Clear),
    /// Zeroes from a buffer of the pool, which is in the operation, are being written.
    Zeroing(Clear),
}

#[derive(Debug)]
struct Bounced {
    kind: IoKind,
    /// The request's own memory.
    memory: Segments,
    /// Where on the disk its first byte belongs.
    offset: u64,
    durable: bool,
    /// Bytes that are through, and bytes of the piece on its way.
    done: usize,
    piece: usize,
}

#[derive(Clone, Copy, Debug)]
struct Clear {
    kind: IoKind,
    /// What is left to do.
    extent: Extent,
    durable: bool,
}

#[derive(Debug)]
struct Side {
    retries: u32,
    work: Work,
}

impl From<Work> for Side {
    fn from(work: Work) -> Self {
        Self { retries: 0, work }
    }
}

/// How a request begins.
#[derive(Debug)]
enum Begin {
    Done(IoStatus),
    Submit(Op),
    /// No buffer is free.
    Full(Io),
}

/// How it goes on after an operation.
#[derive(Debug)]
enum Next {
    Done(IoStatus),
    Submit(Op),
    /// Needs a buffer and none is free: do the same operation again later.
    Wait(Op),
}

#[derive(Debug)]
pub(super) struct UringChannel {
    /// Before `shared`, whose end looks for users of the file.
    file: RingFile,
    shared: Arc<Shared>,
    pool: Pool,
    side: TagMap<Side>,
}

impl UringChannel {
    pub(super) fn new(shared: Arc<Shared>, file: RingFile) -> Self {
        Self {
            shared,
            file,
            pool: Pool::default(),
            side: TagMap::default(),
        }
    }

    /// Whether the kernel can work on this memory directly.
    #[inline]
    fn fits(&self, memory: &Segments) -> bool {
        let aligned = match self.shared.align {
            Some(align) => memory.is_aligned(align.memory, align.offset),
            None => true,
        };
        aligned && memory.count() <= MAX_SEGMENTS
    }

    fn transfer(&self, kind: IoKind, offset: u64, segments: Segments, durable: bool) -> Op {
        let file = self.file.clone();
        match kind {
            IoKind::Write | IoKind::WriteZeroes | IoKind::Unmap => Op::Write {
                file,
                offset,
                segments,
                durable,
            },
            IoKind::Read | IoKind::Compare | IoKind::Flush => Op::Read {
                file,
                offset,
                segments,
            },
        }
    }

    fn sync(&self) -> Op {
        Op::Fdatasync {
            file: self.file.clone(),
        }
    }

    #[inline]
    fn begin(&mut self, tag: u64, io: Io) -> Begin {
        if io.kind == IoKind::Flush {
            return if self.shared.disk.features().contains(Features::WRITE) {
                Begin::Submit(self.sync())
            } else {
                Begin::Done(IoStatus::Ok)
            };
        }
        let extent = match self.shared.disk.admit(&io) {
            Ok(Extent { len: 0, .. }) => return Begin::Done(IoStatus::Ok),
            Ok(extent) => extent,
            Err(status) => return Begin::Done(status),
        };
        match io.kind {
            IoKind::Read | IoKind::Write if self.fits(&io.segments) => {
                Begin::Submit(self.transfer(io.kind, extent.offset, io.segments, io.fua))
            }
            IoKind::Unmap | IoKind::WriteZeroes => self.begin_clear(tag, io, extent),
            _ => self.begin_bounced(tag, io, extent),
        }
    }

    fn begin_bounced(&mut self, tag: u64, io: Io, extent: Extent) -> Begin {
        let Some(buffer) = self.pool.take() else {
            return Begin::Full(io);
        };
        let mut bounced = Bounced {
            kind: io.kind,
            memory: io.segments,
            offset: extent.offset,
            durable: io.fua,
            done: 0,
            piece: 0,
        };
        let op = self.next_piece(&mut bounced, buffer);
        self.side.insert(tag, Work::Bounced(bounced).into());
        Begin::Submit(op)
    }

    fn next_piece(&self, bounced: &mut Bounced, mut buffer: HostBuffer) -> Op {
        bounced.piece = (bounced.memory.len() - bounced.done).min(BUFFER);
        if bounced.kind == IoKind::Write {
            let piece = &mut buffer.as_mut_slice()[..bounced.piece];
            bounced.memory.copy_to_slice(bounced.done, piece);
        }
        let mut segments = Segments::from_host(buffer);
        segments.truncate(bounced.piece);
        let offset = bounced.offset + bounced.done as u64;
        self.transfer(bounced.kind, offset, segments, bounced.durable)
    }

    /// The kernel's own means for `kind`, if there is any left.
    fn clear_op(&self, kind: IoKind, Extent { offset, len }: Extent) -> Option<Op> {
        let shared = &self.shared;
        let unmaps = !shared.no_unmap.load(Ordering::Relaxed);
        let file = self.file.clone();
        let fallocate = |mode| Op::Fallocate {
            file: file.clone(),
            mode,
            offset,
            len,
        };
        match (kind, shared.unmap) {
            (IoKind::Unmap, Unmap::Discard) => unmaps.then_some(Op::Discard { file, offset, len }),
            (IoKind::Unmap, Unmap::PunchHole) if unmaps => {
                Some(fallocate(FallocateMode::PunchHole))
            }
            _ if !shared.no_zero_range.load(Ordering::Relaxed) => {
                Some(fallocate(FallocateMode::ZeroRange))
            }
            (_, Unmap::PunchHole) if unmaps => Some(fallocate(FallocateMode::PunchHole)),
            _ => None,
        }
    }

    fn begin_clear(&mut self, tag: u64, io: Io, extent: Extent) -> Begin {
        let clear = Clear {
            kind: io.kind,
            extent,
            durable: io.fua,
        };
        if let Some(op) = self.clear_op(io.kind, extent) {
            self.side.insert(tag, Work::Clear(clear).into());
            return Begin::Submit(op);
        }
        if self.only_discards(io.kind) {
            return Begin::Done(IoStatus::Unsupported);
        }
        match self.pool.take() {
            Some(buffer) => Begin::Submit(self.begin_zeroing(tag, clear, buffer)),
            None => Begin::Full(io),
        }
    }

    /// Whether `kind` promises no zeroes, so that writing some would be no help to anybody.
    fn only_discards(&self, kind: IoKind) -> bool {
        kind == IoKind::Unmap && self.shared.unmap == Unmap::Discard
    }

    fn begin_zeroing(&mut self, tag: u64, clear: Clear, mut buffer: HostBuffer) -> Op {
        buffer.as_mut_slice().fill(0);
        self.side.insert(tag, Work::Zeroing(clear).into());
        self.zeroes(clear, buffer)
    }

    fn zeroes(&self, clear: Clear, buffer: HostBuffer) -> Op {
        let mut segments = Segments::from_host(buffer);
        segments.truncate(usize::try_from(clear.extent.len).unwrap_or(BUFFER));
        // Made durable by one sync at the end, which is cheaper than one with each piece.
        self.transfer(IoKind::WriteZeroes, clear.extent.offset, segments, false)
    }

    /// Takes back what [`UringChannel::begin`] prepared.
    fn undo(&mut self, tag: u64, op: Op) -> Segments {
        match self.side.remove(tag).map(|side| side.work) {
            Some(Work::Bounced(bounced)) => {
                self.give_back(op);
                bounced.memory
            }
            Some(Work::Zeroing(_)) => {
                self.give_back(op);
                Segments::new()
            }
            Some(Work::Plain | Work::Clear(_)) | None => op.into_segments().unwrap_or_default(),
        }
    }

    fn give_back(&mut self, op: Op) {
        if let Some(buffer) = op.into_segments().and_then(Segments::into_host) {
            self.pool.give(buffer);
        }
    }

    /// Ends a request that has operation `op`.
    fn end(&mut self, tag: u64, op: Op, status: IoStatus) -> Next {
        if !self.side.is_empty() {
            drop(self.undo(tag, op));
        }
        Next::Done(status)
    }

    #[inline]
    fn step(&mut self, tag: u64, op: Op, result: Result<u32, Errno>) -> Next {
        let moved = match result {
            Ok(moved) => moved as usize,
            Err(Errno::EAGAIN | Errno::EINTR) => return self.again(tag, op),
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS)
                if matches!(op, Op::Fallocate { .. } | Op::Discard { .. }) =>
            {
                return self.clear_otherwise(tag, op);
            }
            Err(errno) => return self.end(tag, op, IoStatus::from_errno(errno)),
        };
        match &op {
            Op::Read { segments, .. } | Op::Write { segments, .. } => {
                if moved < segments.len() {
                    return self.rest(tag, op, moved);
                }
                if self.side.is_empty() {
                    return Next::Done(IoStatus::Ok);
                }
                self.piece_done(tag, op)
            }
            Op::Fallocate { .. } | Op::Discard { .. } => match self.side.remove(tag) {
                Some(Side {
                    work: Work::Clear(Clear { durable: true, .. }),
                    ..
                }) => Next::Submit(self.sync()),
                _ => Next::Done(IoStatus::Ok),
            },
            Op::Fdatasync { .. } | Op::Release { .. } | Op::Wait { .. } => {
                self.end(tag, op, IoStatus::Ok)
            }
        }
    }

    fn again(&mut self, tag: u64, op: Op) -> Next {
        let side = self.side.get_or_insert_with(tag, || Work::Plain.into());
        side.retries += 1;
        if side.retries > RETRIES {
            return self.end(tag, op, IoStatus::Failed(Errno::EAGAIN));
        }
        Next::Submit(op)
    }

    /// Goes on with the part of a transfer that was not moved.
    fn rest(&mut self, tag: u64, mut op: Op, moved: usize) -> Next {
        // Direct I/O that stopped inside a block would have to go on unaligned; the block is moved again instead.
        let unit = self.shared.align.map_or(1, |align| align.offset);
        let moved = moved & !(unit - 1);
        match &mut op {
            Op::Read { offset, .. } if moved == 0 => {
                let status = self.shared.ends_early(*offset);
                self.end(tag, op, status)
            }
            _ if moved == 0 => self.end(tag, op, IoStatus::Failed(Errno::EIO)),
            Op::Read {
                offset, segments, ..
            }
            | Op::Write {
                offset, segments, ..
            } => {
                segments.advance(moved);
                *offset += moved as u64;
                Next::Submit(op)
            }
            _ => self.end(tag, op, IoStatus::Failed(Errno::EIO)),
        }
    }

    /// Goes on after a whole transfer.
    fn piece_done(&mut self, tag: u64, op: Op) -> Next {
        let Some(side) = self.side.remove(tag) else {
            return Next::Done(IoStatus::Ok);
        };
        if matches!(side.work, Work::Plain) {
            return Next::Done(IoStatus::Ok);
        }
        let Some(buffer) = op.into_segments().and_then(Segments::into_host) else {
            return Next::Done(IoStatus::Failed(Errno::EIO));
        };
        match side.work {
            Work::Bounced(bounced) => self.bounced_on(tag, bounced, buffer),
            Work::Zeroing(clear) => self.zeroed_on(tag, clear, buffer),
            Work::Plain | Work::Clear(_) => Next::Done(IoStatus::Ok),
        }
    }

    fn bounced_on(&mut self, tag: u64, mut bounced: Bounced, buffer: HostBuffer) -> Next {
        let piece = &buffer.as_slice()[..bounced.piece];
        let equal = match bounced.kind {
            IoKind::Read => {
                bounced.memory.copy_from_slice(bounced.done, piece);
                true
            }
            IoKind::Compare => bounced.memory.matches(bounced.done, piece),
            _ => true,
        };
        bounced.done += bounced.piece;
        if !equal || bounced.done == bounced.memory.len() {
            self.pool.give(buffer);
            return Next::Done(if equal {
                IoStatus::Ok
            } else {
                IoStatus::Miscompare
            });
        }
        let op = self.next_piece(&mut bounced, buffer);
        self.side.insert(tag, Work::Bounced(bounced).into());
        Next::Submit(op)
    }

    fn zeroed_on(&mut self, tag: u64, mut clear: Clear, buffer: HostBuffer) -> Next {
        let written = clear.extent.len.min(BUFFER as u64);
        clear.extent.offset += written;
        clear.extent.len -= written;
        if clear.extent.len > 0 {
            self.side.insert(tag, Work::Zeroing(clear).into());
            return Next::Submit(self.zeroes(clear, buffer));
        }
        self.pool.give(buffer);
        if clear.durable {
            return Next::Submit(self.sync());
        }
        Next::Done(IoStatus::Ok)
    }

    /// The kernel cannot do `op` on this file: the next best.
    fn clear_otherwise(&mut self, tag: u64, op: Op) -> Next {
        self.shared.refuses(&op);
        let Some(Side {
            work: Work::Clear(clear),
            ..
        }) = self.side.get(tag)
        else {
            return self.end(tag, op, IoStatus::Unsupported);
        };
        let clear = *clear;
        if let Some(op) = self.clear_op(clear.kind, clear.extent) {
            return Next::Submit(op);
        }
        if self.only_discards(clear.kind) {
            return self.end(tag, op, IoStatus::Unsupported);
        }
        match self.pool.take() {
            Some(buffer) => Next::Submit(self.begin_zeroing(tag, clear, buffer)),
            None => Next::Wait(op),
        }
    }
}

impl Channel for UringChannel {
    #[inline]
    fn submit(&mut self, cx: &mut Cx, tag: u64, io: Io) -> Submitted {
        let (kind, lba, blocks, fua) = (io.kind, io.lba, io.blocks, io.fua);
        match self.begin(tag, io) {
            Begin::Done(status) => Submitted::Done(status),
            Begin::Full(io) => Submitted::Full(io),
            Begin::Submit(op) => match cx.submit(tag, op) {
                Ok(()) => Submitted::Queued,
                Err(op) => Submitted::Full(Io {
                    kind,
                    lba,
                    blocks,
                    segments: self.undo(tag, op),
                    fua,
                }),
            },
        }
    }

    #[inline]
    fn finish(&mut self, cx: &mut Cx, tag: u64, op: Op, result: Result<u32, Errno>) -> Finished {
        match self.step(tag, op, result) {
            Next::Done(status) => Finished::Done(status),
            Next::Submit(op) => self.resume(cx, tag, op),
            Next::Wait(op) => Finished::Stalled(op),
        }
    }
}

#[cfg(test)]
mod tests;
