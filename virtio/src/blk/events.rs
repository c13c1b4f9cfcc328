//! What happens to a device that its operator may want to hear of.

use bdev::IoStatus;

/// Something that happened to a device. Told in order, on its home reactor, through [`BlkConfig::events`](crate::BlkConfig::events).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlkEvent {
    /// The driver began: its first queue is served.
    Enabled,
    /// The driver let go of the device: it was reset, or none of its queues is served any more (which is how front-ends of
    /// vhost-user reset a device, and also how they pause one).
    Reset,
    /// A queue, or the whole device, waits for a reset by the driver (DEVICE_NEEDS_RESET).
    Failed {
        /// Why.
        cause: String,
    },
    /// A disk failed a request. Rate-limited.
    DiskError {
        /// The disk.
        bdev: String,
        /// First sector (512 bytes) of the request.
        sector: u64,
        /// Why.
        cause: IoStatus,
        /// Errors since the last one told of.
        suppressed: u64,
    },
}
