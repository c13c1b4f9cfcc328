//! Asymmetric Namespace Access, LID 0Ch.

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::open_enum::{open_enum, wire_struct};

/// Log Specific Parameter of the page (Base 2.0c, 5.16.1, figure "Asymmetric Namespace Access –
/// Log Specific Parameter").
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct AnaLogLsp {
    /// Return Groups Only (RGO): descriptors without namespace identifiers.
    pub rgo: bool,
    #[bits(7)]
    __: u8,
}

wire_struct! {
    /// Head of the page (Base 2.0c, 5.16.1).
    #[derive(Copy)]
    pub struct AnaLogHeader[16] {
        /// Bytes 7:0: Change Count of the page.
        pub chgcnt: u64,
        /// Bytes 9:8: Number of ANA Group Descriptors.
        pub ngrps: u16,
        _rsvd10: [u8; 6],
    }
}

open_enum! {
    /// Asymmetric Namespace Access State (Base 2.0c, 8.1).
    pub enum AnaState: u8 {
        /// ANA Optimized.
        OPTIMIZED = 0x1,
        /// ANA Non-Optimized.
        NON_OPTIMIZED = 0x2,
        /// ANA Inaccessible.
        INACCESSIBLE = 0x3,
        /// ANA Persistent Loss.
        PERSISTENT_LOSS = 0x4,
        /// ANA Change.
        CHANGE = 0xF,
    }
}

/// Byte 16 of a group descriptor (Base 2.0c, 5.16.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct AnaStateByte {
    /// Asymmetric Namespace Access State, bits 3:0.
    #[bits(4)]
    pub state: AnaState,
    #[bits(4)]
    __: u8,
}

wire_struct! {
    /// ANA Group Descriptor, followed by `nnsids` namespace identifiers in rising order (Base 2.0c,
    /// 5.16.1).
    #[derive(Copy)]
    pub struct AnaGroupDescriptor[32] {
        /// Bytes 3:0: ANA Group ID.
        pub grpid: u32,
        /// Bytes 7:4: Number of NSID Values.
        pub nnsids: u32,
        /// Bytes 15:8: Change Count of the group; zero where not reported.
        pub chgcnt: u64,
        /// Byte 16: state.
        pub state: AnaStateByte,
        _rsvd17: [u8; 15],
    }
}
