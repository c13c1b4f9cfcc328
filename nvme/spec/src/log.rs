//! Log pages (Base 2.0c, section 5.16.1).

mod ana;
mod effects;
mod error;
mod health;

pub use ana::{AnaGroupDescriptor, AnaLogHeader, AnaLogLsp, AnaState, AnaStateByte};
pub use effects::{
    CommandEffects, CommandScope, CommandsSupportedAndEffects, FeatureEffects, FeatureIdEffects,
    SubmissionExecution,
};
pub use error::{ErrorInformation, ParameterErrorLocation};
pub use health::{
    ActiveFirmware, CriticalWarning, EnduranceWarning, FirmwareSlotInfo, SmartHealth,
};

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::open_enum::{open_enum, wire_struct};

open_enum! {
    /// Log Page Identifier (LID) (Base 2.0c, 5.16.1, figure "Log Page Identifiers").
    pub enum LogPageId: u8 {
        /// Supported Log Pages ([`SupportedLogPages`]).
        SUPPORTED_LOG_PAGES = 0x00,
        /// Error Information (a list of [`ErrorInformation`]).
        ERROR_INFORMATION = 0x01,
        /// SMART / Health Information ([`SmartHealth`]).
        SMART_HEALTH = 0x02,
        /// Firmware Slot Information ([`FirmwareSlotInfo`]).
        FIRMWARE_SLOT = 0x03,
        /// Changed Namespace List (a [`NamespaceList`](crate::identify::NamespaceList); first entry
        /// FFFFFFFFh for more than 1,024).
        CHANGED_NAMESPACE_LIST = 0x04,
        /// Commands Supported and Effects ([`CommandsSupportedAndEffects`]).
        COMMANDS_SUPPORTED_AND_EFFECTS = 0x05,
        /// Device Self-test.
        DEVICE_SELF_TEST = 0x06,
        /// Telemetry Host-Initiated.
        TELEMETRY_HOST = 0x07,
        /// Telemetry Controller-Initiated.
        TELEMETRY_CONTROLLER = 0x08,
        /// Endurance Group Information.
        ENDURANCE_GROUP = 0x09,
        /// Predictable Latency Per NVM Set.
        PREDICTABLE_LATENCY_NVM_SET = 0x0A,
        /// Predictable Latency Event Aggregate.
        PREDICTABLE_LATENCY_AGGREGATE = 0x0B,
        /// Asymmetric Namespace Access ([`AnaLogHeader`], then [`AnaGroupDescriptor`]s).
        ANA = 0x0C,
        /// Persistent Event Log.
        PERSISTENT_EVENT = 0x0D,
        /// LBA Status Information (NVM Command Set).
        LBA_STATUS = 0x0E,
        /// Endurance Group Event Aggregate.
        ENDURANCE_GROUP_AGGREGATE = 0x0F,
        /// Media Unit Status.
        MEDIA_UNIT_STATUS = 0x10,
        /// Supported Capacity Configuration List.
        CAPACITY_CONFIGURATIONS = 0x11,
        /// Feature Identifiers Supported and Effects ([`FeatureIdEffects`]).
        FEATURE_ID_EFFECTS = 0x12,
        /// NVMe-MI Commands Supported and Effects.
        NVME_MI_EFFECTS = 0x13,
        /// Command and Feature Lockdown.
        LOCKDOWN = 0x14,
        /// Boot Partition.
        BOOT_PARTITION = 0x15,
        /// Rotational Media Information.
        ROTATIONAL_MEDIA = 0x16,
        /// Discovery (fabrics).
        DISCOVERY = 0x70,
        /// Reservation Notification.
        RESERVATION_NOTIFICATION = 0x80,
        /// Sanitize Status.
        SANITIZE_STATUS = 0x81,
        /// Changed Zone List (Zoned Namespaces).
        CHANGED_ZONE_LIST = 0xBF,
    }
}

impl LogPageId {
    /// The first vendor specific page (C0h to FFh).
    pub const VENDOR_FIRST: Self = Self(0xC0);
}

/// LID Supported and Effects, one entry of Supported Log Pages (Base 2.0c, 5.16.1.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct LogPageEffects {
    /// LID Supported (LSUPP), bit 0.
    pub lsupp: bool,
    /// Index Offset Supported (IOS), bit 1.
    pub ios: bool,
    #[bits(14)]
    __: u16,
    /// LID Specific Parameter, bits 31:16.
    pub lid_specific: u16,
}

wire_struct! {
    /// Supported Log Pages, LID 00h (Base 2.0c, 5.16.1.1).
    pub struct SupportedLogPages[1024] {
        /// One entry per log page identifier.
        pub lids: [LogPageEffects; 256],
    }
}

#[cfg(test)]
mod tests;
