//! The RAM disk: SPDK's "Malloc disk".
//!
//! Contents live in anonymous memory of the daemon: nothing is reserved beforehand, a page is taken when it is first written
//! and given back by `Unmap` and large `WriteZeroes`. Contents are gone with the disk. Requests end inside `submit`.

use std::cell::Cell;
use std::sync::Arc;

use guest_memory::SharedRam;
use nix::errno::Errno;
use reactor::{Cx, Op};
use uuid::Uuid;

use crate::disk::{Disk, Make, check_block_size, check_length};
use crate::io::{Io, IoKind, IoStatus};
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
}

/// Lines of the next read's source worth asking for; the CPU's own streams do the rest, and more disturb them.
const READ_AHEAD_LINES: usize = 8;
/// Most lines of its own destination that a write claims before it starts: a page.
const OWN_LINES: usize = 64;
/// Zeroing up to this length writes zeroes; beyond it, pages are given back. A system call, and the page fault after it, cost
/// more than clearing a few warm pages.
const CLEAR_AT_MOST: u64 = 64 << 10;

impl Channel for MallocChannel {
    #[inline]
    fn submit(&mut self, _cx: &mut Cx, _tag: u64, io: Io) -> Submitted {
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
            IoKind::Unmap | IoKind::WriteZeroes => self.ram.zero(extent.offset, extent.len),
            IoKind::Flush => true,
        };
        Submitted::Done(if done {
            IoStatus::Ok
        } else {
            IoStatus::OutOfRange
        })
    }

    fn finish(&mut self, _: &mut Cx, _: u64, _: Op, _: Result<u32, Errno>) -> Finished {
        // Nothing of this channel is ever in the ring.
        Finished::Done(IoStatus::Failed(Errno::EINVAL))
    }

    #[inline]
    fn prefetch(&self, io: &Io) {
        let Ok(extent) = self.disk.admit(io) else {
            return;
        };
        match io.kind {
            IoKind::Read => self.ram.prefetch(extent.offset, READ_AHEAD_LINES),
            IoKind::Write => self.announced.set(Some(extent.offset)),
            IoKind::Compare | IoKind::Flush | IoKind::Unmap | IoKind::WriteZeroes => {}
        }
    }
}

#[cfg(test)]
mod tests;
