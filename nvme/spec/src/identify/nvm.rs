//! Command set specific and independent structures: CNS 05h, 06h and 08h.

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::namespace::{Fpi, Nmic, NsAttr, Rescap};
use crate::open_enum::{open_enum, wire_struct};

/// Protection Information Capabilities (PIC) (NVM Command Set 1.0, 4.1.5.3).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Pic {
    /// 16b Guard Protection Information Storage Tag Support (16BPISTS), bit 0.
    pub pists16: bool,
    /// 16b Guard Protection Information Storage Tag Mask (16BPISTM), bit 1.
    pub pistm16: bool,
    /// Storage Tag Check Read Support (STCRS), bit 2.
    pub stcrs: bool,
    #[bits(5)]
    __: u8,
}

open_enum! {
    /// Protection Information Format (PIF) (NVM Command Set 1.0, 4.1.5.3).
    pub enum ProtectionFormat: u8 {
        /// 16b guard.
        GUARD_16 = 0,
        /// 32b guard.
        GUARD_32 = 1,
        /// 64b guard.
        GUARD_64 = 2,
    }
}

/// Extended LBA Format (ELBAF) (NVM Command Set 1.0, 4.1.5.3).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ExtendedLbaFormat {
    /// Storage Tag Size (STS), bits 6:0, in bits.
    #[bits(7)]
    pub sts: u8,
    /// Protection Information Format (PIF), bits 8:7.
    #[bits(2)]
    pub pif: ProtectionFormat,
    #[bits(23)]
    __: u32,
}

wire_struct! {
    /// I/O Command Set specific Identify Namespace of the NVM command set, CNS 05h CSI 00h (NVM
    /// Command Set 1.0, 4.1.5.3).
    pub struct IdentifyNamespaceNvm[4096] {
        /// Bytes 7:0: Logical Block Storage Tag Mask.
        pub lbstm: u64,
        /// Byte 8: Protection Information Capabilities.
        pub pic: Pic,
        _rsvd9: [u8; 3],
        /// Bytes 267:12: Extended LBA Format 0 to 63.
        pub elbaf: [ExtendedLbaFormat; 64],
        _rsvd268: [u8; 3828],
    }
}

wire_struct! {
    /// I/O Command Set specific Identify Controller of the NVM command set, CNS 06h CSI 00h (NVM
    /// Command Set 1.0, 4.1.5.4).
    pub struct IdentifyControllerNvm[4096] {
        /// Byte 0: Verify Size Limit, 2^n minimum memory pages; zero for no limit reported.
        pub vsl: u8,
        /// Byte 1: Write Zeroes Size Limit, 2^n minimum memory pages; zero for no limit reported.
        pub wzsl: u8,
        /// Byte 2: Write Uncorrectable Size Limit, 2^n minimum memory pages; zero for no limit
        /// reported.
        pub wusl: u8,
        /// Byte 3: Dataset Management Ranges Limit; zero for no limit reported.
        pub dmrl: u8,
        /// Bytes 7:4: Dataset Management Range Size Limit, logical blocks of one range; zero for
        /// no limit reported.
        pub dmrsl: u32,
        /// Bytes 15:8: Dataset Management Size Limit, logical blocks of all ranges; zero for no
        /// limit reported.
        pub dmsl: u64,
        _rsvd16: [u8; 4080],
    }
}

/// Namespace Features of the independent structure (Base 2.0c, 5.17.2.8).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IndependentNsFeat {
    #[bits(3)]
    __: u8,
    /// NGUID and EUI64 are never reused (UIDREUSE), bit 3.
    pub uidreuse: bool,
    /// Rotational Media (RMEDIA), bit 4.
    pub rmedia: bool,
    /// Volatile Write Cache Not Present for this namespace (VWCNP), bit 5; reserved in 2.0c, named
    /// by later revisions and read by hosts whatever the controller's version.
    pub vwcnp: bool,
    #[bits(2)]
    __: u8,
}

/// Namespace Status (NSTAT) (Base 2.0c, 5.17.2.8).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Nstat {
    /// Namespace Ready (NRDY), bit 0.
    pub nrdy: bool,
    #[bits(7)]
    __: u8,
}

wire_struct! {
    /// I/O Command Set Independent Identify Namespace, CNS 08h (Base 2.0c, 5.17.2.8).
    pub struct IdentifyNamespaceIndependent[4096] {
        /// Byte 0: Common Namespace Features.
        pub nsfeat: IndependentNsFeat,
        /// Byte 1: Namespace Multi-path I/O and Namespace Sharing Capabilities.
        pub nmic: Nmic,
        /// Byte 2: Reservation Capabilities.
        pub rescap: Rescap,
        /// Byte 3: Format Progress Indicator.
        pub fpi: Fpi,
        /// Bytes 7:4: ANA Group Identifier.
        pub anagrpid: u32,
        /// Byte 8: Namespace Attributes.
        pub nsattr: NsAttr,
        _rsvd9: u8,
        /// Bytes 11:10: NVM Set Identifier.
        pub nvmsetid: u16,
        /// Bytes 13:12: Endurance Group Identifier.
        pub endgid: u16,
        /// Byte 14: Namespace Status.
        pub nstat: Nstat,
        _rsvd15: [u8; 4081],
    }
}
