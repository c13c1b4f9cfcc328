//! Features: identifiers, Dword 11 and data of Get and Set Features (Base 2.0c, section 5.27).

mod data;
mod dwords;

pub use data::{
    ApstEntry, FeatureTimestamp, HostBehaviorSupport, HostIdentifier64, HostIdentifier128,
    TimestampOrigin,
};
pub use dwords::{
    Arbitration, AsyncEventConfig, AutonomousPowerState, ErrorRecovery, HostIdentifierCdw11,
    InterruptCoalescing, InterruptVectorConfig, IoCommandSetProfile, NamespaceWriteProtection,
    NumberOfQueues, PowerManagement, ReservationNotificationMask, SupportedCapabilities,
    TemperatureSensor, TemperatureThreshold, ThresholdType, VolatileWriteCache, WriteAtomicity,
    WriteProtectState,
};

use crate::open_enum::open_enum;

open_enum! {
    /// Feature Identifier (FID) (Base 2.0c, 5.27.1, figure "Feature Identifiers"; NVM Command Set
    /// 1.0, 4.1.3).
    pub enum FeatureId: u8 {
        /// Arbitration (5.27.1.1).
        ARBITRATION = 0x01,
        /// Power Management (5.27.1.2).
        POWER_MANAGEMENT = 0x02,
        /// LBA Range Type (NVM Command Set).
        LBA_RANGE_TYPE = 0x03,
        /// Temperature Threshold (5.27.1.3).
        TEMPERATURE_THRESHOLD = 0x04,
        /// Error Recovery (NVM Command Set).
        ERROR_RECOVERY = 0x05,
        /// Volatile Write Cache (5.27.1.4).
        VOLATILE_WRITE_CACHE = 0x06,
        /// Number of Queues (5.27.1.5).
        NUMBER_OF_QUEUES = 0x07,
        /// Interrupt Coalescing (5.27.1.6).
        INTERRUPT_COALESCING = 0x08,
        /// Interrupt Vector Configuration (5.27.1.7).
        INTERRUPT_VECTOR_CONFIG = 0x09,
        /// Write Atomicity Normal (NVM Command Set).
        WRITE_ATOMICITY = 0x0A,
        /// Asynchronous Event Configuration (5.27.1.8).
        ASYNC_EVENT_CONFIG = 0x0B,
        /// Autonomous Power State Transition (5.27.1.9).
        AUTONOMOUS_POWER_STATE = 0x0C,
        /// Host Memory Buffer (5.27.1.10).
        HOST_MEMORY_BUFFER = 0x0D,
        /// Timestamp (5.27.1.11).
        TIMESTAMP = 0x0E,
        /// Keep Alive Timer (5.27.1.12); Dword 11 is the timeout in milliseconds.
        KEEP_ALIVE_TIMER = 0x0F,
        /// Host Controlled Thermal Management (5.27.1.13).
        HOST_THERMAL_MANAGEMENT = 0x10,
        /// Non-Operational Power State Config (5.27.1.14).
        NON_OPERATIONAL_POWER_STATE = 0x11,
        /// Read Recovery Level Config (5.27.1.15).
        READ_RECOVERY_LEVEL = 0x12,
        /// Predictable Latency Mode Config (5.27.1.16).
        PREDICTABLE_LATENCY_CONFIG = 0x13,
        /// Predictable Latency Mode Window (5.27.1.17).
        PREDICTABLE_LATENCY_WINDOW = 0x14,
        /// LBA Status Information Report Interval (NVM Command Set).
        LBA_STATUS_INTERVAL = 0x15,
        /// Host Behavior Support (5.27.1.18).
        HOST_BEHAVIOR_SUPPORT = 0x16,
        /// Sanitize Config (5.27.1.19).
        SANITIZE_CONFIG = 0x17,
        /// Endurance Group Event Configuration (5.27.1.20).
        ENDURANCE_GROUP_EVENT_CONFIG = 0x18,
        /// I/O Command Set Profile (5.27.1.21).
        IO_COMMAND_SET_PROFILE = 0x19,
        /// Spinup Control (5.27.1.22).
        SPINUP_CONTROL = 0x1A,
        /// Enhanced Controller Metadata (NVMe-MI).
        ENHANCED_CONTROLLER_METADATA = 0x7D,
        /// Controller Metadata (NVMe-MI).
        CONTROLLER_METADATA = 0x7E,
        /// Namespace Metadata (NVMe-MI).
        NAMESPACE_METADATA = 0x7F,
        /// Software Progress Marker (5.27.1.24).
        SOFTWARE_PROGRESS_MARKER = 0x80,
        /// Host Identifier (5.27.1.25).
        HOST_IDENTIFIER = 0x81,
        /// Reservation Notification Mask (5.27.1.26).
        RESERVATION_NOTIFICATION_MASK = 0x82,
        /// Reservation Persistence (5.27.1.27).
        RESERVATION_PERSISTENCE = 0x83,
        /// Namespace Write Protection Config (5.27.1.28).
        NAMESPACE_WRITE_PROTECTION = 0x84,
    }
}

impl FeatureId {
    /// The first vendor specific identifier (C0h to FFh).
    pub const VENDOR_FIRST: Self = Self(0xC0);
}

#[cfg(test)]
mod tests;
