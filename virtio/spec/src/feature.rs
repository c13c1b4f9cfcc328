//! Feature bits (2.2, 6), as masks. Those of the block device are in [`crate::blk::feature`].

/// Indirect descriptors.
pub const INDIRECT_DESC: u64 = 1 << 28;
/// `used_event` and `avail_event`, or the packed ring's event suppression structures with an offset.
pub const EVENT_IDX: u64 = 1 << 29;
/// vhost-user's own bit in the place of a reserved one: the back-end has protocol features.
pub const VHOST_USER_PROTOCOL_FEATURES: u64 = 1 << 30;
/// Legacy `VIRTIO_F_NOTIFY_ON_EMPTY`; never offered.
pub const NOTIFY_ON_EMPTY: u64 = 1 << 24;
/// vhost's own bit: log writes to guest memory.
pub const VHOST_LOG_ALL: u64 = 1 << 26;
/// Legacy `VIRTIO_F_ANY_LAYOUT`; implied by [`VERSION_1`].
pub const ANY_LAYOUT: u64 = 1 << 27;
/// Complies with this specification, not with a legacy interface.
pub const VERSION_1: u64 = 1 << 32;
/// The device's access to memory is limited and translated by the platform.
pub const ACCESS_PLATFORM: u64 = 1 << 33;
/// Packed virtqueues.
pub const RING_PACKED: u64 = 1 << 34;
/// Buffers are used in the order in which they were made available.
pub const IN_ORDER: u64 = 1 << 35;
/// Memory accesses are ordered as the platform orders them.
pub const ORDER_PLATFORM: u64 = 1 << 36;
/// Single root I/O virtualisation.
pub const SR_IOV: u64 = 1 << 37;
/// Notifications carry ring data beside the queue's index.
pub const NOTIFICATION_DATA: u64 = 1 << 38;
/// Notifications carry a value of the device's choice in place of the queue's index.
pub const NOTIF_CONFIG_DATA: u64 = 1 << 39;
/// Queues can be reset one by one.
pub const RING_RESET: u64 = 1 << 40;
