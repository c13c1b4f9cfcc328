//! Dword 11 of features, in Set Features and in the completion of Get Features.

use bitfield_struct::bitfield;

use crate::open_enum::open_enum;

/// Completion Dword 0 of Get Features with Select = Supported Capabilities (Base 2.0c, 5.15.2).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct SupportedCapabilities {
    /// Saveable, bit 0.
    pub saveable: bool,
    /// Namespace specific, bit 1.
    pub namespace_specific: bool,
    /// Changeable, bit 2.
    pub changeable: bool,
    #[bits(29)]
    __: u32,
}

/// Arbitration, FID 01h (Base 2.0c, 5.27.1.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Arbitration {
    /// Arbitration Burst (AB), bits 2:0: 2^AB commands; 7 for no limit.
    #[bits(3)]
    pub ab: u8,
    #[bits(5)]
    __: u8,
    /// Low Priority Weight, bits 15:8, 0's based.
    pub lpw_z: u8,
    /// Medium Priority Weight, bits 23:16, 0's based.
    pub mpw_z: u8,
    /// High Priority Weight, bits 31:24, 0's based.
    pub hpw_z: u8,
}

/// Power Management, FID 02h (Base 2.0c, 5.27.1.2).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct PowerManagement {
    /// Power State (PS), bits 4:0.
    #[bits(5)]
    pub ps: u8,
    /// Workload Hint (WH), bits 7:5.
    #[bits(3)]
    pub wh: u8,
    #[bits(24)]
    __: u32,
}

open_enum! {
    /// Threshold Temperature Select (TMPSEL) (Base 2.0c, 5.27.1.3).
    pub enum TemperatureSensor: u8 {
        /// The composite temperature.
        COMPOSITE = 0x0,
        /// Temperature sensor 1; sensor n is value n, up to 8.
        SENSOR_1 = 0x1,
        /// Temperature sensor 2.
        SENSOR_2 = 0x2,
        /// Temperature sensor 3.
        SENSOR_3 = 0x3,
        /// Temperature sensor 4.
        SENSOR_4 = 0x4,
        /// Temperature sensor 5.
        SENSOR_5 = 0x5,
        /// Temperature sensor 6.
        SENSOR_6 = 0x6,
        /// Temperature sensor 7.
        SENSOR_7 = 0x7,
        /// Temperature sensor 8.
        SENSOR_8 = 0x8,
        /// All implemented sensors (Set Features only).
        ALL = 0xF,
    }
}

open_enum! {
    /// Threshold Type Select (THSEL) (Base 2.0c, 5.27.1.3).
    pub enum ThresholdType: u8 {
        /// Over temperature threshold.
        OVER = 0,
        /// Under temperature threshold.
        UNDER = 1,
    }
}

/// Temperature Threshold, FID 04h (Base 2.0c, 5.27.1.3).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct TemperatureThreshold {
    /// Temperature Threshold (TMPTH), bits 15:0, in kelvins.
    pub tmpth: u16,
    /// Threshold Temperature Select (TMPSEL), bits 19:16.
    #[bits(4)]
    pub tmpsel: TemperatureSensor,
    /// Threshold Type Select (THSEL), bits 21:20.
    #[bits(2)]
    pub thsel: ThresholdType,
    #[bits(10)]
    __: u16,
}

/// Error Recovery, FID 05h (NVM Command Set 1.0, 4.1.3).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ErrorRecovery {
    /// Time Limited Error Recovery (TLER), bits 15:0, in units of 100 ms; zero for no limit.
    pub tler: u16,
    /// Deallocated or Unwritten Logical Block Error Enable (DULBE), bit 16.
    pub dulbe: bool,
    #[bits(15)]
    __: u16,
}

/// Volatile Write Cache, FID 06h (Base 2.0c, 5.27.1.4).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct VolatileWriteCache {
    /// Volatile Write Cache Enable (WCE), bit 0.
    pub wce: bool,
    #[bits(31)]
    __: u32,
}

/// Number of Queues, FID 07h (Base 2.0c, 5.27.1.5): requested in Dword 11, allocated in the
/// completion's Dword 0. FFFFh is not a permitted request.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct NumberOfQueues {
    /// Number of I/O Submission Queues (NSQR, NSQA), bits 15:0, 0's based.
    pub nsq_z: u16,
    /// Number of I/O Completion Queues (NCQR, NCQA), bits 31:16, 0's based.
    pub ncq_z: u16,
}

/// Interrupt Coalescing, FID 08h (Base 2.0c, 5.27.1.6).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct InterruptCoalescing {
    /// Aggregation Threshold (THR), bits 7:0, completions, 0's based.
    pub thr_z: u8,
    /// Aggregation Time (TIME), bits 15:8, in units of 100 microseconds; zero for no delay.
    pub time: u8,
    __: u16,
}

/// Interrupt Vector Configuration, FID 09h (Base 2.0c, 5.27.1.7).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct InterruptVectorConfig {
    /// Interrupt Vector (IV), bits 15:0.
    pub iv: u16,
    /// Coalescing Disable (CD), bit 16.
    pub cd: bool,
    #[bits(15)]
    __: u16,
}

/// Write Atomicity Normal, FID 0Ah (NVM Command Set 1.0, 4.1.3).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct WriteAtomicity {
    /// Disable Normal (DN), bit 0: AWUN and NAWUN need not be honoured.
    pub dn: bool,
    #[bits(31)]
    __: u32,
}

/// Asynchronous Event Configuration, FID 0Bh (Base 2.0c, 5.27.1.8).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct AsyncEventConfig {
    /// SMART / Health Critical Warnings, bits 7:0: one bit per warning, as in
    /// [`CriticalWarning`](crate::log::CriticalWarning).
    pub critical_warnings: u8,
    /// Namespace Attribute Notices, bit 8.
    pub namespace_attribute: bool,
    /// Firmware Activation Notices, bit 9.
    pub firmware_activation: bool,
    /// Telemetry Log Notices, bit 10.
    pub telemetry_log: bool,
    /// Asymmetric Namespace Access Change Notices, bit 11.
    pub ana_change: bool,
    /// Predictable Latency Event Aggregate Log Change Notices, bit 12.
    pub predictable_latency_aggregate: bool,
    /// LBA Status Information Notices, bit 13.
    pub lba_status: bool,
    /// Endurance Group Event Aggregate Log Change Notices, bit 14.
    pub endurance_group_aggregate: bool,
    /// Normal NVM Subsystem Shutdown, bit 15.
    pub normal_subsystem_shutdown: bool,
    #[bits(11)]
    __: u16,
    /// Zone Descriptor Changed Notices, bit 27 (Zoned Namespaces).
    pub zone_descriptor_changed: bool,
    #[bits(3)]
    __: u8,
    /// Discovery Log Page Change Notification, bit 31 (fabrics).
    pub discovery_log_change: bool,
}

/// Autonomous Power State Transition, FID 0Ch (Base 2.0c, 5.27.1.9).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct AutonomousPowerState {
    /// Autonomous Power State Transition Enable (APSTE), bit 0.
    pub apste: bool,
    #[bits(31)]
    __: u32,
}

/// I/O Command Set Profile, FID 19h (Base 2.0c, 5.27.1.21).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct IoCommandSetProfile {
    /// I/O Command Set Combination Index (IOCSCI), bits 8:0.
    #[bits(9)]
    pub iocsci: u16,
    #[bits(23)]
    __: u32,
}

/// Host Identifier, FID 81h (Base 2.0c, 5.27.1.25).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct HostIdentifierCdw11 {
    /// Enable Extended Host Identifier (EXHID), bit 0: 128 bits, not 64.
    pub exhid: bool,
    #[bits(31)]
    __: u32,
}

/// Reservation Notification Mask, FID 82h (Base 2.0c, 5.27.1.26).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ReservationNotificationMask {
    #[bits(1)]
    __: u8,
    /// Mask Registration Preempted Notification (REGPRE), bit 1.
    pub regpre: bool,
    /// Mask Reservation Released Notification (RESREL), bit 2.
    pub resrel: bool,
    /// Mask Reservation Preempted Notification (RESPRE), bit 3.
    pub respre: bool,
    #[bits(28)]
    __: u32,
}

open_enum! {
    /// Write Protection State (Base 2.0c, 5.27.1.28).
    pub enum WriteProtectState: u8 {
        /// No Write Protect.
        NONE = 0,
        /// Write Protect.
        WRITE_PROTECT = 1,
        /// Write Protect Until Power Cycle.
        UNTIL_POWER_CYCLE = 2,
        /// Permanent Write Protect.
        PERMANENT = 3,
    }
}

/// Namespace Write Protection Config, FID 84h (Base 2.0c, 5.27.1.28).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct NamespaceWriteProtection {
    /// Write Protection State, bits 2:0.
    #[bits(3)]
    pub state: WriteProtectState,
    #[bits(29)]
    __: u32,
}
