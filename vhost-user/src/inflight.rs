//! The region in which requests in flight are written down ("Inflight I/O tracking").

use std::os::fd::OwnedFd;

use guest_memory::SharedMemory;
use virtio::{Inflight, inflight_size};
use virtio_spec::feature::RING_PACKED;

use crate::Refusal;
use crate::wire;

/// Makes a region as a client wants it, all zero. What was granted, and the memory.
pub(crate) fn make(
    wanted: &wire::Inflight,
    features: u64,
) -> Result<(wire::Inflight, SharedMemory), Refusal> {
    // A front-end that asks before the features are chosen may yet choose the larger format.
    let format = if features == 0 { RING_PACKED } else { features };
    let len = inflight_size(format, wanted.queue_size).saturating_mul(wanted.num_queues.into());
    let memory = SharedMemory::new(c"vhost-user-inflight", len)
        .map_err(|error| Refusal::new(format!("no in-flight region could be made: {error}")))?;
    let granted = wire::Inflight {
        mmap_size: len as u64,
        mmap_offset: 0,
        ..*wanted
    };
    Ok((granted, memory))
}

/// A region that a client gave.
#[derive(Debug)]
pub(crate) struct Region {
    memory: SharedMemory,
    num_queues: u16,
    queue_size: u16,
}

impl Region {
    /// Maps it.
    pub(crate) fn map(given: wire::Inflight, fd: OwnedFd) -> Result<Self, Refusal> {
        let memory =
            SharedMemory::from_fd(fd, given.mmap_offset, given.mmap_size).map_err(|error| {
                Refusal::new(format!("the in-flight region cannot be mapped: {error}"))
            })?;
        Ok(Self {
            memory,
            num_queues: given.num_queues,
            queue_size: given.queue_size,
        })
    }

    pub(crate) fn memory(&self) -> &SharedMemory {
        &self.memory
    }

    /// The part of a queue of `size` entries. The format follows the ring's, which may be chosen after the region is given.
    pub(crate) fn of(&self, index: usize, size: u16, features: u64) -> Result<Inflight, Refusal> {
        let len = inflight_size(features, self.queue_size);
        let offset = len.saturating_mul(index);
        let end = offset.saturating_add(len);
        if index >= usize::from(self.num_queues) || size > self.queue_size {
            return Err(Refusal::new(format!(
                "the in-flight region is of {} queues of {} entries, but queue {index} has {size}",
                self.num_queues, self.queue_size
            )));
        }
        if end > self.memory.len() {
            return Err(Refusal::new(
                "the in-flight region is shorter than its queues need",
            ));
        }
        Ok(Inflight {
            memory: self.memory.clone(),
            offset,
            len,
        })
    }
}

#[cfg(test)]
mod tests;
