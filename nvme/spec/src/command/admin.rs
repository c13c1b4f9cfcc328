//! Dwords of admin commands (Base 2.0c, section 5).

use bitfield_struct::bitfield;

use crate::feature::FeatureId;
use crate::identify::{Cns, Csi};
use crate::log::LogPageId;
use crate::open_enum::open_enum;

/// Create I/O Completion Queue and Create I/O Submission Queue, Dword 10 (Base 2.0c, 5.4, 5.5).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CreateQueueCdw10 {
    /// Queue Identifier (QID), bits 15:0.
    pub qid: u16,
    /// Queue Size (QSIZE), bits 31:16, 0's based; at least 1.
    pub qsize_z: u16,
}

/// Create I/O Completion Queue, Dword 11 (Base 2.0c, 5.4).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CreateCqCdw11 {
    /// Physically Contiguous (PC), bit 0.
    pub pc: bool,
    /// Interrupts Enabled (IEN), bit 1.
    pub ien: bool,
    #[bits(14)]
    __: u16,
    /// Interrupt Vector (IV), bits 31:16.
    pub iv: u16,
}

open_enum! {
    /// Queue Priority (QPRIO) of Create I/O Submission Queue (Base 2.0c, 5.5); used with weighted
    /// round robin arbitration only.
    pub enum QueuePriority: u8 {
        /// Urgent.
        URGENT = 0,
        /// High.
        HIGH = 1,
        /// Medium.
        MEDIUM = 2,
        /// Low.
        LOW = 3,
    }
}

/// Create I/O Submission Queue, Dword 11 (Base 2.0c, 5.5).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CreateSqCdw11 {
    /// Physically Contiguous (PC), bit 0.
    pub pc: bool,
    /// Queue Priority (QPRIO), bits 2:1.
    #[bits(2)]
    pub qprio: QueuePriority,
    #[bits(13)]
    __: u16,
    /// Completion Queue Identifier (CQID), bits 31:16.
    pub cqid: u16,
}

/// Create I/O Submission Queue, Dword 12 (Base 2.0c, 5.5).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CreateSqCdw12 {
    /// NVM Set Identifier (NVMSETID), bits 15:0.
    pub nvmsetid: u16,
    __: u16,
}

/// Delete I/O Completion Queue and Delete I/O Submission Queue, Dword 10 (Base 2.0c, 5.6, 5.7).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct DeleteQueueCdw10 {
    /// Queue Identifier (QID), bits 15:0.
    pub qid: u16,
    __: u16,
}

/// Identify, Dword 10 (Base 2.0c, 5.17).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct IdentifyCdw10 {
    /// Controller or Namespace Structure (CNS), bits 7:0.
    #[bits(8)]
    pub cns: Cns,
    __: u8,
    /// Controller Identifier (CNTID), bits 31:16.
    pub cntid: u16,
}

/// Identify, Dword 11 (Base 2.0c, 5.17).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct IdentifyCdw11 {
    /// CNS Specific Identifier, bits 15:0: an NVM set, domain, endurance group or user data format
    /// index, as CNS says.
    pub cnssid: u16,
    __: u8,
    /// Command Set Identifier (CSI), bits 31:24.
    #[bits(8)]
    pub csi: Csi,
}

/// Dword 14 of Identify, Get Features and Set Features (Base 2.0c, 5.15, 5.17, 5.27).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct UuidIndexCdw14 {
    /// UUID Index, bits 6:0; zero for none.
    #[bits(7)]
    pub uuid_index: u8,
    #[bits(25)]
    __: u32,
}

/// Get Log Page, Dword 10 (Base 2.0c, 5.16).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct GetLogPageCdw10 {
    /// Log Page Identifier (LID), bits 7:0.
    #[bits(8)]
    pub lid: LogPageId,
    /// Log Specific Parameter (LSP), bits 14:8.
    #[bits(7)]
    pub lsp: u8,
    /// Retain Asynchronous Event (RAE), bit 15.
    pub rae: bool,
    /// Number of Dwords Lower (NUMDL), bits 31:16; with NUMDU above it, 0's based.
    pub numdl: u16,
}

/// Get Log Page, Dword 11 (Base 2.0c, 5.16).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct GetLogPageCdw11 {
    /// Number of Dwords Upper (NUMDU), bits 15:0.
    pub numdu: u16,
    /// Log Specific Identifier (LSI), bits 31:16.
    pub lsi: u16,
}

/// Get Log Page, Dword 14 (Base 2.0c, 5.16). Dwords 12 and 13 are the offset, low and high.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct GetLogPageCdw14 {
    /// UUID Index, bits 6:0; zero for none.
    #[bits(7)]
    pub uuid_index: u8,
    #[bits(16)]
    __: u16,
    /// Offset Type (OT), bit 23: the offset is an index of a list, not bytes.
    pub ot: bool,
    /// Command Set Identifier (CSI), bits 31:24.
    #[bits(8)]
    pub csi: Csi,
}

open_enum! {
    /// Select (SEL) of Get Features (Base 2.0c, 5.15).
    pub enum FeatureSelect: u8 {
        /// The current value.
        CURRENT = 0,
        /// The default value.
        DEFAULT = 1,
        /// The saved value.
        SAVED = 2,
        /// What may be done with it
        /// ([`SupportedCapabilities`](crate::feature::SupportedCapabilities)).
        SUPPORTED_CAPABILITIES = 3,
    }
}

/// Get Features, Dword 10 (Base 2.0c, 5.15).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct GetFeaturesCdw10 {
    /// Feature Identifier (FID), bits 7:0.
    #[bits(8)]
    pub fid: FeatureId,
    /// Select (SEL), bits 10:8.
    #[bits(3)]
    pub sel: FeatureSelect,
    #[bits(21)]
    __: u32,
}

/// Set Features, Dword 10 (Base 2.0c, 5.27).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct SetFeaturesCdw10 {
    /// Feature Identifier (FID), bits 7:0.
    #[bits(8)]
    pub fid: FeatureId,
    #[bits(23)]
    __: u32,
    /// Save (SV), bit 31.
    pub sv: bool,
}

/// Abort, Dword 10 (Base 2.0c, 5.1). Bit 0 of the completion's Dword 0 is set where the command was
/// *not* aborted.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct AbortCdw10 {
    /// Submission Queue Identifier (SQID), bits 15:0.
    pub sqid: u16,
    /// Command Identifier (CID), bits 31:16.
    pub cid: u16,
}
