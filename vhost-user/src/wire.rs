//! Layouts and numbers of the protocol: what lies on the wire, without behaviour.
//!
//! Source: the vhost-user text as published with QEMU (`docs/interop/vhost-user.rst`). Integers are in host byte order: both
//! peers run on one host. Messages lie unaligned in their buffers, so structures are read and written by value.

use std::fmt;

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Size of [`Header`] in bytes.
pub const HEADER_SIZE: usize = size_of::<Header>();

/// Largest payload in bytes. The largest of the protocol is a memory table; the text has room for 8 regions, this for 127.
pub const MAX_PAYLOAD: usize = 4096;

/// Most descriptors of one message: one for each region of the largest memory table.
pub const MAX_FDS: usize = 127;

/// Most memory regions of one client ("Get max mem slots"), as in the kernel's vhost.
pub const MAX_MEM_SLOTS: usize = 509;

/// Bytes of configuration space that the protocol can carry (`VHOST_USER_MAX_CONFIG_SIZE`).
pub const MAX_CONFIG: usize = 256;

/// The protocol's version, in the low bits of a header's flags.
pub const VERSION: u32 = 1;
/// The bits of the version.
pub const VERSION_MASK: u32 = 3;
/// The message is an answer.
pub const FLAG_REPLY: u32 = 1 << 2;
/// The sender wants an answer to a request that has none of its own (REPLY_ACK).
pub const FLAG_NEED_REPLY: u32 = 1 << 3;

/// "There is no descriptor" in SET_VRING_KICK, CALL and ERR.
pub const VRING_NO_FD: u64 = 1 << 8;
/// The ring's index in SET_VRING_KICK, CALL and ERR.
pub const VRING_INDEX_MASK: u64 = 0xff;
/// Writes to the used ring are logged (`VHOST_VRING_F_LOG`).
pub const VRING_LOG: u32 = 1;

bitflags! {
    /// What the two ends of the protocol can agree on beside the device's features.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ProtocolFeatures: u64 {
        /// The number of queues can be asked for.
        const MQ = 1 << 0;
        /// The log of writes comes as a descriptor.
        const LOG_SHMFD = 1 << 1;
        /// Every request can be answered.
        const REPLY_ACK = 1 << 3;
        /// A second socket for requests of the back-end.
        const BACKEND_REQ = 1 << 5;
        /// The configuration space is the back-end's.
        const CONFIG = 1 << 9;
        /// Requests in flight are written down in shared memory.
        const INFLIGHT_SHMFD = 1 << 12;
        /// The device can be reset.
        const RESET_DEVICE = 1 << 13;
        /// Memory regions come and go one by one.
        const CONFIGURE_MEM_SLOTS = 1 << 15;
        /// The device status is the back-end's to see.
        const STATUS = 1 << 16;
    }
}

/// A request's number. Unknown numbers are values, not errors: they are answered, and logged, like any other.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(pub u32);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        impl Code {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    /// Which features the back-end offers.
    GET_FEATURES = 1;
    /// Which features the front-end and its driver chose.
    SET_FEATURES = 2;
    /// The session begins.
    SET_OWNER = 3;
    /// Deprecated; ignored.
    RESET_OWNER = 4;
    /// The whole of the guest's memory.
    SET_MEM_TABLE = 5;
    /// Where writes are logged.
    SET_LOG_BASE = 6;
    /// Who would like to hear of logged writes.
    SET_LOG_FD = 7;
    /// How many entries a ring has.
    SET_VRING_NUM = 8;
    /// Where a ring lies.
    SET_VRING_ADDR = 9;
    /// Where a ring goes on.
    SET_VRING_BASE = 10;
    /// Stops a ring; answered with where it stands.
    GET_VRING_BASE = 11;
    /// Starts a ring.
    SET_VRING_KICK = 12;
    /// Whom to interrupt.
    SET_VRING_CALL = 13;
    /// Whom to tell of errors.
    SET_VRING_ERR = 14;
    /// Which extensions the back-end offers.
    GET_PROTOCOL_FEATURES = 15;
    /// Which extensions the front-end chose.
    SET_PROTOCOL_FEATURES = 16;
    /// How many queues there are.
    GET_QUEUE_NUM = 17;
    /// Enables or disables a ring.
    SET_VRING_ENABLE = 18;
    /// Of network devices.
    SEND_RARP = 19;
    /// Of network devices.
    NET_SET_MTU = 20;
    /// The second socket.
    SET_BACKEND_REQ_FD = 21;
    /// Of front-ends with a virtual IOMMU.
    IOTLB_MSG = 22;
    /// Of machines with another byte order.
    SET_VRING_ENDIAN = 23;
    /// Reads the configuration space.
    GET_CONFIG = 24;
    /// Writes the configuration space.
    SET_CONFIG = 25;
    /// Of crypto devices.
    CREATE_CRYPTO_SESSION = 26;
    /// Of crypto devices.
    CLOSE_CRYPTO_SESSION = 27;
    /// Of postcopy migration.
    POSTCOPY_ADVISE = 28;
    /// Of postcopy migration.
    POSTCOPY_LISTEN = 29;
    /// Of postcopy migration.
    POSTCOPY_END = 30;
    /// Asks for memory to write down in what is in flight.
    GET_INFLIGHT_FD = 31;
    /// Gives such memory back.
    SET_INFLIGHT_FD = 32;
    /// Of graphics devices.
    GPU_SET_SOCKET = 33;
    /// Resets the device.
    RESET_DEVICE = 34;
    /// A kick in a message.
    VRING_KICK = 35;
    /// How many memory regions there may be.
    GET_MAX_MEM_SLOTS = 36;
    /// Another memory region.
    ADD_MEM_REG = 37;
    /// A memory region goes.
    REM_MEM_REG = 38;
    /// The driver's device status.
    SET_STATUS = 39;
    /// Reads the device status.
    GET_STATUS = 40;
    /// Of graphics devices.
    GET_SHARED_OBJECT = 41;
    /// Of devices with a state of their own to migrate.
    SET_DEVICE_STATE_FD = 42;
    /// Of devices with a state of their own to migrate.
    CHECK_DEVICE_STATE = 43;
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "request {}", self.0),
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Requests of the back-end, on the second socket: the configuration has changed.
pub const BACKEND_CONFIG_CHANGE: u32 = 2;

macro_rules! wire_struct {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* } = $size:literal;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
            #[repr(C)]
            pub struct $name {
                $($(#[$field_doc])* pub $field: $type,)*
            }
            const _: () = assert!(size_of::<$name>() == $size);
        )*
    };
}

wire_struct! {
    /// What every message begins with.
    Header {
        /// See [`Code`].
        request: u32,
        /// Version, [`FLAG_REPLY`], [`FLAG_NEED_REPLY`].
        flags: u32,
        /// Bytes that follow.
        size: u32,
    } = 12;

    /// A ring's index and a number.
    VringState {
        /// Of the ring.
        index: u32,
        /// Size, base or whether it is enabled.
        num: u32,
    } = 8;

    /// Where a ring lies: addresses are the front-end's own.
    VringAddress {
        /// Of the ring.
        index: u32,
        /// [`VRING_LOG`].
        flags: u32,
        /// Descriptor area.
        descriptor: u64,
        /// Device area.
        used: u64,
        /// Driver area.
        available: u64,
        /// Guest-physical address under which writes to the device area are logged.
        log: u64,
    } = 40;

    /// A region of the guest's memory.
    MemoryRegion {
        /// Guest-physical.
        guest_address: u64,
        /// In bytes.
        size: u64,
        /// The front-end's own.
        user_address: u64,
        /// In the descriptor.
        mmap_offset: u64,
    } = 32;

    /// ADD_MEM_REG and REM_MEM_REG.
    SingleRegion {
        /// Not used.
        padding: u64,
        /// The region.
        region: MemoryRegion,
    } = 40;

    /// What a memory table begins with.
    MemoryHeader {
        /// Regions that follow.
        count: u32,
        /// Not used.
        padding: u32,
    } = 8;

    /// SET_LOG_BASE with a descriptor.
    Log {
        /// In bytes.
        size: u64,
        /// In the descriptor.
        offset: u64,
    } = 16;

    /// What GET_CONFIG and SET_CONFIG begin with.
    ConfigHeader {
        /// In the configuration space.
        offset: u32,
        /// Bytes that follow.
        size: u32,
        /// Whether a driver or a migration writes.
        flags: u32,
    } = 12;

    /// GET_INFLIGHT_FD and SET_INFLIGHT_FD.
    Inflight {
        /// In bytes.
        mmap_size: u64,
        /// In the descriptor.
        mmap_offset: u64,
        /// Number of rings.
        num_queues: u16,
        /// Entries of each.
        queue_size: u16,
        /// What the compilers of front-ends add.
        padding: u32,
    } = 24;
}

/// What an [`Inflight`] without its padding has.
pub const INFLIGHT_UNPADDED: usize = 20;

impl Header {
    /// The request.
    #[must_use]
    pub fn code(&self) -> Code {
        Code(self.request)
    }

    /// Whether the sender wants an answer whatever the request.
    #[must_use]
    pub fn needs_reply(&self) -> bool {
        self.flags & FLAG_NEED_REPLY != 0
    }
}
