//! The tables of status codes (Base 2.0c, section 3.3.3.2.1.1 to 3.3.3.2.1.4; codes 80h and above
//! that name no other command set: NVM Command Set 1.0).

use super::Status;

/// Declares the constants and the one list from which a value finds its name.
macro_rules! codes {
    ($( $of:ident { $( $(#[$meta:meta])* $NAME:ident = $sc:literal, )* } )*) => {
        impl Status {
            $( $( $(#[$meta])* pub const $NAME: Self = Self::$of($sc); )* )*

            /// Every code of the tables, in their order.
            pub const NAMED: &'static [Self] = &[ $( $( Self::$NAME, )* )* ];

            /// The name of the code in this crate, whatever the flags.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.code() {
                    $( $( Self::$NAME => Some(stringify!($NAME)), )* )*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    generic {
        /// Successful Completion.
        SUCCESS = 0x00,
        /// Invalid Command Opcode.
        INVALID_OPCODE = 0x01,
        /// Invalid Field in Command.
        INVALID_FIELD = 0x02,
        /// Command ID Conflict.
        COMMAND_ID_CONFLICT = 0x03,
        /// Data Transfer Error.
        DATA_TRANSFER_ERROR = 0x04,
        /// Commands Aborted due to Power Loss Notification.
        ABORTED_POWER_LOSS = 0x05,
        /// Internal Error.
        INTERNAL_ERROR = 0x06,
        /// Command Abort Requested.
        ABORT_REQUESTED = 0x07,
        /// Command Aborted due to SQ Deletion.
        ABORTED_SQ_DELETION = 0x08,
        /// Command Aborted due to Failed Fused Command.
        ABORTED_FAILED_FUSED = 0x09,
        /// Command Aborted due to Missing Fused Command.
        ABORTED_MISSING_FUSED = 0x0A,
        /// Invalid Namespace or Format.
        INVALID_NAMESPACE_OR_FORMAT = 0x0B,
        /// Command Sequence Error.
        COMMAND_SEQUENCE_ERROR = 0x0C,
        /// Invalid SGL Segment Descriptor.
        INVALID_SGL_SEGMENT_DESCRIPTOR = 0x0D,
        /// Invalid Number of SGL Descriptors.
        INVALID_NUMBER_OF_SGL_DESCRIPTORS = 0x0E,
        /// Data SGL Length Invalid.
        DATA_SGL_LENGTH_INVALID = 0x0F,
        /// Metadata SGL Length Invalid.
        METADATA_SGL_LENGTH_INVALID = 0x10,
        /// SGL Descriptor Type Invalid.
        SGL_DESCRIPTOR_TYPE_INVALID = 0x11,
        /// Invalid Use of Controller Memory Buffer.
        INVALID_USE_OF_CMB = 0x12,
        /// PRP Offset Invalid.
        PRP_OFFSET_INVALID = 0x13,
        /// Atomic Write Unit Exceeded.
        ATOMIC_WRITE_UNIT_EXCEEDED = 0x14,
        /// Operation Denied.
        OPERATION_DENIED = 0x15,
        /// SGL Offset Invalid.
        SGL_OFFSET_INVALID = 0x16,
        /// Host Identifier Inconsistent Format.
        HOST_IDENTIFIER_INCONSISTENT_FORMAT = 0x18,
        /// Keep Alive Timer Expired.
        KEEP_ALIVE_TIMER_EXPIRED = 0x19,
        /// Keep Alive Timeout Invalid.
        KEEP_ALIVE_TIMEOUT_INVALID = 0x1A,
        /// Command Aborted due to Preempt and Abort.
        ABORTED_PREEMPT_AND_ABORT = 0x1B,
        /// Sanitize Failed.
        SANITIZE_FAILED = 0x1C,
        /// Sanitize In Progress.
        SANITIZE_IN_PROGRESS = 0x1D,
        /// SGL Data Block Granularity Invalid.
        SGL_DATA_BLOCK_GRANULARITY_INVALID = 0x1E,
        /// Command Not Supported for Queue in CMB.
        COMMAND_NOT_SUPPORTED_FOR_QUEUE_IN_CMB = 0x1F,
        /// Namespace is Write Protected.
        NAMESPACE_WRITE_PROTECTED = 0x20,
        /// Command Interrupted.
        COMMAND_INTERRUPTED = 0x21,
        /// Transient Transport Error.
        TRANSIENT_TRANSPORT_ERROR = 0x22,
        /// Command Prohibited by Command and Feature Lockdown.
        PROHIBITED_BY_LOCKDOWN = 0x23,
        /// Admin Command Media Not Ready.
        ADMIN_COMMAND_MEDIA_NOT_READY = 0x24,
        /// LBA Out of Range.
        LBA_OUT_OF_RANGE = 0x80,
        /// Capacity Exceeded.
        CAPACITY_EXCEEDED = 0x81,
        /// Namespace Not Ready.
        NAMESPACE_NOT_READY = 0x82,
        /// Reservation Conflict.
        RESERVATION_CONFLICT = 0x83,
        /// Format In Progress.
        FORMAT_IN_PROGRESS = 0x84,
        /// Invalid Value Size (Key Value).
        INVALID_VALUE_SIZE = 0x85,
        /// Invalid Key Size (Key Value).
        INVALID_KEY_SIZE = 0x86,
        /// KV Key Does Not Exist (Key Value).
        KV_KEY_DOES_NOT_EXIST = 0x87,
        /// Unrecovered Error (Key Value).
        UNRECOVERED_ERROR = 0x88,
        /// Key Exists (Key Value).
        KEY_EXISTS = 0x89,
    }
    command_specific {
        /// Completion Queue Invalid (Create I/O Submission Queue).
        COMPLETION_QUEUE_INVALID = 0x00,
        /// Invalid Queue Identifier (create and delete queue commands).
        INVALID_QUEUE_IDENTIFIER = 0x01,
        /// Invalid Queue Size (create queue commands).
        INVALID_QUEUE_SIZE = 0x02,
        /// Abort Command Limit Exceeded (Abort).
        ABORT_COMMAND_LIMIT_EXCEEDED = 0x03,
        /// Asynchronous Event Request Limit Exceeded.
        AER_LIMIT_EXCEEDED = 0x05,
        /// Invalid Firmware Slot (Firmware Commit).
        INVALID_FIRMWARE_SLOT = 0x06,
        /// Invalid Firmware Image (Firmware Commit).
        INVALID_FIRMWARE_IMAGE = 0x07,
        /// Invalid Interrupt Vector (Create I/O Completion Queue).
        INVALID_INTERRUPT_VECTOR = 0x08,
        /// Invalid Log Page (Get Log Page).
        INVALID_LOG_PAGE = 0x09,
        /// Invalid Format (Format NVM, Namespace Management).
        INVALID_FORMAT = 0x0A,
        /// Firmware Activation Requires Conventional Reset.
        FIRMWARE_NEEDS_CONVENTIONAL_RESET = 0x0B,
        /// Invalid Queue Deletion (Delete I/O Completion Queue).
        INVALID_QUEUE_DELETION = 0x0C,
        /// Feature Identifier Not Saveable (Set Features).
        FEATURE_NOT_SAVEABLE = 0x0D,
        /// Feature Not Changeable (Set Features).
        FEATURE_NOT_CHANGEABLE = 0x0E,
        /// Feature Not Namespace Specific (Set Features).
        FEATURE_NOT_NAMESPACE_SPECIFIC = 0x0F,
        /// Firmware Activation Requires NVM Subsystem Reset.
        FIRMWARE_NEEDS_SUBSYSTEM_RESET = 0x10,
        /// Firmware Activation Requires Controller Level Reset.
        FIRMWARE_NEEDS_CONTROLLER_RESET = 0x11,
        /// Firmware Activation Requires Maximum Time Violation.
        FIRMWARE_NEEDS_MAXIMUM_TIME = 0x12,
        /// Firmware Activation Prohibited.
        FIRMWARE_ACTIVATION_PROHIBITED = 0x13,
        /// Overlapping Range (firmware commands).
        OVERLAPPING_RANGE = 0x14,
        /// Namespace Insufficient Capacity (Namespace Management).
        NAMESPACE_INSUFFICIENT_CAPACITY = 0x15,
        /// Namespace Identifier Unavailable (Namespace Management).
        NAMESPACE_IDENTIFIER_UNAVAILABLE = 0x16,
        /// Namespace Already Attached (Namespace Attachment).
        NAMESPACE_ALREADY_ATTACHED = 0x18,
        /// Namespace Is Private (Namespace Attachment).
        NAMESPACE_IS_PRIVATE = 0x19,
        /// Namespace Not Attached (Namespace Attachment).
        NAMESPACE_NOT_ATTACHED = 0x1A,
        /// Thin Provisioning Not Supported (Namespace Management).
        THIN_PROVISIONING_NOT_SUPPORTED = 0x1B,
        /// Controller List Invalid (Namespace Attachment).
        CONTROLLER_LIST_INVALID = 0x1C,
        /// Device Self-test In Progress (Device Self-test).
        DEVICE_SELF_TEST_IN_PROGRESS = 0x1D,
        /// Boot Partition Write Prohibited (Firmware Commit).
        BOOT_PARTITION_WRITE_PROHIBITED = 0x1E,
        /// Invalid Controller Identifier (Virtualization Management).
        INVALID_CONTROLLER_IDENTIFIER = 0x1F,
        /// Invalid Secondary Controller State (Virtualization Management).
        INVALID_SECONDARY_CONTROLLER_STATE = 0x20,
        /// Invalid Number of Controller Resources (Virtualization Management).
        INVALID_NUMBER_OF_CONTROLLER_RESOURCES = 0x21,
        /// Invalid Resource Identifier (Virtualization Management).
        INVALID_RESOURCE_IDENTIFIER = 0x22,
        /// Sanitize Prohibited While Persistent Memory Region is Enabled.
        SANITIZE_PROHIBITED_PMR_ENABLED = 0x23,
        /// ANA Group Identifier Invalid (Namespace Management).
        ANA_GROUP_IDENTIFIER_INVALID = 0x24,
        /// ANA Attach Failed (Namespace Attachment).
        ANA_ATTACH_FAILED = 0x25,
        /// Insufficient Capacity (Capacity Management).
        INSUFFICIENT_CAPACITY = 0x26,
        /// Namespace Attachment Limit Exceeded (Namespace Attachment).
        NAMESPACE_ATTACHMENT_LIMIT_EXCEEDED = 0x27,
        /// Prohibition of Command Execution Not Supported (Lockdown).
        LOCKDOWN_NOT_SUPPORTED = 0x28,
        /// I/O Command Set Not Supported (namespace commands).
        IO_COMMAND_SET_NOT_SUPPORTED = 0x29,
        /// I/O Command Set Not Enabled (Namespace Attachment).
        IO_COMMAND_SET_NOT_ENABLED = 0x2A,
        /// I/O Command Set Combination Rejected (Set Features).
        IO_COMMAND_SET_COMBINATION_REJECTED = 0x2B,
        /// Invalid I/O Command Set (Identify).
        INVALID_IO_COMMAND_SET = 0x2C,
        /// Identifier Unavailable (Capacity Management).
        IDENTIFIER_UNAVAILABLE = 0x2D,
        /// Stream Resource Allocation Failed (Streams Directive).
        STREAM_RESOURCE_ALLOCATION_FAILED = 0x7F,
        /// Conflicting Attributes (Dataset Management, Read, Write).
        CONFLICTING_ATTRIBUTES = 0x80,
        /// Invalid Protection Information (commands with PRINFO).
        INVALID_PROTECTION_INFORMATION = 0x81,
        /// Attempted Write to Read Only Range (writing commands).
        WRITE_TO_READ_ONLY_RANGE = 0x82,
        /// Command Size Limit Exceeded (Copy, Dataset Management).
        COMMAND_SIZE_LIMIT_EXCEEDED = 0x83,
        /// Zoned Boundary Error (Zoned Namespaces).
        ZONED_BOUNDARY_ERROR = 0xB8,
        /// Zone Is Full (Zoned Namespaces).
        ZONE_IS_FULL = 0xB9,
        /// Zone Is Read Only (Zoned Namespaces).
        ZONE_IS_READ_ONLY = 0xBA,
        /// Zone Is Offline (Zoned Namespaces).
        ZONE_IS_OFFLINE = 0xBB,
        /// Zone Invalid Write (Zoned Namespaces).
        ZONE_INVALID_WRITE = 0xBC,
        /// Too Many Active Zones (Zoned Namespaces).
        TOO_MANY_ACTIVE_ZONES = 0xBD,
        /// Too Many Open Zones (Zoned Namespaces).
        TOO_MANY_OPEN_ZONES = 0xBE,
        /// Invalid Zone State Transition (Zoned Namespaces).
        INVALID_ZONE_STATE_TRANSITION = 0xBF,
    }
    media {
        /// Write Fault.
        WRITE_FAULT = 0x80,
        /// Unrecovered Read Error.
        UNRECOVERED_READ_ERROR = 0x81,
        /// End-to-end Guard Check Error.
        GUARD_CHECK_ERROR = 0x82,
        /// End-to-end Application Tag Check Error.
        APPLICATION_TAG_CHECK_ERROR = 0x83,
        /// End-to-end Reference Tag Check Error.
        REFERENCE_TAG_CHECK_ERROR = 0x84,
        /// Compare Failure.
        COMPARE_FAILURE = 0x85,
        /// Access Denied.
        ACCESS_DENIED = 0x86,
        /// Deallocated or Unwritten Logical Block.
        DEALLOCATED_OR_UNWRITTEN = 0x87,
        /// End-to-end Storage Tag Check Error.
        STORAGE_TAG_CHECK_ERROR = 0x88,
    }
    path {
        /// Internal Path Error.
        INTERNAL_PATH_ERROR = 0x00,
        /// Asymmetric Access Persistent Loss.
        ANA_PERSISTENT_LOSS = 0x01,
        /// Asymmetric Access Inaccessible.
        ANA_INACCESSIBLE = 0x02,
        /// Asymmetric Access Transition.
        ANA_TRANSITION = 0x03,
        /// Controller Pathing Error.
        CONTROLLER_PATHING_ERROR = 0x60,
        /// Host Pathing Error.
        HOST_PATHING_ERROR = 0x70,
        /// Command Aborted By Host.
        ABORTED_BY_HOST = 0x71,
    }
}
