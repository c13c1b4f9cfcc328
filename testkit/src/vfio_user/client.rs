use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use vfio_user::wire::{
    self, Command, FLAG_NO_REPLY, IrqSetFlags, MAX_DATA_XFER, RegionAccess, WRITE_MULTI_DATA,
    WriteMultiEntry,
};
use zerocopy::{FromBytes, IntoBytes};

use super::info::{self, DeviceInfo, IrqInfo, RegionInfo};
use super::wire::{Reply, Wire};
use super::{Error, Result};

pub use vfio_user::wire::DmaMapFlags as MapFlags;

/// What the client says in VERSION.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// Major version.
    pub major: u16,
    /// Minor version.
    pub minor: u16,
    /// What follows, NUL included if there is to be one.
    pub data: Vec<u8>,
}

impl Proposal {
    /// A version without capabilities, as SPDK's initiator sends it.
    pub fn bare(major: u16, minor: u16) -> Self {
        Self {
            major,
            minor,
            data: Vec::new(),
        }
    }

    /// Version 0.1 with this text and a NUL.
    pub fn json(text: &str) -> Self {
        Self {
            major: 0,
            minor: 1,
            data: [text.as_bytes(), &[0]].concat(),
        }
    }

    /// What QEMU 11.1 sends.
    pub fn qemu() -> Self {
        let text = r#"{"capabilities":{"pgsizes":4096,"max_msg_fds":16,"max_dma_maps":65535,"max_data_xfer_size":1048576,"migration":{"max_bitmap_size":268435456,"pgsize":4096},"write_multiple":true}}"#;
        Self {
            minor: 0,
            ..Self::json(text)
        }
    }
}

impl Default for Proposal {
    fn default() -> Self {
        Self::json(r#"{"capabilities":{"max_msg_fds":16,"max_data_xfer_size":1048576}}"#)
    }
}

/// What the server says to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// Major version.
    pub major: u16,
    /// Minor version.
    pub minor: u16,
    /// The JSON, without its NUL; empty without any.
    pub json: String,
}

/// A client in a session. See the [module documentation](super).
#[derive(Debug)]
pub struct Client {
    wire: Wire,
}

impl Client {
    /// Connects and negotiates.
    ///
    /// # Errors
    ///
    /// Those of connecting and of [`negotiate`](Self::negotiate).
    pub fn connect(path: &Path) -> Result<Self> {
        let mut client = Self::connect_only(path)?;
        client.negotiate(&Proposal::default())?;
        Ok(client)
    }

    /// Connects and says nothing.
    ///
    /// # Errors
    ///
    /// Those of connecting.
    pub fn connect_only(path: &Path) -> Result<Self> {
        Ok(Self {
            wire: Wire::connect(path)?,
        })
    }

    /// Uses a connected socket and says nothing.
    ///
    /// # Errors
    ///
    /// When the socket takes no timeout.
    pub fn over(stream: UnixStream) -> Result<Self> {
        Ok(Self {
            wire: Wire::new(stream)?,
        })
    }

    /// The message level.
    pub fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// Sends a request and waits for its reply.
    ///
    /// # Errors
    ///
    /// The server's refusal, or what is wrong with the reply.
    pub fn request(
        &mut self,
        command: Command,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<Reply> {
        let id = self.wire.send(command, 0, payload, fds)?;
        self.wire.reply_to(id, command)
    }

    /// A request whose reply is a header alone.
    fn command(&mut self, command: Command, payload: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        let reply = self.request(command, payload, fds)?;
        expect_empty(&reply)
    }

    /// VERSION.
    ///
    /// # Errors
    ///
    /// The server's refusal, after which it closes.
    pub fn negotiate(&mut self, proposal: &Proposal) -> Result<Agreed> {
        let version = wire::Version {
            major: proposal.major,
            minor: proposal.minor,
        };
        let payload = [version.as_bytes(), &proposal.data].concat();
        let reply = self.request(Command::VERSION, &payload, &[])?;
        if !reply.fds.is_empty() {
            return Err(Error::protocol("a descriptor with the version reply"));
        }
        let (version, data) = wire::Version::read_from_prefix(&reply.payload)
            .map_err(|_| Error::protocol("a short version reply"))?;
        let json = match data.split_last() {
            None => "",
            Some((0, text)) => std::str::from_utf8(text)
                .map_err(|_| Error::protocol("version data is not UTF-8"))?,
            Some(_) => return Err(Error::protocol("version data without NUL")),
        };
        Ok(Agreed {
            major: version.major,
            minor: version.minor,
            json: json.to_owned(),
        })
    }

    /// DMA_MAP: `size` bytes at `address` are those of `fd` at `offset`.
    ///
    /// # Errors
    ///
    /// The server's refusal.
    pub fn dma_map(
        &mut self,
        flags: MapFlags,
        fd: Option<BorrowedFd<'_>>,
        offset: u64,
        address: u64,
        size: u64,
    ) -> Result<()> {
        let map = dma_map_message(flags, offset, address, size);
        self.command(Command::DMA_MAP, map.as_bytes(), fd.as_slice())
    }

    /// DMA_UNMAP of exactly this region.
    ///
    /// # Errors
    ///
    /// The server's refusal.
    pub fn dma_unmap(&mut self, address: u64, size: u64) -> Result<()> {
        self.unmap(wire::DmaUnmap {
            argsz: 24,
            flags: 0,
            address,
            size,
        })
    }

    /// DMA_UNMAP of everything.
    ///
    /// # Errors
    ///
    /// The server's refusal.
    pub fn dma_unmap_all(&mut self) -> Result<()> {
        let flags = wire::DmaUnmapFlags::ALL.bits();
        self.unmap(wire::DmaUnmap {
            argsz: 24,
            flags,
            address: 0,
            size: 0,
        })
    }

    fn unmap(&mut self, unmap: wire::DmaUnmap) -> Result<()> {
        let reply = self.request(Command::DMA_UNMAP, unmap.as_bytes(), &[])?;
        let echo: wire::DmaUnmap = info::exactly(&reply)?;
        if echo != unmap {
            return Err(Error::protocol(format!("{unmap:?} answered by {echo:?}")));
        }
        Ok(())
    }

    /// DEVICE_GET_INFO.
    ///
    /// # Errors
    ///
    /// The server's refusal.
    pub fn device_info(&mut self) -> Result<DeviceInfo> {
        let query = wire::DeviceInfo {
            argsz: 16,
            flags: 0,
            num_regions: 0,
            num_irqs: 0,
        };
        let reply = self.request(Command::DEVICE_GET_INFO, query.as_bytes(), &[])?;
        DeviceInfo::parse(&reply)
    }

    /// DEVICE_GET_REGION_INFO as QEMU does it: first without room for capabilities, and again with what the
    /// server asks for.
    ///
    /// # Errors
    ///
    /// The server's refusal.
    pub fn region_info(&mut self, index: u32) -> Result<RegionInfo> {
        let first = self.region_info_within(index, 32)?;
        if first.argsz <= 32 {
            return Ok(first);
        }
        self.region_info_within(index, first.argsz)
    }

    /// DEVICE_GET_REGION_INFO with this argsz.
    ///
    /// # Errors
    ///
    /// The server's refusal.
    pub fn region_info_within(&mut self, index: u32, argsz: u32) -> Result<RegionInfo> {
        let query = wire::RegionInfo {
            argsz,
            flags: 0,
            index,
            cap_offset: 0,
            size: 0,
            offset: 0,
        };
        let reply = self.request(Command::DEVICE_GET_REGION_INFO, query.as_bytes(), &[])?;
        RegionInfo::parse(reply, index, argsz)
    }

    /// DEVICE_GET_REGION_IO_FDS; returns the number of entries.
    ///
    /// # Errors
    ///
    /// The server's refusal.
    pub fn region_io_fds(&mut self, index: u32) -> Result<u32> {
        let query = wire::RegionIoFds {
            argsz: 16,
            flags: 0,
            index,
            count: 0,
        };
        let reply = self.request(Command::DEVICE_GET_REGION_IO_FDS, query.as_bytes(), &[])?;
        let answer: wire::RegionIoFds = info::exactly(&reply)?;
        if (answer.argsz, answer.flags, answer.index) != (16, 0, index) {
            return Err(Error::protocol(format!("{answer:?}")));
        }
        Ok(answer.count)
    }

    /// DEVICE_GET_IRQ_INFO.
    ///
    /// # Errors
    ///
    /// The server's refusal.
    pub fn irq_info(&mut self, index: u32) -> Result<IrqInfo> {
        let query = wire::IrqInfo {
            argsz: 16,
            flags: 0,
            index,
            count: 0,
        };
        let reply = self.request(Command::DEVICE_GET_IRQ_INFO, query.as_bytes(), &[])?;
        IrqInfo::parse(&reply, index)
    }

    /// DEVICE_SET_IRQS, any of it. `bools` follow the structure.
    ///
    /// # Errors
    ///
    /// The server's refusal.
    pub fn set_irqs(
        &mut self,
        flags: IrqSetFlags,
        index: u32,
        range: std::ops::Range<u32>,
        bools: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<()> {
        let request = wire::SetIrqs {
            argsz: 20,
            flags: flags.bits(),
            index,
            start: range.start,
            count: range.end.wrapping_sub(range.start),
        };
        let payload = [request.as_bytes(), bools].concat();
        self.command(Command::DEVICE_SET_IRQS, &payload, fds)
    }

    /// Installs one eventfd per vector, from `start` on.
    ///
    /// # Errors
    ///
    /// The server's refusal.
    pub fn set_eventfds(
        &mut self,
        index: u32,
        start: u32,
        eventfds: &[BorrowedFd<'_>],
    ) -> Result<()> {
        let count = u32::try_from(eventfds.len()).unwrap_or(u32::MAX);
        let flags = IrqSetFlags::DATA_EVENTFD | IrqSetFlags::ACTION_TRIGGER;
        self.set_irqs(
            flags,
            index,
            start..start.wrapping_add(count),
            &[],
            eventfds,
        )
    }

    /// Removes every eventfd of an index.
    ///
    /// # Errors
    ///
    /// The server's refusal.
    pub fn disable_irqs(&mut self, index: u32) -> Result<()> {
        let flags = IrqSetFlags::DATA_NONE | IrqSetFlags::ACTION_TRIGGER;
        self.set_irqs(flags, index, 0..0, &[], &[])
    }

    /// REGION_READ of `data.len()` bytes.
    ///
    /// # Errors
    ///
    /// The server's refusal.
    pub fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> Result<()> {
        let access = access(region, offset, data.len())?;
        let reply = self.request(Command::REGION_READ, access.as_bytes(), &[])?;
        let (echo, read) = split_access(&reply)?;
        if echo != access || read.len() != data.len() {
            return Err(Error::protocol(format!(
                "{access:?} answered by {echo:?} and {} bytes",
                read.len()
            )));
        }
        data.copy_from_slice(read);
        Ok(())
    }

    /// REGION_READ of a value.
    ///
    /// # Errors
    ///
    /// The server's refusal.
    pub fn read<T: FromBytes + IntoBytes>(&mut self, region: u32, offset: u64) -> Result<T> {
        let mut value = T::new_zeroed();
        self.region_read(region, offset, value.as_mut_bytes())?;
        Ok(value)
    }

    /// REGION_WRITE.
    ///
    /// # Errors
    ///
    /// The server's refusal.
    pub fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<()> {
        let access = access(region, offset, data.len())?;
        let payload = [access.as_bytes(), data].concat();
        let reply = self.request(Command::REGION_WRITE, &payload, &[])?;
        let (echo, rest) = split_access(&reply)?;
        if echo != access || !rest.is_empty() {
            return Err(Error::protocol(format!("{access:?} answered by {echo:?}")));
        }
        Ok(())
    }

    /// REGION_WRITE for which no reply is taken.
    ///
    /// # Errors
    ///
    /// Those of sending.
    pub fn region_write_posted(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<()> {
        let access = access(region, offset, data.len())?;
        let payload = [access.as_bytes(), data].concat();
        self.wire
            .send(Command::REGION_WRITE, FLAG_NO_REPLY, &payload, &[])?;
        Ok(())
    }

    /// REGION_WRITE_MULTI of `(region, offset, data)`, each of up to eight bytes.
    ///
    /// # Errors
    ///
    /// The server's refusal.
    pub fn region_write_multi(&mut self, writes: &[(u32, u64, &[u8])]) -> Result<()> {
        let payload = write_multi_message(writes)?;
        let reply = self.request(Command::REGION_WRITE_MULTI, &payload, &[])?;
        let done: u64 = info::exactly(&reply)?;
        if done != writes.len() as u64 {
            return Err(Error::protocol(format!(
                "{done} of {} writes done",
                writes.len()
            )));
        }
        Ok(())
    }

    /// REGION_WRITE_MULTI for which no reply is taken, the way QEMU sends it.
    ///
    /// # Errors
    ///
    /// Those of sending.
    pub fn region_write_multi_posted(&mut self, writes: &[(u32, u64, &[u8])]) -> Result<()> {
        let payload = write_multi_message(writes)?;
        self.wire
            .send(Command::REGION_WRITE_MULTI, FLAG_NO_REPLY, &payload, &[])?;
        Ok(())
    }

    /// DEVICE_RESET.
    ///
    /// # Errors
    ///
    /// The server's refusal.
    pub fn reset(&mut self) -> Result<()> {
        self.command(Command::DEVICE_RESET, &[], &[])
    }
}

/// The payload of a DMA_MAP.
pub fn dma_map_message(flags: MapFlags, offset: u64, address: u64, size: u64) -> wire::DmaMap {
    wire::DmaMap {
        argsz: 32,
        flags: flags.bits(),
        offset,
        address,
        size,
    }
}

fn write_multi_message(writes: &[(u32, u64, &[u8])]) -> Result<Vec<u8>> {
    let mut payload = (writes.len() as u64).as_bytes().to_vec();
    for &(region, offset, data) in writes {
        let mut entry = WriteMultiEntry {
            access: access(region, offset, data.len())?,
            data: [0; WRITE_MULTI_DATA],
        };
        entry
            .data
            .get_mut(..data.len())
            .ok_or_else(|| Error::protocol("more than eight bytes in one entry"))?
            .copy_from_slice(data);
        payload.extend_from_slice(entry.as_bytes());
    }
    Ok(payload)
}

fn access(region: u32, offset: u64, count: usize) -> Result<RegionAccess> {
    if count > MAX_DATA_XFER {
        return Err(Error::protocol("more data than a message may carry"));
    }
    Ok(RegionAccess {
        offset,
        region,
        count: u32::try_from(count).unwrap_or(u32::MAX),
    })
}

fn split_access(reply: &Reply) -> Result<(RegionAccess, &[u8])> {
    if !reply.fds.is_empty() {
        return Err(Error::protocol("a descriptor with a region access"));
    }
    RegionAccess::read_from_prefix(&reply.payload)
        .map_err(|_| Error::protocol("a short reply to a region access"))
}

fn expect_empty(reply: &Reply) -> Result<()> {
    if !reply.payload.is_empty() || !reply.fds.is_empty() {
        return Err(Error::protocol("a reply with a body where there is none"));
    }
    Ok(())
}
