//! Requests between their submission to a disk and their end, and those that wait for a further step.
//!
//! Slots are made when first needed, within a capacity reserved at the queue's start: a deep queue costs address space, not memory.
//! A request that ends inside `submit` never enters one.

use bdev::Io;
use reactor::Op;

use super::request::Request;

/// End of a list.
const NONE: u32 = u32::MAX;

/// What a request in a slot waits for.
#[derive(Debug)]
pub(super) enum State {
    /// Nothing: the slot is free.
    Free,
    /// The end of an operation in the ring.
    InRing,
    /// Room in the ring, to go on with this operation.
    Stalled(Op),
    /// Room in the ring, or simply its turn, for its next step.
    Waiting(Io),
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    /// Next in the free list or in the list of those to be tried again.
    next: u32,
    request: Request,
    state: State,
}

/// The slots of one queue.
#[derive(Debug)]
pub(super) struct Slots {
    /// The queue's place in its worker, for tags.
    queue: u16,
    slots: Vec<Slot>,
    free: u32,
    used: u32,
    /// First and last of those to be tried again, and how many there are.
    first: u32,
    last: u32,
    queued: u32,
}

impl Slots {
    pub(super) fn new(queue: u16, size: u16) -> Self {
        Self {
            queue,
            slots: Vec::with_capacity(usize::from(size)),
            free: NONE,
            used: 0,
            first: NONE,
            last: NONE,
            queued: 0,
        }
    }

    /// Slots in use.
    #[inline]
    pub(super) fn used(&self) -> u32 {
        self.used
    }

    /// How many requests wait to be tried again.
    #[inline]
    pub(super) fn queued(&self) -> u32 {
        self.queued
    }

    #[inline]
    fn tag(&self, index: u32, generation: u32) -> u64 {
        u64::from(self.queue) << 48 | u64::from(index & 0xffff) << 32 | u64::from(generation)
    }

    /// The place of the queue that a tag names.
    #[inline]
    pub(super) fn queue_of(tag: u64) -> usize {
        (tag >> 48) as usize
    }

    /// The tag that the next [`Slots::insert`] will use, to submit with.
    #[inline]
    pub(super) fn next_tag(&mut self) -> u64 {
        if self.free == NONE {
            self.grow();
        }
        let generation = self
            .slots
            .get(self.free as usize)
            .map_or(0, |slot| slot.generation);
        self.tag(self.free, generation)
    }

    /// One slot more. A ring has no more chains in flight than entries, so the reserved capacity is enough, and the index fits
    /// 16 bits.
    #[cold]
    fn grow(&mut self) {
        self.free = u32::try_from(self.slots.len()).unwrap_or(NONE - 1);
        self.slots.push(Slot {
            generation: 0,
            next: NONE,
            request: Request::default(),
            state: State::Free,
        });
    }

    /// Puts a request into the slot that [`Slots::next_tag`] named.
    #[inline]
    pub(super) fn insert(&mut self, request: Request, state: State) {
        let index = self.free;
        let Some(slot) = self.slots.get_mut(index as usize) else {
            debug_assert!(false, "next_tag comes first");
            return;
        };
        self.free = slot.next;
        slot.next = NONE;
        slot.request = request;
        self.used += 1;
        self.set(index, state);
    }

    /// The slot with this tag, if it is still the same request's.
    #[inline]
    pub(super) fn find(&self, tag: u64) -> Option<u32> {
        let index = (tag >> 32 & 0xffff) as u32;
        let slot = self.slots.get(index as usize)?;
        let same = slot.generation == (tag & 0xffff_ffff) as u32;
        (same && !matches!(slot.state, State::Free)).then_some(index)
    }

    /// The tag of a slot in use.
    pub(super) fn tag_of(&self, index: u32) -> Option<u64> {
        let slot = self.slots.get(index as usize)?;
        Some(self.tag(index, slot.generation))
    }

    /// The request in a slot.
    #[inline]
    pub(super) fn request(&mut self, index: u32) -> Option<&mut Request> {
        let slot = self.slots.get_mut(index as usize)?;
        (!matches!(slot.state, State::Free)).then_some(&mut slot.request)
    }

    /// Frees a slot that is in no list.
    #[inline]
    pub(super) fn remove(&mut self, index: u32) -> Option<Request> {
        let slot = self.slots.get_mut(index as usize)?;
        if matches!(slot.state, State::Free) {
            return None;
        }
        slot.generation = slot.generation.wrapping_add(1);
        slot.next = std::mem::replace(&mut self.free, index);
        slot.state = State::Free;
        self.used -= 1;
        Some(std::mem::take(&mut slot.request))
    }

    /// Changes what a slot in no list waits for; unless that is the ring, it is tried again after all others.
    #[inline]
    pub(super) fn set(&mut self, index: u32, state: State) {
        let queue = !matches!(state, State::InRing);
        if let Some(slot) = self.slots.get_mut(index as usize) {
            slot.state = state;
            if queue {
                self.push(index);
            }
        }
    }

    fn push(&mut self, index: u32) {
        let last = std::mem::replace(&mut self.last, index);
        match self.slots.get_mut(last as usize) {
            Some(slot) => slot.next = index,
            None => self.first = index,
        }
        self.queued += 1;
    }

    /// Takes the first request that waits to be tried again; its slot stays its own, in state [`State::InRing`].
    pub(super) fn pop(&mut self) -> Option<(u32, State)> {
        let index = self.first;
        let slot = self.slots.get_mut(index as usize)?;
        self.first = std::mem::replace(&mut slot.next, NONE);
        if self.first == NONE {
            self.last = NONE;
        }
        self.queued -= 1;
        Some((index, std::mem::replace(&mut slot.state, State::InRing)))
    }

    /// All requests in slots.
    pub(super) fn requests(&mut self) -> impl Iterator<Item = &mut Request> {
        let used = |slot: &&mut Slot| !matches!(slot.state, State::Free);
        self.slots
            .iter_mut()
            .filter(used)
            .map(|slot| &mut slot.request)
    }
}
