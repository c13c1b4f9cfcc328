//! The block device (5.2).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a sector: the unit of every number of sectors, whatever the block size (5.2.4).
pub const SECTOR_SIZE: u32 = 512;

/// Feature bits (5.2.3).
pub mod feature {
    /// `size_max` is valid.
    pub const SIZE_MAX: u64 = 1 << 1;
    /// `seg_max` is valid.
    pub const SEG_MAX: u64 = 1 << 2;
    /// `geometry` is valid.
    pub const GEOMETRY: u64 = 1 << 4;
    /// Read-only.
    pub const RO: u64 = 1 << 5;
    /// `blk_size` is valid.
    pub const BLK_SIZE: u64 = 1 << 6;
    /// Takes flushes.
    pub const FLUSH: u64 = 1 << 9;
    /// `topology` is valid.
    pub const TOPOLOGY: u64 = 1 << 10;
    /// The driver may switch the write cache.
    pub const CONFIG_WCE: u64 = 1 << 11;
    /// `num_queues` is valid.
    pub const MQ: u64 = 1 << 12;
    /// Takes discards.
    pub const DISCARD: u64 = 1 << 13;
    /// Takes write zeroes.
    pub const WRITE_ZEROES: u64 = 1 << 14;
    /// Tells its life time.
    pub const LIFETIME: u64 = 1 << 15;
    /// Takes secure erase.
    pub const SECURE_ERASE: u64 = 1 << 16;
    /// Zoned.
    pub const ZONED: u64 = 1 << 17;
}

/// `VIRTIO_BLK_T_IN`: read.
pub const T_IN: u32 = 0;
/// `VIRTIO_BLK_T_OUT`: write.
pub const T_OUT: u32 = 1;
/// `VIRTIO_BLK_T_FLUSH`.
pub const T_FLUSH: u32 = 4;
/// `VIRTIO_BLK_T_GET_ID`.
pub const T_GET_ID: u32 = 8;
/// `VIRTIO_BLK_T_GET_LIFETIME`.
pub const T_GET_LIFETIME: u32 = 10;
/// `VIRTIO_BLK_T_DISCARD`.
pub const T_DISCARD: u32 = 11;
/// `VIRTIO_BLK_T_WRITE_ZEROES`.
pub const T_WRITE_ZEROES: u32 = 13;
/// `VIRTIO_BLK_T_SECURE_ERASE`.
pub const T_SECURE_ERASE: u32 = 14;

/// `VIRTIO_BLK_S_OK`.
pub const S_OK: u8 = 0;
/// `VIRTIO_BLK_S_IOERR`.
pub const S_IOERR: u8 = 1;
/// `VIRTIO_BLK_S_UNSUPP`.
pub const S_UNSUPP: u8 = 2;

/// Bytes of the answer to [`T_GET_ID`]: not terminated if it fills them.
pub const ID_BYTES: usize = 20;

/// What a request begins with (5.2.6).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct RequestHeader {
    /// `T_*`.
    pub kind: u32,
    /// Reserved (legacy I/O priority).
    pub reserved: u32,
    /// First sector.
    pub sector: u64,
}

/// A range of a discard, write zeroes or secure erase (5.2.6).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Range {
    /// First sector.
    pub sector: u64,
    /// Number of sectors.
    pub num_sectors: u32,
    /// [`RANGE_UNMAP`].
    pub flags: u32,
}

/// Write zeroes may deallocate.
pub const RANGE_UNMAP: u32 = 1;

/// The answer to [`T_GET_LIFETIME`] (5.2.6).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Lifetime {
    /// 1 normal, 2 warning (80 % of the spare blocks are used), 3 urgent (90 %).
    pub pre_eol_info: u16,
    /// SLC life time used, in tenths (1 = up to 10 %), 0 undefined.
    pub device_lifetime_est_typ_a: u16,
    /// MLC life time used.
    pub device_lifetime_est_typ_b: u16,
}

/// The device configuration (5.2.4). Packed in the specification's sense: natural alignment leaves no holes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Config {
    /// Length in sectors.
    pub capacity: u64,
    /// Longest segment in bytes.
    pub size_max: u32,
    /// Most segments of a request.
    pub seg_max: u32,
    /// Legacy geometry.
    pub cylinders: u16,
    /// Legacy geometry.
    pub heads: u8,
    /// Legacy geometry.
    pub sectors: u8,
    /// Block size in bytes.
    pub blk_size: u32,
    /// Logical blocks per physical block, as a power of two.
    pub physical_block_exp: u8,
    /// Offset of the first aligned logical block.
    pub alignment_offset: u8,
    /// Suggested smallest I/O in blocks.
    pub min_io_size: u16,
    /// Suggested largest I/O in blocks.
    pub opt_io_size: u32,
    /// 1 = write-back; the driver's to write with `CONFIG_WCE`.
    pub wce: u8,
    /// Unused.
    pub unused0: u8,
    /// Number of request queues.
    pub num_queues: u16,
    /// Most sectors of a discard.
    pub max_discard_sectors: u32,
    /// Most ranges of a discard.
    pub max_discard_seg: u32,
    /// Alignment of discards in sectors.
    pub discard_sector_alignment: u32,
    /// Most sectors of a write zeroes.
    pub max_write_zeroes_sectors: u32,
    /// Most ranges of a write zeroes.
    pub max_write_zeroes_seg: u32,
    /// Whether write zeroes may deallocate.
    pub write_zeroes_may_unmap: u8,
    /// Unused.
    pub unused1: [u8; 3],
    /// Most sectors of a secure erase.
    pub max_secure_erase_sectors: u32,
    /// Most ranges of a secure erase.
    pub max_secure_erase_seg: u32,
    /// Alignment of secure erases in sectors.
    pub secure_erase_sector_alignment: u32,
}

const _: () = assert!(size_of::<RequestHeader>() == 16);
const _: () = assert!(size_of::<Range>() == 16);
const _: () = assert!(size_of::<Config>() == 72);
const _: () = assert!(core::mem::offset_of!(Config, num_queues) == 34);
const _: () = assert!(core::mem::offset_of!(Config, max_secure_erase_sectors) == 60);
