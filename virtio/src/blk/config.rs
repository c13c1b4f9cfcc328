//! What the operator decides about a device, and what the driver reads of it.

use bdev::{BdevInfo, Features};
use reactor::Observer;
use virtio_spec::blk::{Config, SECTOR_SIZE, feature};
use virtio_spec::feature::{RING_PACKED, VERSION_1};
use zerocopy::IntoBytes;

use super::events::BlkEvent;
use crate::queue::RING_FEATURES;

/// Queues at most.
pub const MAX_QUEUES: u16 = 256;
/// Longest segment that drivers are told (SIZE_MAX). Longer ones work.
const SIZE_MAX: u32 = 1 << 20;
/// Most segments that drivers are told (SEG_MAX): the pages of 4 MiB, with two descriptors for header and status beside them.
/// More work.
const SEG_MAX: u16 = 1022;
/// Most ranges of a discard or write zeroes: what Linux gathers at most.
pub(crate) const MAX_RANGES: u32 = 256;
/// Most sectors in a range of a discard: 4 GiB, so that one range of many does not keep a reset waiting for long.
pub(crate) const MAX_DISCARD_SECTORS: u32 = 8 << 20;
/// Most sectors in a range of a write zeroes, where the disk zeroes by itself: 1 GiB.
const MAX_ZERO_SECTORS: u32 = 2 << 20;
/// The same where zeroes must be written: 32 MiB.
const MAX_WRITTEN_ZERO_SECTORS: u32 = 64 << 10;

/// Settings of one device; all but the coalescing are fixed while a client is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlkConfig {
    /// Name for logs: the endpoint's path.
    pub label: String,
    /// What GET_ID answers: at most 20 bytes count.
    pub serial: String,
    /// Request queues, 1 to 256.
    pub num_queues: u16,
    /// Most entries of a queue, 2 to 32768; a power of two.
    pub queue_size: u16,
    /// Take no writes, whatever the disk takes.
    pub readonly: bool,
    /// Offer packed rings.
    pub packed: bool,
    /// Interrupt coalescing at the start.
    pub coalescing: Coalescing,
    /// Who hears of what happens to it.
    pub events: Observer<BlkEvent>,
}

impl Default for BlkConfig {
    fn default() -> Self {
        Self {
            label: String::new(),
            serial: String::new(),
            num_queues: 1,
            queue_size: 128,
            readonly: false,
            packed: false,
            coalescing: Coalescing::default(),
            events: Observer::default(),
        }
    }
}

impl BlkConfig {
    /// The same settings with every number inside its range. The operator's mistakes are refused where they are made; this
    /// keeps the device's own arithmetic safe.
    pub(crate) fn clamped(mut self) -> Self {
        self.num_queues = self.num_queues.clamp(1, MAX_QUEUES);
        self.queue_size = 1
            << self
                .queue_size
                .clamp(2, virtio_spec::MAX_QUEUE_SIZE)
                .ilog2();
        self
    }
}

/// When interrupts are held back, in SPDK's terms (`vhost_controller_set_coalescing`): a queue with no more than `iops_threshold`
/// requests per second interrupts at once; beyond it, two interrupts are at least `delay_us · (rate − threshold) / threshold`
/// apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coalescing {
    /// The delay at twice the threshold, in microseconds; 0 turns coalescing off.
    pub delay_us: u32,
    /// Requests per second of one queue.
    pub iops_threshold: u32,
}

impl Default for Coalescing {
    fn default() -> Self {
        Self {
            delay_us: 0,
            iops_threshold: 60_000,
        }
    }
}

/// What the driver is shown of a disk. Kept when the disk is taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) block_size: u32,
    physical_block_size: u32,
    pub(crate) num_blocks: u64,
    pub(crate) features: Features,
}

impl Default for Shown {
    /// Before there was a disk.
    fn default() -> Self {
        Self {
            block_size: SECTOR_SIZE,
            physical_block_size: SECTOR_SIZE,
            num_blocks: 0,
            features: Features::WRITE,
        }
    }
}

impl From<&BdevInfo> for Shown {
    fn from(info: &BdevInfo) -> Self {
        Self {
            block_size: info.block_size,
            physical_block_size: info.physical_block_size,
            num_blocks: info.num_blocks,
            features: info.features,
        }
    }
}

impl Shown {
    /// Sectors in a block.
    fn sectors(&self) -> u32 {
        (self.block_size / SECTOR_SIZE).max(1)
    }

    /// A limit in sectors, in whole blocks and at least one.
    fn whole(&self, sectors: u32) -> u32 {
        (sectors / self.sectors()).max(1) * self.sectors()
    }

    /// Most sectors in a range of a discard.
    pub(crate) fn max_discard(&self) -> u32 {
        self.whole(MAX_DISCARD_SECTORS)
    }

    /// Most sectors in a range of a write zeroes.
    pub(crate) fn max_zeroes(&self) -> u32 {
        let native = self.features.contains(Features::WRITE_ZEROES);
        self.whole(if native {
            MAX_ZERO_SECTORS
        } else {
            MAX_WRITTEN_ZERO_SECTORS
        })
    }

    fn may_unmap(&self) -> bool {
        let needed = Features::UNMAP | Features::UNMAP_ZEROES;
        self.features.contains(needed)
    }
}

/// Whether writes are refused.
fn is_readonly(config: &BlkConfig, shown: &Shown) -> bool {
    config.readonly || !shown.features.contains(Features::WRITE)
}

/// The features offered over a disk (5.2.3).
///
/// FLUSH is always offered, as 5.2.5.2 recommends: over a disk without a cache it costs nothing, and a driver that finds it after a
/// change of the disk would not look. LIFETIME is answered with "not defined" in each field (5.2.6): nobody tells us how worn
/// a file is. SECURE_ERASE is not offered: Linux has it for eMMC and little else, and only as an ioctl that blocks.
pub(crate) fn features(config: &BlkConfig, shown: &Shown) -> u64 {
    let mut features = VERSION_1
        | RING_FEATURES
        | feature::SIZE_MAX
        | feature::SEG_MAX
        | feature::BLK_SIZE
        | feature::TOPOLOGY
        | feature::MQ
        | feature::FLUSH
        | feature::LIFETIME;
    if !config.packed {
        features &= !RING_PACKED;
    }
    if is_readonly(config, shown) {
        return features | feature::RO;
    }
    features |= feature::CONFIG_WCE | feature::WRITE_ZEROES;
    if shown.features.contains(Features::UNMAP) {
        features |= feature::DISCARD;
    }
    features
}

/// The device configuration (5.2.4). Fields of features that are not offered are filled all the same.
pub(crate) fn layout(config: &BlkConfig, shown: &Shown, write_back: bool) -> Config {
    let physical = (shown.physical_block_size / shown.block_size.max(1)).max(1);
    Config {
        capacity: shown.num_blocks.saturating_mul(u64::from(shown.sectors())),
        size_max: SIZE_MAX,
        // A chain may not be longer than the queue (2.7.5.3.1), and header and status take two descriptors of it.
        seg_max: u32::from(config.queue_size.saturating_sub(2).clamp(1, SEG_MAX)),
        blk_size: shown.block_size,
        physical_block_exp: u8::try_from(physical.ilog2()).unwrap_or(0),
        min_io_size: u16::try_from(physical).unwrap_or(u16::MAX),
        wce: u8::from(write_back),
        num_queues: config.num_queues,
        max_discard_sectors: shown.max_discard(),
        max_discard_seg: MAX_RANGES,
        discard_sector_alignment: shown.sectors(),
        max_write_zeroes_sectors: shown.max_zeroes(),
        max_write_zeroes_seg: MAX_RANGES,
        write_zeroes_may_unmap: u8::from(shown.may_unmap()),
        ..Config::default()
    }
}

/// Reads bytes of the configuration; beyond its end they are zero.
pub(crate) fn read(layout: &Config, offset: usize, data: &mut [u8]) {
    data.fill(0);
    let from = layout.as_bytes().get(offset..).unwrap_or_default();
    for (out, byte) in data.iter_mut().zip(from) {
        *out = *byte;
    }
}

/// The bytes that GET_ID answers.
pub(crate) fn serial(config: &BlkConfig) -> [u8; virtio_spec::blk::ID_BYTES] {
    let mut id = [0; virtio_spec::blk::ID_BYTES];
    for (out, byte) in id.iter_mut().zip(config.serial.bytes()) {
        *out = byte;
    }
    id
}
