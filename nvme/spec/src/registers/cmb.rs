//! Controller memory buffer and boot partition registers.

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::open_enum::open_enum;

/// Controller Memory Buffer Location (CMBLOC), offset 38h (Base 2.0c, 3.1.3.11).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CmbLoc {
    /// Base Indicator Register (BIR), bits 2:0: the BAR.
    #[bits(3)]
    pub bir: u8,
    /// CMB Queue Mixed Memory Support (CQMMS), bit 3.
    pub cqmms: bool,
    /// CMB Queue Physically Discontiguous Support (CQPDS), bit 4.
    pub cqpds: bool,
    /// CMB Data Pointer Mixed Locations Support (CDPMLS), bit 5.
    pub cdpmls: bool,
    /// CMB Data Pointer and Command Independent Locations Support (CDPCILS), bit 6.
    pub cdpcils: bool,
    /// CMB Data Metadata Mixed Memory Support (CDMMMS), bit 7.
    pub cdmmms: bool,
    /// CMB Queue Dword Alignment (CQDA), bit 8.
    pub cqda: bool,
    #[bits(3)]
    __: u8,
    /// Offset (OFST), bits 31:12, in units of CMBSZ.SZU.
    #[bits(20)]
    pub ofst: u32,
}

/// Controller Memory Buffer Size (CMBSZ), offset 3Ch (Base 2.0c, 3.1.3.12).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CmbSz {
    /// Submission Queue Support (SQS), bit 0.
    pub sqs: bool,
    /// Completion Queue Support (CQS), bit 1.
    pub cqs: bool,
    /// PRP SGL List Support (LISTS), bit 2.
    pub lists: bool,
    /// Read Data Support (RDS), bit 3.
    pub rds: bool,
    /// Write Data Support (WDS), bit 4.
    pub wds: bool,
    #[bits(3)]
    __: u8,
    /// Size Units (SZU), bits 11:8: 4 KiB << (4 * SZU).
    #[bits(4)]
    pub szu: u8,
    /// Size (SZ), bits 31:12, in units of SZU.
    #[bits(20)]
    pub sz: u32,
}

open_enum! {
    /// BPINFO.BRS: Boot Read Status (Base 2.0c, 3.1.3.13).
    pub enum BootReadStatus: u8 {
        /// No boot partition read was asked for.
        NONE = 0,
        /// In progress.
        IN_PROGRESS = 1,
        /// Completed.
        COMPLETED = 2,
        /// Ended with an error.
        ERROR = 3,
    }
}

/// Boot Partition Information (BPINFO), offset 40h (Base 2.0c, 3.1.3.13).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct BpInfo {
    /// Boot Partition Size (BPSZ), bits 14:0, in units of 128 KiB.
    #[bits(15)]
    pub bpsz: u16,
    #[bits(9)]
    __: u16,
    /// Boot Read Status (BRS), bits 25:24.
    #[bits(2)]
    pub brs: BootReadStatus,
    #[bits(5)]
    __: u8,
    /// Active Boot Partition ID (ABPID), bit 31.
    pub abpid: bool,
}

/// Boot Partition Read Select (BPRSEL), offset 44h (Base 2.0c, 3.1.3.14).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct BpRsel {
    /// Boot Partition Read Size (BPRSZ), bits 9:0, in units of 4 KiB.
    #[bits(10)]
    pub bprsz: u16,
    /// Boot Partition Read Offset (BPROF), bits 29:10, in units of 4 KiB.
    #[bits(20)]
    pub bprof: u32,
    #[bits(1)]
    __: u8,
    /// Boot Partition Identifier (BPID), bit 31.
    pub bpid: bool,
}

/// Boot Partition Memory Buffer Location (BPMBL), offset 48h (Base 2.0c, 3.1.3.15).
#[bitfield(u64)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct BpMbl {
    #[bits(12)]
    __: u16,
    /// Boot Partition Memory Buffer Base Address (BMBBA), bits 63:12, in units of 4 KiB.
    #[bits(52)]
    pub bmbba: u64,
}

/// Controller Memory Buffer Memory Space Control (CMBMSC), offset 50h (Base 2.0c, 3.1.3.16).
#[bitfield(u64)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CmbMsc {
    /// Capabilities Registers Enabled (CRE), bit 0.
    pub cre: bool,
    /// Controller Memory Space Enable (CMSE), bit 1.
    pub cmse: bool,
    #[bits(10)]
    __: u16,
    /// Controller Base Address (CBA), bits 63:12, in units of 4 KiB.
    #[bits(52)]
    pub cba: u64,
}

/// Controller Memory Buffer Status (CMBSTS), offset 58h (Base 2.0c, 3.1.3.17).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CmbSts {
    /// Controller Base Address Invalid (CBAI), bit 0.
    pub cbai: bool,
    #[bits(31)]
    __: u32,
}

/// Controller Memory Buffer Elasticity Buffer Size (CMBEBS), offset 5Ch (Base 2.0c, 3.1.3.18).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CmbEbs {
    /// CMB Elasticity Buffer Size Units (CMBSZU), bits 3:0.
    #[bits(4)]
    pub cmbszu: u8,
    /// CMB Read Bypass Behavior (CMBRBB), bit 4.
    pub cmbrbb: bool,
    #[bits(3)]
    __: u8,
    /// CMB Elasticity Buffer Size Base (CMBWBZ), bits 31:8.
    #[bits(24)]
    pub cmbwbz: u32,
}

/// Controller Memory Buffer Sustained Write Throughput (CMBSWTP), offset 60h (Base 2.0c,
/// 3.1.3.19).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CmbSwtp {
    /// CMB Sustained Write Throughput Units (CMBSWTU), bits 3:0.
    #[bits(4)]
    pub cmbswtu: u8,
    #[bits(4)]
    __: u8,
    /// CMB Sustained Write Throughput (CMBSWTV), bits 31:8.
    #[bits(24)]
    pub cmbswtv: u32,
}
