//! The disk that stores nothing: SPDK's "Null disk". It measures everything above it.
//!
//! Every request inside its range succeeds inside `submit`. Reads leave the guest's buffer as it was, so what a guest
//! reads is its own old data, never anybody else's. A compare always finds what it looks for.

use std::sync::Arc;

use nix::errno::Errno;
use reactor::{Cx, Op};
use uuid::Uuid;

use crate::disk::{Disk, Make};
use crate::io::{Io, IoKind, IoStatus};
use crate::traits::{
    Bdev, BdevError, BdevInfo, Channel, DriverValue, Features, Finished, SharedBdev, Submitted,
};

/// How to make a null disk.
#[derive(Clone, Debug)]
pub struct NullOptions {
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

/// Makes a null disk.
///
/// # Errors
/// `EINVAL` for sizes that are not possible.
pub fn create(options: NullOptions) -> Result<SharedBdev, BdevError> {
    let disk = Disk::new(Make {
        name: options.name,
        product_name: "Null disk",
        uuid: options.uuid,
        block_size: options.block_size,
        physical_block_size: options.physical_block_size,
        num_blocks: options.num_blocks,
        features: Features::WRITE | Features::UNMAP | Features::WRITE_ZEROES,
    })?;
    Ok(Arc::new(Null {
        disk: Arc::new(disk),
    }))
}

#[derive(Debug)]
struct Null {
    disk: Arc<Disk>,
}

impl Bdev for Null {
    fn info(&self) -> BdevInfo {
        self.disk.info()
    }

    fn open(&self, _cx: &mut Cx) -> Result<Box<dyn Channel>, BdevError> {
        Ok(Box::new(NullChannel {
            disk: Arc::clone(&self.disk),
        }))
    }

    fn resize(&self, num_blocks: u64) -> Result<(), BdevError> {
        self.disk.set_num_blocks(num_blocks)
    }

    fn driver_specific(&self) -> Vec<(&'static str, DriverValue)> {
        Vec::new()
    }
}

struct NullChannel {
    disk: Arc<Disk>,
}

impl Channel for NullChannel {
    #[inline]
    fn submit(&mut self, _cx: &mut Cx, _tag: u64, io: Io) -> Submitted {
        if io.kind == IoKind::Flush {
            return Submitted::Done(IoStatus::Ok);
        }
        Submitted::Done(match self.disk.admit(&io) {
            Ok(_) => IoStatus::Ok,
            Err(status) => status,
        })
    }

    fn finish(&mut self, _: &mut Cx, _: u64, _: Op, _: Result<u32, Errno>) -> Finished {
        // Nothing of this channel is ever in the ring.
        Finished::Done(IoStatus::Failed(Errno::EINVAL))
    }
}
