//! SMART / Health Information, LID 02h, and Firmware Slot Information, LID 03h.

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::le128::Le128;
use crate::open_enum::wire_struct;

/// Critical Warning (Base 2.0c, 5.16.1.3).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CriticalWarning {
    /// Available spare below the threshold, bit 0.
    pub spare: bool,
    /// A temperature beyond a threshold, bit 1.
    pub temperature: bool,
    /// Reliability degraded, bit 2.
    pub reliability: bool,
    /// All media read-only, bit 3.
    pub read_only: bool,
    /// Volatile memory backup failed, bit 4.
    pub backup_failed: bool,
    /// Persistent memory region read-only or unreliable, bit 5.
    pub pmr: bool,
    #[bits(2)]
    __: u8,
}

/// Endurance Group Critical Warning Summary (Base 2.0c, 5.16.1.3).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct EnduranceWarning {
    /// Available spare of an endurance group below the threshold, bit 0.
    pub spare: bool,
    #[bits(1)]
    __: u8,
    /// Reliability of an endurance group degraded, bit 2.
    pub reliability: bool,
    /// A namespace of an endurance group read-only, bit 3.
    pub read_only: bool,
    #[bits(4)]
    __: u8,
}

wire_struct! {
    /// SMART / Health Information, LID 02h (Base 2.0c, 5.16.1.3).
    pub struct SmartHealth[512] {
        /// Byte 0: Critical Warning.
        pub critical_warning: CriticalWarning,
        /// Bytes 2:1: Composite Temperature in kelvins, little endian (an odd offset).
        pub composite_temperature: [u8; 2],
        /// Byte 3: Available Spare, percent.
        pub available_spare: u8,
        /// Byte 4: Available Spare Threshold, percent.
        pub available_spare_threshold: u8,
        /// Byte 5: Percentage Used; may exceed 100.
        pub percentage_used: u8,
        /// Byte 6: Endurance Group Critical Warning Summary.
        pub endurance_group_warning: EnduranceWarning,
        _rsvd7: [u8; 25],
        /// Bytes 47:32: Data Units Read: thousands of 512-byte units, rounded up.
        pub data_units_read: Le128,
        /// Bytes 63:48: Data Units Written: thousands of 512-byte units, rounded up.
        pub data_units_written: Le128,
        /// Bytes 79:64: Host Read Commands.
        pub host_read_commands: Le128,
        /// Bytes 95:80: Host Write Commands.
        pub host_write_commands: Le128,
        /// Bytes 111:96: Controller Busy Time, minutes.
        pub controller_busy_time: Le128,
        /// Bytes 127:112: Power Cycles.
        pub power_cycles: Le128,
        /// Bytes 143:128: Power On Hours.
        pub power_on_hours: Le128,
        /// Bytes 159:144: Unsafe Shutdowns.
        pub unsafe_shutdowns: Le128,
        /// Bytes 175:160: Media and Data Integrity Errors.
        pub media_errors: Le128,
        /// Bytes 191:176: Number of Error Information Log Entries over the controller's life.
        pub error_log_entries: Le128,
        /// Bytes 195:192: Warning Composite Temperature Time, minutes.
        pub warning_temperature_time: u32,
        /// Bytes 199:196: Critical Composite Temperature Time, minutes.
        pub critical_temperature_time: u32,
        /// Bytes 215:200: Temperature Sensor 1 to 8, kelvins; zero where not implemented.
        pub temperature_sensors: [u16; 8],
        /// Bytes 219:216: Thermal Management Temperature 1 Transition Count.
        pub tmt1_transitions: u32,
        /// Bytes 223:220: Thermal Management Temperature 2 Transition Count.
        pub tmt2_transitions: u32,
        /// Bytes 227:224: Total Time For Thermal Management Temperature 1, seconds.
        pub tmt1_time: u32,
        /// Bytes 231:228: Total Time For Thermal Management Temperature 2, seconds.
        pub tmt2_time: u32,
        _rsvd232: [u8; 280],
    }
}

impl SmartHealth {
    /// Composite Temperature in kelvins.
    #[must_use]
    pub const fn temperature(&self) -> u16 {
        u16::from_le_bytes(self.composite_temperature)
    }

    /// Sets Composite Temperature, in kelvins.
    pub const fn set_temperature(&mut self, kelvins: u16) {
        self.composite_temperature = kelvins.to_le_bytes();
    }
}

/// Active Firmware Info (AFI) (Base 2.0c, 5.16.1.4).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ActiveFirmware {
    /// The slot whose firmware runs, bits 2:0; 1 to 7.
    #[bits(3)]
    pub active_slot: u8,
    #[bits(1)]
    __: u8,
    /// The slot to be activated at the next controller level reset, bits 6:4; zero for unknown.
    #[bits(3)]
    pub next_slot: u8,
    #[bits(1)]
    __: u8,
}

wire_struct! {
    /// Firmware Slot Information, LID 03h (Base 2.0c, 5.16.1.4).
    pub struct FirmwareSlotInfo[512] {
        /// Byte 0: Active Firmware Info.
        pub afi: ActiveFirmware,
        _rsvd1: [u8; 7],
        /// Bytes 63:8: Firmware Revision of slots 1 to 7, ASCII; zero where empty.
        pub frs: [[u8; 8]; 7],
        _rsvd64: [u8; 448],
    }
}
