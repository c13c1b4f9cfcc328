//! What happens to a controller that its operator may want to hear of.

use bdev::IoStatus;

/// Something that happened to a controller. Told in order, on its home reactor, through
/// [`ControllerConfig::events`](crate::ControllerConfig::events).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControllerEvent {
    /// The guest's driver enabled it (CSTS.RDY rose).
    Enabled,
    /// The guest, or its VMM, resets it (any controller level reset: Base 2.0c, 3.7.2); told when the reset begins, and not of a
    /// controller that was disabled anyway.
    Reset,
    /// The guest has shut it down (CSTS.SHST is complete).
    ShutDown,
    /// It failed (CSTS.CFS): the guest must reset it.
    Failed {
        /// Why.
        cause: String,
    },
    /// A disk failed a command. Rate-limited.
    DiskError {
        /// The disk.
        bdev: String,
        /// Namespace ID.
        nsid: u32,
        /// First logical block of the command.
        lba: u64,
        /// Why.
        cause: IoStatus,
        /// Errors since the last one told of.
        suppressed: u64,
    },
}
