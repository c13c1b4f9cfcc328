//! The namespaces of a controller on one reactor: which disk an NSID means, and this shard's channel to it.
//!
//! A disk keeps its place (index) as long as commands refer to it. When its namespace leaves the set no new command
//! finds it; its channel closes when the last command in flight has ended, and the ack of whoever removed it goes with it.

use std::sync::Arc;

use bdev::{BdevInfo, Channel, Features, IoStatus, SharedBdev, Traffic};
use nvme_spec::Status;
use reactor::{Ack, Cx};

use crate::messages::MediaFault;
use crate::namespace::{Namespace, NamespaceSet};

/// So many failures one after the other are the disk's, not the blocks'.
const FAILING: u32 = 16;

/// The index of no disk.
pub(crate) const NO_DISK: u16 = u16::MAX;

/// A disk in use as a namespace.
pub(crate) struct Disk {
    nsid: u32,
    bdev: SharedBdev,
    channel: Option<Box<dyn Channel>>,
    block_shift: u32,
    blocks: u64,
    features: Features,
    /// Commands that have ended.
    pub(crate) traffic: Traffic,
    fault: Option<MediaFault>,
    /// Commands failed one after the other, and what had succeeded when the last of them failed.
    failures: u32,
    succeeded: u64,
    /// Commands in slots that refer to this disk.
    in_flight: u32,
    /// Set when the namespace has left the set.
    leaving: Option<Ack>,
}

impl Disk {
    fn new(namespace: &Namespace) -> Self {
        let mut disk = Self {
            nsid: namespace.nsid,
            bdev: Arc::clone(&namespace.bdev),
            channel: None,
            block_shift: 9,
            blocks: 0,
            features: Features::empty(),
            traffic: Traffic::default(),
            fault: None,
            failures: 0,
            succeeded: 0,
            in_flight: 0,
            leaving: None,
        };
        disk.update(&namespace.info);
        disk
    }

    fn update(&mut self, info: &BdevInfo) {
        self.block_shift = info.block_size.trailing_zeros();
        self.blocks = info.num_blocks;
        self.features = info.features;
    }

    /// The disk's name, for the operator.
    pub(crate) fn name(&self) -> String {
        self.bdev.info().name
    }

    /// Binary logarithm of the block size.
    #[inline]
    pub(crate) fn block_shift(&self) -> u32 {
        self.block_shift
    }

    /// What the disk can do.
    pub(crate) fn features(&self) -> Features {
        self.features
    }

    /// Its length in blocks.
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Whether `blocks` blocks from `lba` on exist.
    #[inline]
    pub(crate) fn contains(&self, lba: u64, blocks: u64) -> bool {
        lba.checked_add(blocks)
            .is_some_and(|end| end <= self.blocks)
    }

    /// A command has failed for this cause; a fault, if that makes one. What succeeds costs nothing here: a failure looks whether
    /// anything has succeeded since the last one.
    #[cold]
    pub(crate) fn note_failure(&mut self, cause: IoStatus) -> Option<MediaFault> {
        let fault = match cause {
            IoStatus::ReadOnly if self.features.contains(Features::WRITE) => MediaFault::ReadOnly,
            IoStatus::Failed(_) => {
                let succeeded = self.traffic.commands() - self.traffic.errors;
                if std::mem::replace(&mut self.succeeded, succeeded) != succeeded {
                    self.failures = 0;
                }
                self.failures += 1;
                if self.failures < FAILING {
                    return None;
                }
                MediaFault::Failing
            }
            _ => return None,
        };
        let is_new = self.fault.replace(fault) != Some(fault);
        if fault == MediaFault::ReadOnly {
            self.succeeded = self.traffic.written().commands;
        }
        is_new.then_some(fault)
    }

    /// Whether a fault has gone: what failed has succeeded since.
    fn has_recovered(&mut self) -> bool {
        let recovered = match self.fault {
            None => false,
            Some(MediaFault::ReadOnly) => self.traffic.written().commands != self.succeeded,
            Some(MediaFault::Failing) => {
                self.traffic.commands() - self.traffic.errors != self.succeeded
            }
        };
        if recovered {
            (self.fault, self.failures) = (None, 0);
        }
        recovered
    }

    /// Whether the namespace has left.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// The data half; `None` before it is opened.
    #[inline]
    pub(crate) fn channel(&mut self) -> Option<&mut (dyn Channel + 'static)> {
        self.channel.as_deref_mut()
    }

    #[inline]
    fn is_open(&self) -> bool {
        self.channel.is_some()
    }
}

/// Why a namespace cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoDisk {
    /// No namespace has this ID.
    Absent,
    /// It cannot be reached through this controller at present; the status says how so.
    Unreachable(Status),
    /// The disk could not be opened on this reactor.
    Closed,
}

/// All disks of the shard.
#[derive(Default)]
pub(crate) struct Disks {
    disks: Vec<Option<Disk>>,
    /// (NSID, index) of those in the set, sorted.
    by_nsid: Vec<(u32, u16)>,
    /// Those in the set that cannot be reached, with what their commands get, sorted. They have no channel: to commands they are as good
    /// as absent, which costs those to others nothing.
    unreachable: Vec<(u32, Status)>,
}

/// The namespaces whose disks are used.
fn reachable(set: &NamespaceSet) -> impl Iterator<Item = &Namespace> {
    set.iter().filter(|namespace| namespace.access.is_open())
}

impl Disks {
    /// Shows the disks that leave the present set to no new command; each keeps a clone of `ack` until it is closed. To be
    /// followed by [`Disks::admit`] once nothing but slots refers to them.
    pub(crate) fn retire(&mut self, set: &NamespaceSet, ack: &Ack) {
        self.by_nsid.clear();
        self.note_unreachable(set);
        for (disk, index) in self.disks.iter_mut().zip(0..) {
            let Some(disk) = disk.as_mut().filter(|disk| !disk.is_leaving()) else {
                continue;
            };
            let namespace = set.get(disk.nsid).filter(|namespace| {
                namespace.access.is_open() && Arc::ptr_eq(&namespace.bdev, &disk.bdev)
            });
            match namespace {
                Some(namespace) => {
                    disk.update(&namespace.info);
                    self.by_nsid.push((disk.nsid, index));
                }
                None => disk.leaving = Some(ack.clone()),
            }
        }
        self.by_nsid.sort_unstable();
    }

    /// Closes what has left and is not in use, and adds what is new in the set.
    pub(crate) fn admit(&mut self, set: &NamespaceSet) {
        for place in &mut self.disks {
            place.take_if(|disk| disk.is_leaving() && disk.in_flight == 0);
        }
        self.note_unreachable(set);
        for namespace in reachable(set) {
            if self.find(namespace.nsid).is_none() {
                self.insert(Disk::new(namespace));
                self.by_nsid.sort_unstable();
            }
        }
    }

    fn note_unreachable(&mut self, set: &NamespaceSet) {
        let closed = set.iter().filter(|namespace| !namespace.access.is_open());
        let closed = closed.map(|namespace| (namespace.nsid, namespace.access.refusal()));
        self.unreachable = closed.collect();
    }

    /// Why no disk has this NSID.
    #[cold]
    pub(crate) fn missing(&self, nsid: u32) -> NoDisk {
        let at = self
            .unreachable
            .binary_search_by_key(&nsid, |(nsid, _)| *nsid);
        let found = at.ok().and_then(|at| self.unreachable.get(at));
        found.map_or(NoDisk::Absent, |(_, status)| NoDisk::Unreachable(*status))
    }

    fn insert(&mut self, disk: Disk) {
        let free = self.disks.iter().position(Option::is_none);
        let index = free.unwrap_or(self.disks.len());
        // More than 65 536 namespaces cannot be: a subsystem's maximum is far below.
        let Some(place) = u16::try_from(index).ok().filter(|place| *place != NO_DISK) else {
            return;
        };
        self.by_nsid.push((disk.nsid, place));
        if free.is_none() {
            self.disks.push(None);
        }
        self.disks[index] = Some(disk);
    }

    /// Index of the disk with this NSID.
    #[inline]
    fn find(&self, nsid: u32) -> Option<u16> {
        // Namespaces are mostly numbered from 1 without gaps.
        if let Some((_, index)) = self
            .by_nsid
            .get((nsid as usize).wrapping_sub(1))
            .filter(|(found, _)| *found == nsid)
        {
            return Some(*index);
        }
        let at = self
            .by_nsid
            .binary_search_by_key(&nsid, |(nsid, _)| *nsid)
            .ok()?;
        self.by_nsid.get(at).map(|(_, index)| *index)
    }

    /// The disk with this NSID, opened if it was not, and its index.
    ///
    /// # Errors
    /// See [`NoDisk`].
    #[inline]
    pub(crate) fn open(&mut self, cx: &mut Cx, nsid: u32) -> Result<(u16, &Disk), NoDisk> {
        let Some(index) = self.find(nsid) else {
            return Err(self.missing(nsid));
        };
        let disk = self
            .disks
            .get_mut(usize::from(index))
            .and_then(Option::as_mut);
        let disk = disk.ok_or(NoDisk::Absent)?;
        if !disk.is_open() {
            open_channel(cx, disk)?;
        }
        Ok((index, disk))
    }

    /// The first disk with an NSID above `nsid` that has not left: for commands to all namespaces.
    pub(crate) fn after(&self, nsid: u32) -> Option<u32> {
        let at = self.by_nsid.partition_point(|(other, _)| *other <= nsid);
        self.by_nsid.get(at).map(|(nsid, _)| *nsid)
    }

    /// A disk by index.
    #[inline]
    pub(crate) fn get(&mut self, index: u16) -> Option<&mut Disk> {
        self.disks.get_mut(usize::from(index))?.as_mut()
    }

    /// Namespaces whose fault has gone since the last call.
    pub(crate) fn recovered(&mut self) -> impl Iterator<Item = u32> {
        let disks = self.disks.iter_mut().flatten();
        disks.filter_map(|disk| disk.has_recovered().then_some(disk.nsid))
    }

    /// What was counted of each namespace in the set.
    pub(crate) fn traffic(&self) -> impl Iterator<Item = (u32, &Traffic)> {
        let present = self
            .disks
            .iter()
            .flatten()
            .filter(|disk| !disk.is_leaving());
        present.map(|disk| (disk.nsid, &disk.traffic))
    }

    /// Lets go on what the disks hold back on purpose: of all, or of those that leave the set.
    pub(crate) fn expedite(&mut self, cx: &mut Cx, leaving_only: bool) {
        for disk in self.disks.iter_mut().flatten() {
            if (disk.is_leaving() || !leaving_only)
                && let Some(channel) = &mut disk.channel
            {
                channel.expedite(cx, None);
            }
        }
    }

    /// A command that refers to the disk enters a slot.
    #[inline]
    pub(crate) fn hold(&mut self, index: u16) {
        if let Some(disk) = self.get(index) {
            disk.in_flight += 1;
        }
    }

    /// It leaves the slot.
    #[inline]
    pub(crate) fn release(&mut self, index: u16) {
        if let Some(disk) = self.get(index) {
            disk.in_flight = disk.in_flight.saturating_sub(1);
            if disk.in_flight == 0 && disk.is_leaving() {
                self.close(index);
            }
        }
    }

    #[cold]
    fn close(&mut self, index: u16) {
        if let Some(place) = self.disks.get_mut(usize::from(index)) {
            *place = None;
        }
    }
}

#[cold]
fn open_channel(cx: &mut Cx, disk: &mut Disk) -> Result<(), NoDisk> {
    match bdev::open(&disk.bdev, cx) {
        Ok(channel) => {
            disk.channel = Some(channel);
            Ok(())
        }
        Err(error) => {
            let name = disk.name();
            tracing::error!(bdev = name, nsid = disk.nsid, lcore = cx.handle().lcore(), %error,
                "a disk cannot be opened on this reactor; commands to it fail until it can");
            Err(NoDisk::Closed)
        }
    }
}
