//! What all back-ends share: identity, geometry, and the check that every request passes first.

use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use uuid::Uuid;

use crate::io::{Io, IoKind, IoStatus};
use crate::traits::{BdevError, BdevInfo, Features};

/// Smallest block: what NVMe (LBA data size 9), VIRTIO and Linux share.
pub(crate) const MIN_BLOCK: u32 = 512;
/// Largest block: one block must fit a single transfer of the device models.
pub(crate) const MAX_BLOCK: u32 = 1 << 20;

/// A disk's constants and its present length.
#[derive(Debug)]
pub(crate) struct Disk {
    name: String,
    product_name: &'static str,
    uuid: Uuid,
    block_size: u32,
    block_shift: u32,
    physical_block_size: u32,
    features: Features,
    /// Stored by the control thread, loaded by every channel with every request. Nothing else is published with it, so
    /// relaxed order is enough: a request that races with a resize sees the old or the new end.
    num_blocks: AtomicU64,
}

/// What a back-end is made from.
pub(crate) struct Make {
    pub(crate) name: String,
    pub(crate) product_name: &'static str,
    pub(crate) uuid: Option<Uuid>,
    pub(crate) block_size: u32,
    pub(crate) physical_block_size: Option<u32>,
    pub(crate) num_blocks: u64,
    pub(crate) features: Features,
}

/// A range in bytes that lies on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

fn invalid(reason: String) -> BdevError {
    BdevError::new(Errno::EINVAL, reason)
}

/// Refuses sizes that a device model could not show to a guest.
pub(crate) fn check_block_size(what: &str, size: u32) -> Result<(), BdevError> {
    if size.is_power_of_two() && (MIN_BLOCK..=MAX_BLOCK).contains(&size) {
        return Ok(());
    }
    Err(invalid(format!(
        "{what} {size} is not possible: give a power of two from {MIN_BLOCK} to {MAX_BLOCK}"
    )))
}

/// Refuses lengths that no offset of the kernel (`off_t`) reaches.
pub(crate) fn check_length(num_blocks: u64, block_size: u32) -> Result<u64, BdevError> {
    if num_blocks == 0 {
        return Err(invalid(
            "a disk needs at least one block: num_blocks is 0".to_owned(),
        ));
    }
    num_blocks
        .checked_mul(u64::from(block_size))
        .filter(|len| i64::try_from(*len).is_ok())
        .ok_or_else(|| {
            invalid(format!(
                "{num_blocks} blocks of {block_size} bytes are more than 2^63 bytes"
            ))
        })
}

impl Disk {
    pub(crate) fn new(make: Make) -> Result<Self, BdevError> {
        if make.name.is_empty() {
            return Err(invalid("a disk needs a name".to_owned()));
        }
        check_block_size("block_size", make.block_size)?;
        let physical = make.physical_block_size.unwrap_or(make.block_size);
        check_block_size("physical_block_size", physical)?;
        check_length(make.num_blocks, make.block_size)?;
        Ok(Self {
            name: make.name,
            product_name: make.product_name,
            uuid: make.uuid.unwrap_or_else(Uuid::new_v4),
            block_size: make.block_size,
            block_shift: make.block_size.trailing_zeros(),
            // A medium's unit is never smaller than its block.
            physical_block_size: physical.max(make.block_size),
            features: make.features,
            num_blocks: AtomicU64::new(make.num_blocks),
        })
    }

    pub(crate) fn info(&self) -> BdevInfo {
        BdevInfo {
            name: self.name.clone(),
            product_name: self.product_name,
            uuid: self.uuid,
            block_size: self.block_size,
            physical_block_size: self.physical_block_size,
            num_blocks: self.num_blocks(),
            features: self.features,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    #[inline]
    pub(crate) fn features(&self) -> Features {
        self.features
    }

    #[inline]
    pub(crate) fn num_blocks(&self) -> u64 {
        self.num_blocks.load(Ordering::Relaxed)
    }

    /// Moves the end. Requests submitted from now on are checked against the new one.
    pub(crate) fn set_num_blocks(&self, num_blocks: u64) -> Result<(), BdevError> {
        check_length(num_blocks, self.block_size)?;
        self.num_blocks.store(num_blocks, Ordering::Relaxed);
        Ok(())
    }

    /// Where on the disk a request other than `Flush` goes, or why it may not.
    ///
    /// Transfers whose memory is not as long as their blocks are refused too: the range check would be void.
    #[inline]
    pub(crate) fn admit(&self, io: &Io) -> Result<Extent, IoStatus> {
        let needs = match io.kind {
            IoKind::Read | IoKind::Compare | IoKind::Flush => Features::empty(),
            IoKind::Write | IoKind::WriteZeroes => Features::WRITE,
            IoKind::Unmap => Features::WRITE.union(Features::UNMAP),
        };
        if !self.features.contains(needs) {
            return Err(if self.features.contains(Features::WRITE) {
                IoStatus::Unsupported
            } else {
                IoStatus::ReadOnly
            });
        }
        let Some(extent) = self.extent(io.lba, io.blocks) else {
            return Err(IoStatus::OutOfRange);
        };
        if matches!(io.kind, IoKind::Read | IoKind::Write | IoKind::Compare)
            && io.segments.len() as u64 != extent.len
        {
            return Err(IoStatus::Failed(Errno::EINVAL));
        }
        Ok(extent)
    }

    /// Where on the disk these blocks are, if they are.
    #[inline]
    pub(crate) fn extent(&self, lba: u64, blocks: u64) -> Option<Extent> {
        match lba.checked_add(blocks) {
            // Cannot overflow: both are at most `num_blocks`, whose bytes fit 63 bits.
            Some(end) if end <= self.num_blocks() => Some(Extent {
                offset: lba << self.block_shift,
                len: blocks << self.block_shift,
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
