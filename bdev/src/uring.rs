//! Files and block devices through io_uring: SPDK's "URING bdev" and "AIO disk", one engine.
//!
//! ```text
//!  aligned, at most 1024 segments:  Segments ───────────────────────► Read/Write op ─► ring     (no copy)
//!  anything else, and compares:     Segments ◄─► bounce buffer ◄────► Read/Write op, piece by piece
//!  flush:                           Fdatasync op
//!  unmap:                           punched hole, or the device's discard
//!  write zeroes:                    zeroed range, else a punched hole, else written zeroes
//! ```
//! Direct I/O where file and block size allow it, else the page cache, with a note to the operator. A file has one writer or
//! many readers, in this process and in others.
//!
//! Writes are durable when flushed or sent with FUA, not before: the disks say so ([`crate::Features::WRITE_CACHE`]), except for devices
//! that the kernel knows to have no volatile cache.

mod bounce;
mod channel;
mod claim;
mod open;
mod queue;
mod statx;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use reactor::Cx;
use uuid::Uuid;

use self::channel::{Shared, UringChannel};
use self::open::{length, open_disk, remainder_note, whole_blocks};
use crate::disk::{Disk, Make};
use crate::traits::{Bdev, BdevError, BdevInfo, Channel, DriverValue, SharedBdev};

/// SPDK's name for the product, by which its own kind of failures is told.
pub(crate) const AIO_PRODUCT: &str = "AIO disk";

/// Which of SPDK's modules the disk presents itself as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// `bdev_uring_*`.
    Uring,
    /// `bdev_aio_*`.
    Aio {
        /// SPDK's option, only reported: nothing here ever waits on the reactor.
        nowait: bool,
    },
}

/// How to open a file or block device.
#[derive(Clone, Debug)]
pub struct UringOptions {
    /// Name of the disk.
    pub name: String,
    /// Path of the file or device.
    pub filename: PathBuf,
    /// Block size in bytes. A device's own if not given; a file has none of its own, so there it must be.
    pub block_size: Option<u32>,
    /// Take no writes. Readers share the file with each other.
    pub readonly: bool,
    /// Its identity; random if not given.
    pub uuid: Option<Uuid>,
    /// Use direct I/O where possible; `false` means the page cache.
    pub direct: bool,
    /// Give unmapped blocks back to the file system or device (SPDK's `fallocate` of `bdev_aio_create`).
    pub unmap: bool,
    /// What it is called.
    pub product: Product,
}

impl UringOptions {
    /// A writable "URING bdev" with direct I/O and unmap.
    pub fn new(name: impl Into<String>, filename: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            filename: filename.into(),
            block_size: None,
            readonly: false,
            uuid: None,
            direct: true,
            unmap: true,
            product: Product::Uring,
        }
    }
}

/// Opens a file or block device as a disk. Reads from it and may wait for it: not for a reactor's thread.
///
/// # Errors
/// Why it cannot be opened or used, and what to do; nothing is changed then.
pub fn create(options: UringOptions) -> Result<SharedBdev, BdevError> {
    let opened = open_disk(&options)?;
    let disk = Disk::new(Make {
        name: options.name.clone(),
        product_name: match options.product {
            Product::Uring => "URING bdev",
            Product::Aio { .. } => AIO_PRODUCT,
        },
        uuid: options.uuid,
        block_size: opened.block_size,
        physical_block_size: Some(opened.physical_block_size),
        num_blocks: opened.num_blocks,
        features: opened.features,
    })?;
    for note in &opened.notes {
        tracing::warn!(bdev = options.name, file = %options.filename.display(), "{note}");
    }
    let shared = Shared::new(disk, opened, options.filename.clone());
    Ok(Arc::new(Uring {
        shared: Arc::new(shared),
        options,
    }))
}

#[derive(Debug)]
struct Uring {
    shared: Arc<Shared>,
    options: UringOptions,
}

impl Bdev for Uring {
    fn info(&self) -> BdevInfo {
        self.shared.disk.info()
    }

    fn open(&self, cx: &mut Cx) -> Result<Box<dyn Channel>, BdevError> {
        let file = cx
            .register_file(Arc::clone(&self.shared.fd))
            .map_err(|errno| {
                let reason = match errno {
                    Errno::ENFILE => "the reactor has no room for another open file".to_owned(),
                    errno => format!("the reactor cannot take over the file: {errno}"),
                };
                BdevError::new(errno, reason)
            })?;
        Ok(Box::new(UringChannel::new(Arc::clone(&self.shared), file)))
    }

    fn rescan(&self) -> Result<u64, BdevError> {
        let path = &self.options.filename;
        let block_size = self.shared.disk.info().block_size;
        let len = length(&self.shared.fd).map_err(|errno| {
            BdevError::new(
                errno,
                format!("cannot read the size of {}: {errno}", path.display()),
            )
        })?;
        let blocks = whole_blocks(path, len, block_size)?;
        if let Some(note) = remainder_note(len, block_size) {
            tracing::warn!(bdev = self.options.name, file = %path.display(), "{note}");
        }
        self.shared.disk.set_num_blocks(blocks)?;
        self.shared.shrunk.store(false, Ordering::Relaxed);
        Ok(blocks)
    }

    fn driver_specific(&self) -> Vec<(&'static str, DriverValue)> {
        let options = &self.options;
        let filename = DriverValue::Text(options.filename.to_string_lossy().into_owned());
        match options.product {
            Product::Uring => vec![("filename", filename)],
            Product::Aio { nowait } => vec![
                ("filename", filename),
                (
                    "block_size_override",
                    DriverValue::Bool(options.block_size.is_some()),
                ),
                ("readonly", DriverValue::Bool(options.readonly)),
                ("fallocate", DriverValue::Bool(options.unmap)),
                ("nowait", DriverValue::Bool(nowait)),
            ],
        }
    }
}

#[cfg(test)]
mod tests;
