//! Commands between their submission to a disk and their completion.
//!
//! One slot stands for one reserved place in the completion queue, so there are as many as the queue has places and a
//! command that was taken always finds one. Slots are made when first needed, within a capacity reserved at the
//! queue's creation: a deep queue costs address space, not memory. A command that ends inside `submit` never enters one.

use bdev::Io;
use nvme_spec::Status;
use reactor::Op;

use crate::command::Command;

/// End of a list.
const NONE: u32 = u32::MAX;

/// What a command in a slot waits for.
#[derive(Debug)]
pub(crate) enum State {
    /// Nothing: the slot is free.
    Free,
    /// The end of an operation in the ring.
    InRing,
    /// Room in the ring, to go on with this operation.
    Stalled(Op),
    /// Room in the ring, or simply its turn, for its next request.
    Waiting(Io),
    /// The completion queue to be mapped again.
    Unposted(Status),
}

/// A slot.
#[derive(Debug)]
pub(crate) struct Slot {
    generation: u32,
    /// Next in the free list or in the list of those to be tried again.
    next: u32,
    pub(crate) command: Command,
    pub(crate) state: State,
}

/// The slots of one completion queue.
#[derive(Debug)]
pub(crate) struct Slots {
    /// Which completion queue, for tags.
    group: u16,
    slots: Vec<Slot>,
    capacity: u32,
    free: u32,
    used: u32,
    /// First and last of those to be tried again.
    first: u32,
    last: u32,
}

impl Slots {
    /// Slots for a completion queue with `capacity` places (at most 65 535).
    pub(crate) fn new(group: u16, capacity: u32) -> Self {
        Self {
            group,
            slots: Vec::with_capacity(capacity as usize),
            capacity,
            free: NONE,
            used: 0,
            first: NONE,
            last: NONE,
        }
    }

    /// Slots in use.
    #[inline]
    pub(crate) fn used(&self) -> u32 {
        self.used
    }

    #[inline]
    fn at(&mut self, index: u32) -> Option<&mut Slot> {
        self.slots.get_mut(index as usize)
    }

    #[inline]
    fn tag(&self, index: u32, generation: u32) -> u64 {
        u64::from(self.group) << 48 | u64::from(index & 0xffff) << 32 | u64::from(generation)
    }

    /// The group that a tag names.
    #[inline]
    pub(crate) fn group_of(tag: u64) -> usize {
        (tag >> 48) as usize
    }

    /// The tag that the next [`Slots::insert`] will use, to submit with; `None` if all are in use.
    #[inline]
    pub(crate) fn next_tag(&mut self) -> Option<u64> {
        if self.free == NONE {
            self.grow()?;
        }
        let index = self.free;
        let generation = self.at(index)?.generation;
        Some(self.tag(index, generation))
    }

    #[cold]
    fn grow(&mut self) -> Option<()> {
        let index = u32::try_from(self.slots.len())
            .ok()
            .filter(|index| *index < self.capacity)?;
        self.slots.push(Slot {
            generation: 0,
            next: NONE,
            command: Command::default(),
            state: State::Free,
        });
        self.free = index;
        Some(())
    }

    /// Puts a command into the slot that [`Slots::next_tag`] named.
    #[inline]
    pub(crate) fn insert(&mut self, command: Command, state: State) {
        let index = self.free;
        let queue = matches!(
            state,
            State::Waiting(_) | State::Stalled(_) | State::Unposted(_)
        );
        let Some(slot) = self.slots.get_mut(index as usize) else {
            debug_assert!(false, "next_tag comes first");
            return;
        };
        self.free = slot.next;
        slot.next = NONE;
        slot.command = command;
        slot.state = state;
        self.used += 1;
        if queue {
            self.push(index);
        }
    }

    /// The slot with this tag, if it is still the same command's, and its index.
    #[inline]
    pub(crate) fn find(&mut self, tag: u64) -> Option<(u32, &mut Slot)> {
        let index = (tag >> 32 & 0xffff) as u32;
        let generation = (tag & 0xffff_ffff) as u32;
        let slot = self.slots.get_mut(index as usize)?;
        (slot.generation == generation && !matches!(slot.state, State::Free))
            .then_some((index, slot))
    }

    /// The tag of a slot in use.
    pub(crate) fn tag_of(&mut self, index: u32) -> Option<u64> {
        let generation = self.at(index)?.generation;
        Some(self.tag(index, generation))
    }

    /// Frees a slot that is in no list; what it held is returned.
    #[inline]
    pub(crate) fn remove(&mut self, index: u32) -> Option<(Command, State)> {
        let free = self.free;
        let slot = self
            .at(index)
            .filter(|slot| !matches!(slot.state, State::Free))?;
        slot.generation = slot.generation.wrapping_add(1);
        slot.next = free;
        let state = std::mem::replace(&mut slot.state, State::Free);
        let command = slot.command;
        self.free = index;
        self.used -= 1;
        Some((command, state))
    }

    /// Changes what a slot in no list waits for; unless that is the ring, it is tried again after all others.
    pub(crate) fn set(&mut self, index: u32, command: Command, state: State) {
        let queue = !matches!(state, State::InRing);
        if let Some(slot) = self.at(index) {
            slot.command = command;
            slot.state = state;
            if queue {
                self.push(index);
            }
        }
    }

    fn push(&mut self, index: u32) {
        let last = std::mem::replace(&mut self.last, index);
        match self.at(last) {
            Some(slot) => slot.next = index,
            None => self.first = index,
        }
    }

    /// Whether a command waits to be tried again.
    #[inline]
    pub(crate) fn has_queued(&self) -> bool {
        self.first != NONE
    }

    /// Takes the first command that waits to be tried again; its slot stays its own, in state [`State::InRing`].
    pub(crate) fn pop(&mut self) -> Option<(u32, Command, State)> {
        let index = self.first;
        let slot = self.slots.get_mut(index as usize)?;
        self.first = std::mem::replace(&mut slot.next, NONE);
        if self.first == NONE {
            self.last = NONE;
        }
        Some((
            index,
            slot.command,
            std::mem::replace(&mut slot.state, State::InRing),
        ))
    }

    /// How many wait to be tried again.
    pub(crate) fn queued(&self) -> usize {
        let mut count = 0;
        let mut index = self.first;
        while let Some(slot) = self.slots.get(index as usize) {
            count += 1;
            index = slot.next;
        }
        count
    }
}

#[cfg(test)]
mod tests;
