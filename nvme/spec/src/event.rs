//! Asynchronous events (Base 2.0c, section 5.2).

use bitfield_struct::bitfield;

use crate::log::LogPageId;
use crate::open_enum::open_enum;

open_enum! {
    /// Asynchronous Event Type (Base 2.0c, 5.2.1).
    pub enum AsyncEventType: u8 {
        /// Error status ([`ErrorEvent`]).
        ERROR = 0,
        /// SMART / health status ([`HealthEvent`]).
        SMART_HEALTH = 1,
        /// Notice ([`NoticeEvent`]).
        NOTICE = 2,
        /// I/O command specific status ([`IoCommandEvent`]).
        IO_COMMAND = 6,
        /// Vendor specific.
        VENDOR_SPECIFIC = 7,
    }
}

open_enum! {
    /// Asynchronous Event Information of type Error (Base 2.0c, 5.2.1).
    pub enum ErrorEvent: u8 {
        /// Write to Invalid Doorbell Register.
        INVALID_DOORBELL_REGISTER = 0,
        /// Invalid Doorbell Write Value.
        INVALID_DOORBELL_VALUE = 1,
        /// Diagnostic Failure.
        DIAGNOSTIC_FAILURE = 2,
        /// Persistent Internal Error.
        PERSISTENT_INTERNAL_ERROR = 3,
        /// Transient Internal Error.
        TRANSIENT_INTERNAL_ERROR = 4,
        /// Firmware Image Load Error.
        FIRMWARE_IMAGE_LOAD_ERROR = 5,
    }
}

open_enum! {
    /// Asynchronous Event Information of type SMART / Health Status (Base 2.0c, 5.2.1).
    pub enum HealthEvent: u8 {
        /// NVM subsystem Reliability.
        RELIABILITY = 0,
        /// Temperature Threshold.
        TEMPERATURE_THRESHOLD = 1,
        /// Spare Below Threshold.
        SPARE_BELOW_THRESHOLD = 2,
    }
}

open_enum! {
    /// Asynchronous Event Information of type Notice (Base 2.0c, 5.2.1).
    pub enum NoticeEvent: u8 {
        /// Namespace Attribute Changed; log page 04h says which.
        NAMESPACE_ATTRIBUTE_CHANGED = 0x00,
        /// Firmware Activation Starting.
        FIRMWARE_ACTIVATION_STARTING = 0x01,
        /// Telemetry Log Changed.
        TELEMETRY_LOG_CHANGED = 0x02,
        /// Asymmetric Namespace Access Change.
        ANA_CHANGE = 0x03,
        /// Predictable Latency Event Aggregate Log Change.
        PREDICTABLE_LATENCY_AGGREGATE_CHANGE = 0x04,
        /// LBA Status Information Alert.
        LBA_STATUS_ALERT = 0x05,
        /// Endurance Group Event Aggregate Log Page Change.
        ENDURANCE_GROUP_AGGREGATE_CHANGE = 0x06,
        /// Normal NVM Subsystem Shutdown.
        NORMAL_SUBSYSTEM_SHUTDOWN = 0x07,
        /// Zone Descriptor Changed (Zoned Namespaces).
        ZONE_DESCRIPTOR_CHANGED = 0xEF,
        /// Discovery Log Page Change (fabrics).
        DISCOVERY_LOG_CHANGE = 0xF0,
    }
}

open_enum! {
    /// Asynchronous Event Information of type I/O Command Specific Status (Base 2.0c, 5.2.1).
    pub enum IoCommandEvent: u8 {
        /// Reservation Log Page Available.
        RESERVATION_LOG_AVAILABLE = 0,
        /// Sanitize Operation Completed.
        SANITIZE_COMPLETED = 1,
        /// Sanitize Operation Completed With Unexpected Deallocation.
        SANITIZE_COMPLETED_WITH_DEALLOCATION = 2,
    }
}

/// Completion Dword 0 of Asynchronous Event Request (Base 2.0c, 5.2.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct AsyncEvent {
    /// Asynchronous Event Type, bits 2:0.
    #[bits(3)]
    pub event_type: AsyncEventType,
    #[bits(5)]
    __: u8,
    /// Asynchronous Event Information, bits 15:8: a number of the type's own table.
    pub info: u8,
    /// Log Page Identifier, bits 23:16: the page whose reading clears the event.
    #[bits(8)]
    pub lid: LogPageId,
    __: u8,
}

impl AsyncEvent {
    /// An error event; its log page is Error Information.
    #[must_use]
    pub const fn error(info: ErrorEvent) -> Self {
        Self::of(AsyncEventType::ERROR, info.0, LogPageId::ERROR_INFORMATION)
    }

    /// A health event; its log page is SMART / Health Information.
    #[must_use]
    pub const fn health(info: HealthEvent) -> Self {
        Self::of(
            AsyncEventType::SMART_HEALTH,
            info.0,
            LogPageId::SMART_HEALTH,
        )
    }

    /// A notice with the log page that tells more.
    #[must_use]
    pub const fn notice(info: NoticeEvent, lid: LogPageId) -> Self {
        Self::of(AsyncEventType::NOTICE, info.0, lid)
    }

    /// Any event.
    #[must_use]
    pub const fn of(event_type: AsyncEventType, info: u8, lid: LogPageId) -> Self {
        Self::new()
            .with_event_type(event_type)
            .with_info(info)
            .with_lid(lid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_of_the_completion() {
        let event = AsyncEvent::notice(
            NoticeEvent::NAMESPACE_ATTRIBUTE_CHANGED,
            LogPageId::CHANGED_NAMESPACE_LIST,
        );
        assert_eq!(event.into_bits(), 0x0004_0002);
        let event = AsyncEvent::error(ErrorEvent::INVALID_DOORBELL_VALUE);
        assert_eq!(event.into_bits(), 0x0001_0100);
        let event = AsyncEvent::health(HealthEvent::SPARE_BELOW_THRESHOLD);
        assert_eq!(event.into_bits(), 0x0002_0201);
    }
}
