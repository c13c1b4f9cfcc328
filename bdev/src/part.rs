//! A part of another disk: splits of equal size ("Split Disk") and partitions of a GPT ("GPT Disk").
//!
//! A part has the length it was made with, whatever becomes of its base; what a base that shrank no longer has is out of range.

use std::sync::Arc;

use nix::errno::Errno;
use reactor::{Cx, Op};
use uuid::{Uuid, uuid};

use crate::disk::{Disk, Make};
use crate::io::{Io, IoKind};
use crate::traits::{
    Bdev, BdevError, BdevInfo, Channel, DriverValue, Finished, SharedBdev, Submitted,
};

/// Identities are derived from the base's and the range under this one, as SPDK derives them.
const NAMESPACE: Uuid = uuid!("976b899e-3e1e-4d71-ab69-c2b08e9df8b8");

/// The identity that SPDK would give to this range of `base`.
#[must_use]
pub fn range_uuid(base: Uuid, offset_blocks: u64, num_blocks: u64) -> Uuid {
    let mut name = base.as_bytes().to_vec();
    name.extend(offset_blocks.to_le_bytes());
    name.extend(num_blocks.to_le_bytes());
    Uuid::new_v5(&NAMESPACE, &name)
}

/// How to make a part.
#[derive(Clone, Debug)]
pub struct PartOptions {
    /// Its name.
    pub name: String,
    /// "Split Disk" or "GPT Disk".
    pub product_name: &'static str,
    /// Its identity; [`range_uuid`] if not given.
    pub uuid: Option<Uuid>,
    /// First block on the base.
    pub offset_blocks: u64,
    /// Length in blocks.
    pub num_blocks: u64,
    /// What `driver_specific` says beside the base's name and the offset.
    pub more: Vec<(&'static str, DriverValue)>,
}

/// Makes a part of `base`.
///
/// # Errors
/// `EINVAL` for a range that is not on the base.
pub fn create(base: SharedBdev, options: PartOptions) -> Result<SharedBdev, BdevError> {
    let PartOptions {
        name,
        product_name,
        uuid,
        offset_blocks,
        num_blocks,
        more,
    } = options;
    let info = base.info();
    let end = offset_blocks.checked_add(num_blocks);
    if end.is_none_or(|end| end > info.num_blocks) {
        let reason = format!(
            "{num_blocks} blocks from block {offset_blocks} on are not on `{}`, which has {}",
            info.name, info.num_blocks
        );
        return Err(BdevError::new(Errno::EINVAL, reason));
    }
    let disk = Disk::new(Make {
        name,
        product_name,
        uuid: Some(uuid.unwrap_or_else(|| range_uuid(info.uuid, offset_blocks, num_blocks))),
        block_size: info.block_size,
        physical_block_size: Some(info.physical_block_size),
        num_blocks,
        features: info.features,
    })?;
    Ok(Arc::new(Part {
        disk: Arc::new(disk),
        base,
        offset: offset_blocks,
        more,
    }))
}

/// Makes the parts that `bdev_split_create` asks for: `count` of `size` blocks each, or if that is zero of an equal share; fewer if
/// the base has not room for so many.
///
/// # Errors
/// `EINVAL` for no parts, or parts of no block.
pub fn split(base: &SharedBdev, count: u32, size: u64) -> Result<Vec<SharedBdev>, BdevError> {
    let info = base.info();
    let share = info.num_blocks.checked_div(u64::from(count)).unwrap_or(0);
    let num_blocks = if size == 0 { share } else { size };
    let Some(most) = info.num_blocks.checked_div(num_blocks) else {
        let reason = format!(
            "`{}` has {} blocks, too few for {count} parts",
            info.name, info.num_blocks
        );
        return Err(BdevError::new(Errno::EINVAL, reason));
    };
    if u64::from(count) > most {
        tracing::warn!(
            base = info.name,
            split_count = count,
            possible = most,
            "the base has not room for so many parts: as many are made as fit"
        );
    }
    let parts = (0..u64::from(count).min(most)).map(|index| {
        let options = PartOptions {
            name: format!("{}p{index}", info.name),
            product_name: "Split Disk",
            uuid: None,
            offset_blocks: index * num_blocks,
            num_blocks,
            more: Vec::new(),
        };
        create(Arc::clone(base), options)
    });
    parts.collect()
}

#[derive(Debug)]
struct Part {
    disk: Arc<Disk>,
    base: SharedBdev,
    offset: u64,
    more: Vec<(&'static str, DriverValue)>,
}

impl Bdev for Part {
    fn info(&self) -> BdevInfo {
        self.disk.info()
    }

    fn open(&self, cx: &mut Cx) -> Result<Box<dyn Channel>, BdevError> {
        Ok(Box::new(PartChannel {
            disk: Arc::clone(&self.disk),
            inner: crate::open(&self.base, cx)?,
            offset: self.offset,
        }))
    }

    fn driver_specific(&self) -> Vec<(&'static str, DriverValue)> {
        let mut values = vec![
            ("base_bdev", DriverValue::Text(self.base.info().name)),
            ("offset_blocks", DriverValue::Number(self.offset)),
        ];
        values.extend(self.more.iter().cloned());
        values
    }
}

struct PartChannel {
    disk: Arc<Disk>,
    inner: Box<dyn Channel>,
    offset: u64,
}

impl Channel for PartChannel {
    #[inline]
    fn submit(&mut self, cx: &mut Cx, tag: u64, mut io: Io) -> Submitted {
        if io.kind == IoKind::Flush {
            return self.inner.submit(cx, tag, io);
        }
        if let Err(status) = self.disk.admit(&io) {
            return Submitted::Done(status);
        }
        // Cannot overflow: both ends were on the base.
        io.lba += self.offset;
        match self.inner.submit(cx, tag, io) {
            Submitted::Full(mut io) => {
                io.lba -= self.offset;
                Submitted::Full(io)
            }
            other => other,
        }
    }

    #[inline]
    fn finish(&mut self, cx: &mut Cx, tag: u64, op: Op, result: Result<u32, Errno>) -> Finished {
        self.inner.finish(cx, tag, op, result)
    }

    fn resume(&mut self, cx: &mut Cx, tag: u64, op: Op) -> Finished {
        self.inner.resume(cx, tag, op)
    }

    #[inline]
    fn prefetch(&self, kind: IoKind, lba: u64, blocks: u64) {
        // What is not on this part must not warm a neighbour's memory.
        if self.disk.extent(lba, blocks).is_some() {
            self.inner.prefetch(kind, lba + self.offset, blocks);
        }
    }

    fn expedite(&mut self, cx: &mut Cx, tag: Option<u64>) {
        self.inner.expedite(cx, tag);
    }
}

#[cfg(test)]
mod tests;
