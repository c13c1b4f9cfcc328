//! Lists and descriptors of Identify.

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::open_enum::{open_enum, wire_struct};

wire_struct! {
    /// Namespace List: identifiers in rising order, zero after the last (Base 2.0c, 4.5.2).
    pub struct NamespaceList[4096] {
        /// The identifiers.
        pub nsids: [u32; 1024],
    }
}

wire_struct! {
    /// Controller List: identifiers in rising order (Base 2.0c, 4.5.1).
    pub struct ControllerList[4096] {
        /// Bytes 1:0: number of identifiers, at most 2,047.
        pub count: u16,
        /// The identifiers.
        pub cntlids: [u16; 2047],
    }
}

open_enum! {
    /// Namespace Identifier Type (NIDT) (Base 2.0c, 5.17.2.3).
    pub enum NamespaceIdType: u8 {
        /// IEEE Extended Unique Identifier, 8 bytes.
        EUI64 = 0x01,
        /// Namespace Globally Unique Identifier, 16 bytes.
        NGUID = 0x02,
        /// UUID, 16 bytes, in the order of RFC 4122.
        UUID = 0x03,
        /// Command Set Identifier, 1 byte; every 2.0 namespace reports it.
        CSI = 0x04,
    }
}

impl NamespaceIdType {
    /// The length of an identifier of this type (NIDL); none where the type has no name.
    #[must_use]
    pub const fn nidl(self) -> Option<u8> {
        match self {
            Self::EUI64 => Some(8),
            Self::NGUID | Self::UUID => Some(16),
            Self::CSI => Some(1),
            _ => None,
        }
    }
}

wire_struct! {
    /// Head of a Namespace Identification Descriptor, CNS 03h; the identifier of `nidl` bytes
    /// follows, then the next head. A `nidl` of zero ends the list (Base 2.0c, 5.17.2.3).
    #[derive(Copy)]
    pub struct NamespaceIdHeader[4] {
        /// Byte 0: Namespace Identifier Type.
        pub nidt: NamespaceIdType,
        /// Byte 1: Namespace Identifier Length.
        pub nidl: u8,
        _rsvd2: [u8; 2],
    }
}

impl NamespaceIdHeader {
    /// The head of a descriptor of type `nidt` and `nidl` bytes.
    #[must_use]
    pub const fn new(nidt: NamespaceIdType, nidl: u8) -> Self {
        Self {
            nidt,
            nidl,
            _rsvd2: [0; 2],
        }
    }
}

/// One I/O Command Set Combination: the command sets that can be enabled together, one bit per
/// [`Csi`](super::Csi) (Base 2.0c, 5.17.2.21).
#[bitfield(u64)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IoCommandSetCombination {
    /// NVM Command Set, bit 0.
    pub nvm: bool,
    /// Key Value Command Set, bit 1.
    pub key_value: bool,
    /// Zoned Namespace Command Set, bit 2.
    pub zns: bool,
    #[bits(61)]
    __: u64,
}

wire_struct! {
    /// I/O Command Set data structure, CNS 1Ch (Base 2.0c, 5.17.2.21). The first empty combination
    /// ends the list.
    pub struct IoCommandSetCombinations[4096] {
        /// The combinations; their index is IOCSCI of the I/O Command Set Profile feature.
        pub combinations: [IoCommandSetCombination; 512],
    }
}

wire_struct! {
    /// UUID List Entry (Base 2.0c, 5.17.2, figure "UUID List Entry").
    #[derive(Copy)]
    pub struct UuidEntry[32] {
        /// Byte 0: UUID Lists Entry Header: the association in bits 1:0.
        pub header: u8,
        _rsvd1: [u8; 15],
        /// Bytes 31:16: the UUID; zero ends the list.
        pub uuid: [u8; 16],
    }
}

wire_struct! {
    /// UUID List, CNS 17h (Base 2.0c, 5.17.2).
    pub struct UuidList[4096] {
        _rsvd0: [u8; 32],
        /// Entry n is UUID index n + 1.
        pub entries: [UuidEntry; 127],
    }
}
