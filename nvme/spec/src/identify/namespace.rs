//! Identify Namespace of the NVM command set: CNS 00h and 11h.

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::le128::Le128;
use crate::open_enum::{open_enum, wire_struct};

/// Namespace Features (NSFEAT) (NVM Command Set 1.0, 4.1.5.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct NsFeat {
    /// Thin provisioning (THINP), bit 0.
    pub thinp: bool,
    /// NAWUN, NAWUPF and NACWU are this namespace's own (NSABP), bit 1.
    pub nsabp: bool,
    /// Deallocated or Unwritten Logical Block error supported (DAE), bit 2.
    pub dae: bool,
    /// NGUID and EUI64 are never reused (UIDREUSE), bit 3.
    pub uidreuse: bool,
    /// NPWG, NPWA, NPDG, NPDA and NOWS are defined (OPTPERF), bit 4.
    pub optperf: bool,
    #[bits(3)]
    __: u8,
}

/// Formatted LBA Size (FLBAS) (NVM Command Set 1.0, 4.1.5.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Flbas {
    /// Index of the LBA format in use, low four bits, bits 3:0.
    #[bits(4)]
    pub index_low: u8,
    /// Metadata is transferred at the end of the data, bit 4.
    pub extended: bool,
    /// Index of the LBA format in use, high two bits, bits 6:5; ignored with 16 formats or fewer.
    #[bits(2)]
    pub index_high: u8,
    #[bits(1)]
    __: u8,
}

/// Metadata Capabilities (MC) (NVM Command Set 1.0, 4.1.5.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Mc {
    /// Metadata at the end of the data, bit 0.
    pub extended: bool,
    /// Metadata in a buffer of its own, bit 1.
    pub separate: bool,
    #[bits(6)]
    __: u8,
}

/// End-to-end Data Protection Capabilities (DPC) (NVM Command Set 1.0, 4.1.5.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Dpc {
    /// Type 1, bit 0.
    pub type1: bool,
    /// Type 2, bit 1.
    pub type2: bool,
    /// Type 3, bit 2.
    pub type3: bool,
    /// In the first bytes of the metadata, bit 3.
    pub first: bool,
    /// In the last bytes of the metadata, bit 4.
    pub last: bool,
    #[bits(3)]
    __: u8,
}

open_enum! {
    /// Protection Information type in use (NVM Command Set 1.0, 4.1.5.1).
    pub enum ProtectionType: u8 {
        /// None.
        NONE = 0,
        /// Type 1.
        TYPE_1 = 1,
        /// Type 2.
        TYPE_2 = 2,
        /// Type 3.
        TYPE_3 = 3,
    }
}

/// End-to-end Data Protection Type Settings (DPS) (NVM Command Set 1.0, 4.1.5.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Dps {
    /// Protection Information type, bits 2:0.
    #[bits(3)]
    pub protection: ProtectionType,
    /// In the first bytes of the metadata, bit 3.
    pub first: bool,
    #[bits(4)]
    __: u8,
}

/// Namespace Multi-path I/O and Namespace Sharing Capabilities (NMIC) (Base 2.0c, 5.17.2.8).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Nmic {
    /// Attachable to two or more controllers at once, bit 0.
    pub shared: bool,
    #[bits(7)]
    __: u8,
}

/// Reservation Capabilities (RESCAP) (Base 2.0c, 5.17.2.8).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Rescap {
    /// Persist Through Power Loss, bit 0.
    pub ptpl: bool,
    /// Write Exclusive, bit 1.
    pub write_exclusive: bool,
    /// Exclusive Access, bit 2.
    pub exclusive_access: bool,
    /// Write Exclusive – Registrants Only, bit 3.
    pub write_exclusive_registrants: bool,
    /// Exclusive Access – Registrants Only, bit 4.
    pub exclusive_access_registrants: bool,
    /// Write Exclusive – All Registrants, bit 5.
    pub write_exclusive_all: bool,
    /// Exclusive Access – All Registrants, bit 6.
    pub exclusive_access_all: bool,
    /// Ignore Existing Key as of revision 1.3, bit 7.
    pub iekey_1_3: bool,
}

/// Format Progress Indicator (FPI) (Base 2.0c, 5.17.2.8).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Fpi {
    /// Percentage still to be formatted, bits 6:0.
    #[bits(7)]
    pub remaining: u8,
    /// The indicator is supported, bit 7.
    pub supported: bool,
}

/// Deallocate Logical Block Features (DLFEAT) (NVM Command Set 1.0, 4.1.5.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Dlfeat {
    /// What a deallocated block reads as, bits 2:0: 0 not reported, 1 zeroes, 2 FFh.
    #[bits(3)]
    pub read_behavior: u8,
    /// Write Zeroes takes the Deallocate bit, bit 3.
    pub write_zeroes_deallocates: bool,
    /// The guard of a deallocated block is the CRC of what it reads as, bit 4.
    pub guard_crc: bool,
    #[bits(3)]
    __: u8,
}

/// Namespace Attributes (NSATTR) (Base 2.0c, 5.17.2.8).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct NsAttr {
    /// Write protected, bit 0.
    pub write_protected: bool,
    #[bits(7)]
    __: u8,
}

open_enum! {
    /// Relative Performance (RP) of an LBA format (NVM Command Set 1.0, 4.1.5.1).
    pub enum RelativePerformance: u8 {
        /// Best.
        BEST = 0,
        /// Better.
        BETTER = 1,
        /// Good.
        GOOD = 2,
        /// Degraded.
        DEGRADED = 3,
    }
}

/// LBA Format (LBAF) (NVM Command Set 1.0, 4.1.5.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct LbaFormat {
    /// Metadata Size (MS), bits 15:0, bytes per block.
    pub ms: u16,
    /// LBA Data Size (LBADS), bits 23:16: 2^LBADS bytes, at least 9; zero for not available.
    pub lbads: u8,
    /// Relative Performance (RP), bits 25:24.
    #[bits(2)]
    pub rp: RelativePerformance,
    #[bits(6)]
    __: u8,
}

wire_struct! {
    /// Identify Namespace of the NVM command set, CNS 00h (NVM Command Set 1.0, 4.1.5.1).
    pub struct IdentifyNamespace[4096] {
        /// Bytes 7:0: Namespace Size, logical blocks.
        pub nsze: u64,
        /// Bytes 15:8: Namespace Capacity, logical blocks.
        pub ncap: u64,
        /// Bytes 23:16: Namespace Utilization, logical blocks.
        pub nuse: u64,
        /// Byte 24: Namespace Features.
        pub nsfeat: NsFeat,
        /// Byte 25: Number of LBA Formats, 0's based.
        pub nlbaf_z: u8,
        /// Byte 26: Formatted LBA Size.
        pub flbas: Flbas,
        /// Byte 27: Metadata Capabilities.
        pub mc: Mc,
        /// Byte 28: End-to-end Data Protection Capabilities.
        pub dpc: Dpc,
        /// Byte 29: End-to-end Data Protection Type Settings.
        pub dps: Dps,
        /// Byte 30: Namespace Multi-path I/O and Namespace Sharing Capabilities.
        pub nmic: Nmic,
        /// Byte 31: Reservation Capabilities.
        pub rescap: Rescap,
        /// Byte 32: Format Progress Indicator.
        pub fpi: Fpi,
        /// Byte 33: Deallocate Logical Block Features.
        pub dlfeat: Dlfeat,
        /// Bytes 35:34: Namespace Atomic Write Unit Normal, 0's based.
        pub nawun_z: u16,
        /// Bytes 37:36: Namespace Atomic Write Unit Power Fail, 0's based.
        pub nawupf_z: u16,
        /// Bytes 39:38: Namespace Atomic Compare & Write Unit, 0's based.
        pub nacwu_z: u16,
        /// Bytes 41:40: Namespace Atomic Boundary Size Normal, 0's based; zero for none.
        pub nabsn_z: u16,
        /// Bytes 43:42: Namespace Atomic Boundary Offset.
        pub nabo: u16,
        /// Bytes 45:44: Namespace Atomic Boundary Size Power Fail, 0's based; zero for none.
        pub nabspf_z: u16,
        /// Bytes 47:46: Namespace Optimal I/O Boundary, logical blocks; zero for none.
        pub noiob: u16,
        /// Bytes 63:48: NVM Capacity, bytes.
        pub nvmcap: Le128,
        /// Bytes 65:64: Namespace Preferred Write Granularity, 0's based.
        pub npwg_z: u16,
        /// Bytes 67:66: Namespace Preferred Write Alignment, 0's based.
        pub npwa_z: u16,
        /// Bytes 69:68: Namespace Preferred Deallocate Granularity, 0's based.
        pub npdg_z: u16,
        /// Bytes 71:70: Namespace Preferred Deallocate Alignment, 0's based.
        pub npda_z: u16,
        /// Bytes 73:72: Namespace Optimal Write Size, 0's based.
        pub nows_z: u16,
        /// Bytes 75:74: Maximum Single Source Range Length, logical blocks.
        pub mssrl: u16,
        /// Bytes 79:76: Maximum Copy Length, logical blocks.
        pub mcl: u32,
        /// Byte 80: Maximum Source Range Count, 0's based.
        pub msrc_z: u8,
        _rsvd81: [u8; 11],
        /// Bytes 95:92: ANA Group Identifier.
        pub anagrpid: u32,
        _rsvd96: [u8; 3],
        /// Byte 99: Namespace Attributes.
        pub nsattr: NsAttr,
        /// Bytes 101:100: NVM Set Identifier.
        pub nvmsetid: u16,
        /// Bytes 103:102: Endurance Group Identifier.
        pub endgid: u16,
        /// Bytes 119:104: Namespace Globally Unique Identifier, big endian.
        pub nguid: [u8; 16],
        /// Bytes 127:120: IEEE Extended Unique Identifier, big endian.
        pub eui64: [u8; 8],
        /// Bytes 383:128: LBA Format 0 to 63.
        pub lbaf: [LbaFormat; 64],
        /// Bytes 4095:384: vendor specific.
        pub vendor: [u8; 3712],
    }
}
