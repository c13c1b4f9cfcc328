//! Error Information, LID 01h.

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::open_enum::wire_struct;

/// Parameter Error Location (Base 2.0c, 5.16.1.2).
#[bitfield(u16)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ParameterErrorLocation {
    /// Byte of the command with the error, bits 7:0; 0 to 63.
    pub byte: u8,
    /// Bit of that byte, bits 10:8.
    #[bits(3)]
    pub bit: u8,
    #[bits(5)]
    __: u8,
}

impl ParameterErrorLocation {
    /// The value for an error that no parameter of the command has.
    pub const NONE: Self = Self::from_bits(0xFFFF);
}

wire_struct! {
    /// Error Information Log Entry (Base 2.0c, 5.16.1.2).
    #[derive(Copy)]
    pub struct ErrorInformation[64] {
        /// Bytes 7:0: Error Count, unique and rising; zero marks an unused entry.
        pub error_count: u64,
        /// Bytes 9:8: Submission Queue ID; FFFFh where no queue is concerned.
        pub sqid: u16,
        /// Bytes 11:10: Command ID; FFFFh where no command is concerned.
        pub cid: u16,
        /// Bytes 13:12: Status Field with the phase tag in bit 0, the upper half of completion
        /// Dword 3 (see [`Status::with_phase_tag`](crate::Status::with_phase_tag)).
        pub status_phase: u16,
        /// Bytes 15:14: Parameter Error Location.
        pub parameter_error_location: ParameterErrorLocation,
        /// Bytes 23:16: the first LBA in error.
        pub lba: u64,
        /// Bytes 27:24: Namespace.
        pub nsid: u32,
        /// Byte 28: identifier of a vendor specific log page with more; zero for none.
        pub vendor_specific_information: u8,
        /// Byte 29: Transport Type (TRTYPE); zero on PCIe.
        pub trtype: u8,
        _rsvd30: [u8; 2],
        /// Bytes 39:32: Command Specific Information.
        pub command_specific: u64,
        /// Bytes 41:40: Transport Type Specific Information.
        pub trtype_specific: u16,
        _rsvd42: [u8; 22],
    }
}
