//! Data structures of features.

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::open_enum::{open_enum, wire_struct};

open_enum! {
    /// Timestamp Origin (Base 2.0c, 5.27.1.11, figure "Timestamp – Data Structure for Get Features").
    pub enum TimestampOrigin: u8 {
        /// Cleared to zero by a controller level reset.
        CLEARED = 0,
        /// Set by Set Features.
        SET = 1,
    }
}

/// Timestamp, FID 0Eh: the 8 bytes of data (Base 2.0c, 5.27.1.11).
#[bitfield(u64)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FeatureTimestamp {
    /// Bytes 5:0: milliseconds since 1970-01-01 00:00 UTC, or since the last reset.
    #[bits(48)]
    pub milliseconds: u64,
    /// Byte 6 bit 0, Synch: the counting may have stopped at times (Get Features).
    pub synch: bool,
    /// Byte 6 bits 3:1: Timestamp Origin (Get Features).
    #[bits(3)]
    pub origin: TimestampOrigin,
    #[bits(12)]
    __: u16,
}

wire_struct! {
    /// Host Behavior Support, FID 16h (Base 2.0c, 5.27.1.18).
    pub struct HostBehaviorSupport[512] {
        /// Byte 0: Advanced Command Retry Enable (ACRE); 0 or 1.
        pub acre: u8,
        /// Byte 1: Extended Telemetry Data Area 4 Supported (ETDAS); 0 or 1.
        pub etdas: u8,
        /// Byte 2: LBA Format Extension Enable (LBAFEE); 0 or 1.
        pub lbafee: u8,
        _rsvd3: [u8; 509],
    }
}

wire_struct! {
    /// Host Identifier of 64 bits, FID 81h with EXHID cleared (Base 2.0c, 5.27.1.25).
    #[derive(Copy)]
    pub struct HostIdentifier64[8] {
        /// The identifier; zero for none.
        pub hostid: [u8; 8],
    }
}

wire_struct! {
    /// Host Identifier of 128 bits, FID 81h with EXHID set (Base 2.0c, 5.27.1.25).
    #[derive(Copy)]
    pub struct HostIdentifier128[16] {
        /// The identifier; zero for none.
        pub hostid: [u8; 16],
    }
}

/// One of the 32 entries of Autonomous Power State Transition, FID 0Ch (Base 2.0c, 5.27.1.9).
#[bitfield(u64)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ApstEntry {
    #[bits(3)]
    __: u8,
    /// Idle Transition Power State (ITPS), bits 7:3.
    #[bits(5)]
    pub itps: u8,
    /// Idle Time Prior to Transition (ITPT), bits 31:8, in milliseconds; zero for disabled.
    #[bits(24)]
    pub itpt: u32,
    __: u32,
}
