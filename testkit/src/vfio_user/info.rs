use std::os::fd::OwnedFd;

use guest_memory::SharedMemory;
use vfio_user::wire::{
    self, CAP_SPARSE_MMAP, DeviceFlags, IrqFlags, RegionFlags, SparseArea, SparseMmap,
};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::wire::Reply;
use super::{Error, Result};

/// What DEVICE_GET_INFO says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Kind and abilities.
    pub flags: DeviceFlags,
    /// Regions.
    pub num_regions: u32,
    /// Interrupt indexes.
    pub num_irqs: u32,
}

impl DeviceInfo {
    pub(super) fn parse(reply: &Reply) -> Result<Self> {
        let info: wire::DeviceInfo = exactly(reply)?;
        if info.argsz != 16 {
            return Err(Error::protocol(format!("argsz {}", info.argsz)));
        }
        Ok(Self {
            flags: DeviceFlags::from_bits(info.flags)
                .ok_or_else(|| Error::protocol("unknown device flags"))?,
            num_regions: info.num_regions,
            num_irqs: info.num_irqs,
        })
    }
}

/// What DEVICE_GET_IRQ_INFO says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IrqInfo {
    /// Abilities.
    pub flags: IrqFlags,
    /// Vectors.
    pub count: u32,
}

impl IrqInfo {
    pub(super) fn parse(reply: &Reply, index: u32) -> Result<Self> {
        let info: wire::IrqInfo = exactly(reply)?;
        if (info.argsz, info.index) != (16, index) {
            return Err(Error::protocol(format!("{info:?}")));
        }
        Ok(Self {
            flags: IrqFlags::from_bits(info.flags)
                .ok_or_else(|| Error::protocol("unknown interrupt flags"))?,
            count: info.count,
        })
    }
}

/// What DEVICE_GET_REGION_INFO says.
#[derive(Debug)]
pub struct RegionInfo {
    /// Of the full reply in bytes.
    pub argsz: u32,
    /// Abilities.
    pub flags: RegionFlags,
    /// In bytes.
    pub size: u64,
    /// Where the region begins in `fd`.
    pub offset: u64,
    /// The mappable areas.
    pub areas: Vec<SparseArea>,
    /// What to map them from.
    pub fd: Option<OwnedFd>,
}

impl RegionInfo {
    /// Maps one of the areas, where every client looks for it: at the region's offset in the descriptor plus the
    /// area's in the region.
    ///
    /// # Errors
    ///
    /// [`Error::Protocol`] when there is no such area or descriptor, or it cannot be mapped.
    pub fn map_area(&self, index: usize) -> Result<SharedMemory> {
        let (Some(area), Some(fd)) = (self.areas.get(index), &self.fd) else {
            return Err(Error::protocol("no such mappable area"));
        };
        let offset = self
            .offset
            .checked_add(area.offset)
            .ok_or_else(|| Error::protocol("an area that wraps around its descriptor"))?;
        SharedMemory::from_fd(fd.try_clone()?, offset, area.size)
            .map_err(|error| Error::protocol(format!("an area that cannot be mapped: {error}")))
    }

    pub(super) fn parse(reply: Reply, index: u32, asked: u32) -> Result<Self> {
        let payload = reply.payload.as_slice();
        let (info, _) = wire::RegionInfo::read_from_prefix(payload)
            .map_err(|_| Error::protocol("a short region reply"))?;
        if info.index != index {
            return Err(Error::protocol(format!(
                "region {} for {index}",
                info.index
            )));
        }
        let flags = RegionFlags::from_bits(info.flags)
            .ok_or_else(|| Error::protocol("unknown region flags"))?;
        if payload.len() > asked as usize {
            return Err(Error::protocol("a region reply longer than argsz"));
        }
        let has_caps = flags.contains(RegionFlags::CAPS);
        if has_caps != (info.cap_offset != 0) {
            return Err(Error::protocol("CAPS and cap_offset at odds"));
        }
        let expected = if has_caps { info.argsz } else { 32 };
        if payload.len() != expected as usize {
            return Err(Error::protocol(
                "a region reply of another length than it says",
            ));
        }
        let areas = sparse_areas(payload, info.cap_offset)?;
        let mut fds = reply.fds.into_iter();
        let fd = fds.next();
        if fds.next().is_some() {
            return Err(Error::protocol("several descriptors with a region reply"));
        }
        Ok(Self {
            argsz: info.argsz,
            flags,
            size: info.size,
            offset: info.offset,
            areas,
            fd,
        })
    }
}

fn sparse_areas(payload: &[u8], cap_offset: u32) -> Result<Vec<SparseArea>> {
    let mut areas = Vec::new();
    let mut offset = cap_offset;
    while offset != 0 {
        let chain = payload.get(offset as usize..).unwrap_or_default();
        let (capability, rest) = SparseMmap::read_from_prefix(chain)
            .map_err(|_| Error::protocol("a capability outside the reply"))?;
        if capability.id == CAP_SPARSE_MMAP {
            if capability.version != 1 {
                return Err(Error::protocol("version of the sparse-mmap capability"));
            }
            let mut rest = rest;
            for _ in 0..capability.nr_areas {
                let (area, after) = SparseArea::read_from_prefix(rest)
                    .map_err(|_| Error::protocol("an area outside the reply"))?;
                areas.push(area);
                rest = after;
            }
        }
        if capability.next != 0 && capability.next <= offset {
            return Err(Error::protocol(
                "a chain of capabilities that goes backwards",
            ));
        }
        offset = capability.next;
    }
    Ok(areas)
}

/// The whole payload as one structure.
pub(super) fn exactly<T: FromBytes + KnownLayout + Immutable>(reply: &Reply) -> Result<T> {
    if !reply.fds.is_empty() {
        return Err(Error::protocol("a descriptor that was not called for"));
    }
    T::read_from_bytes(&reply.payload).map_err(|_| {
        Error::protocol(format!(
            "a reply of {} bytes instead of {}",
            reply.payload.len(),
            size_of::<T>()
        ))
    })
}
