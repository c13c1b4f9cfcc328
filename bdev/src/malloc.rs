//! The RAM disk: SPDK's "Malloc disk".
//!
//! Contents live in anonymous memory of the daemon: nothing is reserved beforehand, a page is taken when it is first written
//! and given back by `Unmap` and large `WriteZeroes`. Contents are gone with the disk.
//! Requests end inside `submit`, apart from unmaps so long that others would have to wait for them.

use std::cell::Cell;
use std::sync::Arc;

use guest_memory::SharedRam;
use nix::errno::Errno;
use reactor::{Cx, Op};
use uuid::Uuid;

use crate::disk::{Disk, Extent, Make, check_block_size, check_length};
use crate::io::{Io, IoKind, IoStatus};
use crate::tags::TagMap;
use crate::traits::{
    Bdev, BdevError, BdevInfo, Channel, DriverValue, Features, Finished, SharedBdev, Submitted,
};

/// How to make a RAM disk.
#[derive(Clone, Debug)]
pub struct MallocOptions {
    /// Its name.
    pub name: String,
    /// Block size in bytes: a power of two from 512.
    pub block_size: u32,
    /// Length in blocks.
    pub num_blocks: u64,
    /// What to report as physical block size; the block size if not given.
    pub physical_block_size: Option<u32>,
    /// Its identity; random if not given.
    pub uuid: Option<Uuid>,
}

/// Makes a RAM disk.
///
/// # Errors
/// `EINVAL` for sizes that are not possible, `ENOMEM` if the system refuses to promise that much memory.
pub fn create(options: MallocOptions) -> Result<SharedBdev, BdevError> {
    let MallocOptions {
        name,
        block_size,
        num_blocks,
        physical_block_size,
        uuid,
    } = options;
    check_block_size("block_size", block_size)?;
    let len = check_length(num_blocks, block_size)?;
    let disk = Disk::new(Make {
        name,
        product_name: "Malloc disk",
        uuid,
        block_size,
        physical_block_size,
        num_blocks,
        features: Features::WRITE
            | Features::UNMAP
            | Features::UNMAP_ZEROES
            | Features::WRITE_ZEROES,
    })?;
    let ram = usize::try_from(len)
        .map_err(|_| Errno::ENOMEM)
        .and_then(SharedRam::new)
        .map_err(|errno| {
            let reason = format!(
                "no memory for a RAM disk of {} MiB ({errno}): make it smaller, or use a file",
                len >> 20
            );
            BdevError::new(errno, reason)
        })?;
    Ok(Arc::new(Malloc {
        disk: Arc::new(disk),
        ram: Arc::new(ram),
    }))
}

#[derive(Debug)]
struct Malloc {
    disk: Arc<Disk>,
    ram: Arc<SharedRam>,
}

impl Bdev for Malloc {
    fn info(&self) -> BdevInfo {
        self.disk.info()
    }

    fn open(&self, _cx: &mut Cx) -> Result<Box<dyn Channel>, BdevError> {
        Ok(Box::new(MallocChannel {
            disk: Arc::clone(&self.disk),
            ram: Arc::clone(&self.ram),
            announced: Cell::new(None),
            releases: TagMap::default(),
        }))
    }

    fn driver_specific(&self) -> Vec<(&'static str, DriverValue)> {
        Vec::new()
    }
}

struct MallocChannel {
    disk: Arc<Disk>,
    ram: Arc<SharedRam>,
    /// Where the next write will go, if the caller said so: its lines are claimed while the present one is copied.
    announced: Cell<Option<u64>>,
    /// What is left to give back of long unmaps, as (offset, length).
    releases: TagMap<(u64, u64)>,
}

/// Lines of the next read's source worth asking for; the CPU's own streams do the rest, and more disturb them.
const READ_AHEAD_LINES: usize = 8;
/// Most lines of its own destination that a write claims before it starts: a page.
const OWN_LINES: usize = 64;
/// Giving back up to this length ends inside `submit`. Freeing takes 0.1 s per GiB in pages of 4 KiB, so more goes through the
/// kernel's workers.
const RELEASE_AT_ONCE: u64 = 2 << 20;
/// Zeroing up to this length writes zeroes; beyond it, pages are given back. A system call, and the page fault after it, cost
/// more than clearing a few warm pages.
const CLEAR_AT_MOST: u64 = 64 << 10;

impl MallocChannel {
    fn release(&mut self, cx: &mut Cx, tag: u64, io: Io, extent: Extent) -> Submitted {
        let Some((offset, left)) = self.ram.zero_edges(extent.offset, extent.len) else {
            return Submitted::Done(IoStatus::OutOfRange);
        };
        let len = left.min(Op::MAX_RELEASE);
        let ram = Arc::clone(&self.ram);
        match cx.submit(tag, Op::Release { ram, offset, len }) {
            Ok(()) => {
                self.releases.insert(tag, (offset + len, left - len));
                Submitted::Queued
            }
            Err(_) => Submitted::Full(io),
        }
    }

    fn released(&mut self, tag: u64, op: Op, result: Result<u32, Errno>) -> Next {
        let (Op::Release { ram, offset, len }, Some((next, left))) =
            (op, self.releases.remove(tag))
        else {
            // Nothing else of this channel is ever in the ring.
            return Next::Done(IoStatus::Failed(Errno::EINVAL));
        };
        if result.is_err() && !ram.clear(offset, len) {
            return Next::Done(IoStatus::OutOfRange);
        }
        if left == 0 {
            return Next::Done(IoStatus::Ok);
        }
        let len = left.min(Op::MAX_RELEASE);
        self.releases.insert(tag, (next + len, left - len));
        Next::Submit(Op::Release {
            ram,
            offset: next,
            len,
        })
    }
}

/// How a long unmap goes on.
enum Next {
    Done(IoStatus),
    Submit(Op),
}

impl Channel for MallocChannel {
    #[inline]
    fn submit(&mut self, cx: &mut Cx, tag: u64, io: Io) -> Submitted {
        if io.kind == IoKind::Flush {
            // Completed is as durable as RAM gets.
            return Submitted::Done(IoStatus::Ok);
        }
        let extent = match self.disk.admit(&io) {
            Ok(extent) => extent,
            Err(status) => return Submitted::Done(status),
        };
        let done = match io.kind {
            IoKind::Read => self.ram.read(extent.offset, &io.segments),
            IoKind::Write => match self.announced.take() {
                Some(next) => self.ram.write_ahead(extent.offset, &io.segments, next),
                None => {
                    let lines = (io.segments.len() / 64).min(OWN_LINES);
                    self.ram.prefetch_for_write(extent.offset, lines);
                    self.ram.write(extent.offset, &io.segments)
                }
            },
            IoKind::Compare => match self.ram.matches(extent.offset, &io.segments) {
                Some(false) => return Submitted::Done(IoStatus::Miscompare),
                equal => equal.is_some(),
            },
            IoKind::WriteZeroes if extent.len <= CLEAR_AT_MOST => {
                self.ram.clear(extent.offset, extent.len)
            }
            IoKind::Unmap | IoKind::WriteZeroes if extent.len > RELEASE_AT_ONCE => {
                return self.release(cx, tag, io, extent);
            }
            IoKind::Unmap | IoKind::WriteZeroes => self.ram.zero(extent.offset, extent.len),
            IoKind::Flush => true,
        };
        Submitted::Done(if done {
            IoStatus::Ok
        } else {
            IoStatus::OutOfRange
        })
    }

    fn finish(&mut self, cx: &mut Cx, tag: u64, op: Op, result: Result<u32, Errno>) -> Finished {
        match self.released(tag, op, result) {
            Next::Done(status) => Finished::Done(status),
            Next::Submit(op) => self.resume(cx, tag, op),
        }
    }

    #[inline]
    fn prefetch(&self, kind: IoKind, lba: u64, blocks: u64) {
        let Some(extent) = self.disk.extent(lba, blocks) else {
            return;
        };
        match kind {
            IoKind::Read => self.ram.prefetch(extent.offset, READ_AHEAD_LINES),
            IoKind::Write => self.announced.set(Some(extent.offset)),
            IoKind::Compare | IoKind::Flush | IoKind::Unmap | IoKind::WriteZeroes => {}
        }
    }
}

#[cfg(test)]
mod tests;
