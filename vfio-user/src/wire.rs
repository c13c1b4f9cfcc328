//! Layouts and numbers of the protocol: what lies on the wire, without behaviour.
//!
//! Source: the vfio-user protocol specification (QEMU, `docs/interop/vfio-user.rst`), version 0.x. Flags and
//! indexes that the protocol takes from the kernel's VFIO interface come from `vfio-bindings`. Integers are in
//! host byte order: both peers run on one host. Messages lie unaligned in their buffers, so structures are read
//! and written by value.

use std::fmt;

use bitflags::bitflags;
use vfio_bindings::bindings::vfio;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Size of [`Header`] in bytes; also the size of the smallest message.
pub const HEADER_SIZE: usize = size_of::<Header>();

/// Largest `count` of a region access, in bytes, and what is negotiated as `max_data_xfer_size`.
pub const MAX_DATA_XFER: usize = 1 << 20;

/// Largest message in bytes: a header, a [`RegionAccess`] and [`MAX_DATA_XFER`] bytes of data.
pub const MAX_MESSAGE_SIZE: usize = HEADER_SIZE + size_of::<RegionAccess>() + MAX_DATA_XFER;

/// Most file descriptors that one message may carry. Clients are told [`ADVERTISED_MAX_MSG_FDS`]; some send
/// sixteen per SET_IRQS whatever they were told, so the limit kept is more generous.
pub const MAX_MSG_FDS: usize = 64;

/// The `max_msg_fds` offered in negotiation; QEMU refuses a server that offers more than 16.
pub const ADVERTISED_MAX_MSG_FDS: u64 = 16;

/// Most DMA regions a client may have mapped at once (`max_dma_maps`), the protocol's default.
pub const MAX_DMA_MAPS: usize = 65535;

/// The page sizes of DMA mappings (`pgsizes`): 4 KiB and every multiple.
pub const PAGE_SIZES: u64 = 4096;

/// Protocol version spoken: major number.
pub const VERSION_MAJOR: u16 = 0;

/// Protocol version spoken: highest minor number.
pub const VERSION_MINOR: u16 = 1;

/// Number of regions of a PCI device, by the fixed VFIO indexes (BAR 0–5, ROM, configuration space, VGA).
pub const NUM_REGIONS: u32 = vfio::VFIO_PCI_NUM_REGIONS;

/// Region index of the expansion ROM.
pub const ROM_REGION: u32 = vfio::VFIO_PCI_ROM_REGION_INDEX;

/// Region index of the configuration space.
pub const CONFIG_REGION: u32 = vfio::VFIO_PCI_CONFIG_REGION_INDEX;

/// Region index of legacy VGA; never present.
pub const VGA_REGION: u32 = vfio::VFIO_PCI_VGA_REGION_INDEX;

/// Number of interrupt indexes of a PCI device (INTx, MSI, MSI-X, error, request).
pub const NUM_IRQS: u32 = vfio::VFIO_PCI_NUM_IRQS;

/// Interrupt index of the legacy pin.
pub const INTX_IRQ: u32 = vfio::VFIO_PCI_INTX_IRQ_INDEX;

/// Interrupt index of MSI.
pub const MSI_IRQ: u32 = vfio::VFIO_PCI_MSI_IRQ_INDEX;

/// Interrupt index of MSI-X.
pub const MSIX_IRQ: u32 = vfio::VFIO_PCI_MSIX_IRQ_INDEX;

/// Interrupt index of the error notifier. A QEMU stops its VM when it fires.
pub const ERR_IRQ: u32 = vfio::VFIO_PCI_ERR_IRQ_INDEX;

/// Interrupt index of the device-request (please unplug) notifier.
pub const REQ_IRQ: u32 = vfio::VFIO_PCI_REQ_IRQ_INDEX;

/// A command number. Unknown numbers are values, not errors: they are answered, and logged, like any other.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Command(pub u16);

macro_rules! commands {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        impl Command {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// The command's name in the specification, if it has one.
            pub fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

commands! {
    /// Version and capability negotiation; always first.
    VERSION = 1, "VERSION";
    /// Adds a region of the client's memory.
    DMA_MAP = 2, "DMA_MAP";
    /// Removes a region, or all.
    DMA_UNMAP = 3, "DMA_UNMAP";
    /// Counts of regions and interrupts.
    DEVICE_GET_INFO = 4, "DEVICE_GET_INFO";
    /// Size, flags and mappable areas of one region.
    DEVICE_GET_REGION_INFO = 5, "DEVICE_GET_REGION_INFO";
    /// Eventfds that stand for writes to a region.
    DEVICE_GET_REGION_IO_FDS = 6, "DEVICE_GET_REGION_IO_FDS";
    /// Flags and vector count of one interrupt index.
    DEVICE_GET_IRQ_INFO = 7, "DEVICE_GET_IRQ_INFO";
    /// Installs, removes, masks or fires interrupts.
    DEVICE_SET_IRQS = 8, "DEVICE_SET_IRQS";
    /// Reads bytes of a region.
    REGION_READ = 9, "REGION_READ";
    /// Writes bytes of a region.
    REGION_WRITE = 10, "REGION_WRITE";
    /// Server to client only.
    DMA_READ = 11, "DMA_READ";
    /// Server to client only.
    DMA_WRITE = 12, "DMA_WRITE";
    /// Brings the device to its power-on state.
    DEVICE_RESET = 13, "DEVICE_RESET";
    /// Several region writes of up to eight bytes each.
    REGION_WRITE_MULTI = 15, "REGION_WRITE_MULTI";
    /// Optional features: migration and dirty tracking.
    DEVICE_FEATURE = 16, "DEVICE_FEATURE";
    /// Reads the device's state.
    MIG_DATA_READ = 17, "MIG_DATA_READ";
    /// Writes the device's state.
    MIG_DATA_WRITE = 18, "MIG_DATA_WRITE";
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "command {}", self.0),
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Mask of the message type in [`Header::flags`].
pub const FLAGS_TYPE_MASK: u32 = 0xf;

/// Message type: a request.
pub const TYPE_COMMAND: u32 = 0;

/// Message type: a reply.
pub const TYPE_REPLY: u32 = 1;

/// Flag: the sender takes no reply, not even of a failure.
pub const FLAG_NO_REPLY: u32 = 1 << 4;

/// Flag of a reply: the request failed and [`Header::error`] says why.
pub const FLAG_ERROR: u32 = 1 << 5;

/// What every message begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Header {
    /// Chosen by the sender of the request, echoed by the reply; need not be unique.
    pub message_id: u16,
    /// A [`Command`].
    pub command: u16,
    /// Of the whole message in bytes, this header included.
    pub message_size: u32,
    /// Type and flags.
    pub flags: u32,
    /// A positive errno, in a reply with [`FLAG_ERROR`]; else 0.
    pub error: u32,
}

impl Header {
    /// The command, as a value that prints its name.
    pub fn command(&self) -> Command {
        Command(self.command)
    }

    /// Whether the sender takes no reply.
    pub fn no_reply(&self) -> bool {
        self.flags & FLAG_NO_REPLY != 0
    }

    /// Whether the message is a request (and not a reply, nor of an unknown type).
    pub fn is_command(&self) -> bool {
        self.flags & FLAGS_TYPE_MASK == TYPE_COMMAND
    }
}

/// VERSION, before the optional NUL-terminated JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Version {
    /// Incompatible changes.
    pub major: u16,
    /// Compatible changes.
    pub minor: u16,
}

/// DMA_MAP request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct DmaMap {
    /// Size of this structure.
    pub argsz: u32,
    /// [`DmaMapFlags`].
    pub flags: u32,
    /// Where the region begins in the descriptor passed along, in bytes.
    pub offset: u64,
    /// Where the region begins in the device's address space.
    pub address: u64,
    /// In bytes.
    pub size: u64,
}

bitflags! {
    /// [`DmaMap::flags`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct DmaMapFlags: u32 {
        /// The device may read the region.
        const READ = vfio::VFIO_DMA_MAP_FLAG_READ;
        /// The device may write the region.
        const WRITE = vfio::VFIO_DMA_MAP_FLAG_WRITE;
        /// The descriptor may be mapped (in the specification since 2026; absent means the same).
        const MMAP = 1 << 2;
        /// The descriptor may be accessed with file I/O (likewise).
        const FILE_IO = 1 << 3;
    }
}

/// DMA_UNMAP request and reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct DmaUnmap {
    /// Largest reply payload that the client takes.
    pub argsz: u32,
    /// [`DmaUnmapFlags`].
    pub flags: u32,
    /// Of the region; 0 with [`DmaUnmapFlags::ALL`].
    pub address: u64,
    /// Of the region in bytes; 0 with [`DmaUnmapFlags::ALL`].
    pub size: u64,
}

bitflags! {
    /// [`DmaUnmap::flags`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct DmaUnmapFlags: u32 {
        /// Return the dirty bitmap of the region.
        const GET_DIRTY_BITMAP = vfio::VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP;
        /// Remove every region.
        const ALL = vfio::VFIO_DMA_UNMAP_FLAG_ALL;
    }
}

/// DEVICE_GET_INFO request and reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct DeviceInfo {
    /// Largest reply payload (request), size of this structure (reply).
    pub argsz: u32,
    /// [`DeviceFlags`].
    pub flags: u32,
    /// [`NUM_REGIONS`].
    pub num_regions: u32,
    /// [`NUM_IRQS`].
    pub num_irqs: u32,
}

bitflags! {
    /// [`DeviceInfo::flags`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct DeviceFlags: u32 {
        /// DEVICE_RESET works.
        const RESET = vfio::VFIO_DEVICE_FLAGS_RESET;
        /// A PCI device.
        const PCI = vfio::VFIO_DEVICE_FLAGS_PCI;
    }
}

/// DEVICE_GET_REGION_INFO request and reply; capabilities may follow in the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RegionInfo {
    /// Largest reply payload (request), size of the full reply (reply).
    pub argsz: u32,
    /// [`RegionFlags`].
    pub flags: u32,
    /// Of the region.
    pub index: u32,
    /// Of the first capability, from the start of this structure; 0 without.
    pub cap_offset: u32,
    /// Of the region in bytes; 0 when the device has no such region.
    pub size: u64,
    /// Where the region begins in the descriptor passed along.
    pub offset: u64,
}

bitflags! {
    /// [`RegionInfo::flags`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct RegionFlags: u32 {
        /// Readable.
        const READ = vfio::VFIO_REGION_INFO_FLAG_READ;
        /// Writable.
        const WRITE = vfio::VFIO_REGION_INFO_FLAG_WRITE;
        /// Parts of it may be mapped.
        const MMAP = vfio::VFIO_REGION_INFO_FLAG_MMAP;
        /// Capabilities follow.
        const CAPS = vfio::VFIO_REGION_INFO_FLAG_CAPS;
    }
}

/// Capability id of [`SparseMmap`].
pub const CAP_SPARSE_MMAP: u16 = vfio::VFIO_REGION_INFO_CAP_SPARSE_MMAP as u16;

/// The sparse-mmap capability of a region; `nr_areas` × [`SparseArea`] follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SparseMmap {
    /// [`CAP_SPARSE_MMAP`].
    pub id: u16,
    /// 1.
    pub version: u16,
    /// Offset of the next capability from the start of [`RegionInfo`]; 0 at the end.
    pub next: u32,
    /// Areas that follow.
    pub nr_areas: u32,
    /// 0.
    pub reserved: u32,
}

/// One mappable area of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SparseArea {
    /// From the start of the region; in the descriptor it lies at [`RegionInfo::offset`] plus this.
    pub offset: u64,
    /// In bytes.
    pub size: u64,
}

/// DEVICE_GET_REGION_IO_FDS request and reply; entries may follow in the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RegionIoFds {
    /// Largest reply payload (request), size of the full reply (reply).
    pub argsz: u32,
    /// 0.
    pub flags: u32,
    /// Of the region.
    pub index: u32,
    /// Entries that follow; 0 in the request.
    pub count: u32,
}

/// DEVICE_GET_IRQ_INFO request and reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct IrqInfo {
    /// Largest reply payload (request), size of this structure (reply).
    pub argsz: u32,
    /// [`IrqFlags`].
    pub flags: u32,
    /// Of the interrupt.
    pub index: u32,
    /// Vectors of the index; 0 when the device has none.
    pub count: u32,
}

bitflags! {
    /// [`IrqInfo::flags`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct IrqFlags: u32 {
        /// Signalled through eventfds.
        const EVENTFD = vfio::VFIO_IRQ_INFO_EVENTFD;
        /// Can be masked.
        const MASKABLE = vfio::VFIO_IRQ_INFO_MASKABLE;
        /// Masks itself when it fires.
        const AUTOMASKED = vfio::VFIO_IRQ_INFO_AUTOMASKED;
        /// Vectors cannot be added once some are enabled.
        const NORESIZE = vfio::VFIO_IRQ_INFO_NORESIZE;
    }
}

/// DEVICE_SET_IRQS request; `count` bytes follow with [`IrqSetFlags::DATA_BOOL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SetIrqs {
    /// Size of this structure; clients differ on whether the data counts.
    pub argsz: u32,
    /// [`IrqSetFlags`].
    pub flags: u32,
    /// Of the interrupt.
    pub index: u32,
    /// First vector.
    pub start: u32,
    /// Number of vectors; 0 for the whole index.
    pub count: u32,
}

bitflags! {
    /// [`SetIrqs::flags`]: exactly one form of data and exactly one action.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct IrqSetFlags: u32 {
        /// All vectors of the range alike.
        const DATA_NONE = vfio::VFIO_IRQ_SET_DATA_NONE;
        /// The vectors whose byte is not 0.
        const DATA_BOOL = vfio::VFIO_IRQ_SET_DATA_BOOL;
        /// Eventfds are passed along, one per vector, or none to remove them.
        const DATA_EVENTFD = vfio::VFIO_IRQ_SET_DATA_EVENTFD;
        /// Mask.
        const ACTION_MASK = vfio::VFIO_IRQ_SET_ACTION_MASK;
        /// Unmask; with eventfds: unmask when they fire.
        const ACTION_UNMASK = vfio::VFIO_IRQ_SET_ACTION_UNMASK;
        /// Fire; with eventfds: set them.
        const ACTION_TRIGGER = vfio::VFIO_IRQ_SET_ACTION_TRIGGER;
    }
}

/// REGION_READ and REGION_WRITE, requests and replies; data follows where there is any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RegionAccess {
    /// In the region, in bytes.
    pub offset: u64,
    /// Index of the region.
    pub region: u32,
    /// In bytes.
    pub count: u32,
}

/// Most bytes of one entry of REGION_WRITE_MULTI.
pub const WRITE_MULTI_DATA: usize = 8;

/// One entry of REGION_WRITE_MULTI, whose request is a count (u64) and that many of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct WriteMultiEntry {
    /// Where.
    pub access: RegionAccess,
    /// The first `access.count` bytes are written.
    pub data: [u8; WRITE_MULTI_DATA],
}

const _: () = {
    assert!(size_of::<Header>() == 16);
    assert!(size_of::<Version>() == 4);
    assert!(size_of::<DmaMap>() == 32);
    assert!(size_of::<DmaUnmap>() == 24);
    assert!(size_of::<DeviceInfo>() == 16);
    assert!(size_of::<RegionInfo>() == 32);
    assert!(size_of::<SparseMmap>() == 16);
    assert!(size_of::<SparseArea>() == 16);
    assert!(size_of::<RegionIoFds>() == 16);
    assert!(size_of::<IrqInfo>() == 16);
    assert!(size_of::<SetIrqs>() == 20);
    assert!(size_of::<RegionAccess>() == 16);
    assert!(size_of::<WriteMultiEntry>() == 24);
};
