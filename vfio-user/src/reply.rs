//! Replies.
//!
//! A reply is one byte string, header first, so that it goes out in one `sendmsg`: SPDK's initiator reads a
//! reply's body with a single `read`, and QEMU its header. An error reply is a header alone. No reply is longer
//! than the client asked for: what does not fit in its `argsz` is left out, and the reply's `argsz` says how much
//! to ask for.

use nix::errno::Errno;
use zerocopy::{Immutable, IntoBytes};

use crate::version;
use crate::wire::{
    self, CAP_SPARSE_MMAP, FLAG_ERROR, HEADER_SIZE, Header, RegionFlags, SparseArea, TYPE_REPLY,
    VERSION_MAJOR,
};

/// What a request is answered with.
#[derive(Clone, Debug)]
pub enum Reply<'a> {
    /// A header alone: DMA_MAP, DEVICE_SET_IRQS, DEVICE_RESET.
    Done,
    /// VERSION, with the server's capabilities.
    Version {
        /// The version agreed.
        minor: u16,
    },
    /// DMA_UNMAP: the request's own structure.
    DmaUnmap(wire::DmaUnmap),
    /// DEVICE_GET_INFO.
    DeviceInfo(wire::DeviceFlags),
    /// DEVICE_GET_REGION_INFO.
    RegionInfo {
        /// The client's limit.
        argsz: u32,
        /// What is said of the region.
        region: Region,
    },
    /// DEVICE_GET_REGION_IO_FDS: no descriptors.
    RegionIoFds {
        /// Of the region.
        index: u32,
    },
    /// DEVICE_GET_IRQ_INFO.
    IrqInfo {
        /// Of the interrupt.
        index: u32,
        /// What it can do.
        flags: wire::IrqFlags,
        /// Vectors.
        count: u32,
    },
    /// REGION_READ: exactly as many bytes as were asked for.
    RegionRead(wire::RegionAccess, &'a [u8]),
    /// REGION_WRITE.
    RegionWrite(wire::RegionAccess),
    /// REGION_WRITE_MULTI: the number of writes done.
    RegionWriteMulti(u64),
}

/// One region as it is described to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Index.
    pub index: u32,
    /// READ and WRITE; the others follow from `mappable`.
    pub flags: RegionFlags,
    /// In bytes; 0 when the device has no such region.
    pub size: u64,
    /// The one area that may be mapped. One, because SPDK's initiator takes the nth descriptor for the nth area
    /// while QEMU accepts a single descriptor.
    pub mappable: Option<Mappable>,
}

/// An area of a region that lies in a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mappable {
    /// In the region.
    pub area: SparseArea,
    /// Where the region (not the area) begins in the descriptor.
    pub file_offset: u64,
}

impl Region {
    /// Size of the reply's payload with everything in it.
    fn full_size(&self) -> usize {
        let capabilities = match self.mappable {
            Some(_) => size_of::<wire::SparseMmap>() + size_of::<SparseArea>(),
            None => 0,
        };
        size_of::<wire::RegionInfo>() + capabilities
    }

    /// Whether a reply within `argsz` has the area in it, and so the descriptor with it: it travels with the full
    /// reply only, since a client that asks again would otherwise get it twice.
    pub fn carries_descriptor(&self, argsz: u32) -> bool {
        self.mappable.is_some() && argsz as usize >= self.full_size()
    }
}

/// Appends the reply to `request` to `out`.
pub fn encode(request: &Header, reply: &Reply<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    put(out, &reply_header(request, TYPE_REPLY, 0));
    match reply {
        Reply::Done => {}
        Reply::Version { minor } => {
            let version = wire::Version {
                major: VERSION_MAJOR,
                minor: *minor,
            };
            put(out, &version);
            out.extend_from_slice(&version::offer());
        }
        Reply::DmaUnmap(unmap) => put(out, unmap),
        Reply::DeviceInfo(flags) => {
            let info = wire::DeviceInfo {
                argsz: size_of::<wire::DeviceInfo>() as u32,
                flags: flags.bits(),
                num_regions: wire::NUM_REGIONS,
                num_irqs: wire::NUM_IRQS,
            };
            put(out, &info);
        }
        Reply::RegionInfo { argsz, region } => put_region(out, *argsz, region),
        Reply::RegionIoFds { index } => {
            let reply = wire::RegionIoFds {
                argsz: size_of::<wire::RegionIoFds>() as u32,
                flags: 0,
                index: *index,
                count: 0,
            };
            put(out, &reply);
        }
        Reply::IrqInfo {
            index,
            flags,
            count,
        } => {
            let info = wire::IrqInfo {
                argsz: size_of::<wire::IrqInfo>() as u32,
                flags: flags.bits(),
                index: *index,
                count: *count,
            };
            put(out, &info);
        }
        Reply::RegionRead(access, data) => {
            put(out, access);
            out.extend_from_slice(data);
        }
        Reply::RegionWrite(access) => put(out, access),
        Reply::RegionWriteMulti(count) => put(out, count),
    }
    let size = out.len().saturating_sub(start);
    // Replies are bounded by `MAX_MESSAGE_SIZE`, so their size always fits.
    let size = u32::try_from(size).unwrap_or(u32::MAX);
    if let Some(header) = out.get_mut(start..start.saturating_add(HEADER_SIZE)) {
        let header_of_size = Header {
            message_size: size,
            ..reply_header(request, TYPE_REPLY, 0)
        };
        header.copy_from_slice(header_of_size.as_bytes());
    }
}

/// Appends an error reply to `request` to `out`.
pub fn encode_error(request: &Header, errno: Errno, out: &mut Vec<u8>) {
    let error = (errno as i32).unsigned_abs();
    put(out, &reply_header(request, TYPE_REPLY | FLAG_ERROR, error));
}

fn reply_header(request: &Header, flags: u32, error: u32) -> Header {
    Header {
        message_id: request.message_id,
        command: request.command,
        message_size: HEADER_SIZE as u32,
        flags,
        error,
    }
}

fn put_region(out: &mut Vec<u8>, argsz: u32, region: &Region) {
    let full = region.carries_descriptor(argsz);
    let mut flags = region.flags;
    flags.set(RegionFlags::MMAP, region.mappable.is_some());
    flags.set(RegionFlags::CAPS, full);
    let cap_offset = size_of::<wire::RegionInfo>() as u32;
    let info = wire::RegionInfo {
        argsz: region.full_size() as u32,
        flags: flags.bits(),
        index: region.index,
        cap_offset: if full { cap_offset } else { 0 },
        size: region.size,
        offset: region.mappable.map_or(0, |mappable| mappable.file_offset),
    };
    put(out, &info);
    if let (Some(mappable), true) = (region.mappable, full) {
        let capability = wire::SparseMmap {
            id: CAP_SPARSE_MMAP,
            version: 1,
            next: 0,
            nr_areas: 1,
            reserved: 0,
        };
        put(out, &capability);
        put(out, &mappable.area);
    }
}

fn put(out: &mut Vec<u8>, value: &(impl IntoBytes + Immutable)) {
    out.extend_from_slice(value.as_bytes());
}

#[cfg(test)]
mod tests;
