//! Identify: data structures by CNS (Base 2.0c, section 5.17.2; NVM Command Set 1.0, section
//! 4.1.5).

mod controller;
mod controller_bits;
mod controller_io_bits;
mod lists;
mod namespace;
mod nvm;
mod power;

pub use controller::IdentifyController;
pub use controller_bits::{
    AnaCap, Avscc, Cmic, ControllerType, Ctratt, Dsto, Frmw, Hctma, Lpa, Mec, Nvmsr, Oacs, Oaes,
    Rpmbs, Sanicap,
};
pub use controller_io_bits::{
    CqEntrySizes, FlushBroadcast, Fna, Fuses, IocsVendorCommands, NwpCap, Oncs, SglAlignment,
    SglSupport, SqEntrySizes, Vwc,
};
pub use lists::{
    ControllerList, IoCommandSetCombination, IoCommandSetCombinations, NamespaceIdHeader,
    NamespaceIdType, NamespaceList, UuidEntry, UuidList,
};
pub use namespace::{
    Dlfeat, Dpc, Dps, Flbas, Fpi, IdentifyNamespace, LbaFormat, Mc, Nmic, NsAttr, NsFeat,
    ProtectionType, RelativePerformance, Rescap,
};
pub use nvm::{
    ExtendedLbaFormat, IdentifyControllerNvm, IdentifyNamespaceIndependent, IdentifyNamespaceNvm,
    IndependentNsFeat, Nstat, Pic, ProtectionFormat,
};
pub use power::{ActivePower, IdlePower, PowerFlags, PowerStateDescriptor};

use crate::open_enum::open_enum;

/// Size of every Identify data structure, in bytes.
pub const IDENTIFY_SIZE: usize = 4096;

open_enum! {
    /// Controller or Namespace Structure (CNS) (Base 2.0c, 5.17.1, figure "Identify – CNS Values").
    pub enum Cns: u8 {
        /// [`IdentifyNamespace`] of the NVM command set, for the NSID.
        NAMESPACE = 0x00,
        /// [`IdentifyController`].
        CONTROLLER = 0x01,
        /// Active namespaces above the NSID ([`NamespaceList`]).
        ACTIVE_NAMESPACE_LIST = 0x02,
        /// Namespace Identification Descriptors ([`NamespaceIdHeader`] and identifier, repeated).
        NAMESPACE_ID_DESCRIPTORS = 0x03,
        /// NVM Set List.
        NVM_SET_LIST = 0x04,
        /// Command set specific namespace structure ([`IdentifyNamespaceNvm`] for the NVM one).
        CSI_NAMESPACE = 0x05,
        /// Command set specific controller structure ([`IdentifyControllerNvm`] for the NVM one).
        CSI_CONTROLLER = 0x06,
        /// Active namespaces of a command set above the NSID ([`NamespaceList`]).
        CSI_ACTIVE_NAMESPACE_LIST = 0x07,
        /// [`IdentifyNamespaceIndependent`].
        INDEPENDENT_NAMESPACE = 0x08,
        /// [`IdentifyNamespace`] for a user data format.
        NAMESPACE_USER_DATA_FORMAT = 0x09,
        /// Command set specific namespace structure for a user data format.
        CSI_NAMESPACE_USER_DATA_FORMAT = 0x0A,
        /// Allocated namespaces above the NSID ([`NamespaceList`]).
        ALLOCATED_NAMESPACE_LIST = 0x10,
        /// [`IdentifyNamespace`] of an allocated namespace.
        ALLOCATED_NAMESPACE = 0x11,
        /// Controllers to which the namespace is attached ([`ControllerList`]).
        NAMESPACE_CONTROLLER_LIST = 0x12,
        /// Controllers of the NVM subsystem ([`ControllerList`]).
        CONTROLLER_LIST = 0x13,
        /// Primary Controller Capabilities.
        PRIMARY_CONTROLLER_CAPABILITIES = 0x14,
        /// Secondary Controller List.
        SECONDARY_CONTROLLER_LIST = 0x15,
        /// Namespace Granularity List.
        NAMESPACE_GRANULARITY_LIST = 0x16,
        /// [`UuidList`].
        UUID_LIST = 0x17,
        /// Domain List.
        DOMAIN_LIST = 0x18,
        /// Endurance Group List.
        ENDURANCE_GROUP_LIST = 0x19,
        /// Allocated namespaces of a command set above the NSID ([`NamespaceList`]).
        CSI_ALLOCATED_NAMESPACE_LIST = 0x1A,
        /// Command set specific structure of an allocated namespace.
        CSI_ALLOCATED_NAMESPACE = 0x1B,
        /// [`IoCommandSetCombinations`].
        IO_COMMAND_SETS = 0x1C,
    }
}

open_enum! {
    /// Command Set Identifier (CSI) (Base 2.0c, 5.17, figure "Command Set Identifiers").
    pub enum Csi: u8 {
        /// NVM Command Set.
        NVM = 0x00,
        /// Key Value Command Set.
        KEY_VALUE = 0x01,
        /// Zoned Namespace Command Set.
        ZNS = 0x02,
    }
}

#[cfg(test)]
mod tests;
