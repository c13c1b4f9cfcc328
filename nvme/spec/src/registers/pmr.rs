//! Persistent memory region registers.

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Persistent Memory Region Capabilities (PMRCAP), offset E00h (Base 2.0c, 3.1.3.22).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PmrCap {
    #[bits(3)]
    __: u8,
    /// Read Data Support (RDS), bit 3.
    pub rds: bool,
    /// Write Data Support (WDS), bit 4.
    pub wds: bool,
    /// Base Indicator Register (BIR), bits 7:5: the BAR.
    #[bits(3)]
    pub bir: u8,
    /// Persistent Memory Region Time Units (PMRTU), bits 9:8.
    #[bits(2)]
    pub pmrtu: u8,
    /// Persistent Memory Region Write Barrier Mechanisms (PMRWBM), bits 13:10.
    #[bits(4)]
    pub pmrwbm: u8,
    #[bits(2)]
    __: u8,
    /// Persistent Memory Region Timeout (PMRTO), bits 23:16, in units of PMRTU.
    pub pmrto: u8,
    /// Controller Memory Space Supported (CMSS), bit 24.
    pub cmss: bool,
    #[bits(7)]
    __: u8,
}

/// Persistent Memory Region Control (PMRCTL), offset E04h (Base 2.0c, 3.1.3.23).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PmrCtl {
    /// Enable (EN), bit 0.
    pub en: bool,
    #[bits(31)]
    __: u32,
}

/// Persistent Memory Region Status (PMRSTS), offset E08h (Base 2.0c, 3.1.3.24).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PmrSts {
    /// Error (ERR), bits 7:0.
    pub err: u8,
    /// Not Ready (NRDY), bit 8.
    pub nrdy: bool,
    /// Health Status (HSTS), bits 11:9.
    #[bits(3)]
    pub hsts: u8,
    /// Controller Base Address Invalid (CBAI), bit 12.
    pub cbai: bool,
    #[bits(19)]
    __: u32,
}

/// Persistent Memory Region Elasticity Buffer Size (PMREBS), offset E0Ch (Base 2.0c, 3.1.3.25).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PmrEbs {
    /// PMR Elasticity Buffer Size Units (PMRSZU), bits 3:0.
    #[bits(4)]
    pub pmrszu: u8,
    /// PMR Read Bypass Behavior (PMRRBB), bit 4.
    pub pmrrbb: bool,
    #[bits(3)]
    __: u8,
    /// PMR Elasticity Buffer Size Base (PMRWBZ), bits 31:8.
    #[bits(24)]
    pub pmrwbz: u32,
}

/// Persistent Memory Region Sustained Write Throughput (PMRSWTP), offset E10h (Base 2.0c,
/// 3.1.3.26).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PmrSwtp {
    /// PMR Sustained Write Throughput Units (PMRSWTU), bits 3:0.
    #[bits(4)]
    pub pmrswtu: u8,
    #[bits(4)]
    __: u8,
    /// PMR Sustained Write Throughput (PMRSWTV), bits 31:8.
    #[bits(24)]
    pub pmrswtv: u32,
}

/// Persistent Memory Region Memory Space Control Lower (PMRMSCL), offset E14h (Base 2.0c,
/// 3.1.3.27).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PmrMscl {
    #[bits(1)]
    __: u8,
    /// Controller Memory Space Enable (CMSE), bit 1.
    pub cmse: bool,
    #[bits(10)]
    __: u16,
    /// Controller Base Address (CBA), bits 31:12: bits 31:12 of the address.
    #[bits(20)]
    pub cba: u32,
}
