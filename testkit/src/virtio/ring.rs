//! Virtqueues, driver side (VIRTIO 1.3, 2.6 to 2.8).

mod packed;
mod split;

use std::collections::VecDeque;

use virtio_spec::feature;

use super::{Error, Result};
use crate::ram::{GuestRam, RamError};

pub use packed::PackedRing;
pub use split::SplitRing;

/// A piece of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Guest-physical address.
    pub addr: u64,
    /// Length in bytes.
    pub len: u32,
}

/// Where the parts of a ring lie; guest-physical.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Areas {
    /// Descriptor table, or the packed ring.
    pub desc: u64,
    /// Available ring, or driver event suppression.
    pub driver: u64,
    /// Used ring, or device event suppression.
    pub device: u64,
}

/// How a chain is described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// In the ring itself.
    Direct,
    /// In an indirect table here, 16 bytes for each buffer.
    Indirect(u64),
    /// The first so many buffers in the ring, the rest in an indirect table (2.7.5.3.2).
    Mixed(usize, u64),
}

impl Table {
    /// Buffers in the ring, and the table for the rest.
    fn split(self, buffers: usize) -> (usize, Option<u64>) {
        match self {
            Self::Direct => (buffers, None),
            Self::Indirect(table) => (0, Some(table)),
            Self::Mixed(direct, table) => (direct.min(buffers), Some(table)),
        }
    }
}

/// A chain that the device has given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// What [`Ring::add`] returned.
    pub id: u16,
    /// Bytes written; `None` where IN_ORDER let the device leave the entry out.
    pub written: Option<u32>,
}

/// When the driver wants to be interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Each time.
    Always,
    /// Not at all. A hint only, with EVENT_IDX in a split ring it is an event index that lies far ahead.
    Never,
    /// Once that many more entries are used after the next (split: used elements, packed: descriptors). Needs EVENT_IDX.
    After(u16),
}

/// A ring of either format.
///
/// ```text
///  add ► add ► publish (kick?) … poll ► poll ► None
/// ```
#[derive(Debug)]
pub enum Ring {
    /// 2.7
    Split(SplitRing),
    /// 2.8
    Packed(PackedRing),
}

/// Calls the same method of both formats.
macro_rules! each {
    ($self:expr, $ring:ident => $body:expr) => {
        match $self {
            Ring::Split($ring) => $body,
            Ring::Packed($ring) => $body,
        }
    };
}

impl Ring {
    /// A ring with `features` negotiated: `RING_PACKED`, `EVENT_IDX` and `IN_ORDER` matter.
    ///
    /// # Errors
    /// [`RamError::Exhausted`].
    pub fn new(ram: &GuestRam, size: u16, features: u64) -> std::result::Result<Self, RamError> {
        let areas = match features & feature::RING_PACKED {
            0 => SplitRing::areas_for(ram, size)?,
            _ => PackedRing::areas_for(ram, size)?,
        };
        Ok(Self::at(ram, size, features, areas))
    }

    /// A ring whose areas lie where the caller says, as aligned as their format asks (2.7, 2.8.10).
    #[must_use]
    pub fn at(ram: &GuestRam, size: u16, features: u64, areas: Areas) -> Self {
        match features & feature::RING_PACKED {
            0 => Self::Split(SplitRing::at(ram, size, features, areas)),
            _ => Self::Packed(PackedRing::at(ram, size, features, areas)),
        }
    }

    /// Where it lies.
    #[must_use]
    pub fn areas(&self) -> Areas {
        each!(self, ring => ring.areas())
    }

    /// Number of entries.
    #[must_use]
    pub fn size(&self) -> u16 {
        each!(self, ring => ring.size())
    }

    /// Forgets what is in flight and starts anew with a zeroed ring, as after a reset of the queue.
    pub fn reset(&mut self) {
        each!(self, ring => ring.reset());
    }

    /// Puts a chain into the ring, unseen by the device until [`Ring::publish`]; its ID, or `None` without room.
    #[inline]
    pub fn add(&mut self, readable: &[Buffer], writable: &[Buffer], table: Table) -> Option<u16> {
        each!(self, ring => ring.add(readable, writable, table))
    }

    /// Makes everything added visible; whether the device wants to be told.
    #[inline]
    pub fn publish(&mut self) -> bool {
        each!(self, ring => ring.publish())
    }

    /// The next chain that the device has used.
    ///
    /// # Errors
    /// [`Error::Protocol`] for an entry that cannot be.
    #[inline]
    pub fn poll(&mut self) -> Result<Option<Used>> {
        each!(self, ring => ring.poll())
    }

    /// Says when to be interrupted. Poll once more afterwards: what was used before may not interrupt.
    pub fn interrupt(&mut self, when: When) {
        each!(self, ring => ring.interrupt(when));
    }

    /// Chains that are not yet used.
    #[must_use]
    pub fn in_flight(&self) -> u16 {
        each!(self, ring => ring.in_flight())
    }

    /// Next place to make available: a free-running index (split), or place and wrap counter in bit 15 (packed).
    #[must_use]
    pub fn avail_position(&self) -> u16 {
        each!(self, ring => ring.avail_position())
    }

    /// Next place to be used, in the same terms.
    #[must_use]
    pub fn used_position(&self) -> u16 {
        each!(self, ring => ring.used_position())
    }

    /// What a notification carries beside the queue's index with NOTIFICATION_DATA (4.1.5.2): bits 31:16.
    #[must_use]
    pub fn notification_data(&self) -> u16 {
        self.avail_position()
    }

    /// Guest-physical address of a descriptor.
    #[must_use]
    pub fn descriptor_at(&self, index: u16) -> u64 {
        self.areas().desc + 16 * u64::from(index)
    }

    /// The split ring, for its raw access.
    pub fn split(&mut self) -> Option<&mut SplitRing> {
        match self {
            Self::Split(ring) => Some(ring),
            Self::Packed(_) => None,
        }
    }

    /// The packed ring, for its raw access.
    pub fn packed(&mut self) -> Option<&mut PackedRing> {
        match self {
            Self::Packed(ring) => Some(ring),
            Self::Split(_) => None,
        }
    }
}

/// Whether an event index was passed on the way from `old` to `new` (2.7.10).
fn need_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// Chains in the order in which they were made available, for IN_ORDER: one used entry stands for all up to its chain.
#[derive(Debug, Default)]
struct InOrder {
    heads: VecDeque<u16>,
    /// The chain whose entry was seen last, and what it says, while chains before it are still to be returned.
    batch: Option<(u16, u32)>,
}

impl InOrder {
    /// The next chain of the batch, once there is one.
    fn next(&mut self) -> Result<Option<Used>> {
        let Some((last, written)) = self.batch else {
            return Ok(None);
        };
        let Some(id) = self.heads.pop_front() else {
            return Err(Error::protocol(format!("{last} was used but not in order")));
        };
        if id == last {
            self.batch = None;
        }
        Ok(Some(Used {
            id,
            written: (id == last).then_some(written),
        }))
    }
}

#[cfg(test)]
mod tests;
