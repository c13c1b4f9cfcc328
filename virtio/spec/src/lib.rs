//! The wire types and constants of [VIRTIO 1.3] that a device and a driver share.
//!
//! "2.7.13" in an item's documentation is a section of that text. Structures are `#[repr(C)]` with plain integers in the order of
//! bytes of the wire (little endian; other targets do not compile): copy them by value with `zerocopy`. A value that a peer
//! chooses is a plain integer with named constants, so an unnamed value is kept.
//!
//! It has no behaviour: nothing here decides whether a value is acceptable.
//!
//! [VIRTIO 1.3]: https://docs.oasis-open.org/virtio/virtio/v1.3/virtio-v1.3.html
#![no_std]
#![forbid(unsafe_code)]

#[cfg(target_endian = "big")]
compile_error!("virtio-spec keeps wire structures in native order, which must be little endian");

pub mod blk;
pub mod feature;
pub mod pci;
pub mod ring;

/// Device status bits (2.1).
pub mod status {
    /// The driver has found the device.
    pub const ACKNOWLEDGE: u8 = 1;
    /// The driver knows how to drive it.
    pub const DRIVER: u8 = 2;
    /// The driver is ready: queues may be used.
    pub const DRIVER_OK: u8 = 4;
    /// Feature negotiation is complete; cleared again by a device that does not accept the choice.
    pub const FEATURES_OK: u8 = 8;
    /// The device cannot go on until it is reset.
    pub const DEVICE_NEEDS_RESET: u8 = 64;
    /// The driver has given up.
    pub const FAILED: u8 = 128;
}

/// Device ID of a block device (5).
pub const DEVICE_ID_BLOCK: u16 = 2;

/// Most entries of a virtqueue (2.6).
pub const MAX_QUEUE_SIZE: u16 = 32768;

/// "No vector": the queue or the configuration does not interrupt (4.1.5.1.2).
pub const NO_VECTOR: u16 = 0xffff;
