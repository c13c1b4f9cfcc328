//! A chain of buffers, and the rules that all chains keep.

use guest_memory::{Fault, MapView};
use virtio_spec::ring::{DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, Descriptor, PackedDescriptor};

use super::RingError;

/// Most buffers of one chain, over its table and its ring. A queue's size does not limit an indirect table here: drivers exist that
/// ignore `seg_max` (and 2.7.5.3.1), and a megabyte of scattered pages is 257 buffers. The limit is ours: it bounds the memory and
/// the time that one request can cost.
pub const MAX_BUFFERS: usize = 4096;

/// A part of a chain's buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Guest-physical address.
    pub addr: u64,
    /// Length in bytes; never 0, `addr + len` does not wrap.
    pub len: u32,
}

/// A chain of buffers that was taken from a ring, checked for form: readable before writable, no loop, no empty buffer. Whether
/// it lies in memory is found when it is resolved. Reused from one request to the next, so taking one allocates nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// What the device reads.
    pub readable: Vec<Buffer>,
    /// What the device writes.
    pub writable: Vec<Buffer>,
}

impl Chain {
    /// Forgets everything, keeps the room.
    #[inline]
    pub fn clear(&mut self) {
        self.readable.clear();
        self.writable.clear();
    }

    /// Adds the buffer of a descriptor.
    #[inline]
    pub(super) fn add(&mut self, addr: u64, len: u32, flags: u16) -> Result<(), RingError> {
        if len == 0 || addr.checked_add(len.into()).is_none() {
            return Err(RingError::Buffer);
        }
        if self.readable.len() + self.writable.len() >= MAX_BUFFERS {
            return Err(RingError::Length);
        }
        let buffer = Buffer { addr, len };
        if flags & DESC_F_WRITE != 0 {
            self.writable.push(buffer);
        } else if self.writable.is_empty() {
            self.readable.push(buffer);
        } else {
            return Err(RingError::Order);
        }
        Ok(())
    }

    /// Adds the chain in the indirect table of a split queue, which begins with the table's first descriptor (2.7.5.3). The WRITE
    /// flag of the descriptor that refers to the table says nothing (2.7.5.3.2).
    pub(super) fn add_split_table(
        &mut self,
        view: &MapView,
        table: u64,
        len: u32,
    ) -> Result<(), RingError> {
        let entries = entries(len)?;
        let mut index = 0;
        for _ in 0..entries {
            let words = view.read_words::<2>(entry(table, index)?)?;
            let entry: Descriptor = zerocopy::transmute!(words);
            if entry.flags & DESC_F_INDIRECT != 0 {
                return Err(RingError::Indirect);
            }
            self.add(entry.addr, entry.len, entry.flags)?;
            if entry.flags & DESC_F_NEXT == 0 {
                return Ok(());
            }
            if u32::from(entry.next) >= entries {
                return Err(RingError::Index(entry.next));
            }
            index = entry.next.into();
        }
        Err(RingError::Length)
    }

    /// Adds all descriptors of a packed queue's indirect table: there they follow each other and WRITE is the only flag with a
    /// meaning (2.8.8).
    pub(super) fn add_packed_table(
        &mut self,
        view: &MapView,
        table: u64,
        len: u32,
    ) -> Result<(), RingError> {
        for index in 0..entries(len)? {
            let words = view.read_words::<2>(entry(table, index)?)?;
            let entry: PackedDescriptor = zerocopy::transmute!(words);
            if entry.flags & DESC_F_INDIRECT != 0 {
                return Err(RingError::Indirect);
            }
            self.add(entry.addr, entry.len, entry.flags)?;
        }
        Ok(())
    }
}

/// Entries of an indirect table of `len` bytes.
#[inline]
fn entries(len: u32) -> Result<u32, RingError> {
    if len == 0 || !len.is_multiple_of(16) {
        return Err(RingError::Indirect);
    }
    Ok(len / 16)
}

/// Where an entry of an indirect table is.
#[inline]
fn entry(table: u64, index: u32) -> Result<u64, RingError> {
    table
        .checked_add(16 * u64::from(index))
        .ok_or(RingError::Memory(Fault { iova: table }))
}
