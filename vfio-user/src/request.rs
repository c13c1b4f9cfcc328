//! Requests: every rule that can be checked without knowing the device.
//!
//! Decoding is total: whatever the bytes, the result is a [`Request`] or the errno to answer with. A request with
//! several parts is checked as a whole before any of it is acted on. Rules and error numbers are the
//! specification's; where it is silent they are those of the reference server.
//!
//! A fixed-size request may be longer than its structure: SPDK's initiator pads every region query to 4 KiB.

use std::os::fd::OwnedFd;

use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::Rejection;
use crate::frame::Message;
use crate::version::Proposal;
use crate::wire::{self, Command};

mod irqs;

pub use irqs::{IrqAction, IrqChange, IrqData, IrqRange};

/// A request, structurally valid. Regions, interrupt indexes and ranges are still to be held against the device.
#[derive(Debug)]
pub enum Request<'a> {
    /// VERSION.
    Version(Proposal),
    /// DMA_MAP.
    DmaMap(DmaMap),
    /// DMA_UNMAP of one region, to be answered with the same structure.
    DmaUnmap(wire::DmaUnmap),
    /// DMA_UNMAP of every region, to be answered with the same structure.
    DmaUnmapAll(wire::DmaUnmap),
    /// DEVICE_GET_INFO.
    DeviceInfo,
    /// DEVICE_GET_REGION_INFO.
    RegionInfo {
        /// Largest reply payload that the client takes, at least the fixed part.
        argsz: u32,
        /// Of the region, below [`wire::NUM_REGIONS`].
        index: u32,
    },
    /// DEVICE_GET_REGION_IO_FDS.
    RegionIoFds {
        /// Of the region, below [`wire::NUM_REGIONS`].
        index: u32,
    },
    /// DEVICE_GET_IRQ_INFO.
    IrqInfo {
        /// Of the interrupt, below [`wire::NUM_IRQS`].
        index: u32,
    },
    /// DEVICE_SET_IRQS.
    SetIrqs(IrqChange<'a>),
    /// REGION_READ; the range does not wrap.
    RegionRead(wire::RegionAccess),
    /// REGION_WRITE; the range does not wrap, and the data is as long as `count` says.
    RegionWrite(wire::RegionAccess, &'a [u8]),
    /// REGION_WRITE_MULTI.
    RegionWriteMulti(WriteMulti<'a>),
    /// DEVICE_RESET.
    DeviceReset,
}

/// A region of the client's memory. Neither range wraps and the size is not 0.
#[derive(Debug)]
pub struct DmaMap {
    /// What the device may do.
    pub flags: wire::DmaMapFlags,
    /// In the descriptor.
    pub offset: u64,
    /// In the device's address space.
    pub address: u64,
    /// In bytes.
    pub size: u64,
    /// Without one the memory is reachable only by message.
    pub fd: Option<OwnedFd>,
}

/// The entries of a REGION_WRITE_MULTI, each checked.
#[derive(Clone, Copy, Debug)]
pub struct WriteMulti<'a> {
    entries: &'a [u8],
}

impl<'a> WriteMulti<'a> {
    /// Number of writes.
    pub fn len(self) -> u64 {
        (self.entries.len() / size_of::<wire::WriteMultiEntry>()) as u64
    }

    /// Whether there is no write.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The writes in order.
    pub fn iter(self) -> impl Iterator<Item = (wire::RegionAccess, &'a [u8])> {
        self.entries
            .chunks_exact(size_of::<wire::WriteMultiEntry>())
            .filter_map(|entry| {
                let (access, data) = wire::RegionAccess::read_from_prefix(entry).ok()?;
                Some((access, data.get(..access.count as usize)?))
            })
    }
}

/// Reads a request. Descriptors that it does not call for are closed.
///
/// # Errors
///
/// What to answer instead.
pub fn decode(message: Message<'_>) -> Result<Request<'_>, Rejection> {
    let Message {
        header,
        payload,
        fds,
    } = message;
    if !header.is_command() {
        return Err(Rejection::invalid("not a request"));
    }
    match header.command() {
        Command::VERSION => Proposal::decode(payload).map(Request::Version),
        Command::DMA_MAP => dma_map(payload, fds),
        Command::DMA_UNMAP => dma_unmap(payload),
        Command::DEVICE_GET_INFO => device_info(payload),
        Command::DEVICE_GET_REGION_INFO => region_info(payload),
        Command::DEVICE_GET_REGION_IO_FDS => region_io_fds(payload),
        Command::DEVICE_GET_IRQ_INFO => irq_info(payload),
        Command::DEVICE_SET_IRQS => irqs::decode(payload, fds).map(Request::SetIrqs),
        Command::REGION_READ => region_read(payload),
        Command::REGION_WRITE => region_write(payload),
        Command::REGION_WRITE_MULTI => region_write_multi(payload),
        Command::DEVICE_RESET => Ok(Request::DeviceReset),
        // Every client takes EINVAL for "no such feature".
        Command::DEVICE_FEATURE | Command::MIG_DATA_READ | Command::MIG_DATA_WRITE => {
            Err(Rejection::invalid("feature is not supported"))
        }
        Command::DMA_READ | Command::DMA_WRITE => Err(Rejection::invalid(
            "request goes from server to client only",
        )),
        _ => Err(Rejection::invalid("unknown command")),
    }
}

/// Reads the structure that a payload begins with, and checks the `argsz` that it begins with.
fn fixed<T: FromBytes + KnownLayout + Immutable>(
    payload: &[u8],
    argsz: impl Fn(&T) -> u32,
) -> Result<T, Rejection> {
    let (value, _) =
        T::read_from_prefix(payload).map_err(|_| Rejection::invalid("request is too short"))?;
    if (argsz(&value) as usize) < size_of::<T>() {
        return Err(Rejection::invalid("argsz is too small"));
    }
    Ok(value)
}

fn dma_map<'a>(payload: &[u8], fds: Vec<OwnedFd>) -> Result<Request<'a>, Rejection> {
    let map: wire::DmaMap = fixed(payload, |map: &wire::DmaMap| map.argsz)?;
    let flags = wire::DmaMapFlags::from_bits(map.flags)
        .ok_or(Rejection::invalid("unknown flag of a DMA mapping"))?;
    // Descriptors beyond the first are closed, as the reference server does.
    let fd = fds.into_iter().next();
    if fd.is_none() && flags.intersects(wire::DmaMapFlags::MMAP | wire::DmaMapFlags::FILE_IO) {
        return Err(Rejection::invalid(
            "DMA mapping is to be accessed through a descriptor, but none came with it",
        ));
    }
    if map.size == 0 {
        return Err(Rejection::invalid("DMA mapping of no bytes"));
    }
    if map.address.checked_add(map.size).is_none() {
        return Err(Rejection::invalid(
            "DMA mapping wraps around the address space",
        ));
    }
    if map.offset.checked_add(map.size).is_none() {
        return Err(Rejection::invalid("DMA mapping wraps around its file"));
    }
    Ok(Request::DmaMap(DmaMap {
        flags,
        offset: map.offset,
        address: map.address,
        size: map.size,
        fd,
    }))
}

fn dma_unmap<'a>(payload: &[u8]) -> Result<Request<'a>, Rejection> {
    let unmap: wire::DmaUnmap = fixed(payload, |unmap: &wire::DmaUnmap| unmap.argsz)?;
    let flags = wire::DmaUnmapFlags::from_bits(unmap.flags)
        .ok_or(Rejection::invalid("unknown flag of a DMA unmapping"))?;
    if flags.contains(wire::DmaUnmapFlags::GET_DIRTY_BITMAP) {
        return Err(Rejection::invalid("dirty pages are not tracked"));
    }
    if !flags.contains(wire::DmaUnmapFlags::ALL) {
        return Ok(Request::DmaUnmap(unmap));
    }
    if unmap.address != 0 || unmap.size != 0 {
        return Err(Rejection::invalid("unmapping everything takes no range"));
    }
    Ok(Request::DmaUnmapAll(unmap))
}

fn device_info<'a>(payload: &[u8]) -> Result<Request<'a>, Rejection> {
    fixed(payload, |info: &wire::DeviceInfo| info.argsz)?;
    Ok(Request::DeviceInfo)
}

fn region_info<'a>(payload: &[u8]) -> Result<Request<'a>, Rejection> {
    let info: wire::RegionInfo = fixed(payload, |info: &wire::RegionInfo| info.argsz)?;
    check_region_index(info.index)?;
    Ok(Request::RegionInfo {
        argsz: info.argsz,
        index: info.index,
    })
}

fn region_io_fds<'a>(payload: &[u8]) -> Result<Request<'a>, Rejection> {
    let query: wire::RegionIoFds = fixed(payload, |query: &wire::RegionIoFds| query.argsz)?;
    if query.flags != 0 || query.count != 0 {
        return Err(Rejection::invalid(
            "flags and count of a region fd query must be 0",
        ));
    }
    if query.argsz as usize > wire::MAX_DATA_XFER {
        return Err(Rejection::invalid("argsz is too large"));
    }
    check_region_index(query.index)?;
    Ok(Request::RegionIoFds { index: query.index })
}

fn irq_info<'a>(payload: &[u8]) -> Result<Request<'a>, Rejection> {
    let info: wire::IrqInfo = fixed(payload, |info: &wire::IrqInfo| info.argsz)?;
    if info.index >= wire::NUM_IRQS {
        return Err(Rejection::invalid("no such interrupt index"));
    }
    Ok(Request::IrqInfo { index: info.index })
}

fn region_read<'a>(payload: &[u8]) -> Result<Request<'a>, Rejection> {
    let access = wire::RegionAccess::read_from_bytes(payload)
        .map_err(|_| Rejection::invalid("region read is not 16 bytes long"))?;
    check_access(&access)?;
    Ok(Request::RegionRead(access))
}

fn region_write(payload: &[u8]) -> Result<Request<'_>, Rejection> {
    let (access, data) = wire::RegionAccess::read_from_prefix(payload)
        .map_err(|_| Rejection::invalid("region write is too short"))?;
    check_access(&access)?;
    if data.len() != access.count as usize {
        return Err(Rejection::invalid(
            "region write has more or less data than it says",
        ));
    }
    Ok(Request::RegionWrite(access, data))
}

fn region_write_multi(payload: &[u8]) -> Result<Request<'_>, Rejection> {
    let (count, entries) = u64::read_from_prefix(payload)
        .map_err(|_| Rejection::invalid("multiple write is too short"))?;
    let size = size_of::<wire::WriteMultiEntry>();
    if entries.len() % size != 0 || (entries.len() / size) as u64 != count {
        return Err(Rejection::invalid(
            "multiple write has more or fewer entries than it says",
        ));
    }
    for entry in entries.chunks_exact(size) {
        let (access, _) = wire::RegionAccess::read_from_prefix(entry)
            .map_err(|_| Rejection::invalid("multiple write is too short"))?;
        check_access(&access)?;
        if access.count == 0 || access.count as usize > wire::WRITE_MULTI_DATA {
            return Err(Rejection::invalid(
                "an entry of a multiple write is not 1 to 8 bytes long",
            ));
        }
    }
    Ok(Request::RegionWriteMulti(WriteMulti { entries }))
}

fn check_region_index(index: u32) -> Result<(), Rejection> {
    if index >= wire::NUM_REGIONS {
        return Err(Rejection::invalid("no such region"));
    }
    Ok(())
}

fn check_access(access: &wire::RegionAccess) -> Result<(), Rejection> {
    check_region_index(access.region)?;
    if access.count as usize > wire::MAX_DATA_XFER {
        return Err(Rejection::invalid(
            "region access is larger than max_data_xfer_size",
        ));
    }
    if access.offset.checked_add(access.count.into()).is_none() {
        return Err(Rejection::invalid("region access wraps"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
