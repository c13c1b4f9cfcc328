//! Virtqueues in memory: split (2.7) and packed (2.8).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `VIRTQ_DESC_F_NEXT`: the chain goes on.
pub const DESC_F_NEXT: u16 = 1;
/// `VIRTQ_DESC_F_WRITE`: the device writes the buffer (else reads it).
pub const DESC_F_WRITE: u16 = 2;
/// `VIRTQ_DESC_F_INDIRECT`: the buffer is a table of descriptors.
pub const DESC_F_INDIRECT: u16 = 4;
/// Packed: the driver's wrap counter (2.8.1).
pub const DESC_F_AVAIL: u16 = 1 << 7;
/// Packed: the device's wrap counter (2.8.1).
pub const DESC_F_USED: u16 = 1 << 15;

/// A descriptor of a split virtqueue, and of an indirect table of one (2.7.5).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Descriptor {
    /// Guest-physical address.
    pub addr: u64,
    /// Length in bytes.
    pub len: u32,
    /// `DESC_F_*`.
    pub flags: u16,
    /// The next of the chain, with [`DESC_F_NEXT`].
    pub next: u16,
}

/// A descriptor of a packed virtqueue, and of an indirect table of one (2.8.13).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PackedDescriptor {
    /// Guest-physical address.
    pub addr: u64,
    /// Length in bytes; in a used descriptor the bytes that were written.
    pub len: u32,
    /// Buffer ID.
    pub id: u16,
    /// `DESC_F_*`.
    pub flags: u16,
}

/// `VIRTQ_AVAIL_F_NO_INTERRUPT` (2.7.6).
pub const AVAIL_F_NO_INTERRUPT: u16 = 1;
/// `VIRTQ_USED_F_NO_NOTIFY` (2.7.8).
pub const USED_F_NO_NOTIFY: u16 = 1;

/// An element of the split used ring (2.7.8).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct UsedElement {
    /// First descriptor of the chain.
    pub id: u32,
    /// Bytes written.
    pub len: u32,
}

/// Offset of `idx` in the split available and used rings; `flags` is at 0, elements begin at 4.
pub const RING_IDX: usize = 2;
/// Offset of the first element of the split available and used rings.
pub const RING_ELEMENTS: usize = 4;

/// Bytes of the split descriptor table, or of the packed ring.
#[must_use]
pub const fn descriptor_area(size: u16) -> usize {
    16 * size as usize
}

/// Bytes of the split available ring, with `used_event`.
#[must_use]
pub const fn available_ring(size: u16) -> usize {
    6 + 2 * size as usize
}

/// Bytes of the split used ring, with `avail_event`.
#[must_use]
pub const fn used_ring(size: u16) -> usize {
    6 + 8 * size as usize
}

/// The packed ring's event suppression structure (2.8.14).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct EventSuppression {
    /// Bits 14:0 the descriptor's place in the ring, bit 15 the wrap counter.
    pub off_wrap: u16,
    /// Bits 1:0 one of `EVENT_FLAGS_*`.
    pub flags: u16,
}

/// `RING_EVENT_FLAGS_ENABLE`.
pub const EVENT_FLAGS_ENABLE: u16 = 0;
/// `RING_EVENT_FLAGS_DISABLE`.
pub const EVENT_FLAGS_DISABLE: u16 = 1;
/// `RING_EVENT_FLAGS_DESC`: only for the descriptor that `off_wrap` names.
pub const EVENT_FLAGS_DESC: u16 = 2;

const _: () = assert!(size_of::<Descriptor>() == 16);
const _: () = assert!(size_of::<PackedDescriptor>() == 16);
const _: () = assert!(size_of::<UsedElement>() == 8);
const _: () = assert!(size_of::<EventSuppression>() == 4);
