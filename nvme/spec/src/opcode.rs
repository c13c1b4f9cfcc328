//! Opcodes of the admin and the NVM command set.

use crate::open_enum::open_enum;

open_enum! {
    /// Admin command opcodes (Base 2.0c, section 5, figure "Opcodes for Admin Commands").
    pub enum AdminOpcode: u8 {
        /// Delete I/O Submission Queue (5.7).
        DELETE_IO_SQ = 0x00,
        /// Create I/O Submission Queue (5.5).
        CREATE_IO_SQ = 0x01,
        /// Get Log Page (5.16).
        GET_LOG_PAGE = 0x02,
        /// Delete I/O Completion Queue (5.6).
        DELETE_IO_CQ = 0x04,
        /// Create I/O Completion Queue (5.4).
        CREATE_IO_CQ = 0x05,
        /// Identify (5.17).
        IDENTIFY = 0x06,
        /// Abort (5.1).
        ABORT = 0x08,
        /// Set Features (5.27).
        SET_FEATURES = 0x09,
        /// Get Features (5.15).
        GET_FEATURES = 0x0A,
        /// Asynchronous Event Request (5.2).
        ASYNC_EVENT_REQUEST = 0x0C,
        /// Namespace Management (5.23).
        NAMESPACE_MANAGEMENT = 0x0D,
        /// Firmware Commit (5.12).
        FIRMWARE_COMMIT = 0x10,
        /// Firmware Image Download (5.13).
        FIRMWARE_IMAGE_DOWNLOAD = 0x11,
        /// Device Self-test (5.9).
        DEVICE_SELF_TEST = 0x14,
        /// Namespace Attachment (5.22).
        NAMESPACE_ATTACHMENT = 0x15,
        /// Keep Alive (5.18).
        KEEP_ALIVE = 0x18,
        /// Directive Send (5.11).
        DIRECTIVE_SEND = 0x19,
        /// Directive Receive (5.10).
        DIRECTIVE_RECEIVE = 0x1A,
        /// Virtualization Management (5.28).
        VIRTUALIZATION_MANAGEMENT = 0x1C,
        /// NVMe-MI Send (5.21).
        NVME_MI_SEND = 0x1D,
        /// NVMe-MI Receive (5.20).
        NVME_MI_RECEIVE = 0x1E,
        /// Capacity Management (5.3).
        CAPACITY_MANAGEMENT = 0x20,
        /// Lockdown (5.19).
        LOCKDOWN = 0x24,
        /// Doorbell Buffer Config (5.8): PRP1 is the shadow doorbell buffer, PRP2 the EventIdx
        /// buffer, one memory page each, laid out as the doorbell registers are.
        DOORBELL_BUFFER_CONFIG = 0x7C,
        /// Fabrics commands (6); aborted by a controller on PCIe.
        FABRICS = 0x7F,
        /// Format NVM (5.14).
        FORMAT_NVM = 0x80,
        /// Security Send (5.26).
        SECURITY_SEND = 0x81,
        /// Security Receive (5.25).
        SECURITY_RECEIVE = 0x82,
        /// Sanitize (5.24).
        SANITIZE = 0x84,
        /// Get LBA Status (NVM Command Set 1.0, 4.2.1).
        GET_LBA_STATUS = 0x86,
    }
}

impl AdminOpcode {
    /// The first vendor specific opcode (C0h to FFh).
    pub const VENDOR_FIRST: Self = Self(0xC0);
}

open_enum! {
    /// I/O command opcodes of the NVM Command Set (NVM Command Set 1.0, section 3, figure "Opcodes
    /// for NVM Commands", with the reservation commands of Base 2.0c, section 7).
    pub enum NvmOpcode: u8 {
        /// Flush (Base 7.1).
        FLUSH = 0x00,
        /// Write (3.2.6).
        WRITE = 0x01,
        /// Read (3.2.4).
        READ = 0x02,
        /// Write Uncorrectable (3.2.7).
        WRITE_UNCORRECTABLE = 0x04,
        /// Compare (3.2.1).
        COMPARE = 0x05,
        /// Write Zeroes (3.2.8).
        WRITE_ZEROES = 0x08,
        /// Dataset Management (3.2.3).
        DATASET_MANAGEMENT = 0x09,
        /// Verify (3.2.5).
        VERIFY = 0x0C,
        /// Reservation Register (Base 7.3).
        RESERVATION_REGISTER = 0x0D,
        /// Reservation Report (Base 7.5).
        RESERVATION_REPORT = 0x0E,
        /// Reservation Acquire (Base 7.2).
        RESERVATION_ACQUIRE = 0x11,
        /// Reservation Release (Base 7.4).
        RESERVATION_RELEASE = 0x15,
        /// Copy (3.2.2).
        COPY = 0x19,
    }
}

impl NvmOpcode {
    /// The first vendor specific opcode (80h to FFh).
    pub const VENDOR_FIRST: Self = Self(0x80);
}

open_enum! {
    /// The direction of a command's data, bits 1:0 of every opcode (Base 2.0c, 5 and 7).
    pub enum DataTransfer: u8 {
        /// No data.
        NONE = 0,
        /// From the host to the controller.
        HOST_TO_CONTROLLER = 1,
        /// From the controller to the host.
        CONTROLLER_TO_HOST = 2,
        /// Both ways.
        BIDIRECTIONAL = 3,
    }
}

impl DataTransfer {
    /// The direction an opcode of either command set announces.
    ///
    /// Set Features, Doorbell Buffer Config and a few more encode "may transfer", so this says
    /// what is permitted, not what this one command does.
    #[must_use]
    pub const fn of_opcode(opcode: u8) -> Self {
        Self(opcode & 3)
    }
}
