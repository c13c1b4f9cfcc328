//! The in-flight table: where operations live while the kernel works on them.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::op::Op;
use crate::poller::PollerKey;

/// What a slot holds.
#[derive(Debug)]
pub(crate) enum Entry {
    Free {
        next: u32,
    },
    Io {
        owner: PollerKey,
        tag: u64,
        op: Op,
    },
    Watch {
        owner: PollerKey,
        tag: u64,
        fd: Arc<OwnedFd>,
        events: u32,
        cancelled: bool,
    },
}

/// End of the free list.
const NONE: u32 = u32::MAX;

/// A fixed number of slots that never move, with a generation each so that a late completion of a former user is
/// recognised.
#[derive(Debug)]
pub(crate) struct Table {
    slots: Box<[(u32, Entry)]>,
    free: u32,
    used: u32,
}

impl Table {
    pub(crate) fn new(capacity: u32) -> Self {
        let slots = (0..capacity)
            .map(|index| {
                let next = if index + 1 == capacity {
                    NONE
                } else {
                    index + 1
                };
                (0, Entry::Free { next })
            })
            .collect();
        Self {
            slots,
            free: if capacity == 0 { NONE } else { 0 },
            used: 0,
        }
    }

    pub(crate) fn used(&self) -> u32 {
        self.used
    }

    pub(crate) fn is_full(&self) -> bool {
        self.free == NONE
    }

    /// Puts an entry in; returns its key. The caller has checked that the table is not full.
    #[inline]
    pub(crate) fn insert(&mut self, entry: Entry) -> Option<u64> {
        let index = self.free;
        let (generation, slot) = self.slots.get_mut(index as usize)?;
        let Entry::Free { next } = *slot else {
            return None;
        };
        self.free = next;
        self.used += 1;
        *slot = entry;
        Some(u64::from(*generation) << 32 | u64::from(index))
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: u64) -> Option<&mut Entry> {
        let (generation, entry) = self.slots.get_mut((key & 0xffff_ffff) as usize)?;
        (*generation == (key >> 32) as u32).then_some(entry)
    }

    /// Takes an entry out and frees its slot.
    #[inline]
    pub(crate) fn remove(&mut self, key: u64) -> Option<Entry> {
        let index = (key & 0xffff_ffff) as u32;
        let (generation, entry) = self.slots.get_mut(index as usize)?;
        if *generation != (key >> 32) as u32 || matches!(entry, Entry::Free { .. }) {
            return None;
        }
        *generation = generation.wrapping_add(1);
        self.used -= 1;
        let taken = std::mem::replace(entry, Entry::Free { next: self.free });
        self.free = index;
        Some(taken)
    }

    /// Keys of all watches of `owner`.
    pub(crate) fn watches_of(&self, owner: PollerKey) -> Vec<u64> {
        self.slots
            .iter()
            .enumerate()
            .filter(
                |(_, (_, entry))| matches!(entry, Entry::Watch { owner: of, .. } if *of == owner),
            )
            .map(|(index, (generation, _))| u64::from(*generation) << 32 | index as u64)
            .collect()
    }
}

#[cfg(test)]
mod tests;
