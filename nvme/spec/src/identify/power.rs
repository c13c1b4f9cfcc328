//! Power state descriptors.

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::open_enum::wire_struct;

/// Byte 3 of a power state descriptor (Base 2.0c, 5.17.2.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PowerFlags {
    /// Max Power Scale (MXPS), bit 0: MP is in units of 0.0001 W, not 0.01 W.
    pub mxps: bool,
    /// Non-Operational State (NOPS), bit 1.
    pub nops: bool,
    #[bits(6)]
    __: u8,
}

/// Byte 18 of a power state descriptor (Base 2.0c, 5.17.2.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IdlePower {
    #[bits(6)]
    __: u8,
    /// Idle Power Scale (IPS), bits 7:6: 1 for 0.0001 W, 2 for 0.01 W, 0 for not reported.
    #[bits(2)]
    pub ips: u8,
}

/// Byte 22 of a power state descriptor (Base 2.0c, 5.17.2.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ActivePower {
    /// Active Power Workload (APW), bits 2:0.
    #[bits(3)]
    pub apw: u8,
    #[bits(3)]
    __: u8,
    /// Active Power Scale (APS), bits 7:6: 1 for 0.0001 W, 2 for 0.01 W, 0 for not reported.
    #[bits(2)]
    pub aps: u8,
}

wire_struct! {
    /// Power State Descriptor (Base 2.0c, 5.17.2.1, figure "Power State Descriptor Data
    /// Structure").
    #[derive(Copy)]
    pub struct PowerStateDescriptor[32] {
        /// Bytes 1:0: Maximum Power (MP), in the unit MXPS names.
        pub mp: u16,
        _rsvd2: u8,
        /// Byte 3: flags.
        pub flags: PowerFlags,
        /// Bytes 7:4: Entry Latency (ENLAT), microseconds.
        pub enlat: u32,
        /// Bytes 11:8: Exit Latency (EXLAT), microseconds.
        pub exlat: u32,
        /// Byte 12: Relative Read Throughput (RRT), bits 4:0; lower is faster.
        pub rrt: u8,
        /// Byte 13: Relative Read Latency (RRL), bits 4:0.
        pub rrl: u8,
        /// Byte 14: Relative Write Throughput (RWT), bits 4:0.
        pub rwt: u8,
        /// Byte 15: Relative Write Latency (RWL), bits 4:0.
        pub rwl: u8,
        /// Bytes 17:16: Idle Power (IDLP).
        pub idlp: u16,
        /// Byte 18: Idle Power Scale.
        pub ips: IdlePower,
        _rsvd19: u8,
        /// Bytes 21:20: Active Power (ACTP).
        pub actp: u16,
        /// Byte 22: Active Power Workload and Scale.
        pub apws: ActivePower,
        _rsvd23: [u8; 9],
    }
}
