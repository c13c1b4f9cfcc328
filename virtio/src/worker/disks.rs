//! The device's disk on one reactor, and former ones until the requests that were meant for them have ended.

use bdev::{Channel, Features, SharedBdev};
use reactor::{Ack, Cx, LogLimit};
use virtio_spec::blk::SECTOR_SIZE;

use crate::blk::config::Shown;
use crate::blk::messages::Target;

/// The index of no disk.
pub(super) const NO_DISK: u16 = u16::MAX;

/// A disk.
pub(super) struct Disk {
    bdev: SharedBdev,
    shown: Shown,
    /// `None` before the first request.
    channel: Option<Box<dyn Channel>>,
    /// Binary logarithm of the sectors in a block.
    sector_shift: u32,
    /// Whether a write is durable only if that is asked for.
    cached: bool,
    /// Requests in slots that refer to it.
    in_flight: u32,
    /// Set when another has taken its place.
    leaving: Option<Ack>,
}

impl Disk {
    fn new(target: Target) -> Self {
        let Target { bdev, shown } = target;
        Self {
            bdev,
            channel: None,
            sector_shift: (shown.block_size / SECTOR_SIZE).max(1).trailing_zeros(),
            cached: shown.features.contains(Features::WRITE_CACHE),
            shown,
            in_flight: 0,
            leaving: None,
        }
    }

    /// Its name, for the operator.
    pub(super) fn name(&self) -> String {
        self.bdev.info().name
    }

    #[inline]
    pub(super) fn channel(&mut self) -> Option<&mut (dyn Channel + 'static)> {
        self.channel.as_deref_mut()
    }

    /// Binary logarithm of the block size.
    #[inline]
    pub(super) fn block_shift(&self) -> u32 {
        self.sector_shift + SECTOR_SIZE.trailing_zeros()
    }

    #[inline]
    fn expedite(&mut self, cx: &mut Cx) {
        if let Some(channel) = &mut self.channel {
            channel.expedite(cx, None);
        }
    }

    pub(super) fn is_cached(&self) -> bool {
        self.cached
    }

    pub(super) fn shown(&self) -> &Shown {
        &self.shown
    }

    /// A number of sectors in blocks, if they are whole.
    #[inline]
    pub(super) fn blocks(&self, sectors: u64) -> Option<u64> {
        let blocks = sectors >> self.sector_shift;
        (blocks << self.sector_shift == sectors).then_some(blocks)
    }
}

/// The present disk and former ones.
pub(super) struct Disks {
    disks: Vec<Option<Disk>>,
    current: u16,
    /// Disks that leave.
    leaving: u16,
    limit: LogLimit,
}

impl Disks {
    pub(super) fn new(target: Option<Target>) -> Self {
        let mut disks = Self {
            disks: Vec::new(),
            current: NO_DISK,
            leaving: 0,
            limit: LogLimit::new(),
        };
        disks.admit(target);
        disks
    }

    fn admit(&mut self, target: Option<Target>) {
        self.current = NO_DISK;
        let Some(target) = target else { return };
        let free = self.disks.iter().position(Option::is_none);
        let index = free.unwrap_or(self.disks.len());
        if free.is_none() {
            self.disks.push(None);
        }
        // Each disk that leaves has an ack that somebody waits for, so there are never that many.
        let Some(index) = u16::try_from(index).ok().filter(|index| *index != NO_DISK) else {
            return;
        };
        self.current = index;
        self.disks[usize::from(index)] = Some(Disk::new(target));
    }

    /// Puts another disk, or none, in the place of the present one, which keeps `ack` until nobody refers to it.
    pub(super) fn swap(&mut self, cx: &mut Cx, target: Option<Target>, ack: Ack) {
        if let Some(disk) = self.get(self.current) {
            disk.leaving = Some(ack);
            disk.expedite(cx);
            self.leaving += 1;
        }
        self.admit(target);
    }

    /// Lets go on what the disks hold back on purpose.
    pub(super) fn expedite(&mut self, cx: &mut Cx) {
        for disk in self.disks.iter_mut().flatten() {
            disk.expedite(cx);
        }
    }

    /// The present disk has so many blocks.
    pub(super) fn resize(&mut self, blocks: u64) {
        if let Some(disk) = self.get(self.current) {
            disk.shown.num_blocks = blocks;
        }
    }

    /// A disk by index.
    #[inline]
    pub(super) fn get(&mut self, index: u16) -> Option<&mut Disk> {
        self.disks.get_mut(usize::from(index))?.as_mut()
    }

    /// The present disk, opened if it was not, and its index.
    #[inline]
    pub(super) fn open(&mut self, cx: &mut Cx) -> Option<(u16, &mut Disk)> {
        let index = self.current;
        let disk = self.disks.get_mut(usize::from(index))?.as_mut()?;
        if disk.channel.is_none() {
            open_channel(cx, disk, &mut self.limit)?;
        }
        Some((index, disk))
    }

    /// A request that refers to the disk enters a slot.
    #[inline]
    pub(super) fn hold(&mut self, index: u16) {
        if let Some(disk) = self.get(index) {
            disk.in_flight += 1;
        }
    }

    /// It leaves the slot.
    #[inline]
    pub(super) fn release(&mut self, index: u16) {
        if let Some(disk) = self.get(index) {
            disk.in_flight = disk.in_flight.saturating_sub(1);
        }
    }

    /// Whether a disk waits for its last request.
    #[inline]
    pub(super) fn has_leaving(&self) -> bool {
        self.leaving > 0
    }

    /// Closes disks that have left and are in no slot, unless `refers` says that a request outside of slots is meant for it.
    #[cold]
    pub(super) fn sweep(&mut self, refers: impl Fn(u16) -> bool) {
        for (place, index) in self.disks.iter_mut().zip(0..) {
            let done = |disk: &mut Disk| disk.leaving.is_some() && disk.in_flight == 0;
            if !refers(index) && place.take_if(done).is_some() {
                self.leaving -= 1;
            }
        }
    }
}

#[cold]
fn open_channel(cx: &mut Cx, disk: &mut Disk, limit: &mut LogLimit) -> Option<()> {
    match bdev::open(&disk.bdev, cx) {
        Ok(channel) => {
            disk.channel = Some(channel);
            Some(())
        }
        Err(error) => {
            if let Some(suppressed) = limit.admit() {
                tracing::error!(bdev = disk.name(), lcore = cx.handle().lcore(), %error, suppressed,
                    "a disk cannot be opened on this reactor; requests to it fail until it can");
            }
            None
        }
    }
}
