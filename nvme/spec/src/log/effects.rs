//! What commands and features change: LID 05h and 12h.

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::open_enum::{open_enum, wire_struct};

open_enum! {
    /// Command Submission and Execution (CSE) (Base 2.0c, 5.16.1.6).
    pub enum SubmissionExecution: u8 {
        /// No restriction.
        UNRESTRICTED = 0,
        /// Only while no other command to the same namespace is outstanding.
        ALONE_IN_NAMESPACE = 1,
        /// Only while no other command to any namespace is outstanding.
        ALONE_IN_SUBSYSTEM = 2,
    }
}

/// Scope of a command or feature (CSP, FSP) (Base 2.0c, 5.16.1.6, 5.16.1).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct CommandScope {
    /// Namespace Scope.
    pub namespace: bool,
    /// Controller Scope.
    pub controller: bool,
    /// NVM Set Scope.
    pub nvm_set: bool,
    /// Endurance Group Scope.
    pub endurance_group: bool,
    /// Domain Scope.
    pub domain: bool,
    /// NVM Subsystem Scope.
    pub nvm_subsystem: bool,
    #[bits(10)]
    __: u16,
}

/// Commands Supported and Effects data of one opcode (Base 2.0c, 5.16.1.6).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CommandEffects {
    /// Command Supported (CSUPP), bit 0.
    pub csupp: bool,
    /// Logical Block Content Change (LBCC), bit 1.
    pub lbcc: bool,
    /// Namespace Capability Change (NCC), bit 2.
    pub ncc: bool,
    /// Namespace Inventory Change (NIC), bit 3.
    pub nic: bool,
    /// Controller Capability Change (CCC), bit 4.
    pub ccc: bool,
    #[bits(11)]
    __: u16,
    /// Command Submission and Execution (CSE), bits 18:16.
    #[bits(3)]
    pub cse: SubmissionExecution,
    /// UUID Selection Supported, bit 19.
    pub uuid_selection: bool,
    /// Command Scope (CSP), bits 31:20.
    #[bits(12)]
    pub csp: CommandScope,
}

wire_struct! {
    /// Commands Supported and Effects, LID 05h (Base 2.0c, 5.16.1.6).
    pub struct CommandsSupportedAndEffects[4096] {
        /// Bytes 1023:0: Admin Command Supported, by opcode.
        pub acs: [CommandEffects; 256],
        /// Bytes 2047:1024: I/O Command Supported, by opcode, of the command set the log page
        /// command names.
        pub iocs: [CommandEffects; 256],
        _rsvd2048: [u8; 2048],
    }
}

/// FID Supported and Effects data of one feature (Base 2.0c, 5.16.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FeatureEffects {
    /// FID Supported (FSUPP), bit 0.
    pub fsupp: bool,
    /// User Data Content Change (UDCC), bit 1.
    pub udcc: bool,
    /// Namespace Capability Change (NCC), bit 2.
    pub ncc: bool,
    /// Namespace Inventory Change (NIC), bit 3.
    pub nic: bool,
    /// Controller Capability Change (CCC), bit 4.
    pub ccc: bool,
    #[bits(14)]
    __: u16,
    /// UUID Selection Supported, bit 19.
    pub uuid_selection: bool,
    /// FID Scope (FSP), bits 31:20.
    #[bits(12)]
    pub fsp: CommandScope,
}

wire_struct! {
    /// Feature Identifiers Supported and Effects, LID 12h (Base 2.0c, 5.16.1).
    pub struct FeatureIdEffects[1024] {
        /// One entry per feature identifier.
        pub fids: [FeatureEffects; 256],
    }
}
