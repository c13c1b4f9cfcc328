//! virtio over PCI (4.1): identities, capabilities, the common configuration structure.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Vendor ID.
pub const VENDOR: u16 = 0x1af4;
/// Device ID of a modern device is this plus the device's ID (4.1.2).
pub const DEVICE_BASE: u16 = 0x1040;

/// `VIRTIO_PCI_CAP_COMMON_CFG`.
pub const CAP_COMMON: u8 = 1;
/// `VIRTIO_PCI_CAP_NOTIFY_CFG`.
pub const CAP_NOTIFY: u8 = 2;
/// `VIRTIO_PCI_CAP_ISR_CFG`.
pub const CAP_ISR: u8 = 3;
/// `VIRTIO_PCI_CAP_DEVICE_CFG`.
pub const CAP_DEVICE: u8 = 4;
/// `VIRTIO_PCI_CAP_PCI_CFG`: access to the BARs through configuration space.
pub const CAP_PCI: u8 = 5;

/// ISR status: a queue (4.1.4.5).
pub const ISR_QUEUE: u8 = 1;
/// ISR status: the configuration has changed.
pub const ISR_CONFIG: u8 = 2;

/// The common configuration structure (4.1.4.3).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct CommonConfig {
    /// Which 32 bits of the offered features `device_feature` shows.
    pub device_feature_select: u32,
    /// Offered features.
    pub device_feature: u32,
    /// Which 32 bits of the accepted features `driver_feature` is.
    pub driver_feature_select: u32,
    /// Accepted features.
    pub driver_feature: u32,
    /// Vector of configuration changes.
    pub config_msix_vector: u16,
    /// Number of queues the device has.
    pub num_queues: u16,
    /// See [`crate::status`].
    pub device_status: u8,
    /// Changes whenever the device configuration does.
    pub config_generation: u8,
    /// Which queue the fields below are about.
    pub queue_select: u16,
    /// Entries; the largest before the driver writes.
    pub queue_size: u16,
    /// Its vector.
    pub queue_msix_vector: u16,
    /// 1 = enabled.
    pub queue_enable: u16,
    /// Where it is notified, in units of the notify multiplier.
    pub queue_notify_off: u16,
    /// Descriptor area.
    pub queue_desc_lo: u32,
    /// Descriptor area, upper half.
    pub queue_desc_hi: u32,
    /// Driver area.
    pub queue_driver_lo: u32,
    /// Driver area, upper half.
    pub queue_driver_hi: u32,
    /// Device area.
    pub queue_device_lo: u32,
    /// Device area, upper half.
    pub queue_device_hi: u32,
    /// With `NOTIF_CONFIG_DATA`.
    pub queue_notif_config_data: u16,
    /// With `RING_RESET`.
    pub queue_reset: u16,
    /// First administration queue.
    pub admin_queue_index: u16,
    /// Number of administration queues.
    pub admin_queue_num: u16,
}

const _: () = assert!(size_of::<CommonConfig>() == 64);
