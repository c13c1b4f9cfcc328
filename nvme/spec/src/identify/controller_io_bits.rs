//! Bit fields of the I/O half of Identify Controller: bytes 512 and up (Base 2.0c, section
//! 5.17.2.1).

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::open_enum::open_enum;

open_enum! {
    /// Whether Flush may name all namespaces (VWC bits 2:1) (Base 2.0c, 5.17.2.1).
    pub enum FlushBroadcast: u8 {
        /// Not reported; a controller of revision 1.4 or later does not use it.
        NOT_REPORTED = 0,
        /// Not supported.
        UNSUPPORTED = 2,
        /// Supported.
        SUPPORTED = 3,
    }
}

open_enum! {
    /// Whether NVM commands take SGLs (SGLS bits 1:0) (Base 2.0c, 5.17.2.1).
    pub enum SglAlignment: u8 {
        /// Not supported.
        UNSUPPORTED = 0,
        /// Supported without alignment or granularity.
        ANY = 1,
        /// Supported for data blocks of dword alignment and granularity.
        DWORD = 2,
    }
}

/// Submission Queue Entry Size (SQES) (Base 2.0c, 5.17.2.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SqEntrySizes {
    /// Required and minimum, bits 3:0: 2^n bytes; 6.
    #[bits(4)]
    pub required: u8,
    /// Maximum, bits 7:4: 2^n bytes.
    #[bits(4)]
    pub maximum: u8,
}

/// Completion Queue Entry Size (CQES) (Base 2.0c, 5.17.2.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CqEntrySizes {
    /// Required and minimum, bits 3:0: 2^n bytes; 4.
    #[bits(4)]
    pub required: u8,
    /// Maximum, bits 7:4: 2^n bytes.
    #[bits(4)]
    pub maximum: u8,
}

/// Optional NVM Command Support (ONCS) (Base 2.0c, 5.17.2.1).
#[bitfield(u16)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Oncs {
    /// Compare, bit 0.
    pub compare: bool,
    /// Write Uncorrectable, bit 1.
    pub write_uncorrectable: bool,
    /// Dataset Management, bit 2.
    pub dataset_management: bool,
    /// Write Zeroes, bit 3.
    pub write_zeroes: bool,
    /// Save in Set Features and Select in Get Features, bit 4.
    pub save_select: bool,
    /// Reservations, bit 5.
    pub reservations: bool,
    /// Timestamp feature, bit 6.
    pub timestamp: bool,
    /// Verify, bit 7.
    pub verify: bool,
    /// Copy, bit 8.
    pub copy: bool,
    #[bits(7)]
    __: u8,
}

/// Fused Operation Support (FUSES) (Base 2.0c, 5.17.2.1).
#[bitfield(u16)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Fuses {
    /// Compare and Write, bit 0.
    pub compare_and_write: bool,
    #[bits(15)]
    __: u16,
}

/// Format NVM Attributes (FNA) (Base 2.0c, 5.17.2.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Fna {
    /// A format concerns all namespaces, bit 0.
    pub format_all: bool,
    /// A secure erase concerns all namespaces, bit 1.
    pub erase_all: bool,
    /// Cryptographic erase, bit 2.
    pub crypto_erase: bool,
    /// The namespace identifier FFFFFFFFh is not supported, bit 3.
    pub no_broadcast: bool,
    #[bits(4)]
    __: u8,
}

/// Volatile Write Cache (VWC) (Base 2.0c, 5.17.2.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Vwc {
    /// A volatile write cache is present, bit 0.
    pub present: bool,
    /// Flush with namespace identifier FFFFFFFFh, bits 2:1.
    #[bits(2)]
    pub flush_broadcast: FlushBroadcast,
    #[bits(5)]
    __: u8,
}

/// I/O Command Set Vendor Specific Command Configuration (ICSVSCC) (Base 2.0c, 5.17.2.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IocsVendorCommands {
    /// All such commands use the common format, bit 0.
    pub common_format: bool,
    #[bits(7)]
    __: u8,
}

/// Namespace Write Protection Capabilities (NWPC) (Base 2.0c, 5.17.2.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct NwpCap {
    /// No Write Protect and Write Protect, bit 0.
    pub write_protect: bool,
    /// Write Protect Until Power Cycle, bit 1.
    pub until_power_cycle: bool,
    /// Permanent Write Protect, bit 2.
    pub permanent: bool,
    #[bits(5)]
    __: u8,
}

/// SGL Support (SGLS) (Base 2.0c, 5.17.2.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SglSupport {
    /// SGLs in NVM commands, bits 1:0.
    #[bits(2)]
    pub support: SglAlignment,
    /// Keyed SGL Data Block descriptor, bit 2.
    pub keyed_data_block: bool,
    #[bits(5)]
    __: u8,
    /// SGL Descriptor Threshold (SDT), bits 15:8; zero for not reported.
    pub threshold: u8,
    /// SGL Bit Bucket descriptor, bit 16.
    pub bit_bucket: bool,
    /// A byte aligned contiguous metadata buffer, bit 17.
    pub mptr_contiguous: bool,
    /// SGLs longer than the data, bit 18.
    pub longer_than_data: bool,
    /// MPTR with the address of an SGL segment, bit 19.
    pub mptr_sgl: bool,
    /// The address of a descriptor as an offset, bit 20.
    pub offset_address: bool,
    /// Transport SGL Data Block descriptor, bit 21.
    pub transport_data_block: bool,
    #[bits(10)]
    __: u16,
}
