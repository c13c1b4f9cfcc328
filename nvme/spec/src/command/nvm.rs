//! Dwords and data of I/O commands (NVM Command Set 1.0, section 3.2). The starting LBA is
//! [`Sqe::slba`](crate::Sqe::slba).

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::open_enum::{open_enum, wire_struct};

/// Protection Information (PRINFO): what to insert, strip and check (NVM Command Set 1.0, 3.2).
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct PrInfo {
    /// Check the logical block reference tag (PRCHK bit 0).
    pub check_reference: bool,
    /// Check the application tag (PRCHK bit 1).
    pub check_application: bool,
    /// Check the guard (PRCHK bit 2).
    pub check_guard: bool,
    /// Protection Information Action (PRACT): insert or strip instead of passing.
    pub pract: bool,
    #[bits(4)]
    __: u8,
}

open_enum! {
    /// Directive Type (DTYPE) of a writing command (Base 2.0c, 8.7).
    pub enum DirectiveType: u8 {
        /// None (in commands), or the Identify directive.
        IDENTIFY = 0,
        /// Streams.
        STREAMS = 1,
    }
}

/// Dword 12 of Read, Write, Compare, Verify, Write Zeroes and Write Uncorrectable (NVM Command Set
/// 1.0, 3.2). Not every command has every field; the others are reserved there.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct RwCdw12 {
    /// Number of Logical Blocks (NLB), bits 15:0, 0's based.
    pub nlb_z: u16,
    #[bits(4)]
    __: u8,
    /// Directive Type (DTYPE), bits 23:20 (Write, Write Zeroes, Write Uncorrectable).
    #[bits(4)]
    pub dtype: DirectiveType,
    /// Storage Tag Check (STC), bit 24.
    pub stc: bool,
    /// Deallocate (DEAC), bit 25 (Write Zeroes).
    pub deac: bool,
    /// Protection Information (PRINFO), bits 29:26.
    #[bits(4)]
    pub prinfo: PrInfo,
    /// Force Unit Access (FUA), bit 30.
    pub fua: bool,
    /// Limited Retry (LR), bit 31.
    pub lr: bool,
}

impl RwCdw12 {
    /// The number of logical blocks, 1 to 65,536.
    #[must_use]
    pub const fn blocks(self) -> u32 {
        self.nlb_z() as u32 + 1
    }
}

open_enum! {
    /// Access Frequency of a Dataset Management attribute (NVM Command Set 1.0, 3.2.3, 3.2.4).
    pub enum AccessFrequency: u8 {
        /// No information.
        NONE = 0,
        /// Typical number of reads and writes.
        TYPICAL = 1,
        /// Infrequent writes and infrequent reads.
        RARE_BOTH = 2,
        /// Infrequent writes and frequent reads.
        OFTEN_READ = 3,
        /// Frequent writes and infrequent reads.
        OFTEN_WRITTEN = 4,
        /// Frequent writes and frequent reads.
        OFTEN_BOTH = 5,
        /// One time read.
        ONE_TIME_READ = 6,
        /// Speculative read, as of a prefetch.
        SPECULATIVE_READ = 7,
        /// Overwritten in the near future.
        OVERWRITTEN_SOON = 8,
    }
}

open_enum! {
    /// Access Latency of a Dataset Management attribute (NVM Command Set 1.0, 3.2.3, 3.2.4).
    pub enum AccessLatency: u8 {
        /// No information.
        NONE = 0,
        /// Longer latency acceptable.
        IDLE = 1,
        /// Typical latency.
        NORMAL = 2,
        /// Smallest possible latency.
        LOW = 3,
    }
}

/// Dword 13 of Read and Write (NVM Command Set 1.0, 3.2.4, 3.2.6).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct RwCdw13 {
    /// Access Frequency of DSM, bits 3:0.
    #[bits(4)]
    pub access_frequency: AccessFrequency,
    /// Access Latency of DSM, bits 5:4.
    #[bits(2)]
    pub access_latency: AccessLatency,
    /// Sequential Request of DSM, bit 6.
    pub sequential: bool,
    /// Incompressible of DSM, bit 7.
    pub incompressible: bool,
    __: u8,
    /// Directive Specific (DSPEC), bits 31:16 (Write).
    pub dspec: u16,
}

/// Dword 15 of commands with protection information (NVM Command Set 1.0, 3.2): expected by Read,
/// Compare and Verify (ELBAT, ELBATM), to be written by Write and Write Zeroes (LBAT, LBATM).
/// Dword 14 is the low part of the reference and storage tags.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ExpectedTagsCdw15 {
    /// Logical Block Application Tag, bits 15:0.
    pub lbat: u16,
    /// Logical Block Application Tag Mask, bits 31:16.
    pub lbatm: u16,
}

/// Dataset Management, Dword 10 (NVM Command Set 1.0, 3.2.3).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct DsmCdw10 {
    /// Number of Ranges (NR), bits 7:0, 0's based.
    pub nr_z: u8,
    #[bits(24)]
    __: u32,
}

/// Dataset Management, Dword 11 (NVM Command Set 1.0, 3.2.3).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct DsmCdw11 {
    /// Attribute – Integral Dataset for Read (IDR), bit 0.
    pub idr: bool,
    /// Attribute – Integral Dataset for Write (IDW), bit 1.
    pub idw: bool,
    /// Attribute – Deallocate (AD), bit 2.
    pub ad: bool,
    #[bits(29)]
    __: u32,
}

/// Context Attributes of a Dataset Management range (NVM Command Set 1.0, 3.2.3.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ContextAttributes {
    /// Access Frequency (AF), bits 3:0.
    #[bits(4)]
    pub access_frequency: AccessFrequency,
    /// Access Latency (AL), bits 5:4.
    #[bits(2)]
    pub access_latency: AccessLatency,
    #[bits(2)]
    __: u8,
    /// Sequential Read Range (SR), bit 8.
    pub sr: bool,
    /// Sequential Write Range (SW), bit 9.
    pub sw: bool,
    /// Write Prepare (WP), bit 10.
    pub wp: bool,
    #[bits(13)]
    __: u16,
    /// Command Access Size, bits 31:24, in logical blocks; zero for none given.
    pub command_access_size: u8,
}

wire_struct! {
    /// One range of Dataset Management (NVM Command Set 1.0, 3.2.3, figure "Dataset Management –
    /// Range Definition"). At most 256 of them.
    #[derive(Copy)]
    pub struct DsmRange[16] {
        /// Bytes 3:0: Context Attributes.
        pub attributes: ContextAttributes,
        /// Bytes 7:4: length in logical blocks, *not* 0's based.
        pub nlb: u32,
        /// Bytes 15:8: starting LBA.
        pub slba: u64,
    }
}

open_enum! {
    /// Descriptor Format of Copy (NVM Command Set 1.0, 3.2.2).
    pub enum CopyFormat: u8 {
        /// [`CopyRange0`]: 16b guard protection information.
        FORMAT_0 = 0,
        /// [`CopyRange1`]: 32b and 64b guard protection information.
        FORMAT_1 = 1,
    }
}

/// Copy, Dword 12 (NVM Command Set 1.0, 3.2.2).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CopyCdw12 {
    /// Number of Ranges (NR), bits 7:0, 0's based.
    pub nr_z: u8,
    /// Descriptor Format, bits 11:8.
    #[bits(4)]
    pub format: CopyFormat,
    /// Protection Information Field Read (PRINFOR), bits 15:12.
    #[bits(4)]
    pub prinfor: PrInfo,
    #[bits(4)]
    __: u8,
    /// Directive Type (DTYPE), bits 23:20.
    #[bits(4)]
    pub dtype: DirectiveType,
    /// Storage Tag Check Write (STCW), bit 24.
    pub stcw: bool,
    /// Storage Tag Check Read (STCR), bit 25.
    pub stcr: bool,
    /// Protection Information Field Write (PRINFOW), bits 29:26.
    #[bits(4)]
    pub prinfow: PrInfo,
    /// Force Unit Access (FUA), bit 30.
    pub fua: bool,
    /// Limited Retry (LR), bit 31.
    pub lr: bool,
}

wire_struct! {
    /// Source range of Copy, descriptor format 0h (NVM Command Set 1.0, 3.2.2).
    #[derive(Copy)]
    pub struct CopyRange0[32] {
        _rsvd0: [u8; 8],
        /// Bytes 15:8: starting LBA.
        pub slba: u64,
        /// Bytes 17:16: number of logical blocks, 0's based.
        pub nlb_z: u16,
        _rsvd18: [u8; 6],
        /// Bytes 27:24: Expected Initial Logical Block Reference Tag.
        pub eilbrt: u32,
        /// Bytes 29:28: Expected Logical Block Application Tag.
        pub elbat: u16,
        /// Bytes 31:30: Expected Logical Block Application Tag Mask.
        pub elbatm: u16,
    }
}

wire_struct! {
    /// Source range of Copy, descriptor format 1h (NVM Command Set 1.0, 3.2.2).
    #[derive(Copy)]
    pub struct CopyRange1[40] {
        _rsvd0: [u8; 8],
        /// Bytes 15:8: starting LBA.
        pub slba: u64,
        /// Bytes 17:16: number of logical blocks, 0's based.
        pub nlb_z: u16,
        _rsvd18: [u8; 8],
        /// Bytes 35:26: Expected Logical Block Storage Tag and Reference Tag.
        pub elbt: [u8; 10],
        /// Bytes 37:36: Expected Logical Block Application Tag.
        pub elbat: u16,
        /// Bytes 39:38: Expected Logical Block Application Tag Mask.
        pub elbatm: u16,
    }
}

impl DsmRange {
    /// A range without context attributes.
    #[must_use]
    pub const fn new(slba: u64, nlb: u32) -> Self {
        Self {
            attributes: ContextAttributes::new(),
            nlb,
            slba,
        }
    }
}

impl CopyRange0 {
    /// A range without protection information.
    #[must_use]
    pub fn new(slba: u64, nlb_z: u16) -> Self {
        let mut range = Self::new_zeroed();
        range.slba = slba;
        range.nlb_z = nlb_z;
        range
    }
}
