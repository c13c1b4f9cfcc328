//! What remains to be done after a command's present request: the rare commands of several steps.
//!
//! A fixed number of plans bounds what such commands can hold. Where none is free the entry waits undecoded.

use std::sync::Arc;

use bdev::{Io, IoKind};
use guest_memory::{Access, DmaMap, MapView, MappingError, Region, Segments, SharedMemory};
use nvme_spec::command::DsmRange;
use zerocopy::{FromZeros, IntoBytes};

use super::request;
use crate::data::sgl::Buckets;
use crate::shard::disks::Disks;

/// Commands of several steps at once, per shard.
const MAX_PLANS: usize = 32;
/// No plan.
pub(crate) const NO_PLAN: u8 = u8::MAX;

/// What follows.
#[derive(Debug, Default)]
enum Steps {
    #[default]
    Free,
    /// Flush the namespaces above this one.
    Flush { nsid: u32 },
    /// Deallocate the ranges from this one on.
    Deallocate { next: usize },
    /// Copy what was read to where no bit bucket is.
    ReadAround {
        guest: Segments,
        buckets: Buckets,
        memory: SharedMemory,
    },
}

#[derive(Debug, Default)]
struct Plan {
    steps: Steps,
    /// Kept from use to use: 4 KiB.
    ranges: Vec<DsmRange>,
}

/// What to do after a request has ended well.
#[derive(Debug)]
pub(crate) enum Next {
    /// Another request, to the disk with this NSID if one is given, else to the same.
    Request(Option<u32>, Io),
    /// The command has ended.
    End,
}

/// All plans of a shard.
#[derive(Debug, Default)]
pub(crate) struct Plans {
    plans: Vec<Plan>,
    free: Vec<u8>,
}

impl Plans {
    fn take(&mut self, steps: Steps) -> Option<u8> {
        let id = match self.free.pop() {
            Some(id) => id,
            None if self.plans.len() < MAX_PLANS => {
                self.plans.push(Plan::default());
                u8::try_from(self.plans.len() - 1).ok()?
            }
            None => return None,
        };
        self.plans.get_mut(usize::from(id))?.steps = steps;
        Some(id)
    }

    /// Ends a plan and lets go of what it held; [`NO_PLAN`] is no plan.
    #[inline]
    pub(crate) fn release(&mut self, id: u8) {
        if id != NO_PLAN {
            self.free(id);
        }
    }

    #[cold]
    fn free(&mut self, id: u8) {
        if let Some(plan) = self.plans.get_mut(usize::from(id))
            && !matches!(plan.steps, Steps::Free)
        {
            plan.steps = Steps::Free;
            plan.ranges.clear();
            self.free.push(id);
        }
    }

    /// Flushes namespace after namespace, after `nsid` has been flushed.
    pub(super) fn flush_all(&mut self, nsid: u32) -> Option<u8> {
        self.take(Steps::Flush { nsid })
    }

    /// Reads `count` ranges of a Dataset Management command; `None` if no plan is free.
    pub(super) fn deallocate(&mut self, list: &Segments, count: usize) -> Option<u8> {
        let id = self.take(Steps::Deallocate { next: 0 })?;
        let ranges = &mut self.plans.get_mut(usize::from(id))?.ranges;
        ranges.resize(count, DsmRange::new_zeroed());
        let read = list.copy_to_slice(0, ranges.as_mut_slice().as_mut_bytes());
        debug_assert_eq!(read, count * size_of::<DsmRange>());
        // A range of no blocks is no range, wherever it is.
        ranges.retain(|range| range.nlb > 0);
        Some(id)
    }

    /// The ranges of a deallocation.
    pub(super) fn ranges(&self, id: u8) -> &[DsmRange] {
        self.plans
            .get(usize::from(id))
            .map_or(&[], |plan| &plan.ranges)
    }

    /// The next range of a deallocation as a request.
    pub(super) fn next_range(&mut self, id: u8) -> Option<Io> {
        let plan = self.plans.get_mut(usize::from(id))?;
        let Steps::Deallocate { next } = &mut plan.steps else {
            return None;
        };
        let range = plan.ranges.get(*next)?;
        let (lba, mut blocks) = (range.slba, u64::from(range.nlb));
        *next += 1;
        // Guests cut long runs into ranges: together they are one request.
        while let Some(more) = plan.ranges.get(*next)
            && lba.checked_add(blocks) == Some(more.slba)
        {
            blocks += u64::from(more.nlb);
            *next += 1;
        }
        Some(request(IoKind::Unmap, lba, blocks))
    }

    /// A read of `len` bytes into memory of our own, of which the guest gets what is not swallowed. Such reads are
    /// exotic: the memory is made for this one.
    pub(super) fn read_around(
        &mut self,
        guest: Segments,
        buckets: Buckets,
        len: usize,
    ) -> Result<Option<(u8, Segments)>, MappingError> {
        if self.free.is_empty() && self.plans.len() == MAX_PLANS {
            return Ok(None);
        }
        let memory = SharedMemory::new(c"nvme bit bucket", len)?;
        let region = Region {
            iova: 0,
            len: len as u64,
            access: Access::WRITE,
            backing: Some(Arc::clone(memory.mapping())),
        };
        let map = DmaMap::empty()
            .with(region)
            .map_err(|_| MappingError::BadRange)?;
        let mut segments = Segments::new();
        MapView::new(map)
            .push(&mut segments, 0, len, Access::WRITE)
            .map_err(|_| MappingError::BadRange)?;
        let plan = self.take(Steps::ReadAround {
            guest,
            buckets,
            memory,
        });
        Ok(plan.map(|plan| (plan, segments)))
    }

    /// What follows on a request that ended well.
    #[cold]
    pub(crate) fn advance(&mut self, id: u8, disks: &Disks) -> Next {
        let Some(plan) = self.plans.get_mut(usize::from(id)) else {
            return Next::End;
        };
        match &mut plan.steps {
            Steps::Free => Next::End,
            Steps::Flush { nsid } => match disks.after(*nsid) {
                Some(next) => {
                    *nsid = next;
                    Next::Request(Some(next), request(IoKind::Flush, 0, 0))
                }
                None => Next::End,
            },
            Steps::Deallocate { .. } => self
                .next_range(id)
                .map_or(Next::End, |io| Next::Request(None, io)),
            Steps::ReadAround {
                guest,
                buckets,
                memory,
            } => {
                give(guest, buckets, memory);
                Next::End
            }
        }
    }
}

/// Copies what lies between the buckets to the guest.
fn give(guest: &Segments, buckets: &Buckets, memory: &SharedMemory) {
    let mut chunk = [0u8; 4096];
    let mut given = 0;
    let mut at = 0;
    let ends = buckets
        .as_slice()
        .iter()
        .map(|bucket| (bucket.start, bucket.start + bucket.len));
    for (start, end) in ends.chain([(memory.len(), memory.len())]) {
        while at < start {
            let piece = &mut chunk[..(start - at).min(4096)];
            if !memory.read_slice(at, piece) {
                return;
            }
            given += guest.copy_from_slice(given, piece);
            at += piece.len();
        }
        at = end;
    }
}
