//! What is in flight, written down where the next process finds it (vhost-user, "Inflight I/O tracking").
//!
//! Stores have release ordering, so they reach the shared memory in the order of the text, and a process that is killed leaves all
//! of those before. Fields that the VMM could change under us are kept here and only written; what is read back is bounded.

use virtio_spec::feature::RING_PACKED;
use virtio_spec::ring::{DESC_F_AVAIL, DESC_F_USED, PackedDescriptor};

use super::RingError;
use super::event::Place;
use crate::device::Inflight;

/// Queues' parts of the region begin at multiples of this, as those of other back-ends do.
const PART_ALIGN: usize = 64;
/// The version of both layouts; 0 is memory that nobody has initialised.
const VERSION: u16 = 1;

/// Bytes that a queue of `size` entries takes in the region, for the format that `features` chooses.
#[must_use]
pub fn inflight_size(features: u64, size: u16) -> usize {
    let states = if features & RING_PACKED == 0 {
        split::STATE
    } else {
        packed::STATE
    };
    // At most 32 × 65536 + 32.
    (states * usize::from(size) + 32).next_multiple_of(PART_ALIGN)
}

/// `QueueRegionSplit` and `DescStateSplit`: offsets in bytes.
mod split {
    pub(super) const LAST_BATCH_HEAD: usize = 12;
    pub(super) const USED_IDX: usize = 14;
    pub(super) const STATES: usize = 16;

    pub(super) const STATE: usize = 16;
    pub(super) const INFLIGHT: usize = 0;
    pub(super) const NEXT: usize = 6;
    pub(super) const COUNTER: usize = 8;
}

/// `QueueRegionPacked` and `DescStatePacked`: offsets in bytes.
mod packed {
    pub(super) const FREE_HEAD: usize = 12;
    pub(super) const OLD_FREE_HEAD: usize = 14;
    pub(super) const USED_IDX: usize = 16;
    pub(super) const OLD_USED_IDX: usize = 18;
    pub(super) const USED_WRAP: usize = 20;
    pub(super) const OLD_USED_WRAP: usize = 21;
    pub(super) const STATES: usize = 32;

    pub(super) const STATE: usize = 32;
    pub(super) const INFLIGHT: usize = 0;
    pub(super) const NEXT: usize = 2;
    pub(super) const LAST: usize = 4;
    pub(super) const NUM: usize = 6;
    pub(super) const COUNTER: usize = 8;
    pub(super) const ID: usize = 16;
    pub(super) const FLAGS: usize = 18;
    pub(super) const LEN: usize = 20;
    pub(super) const ADDR: usize = 24;
}

/// Common to both.
const FEATURES: usize = 0;
const VERSION_AT: usize = 8;
const DESC_NUM: usize = 10;

/// A store that matters to the next process is done: in tests, a place to die.
#[inline(always)]
pub(super) fn step() {
    #[cfg(test)]
    super::testing::step();
}

/// A queue's part of the region.
#[derive(Debug)]
struct Part(Inflight);

macro_rules! accessors {
    ($($load:ident, $store:ident, $get:ident, $set:ident, $int:ident;)*) => {
        $(
            #[inline]
            fn $get(&self, at: usize) -> $int {
                if self.has(at, size_of::<$int>()) {
                    self.0.memory.$load(self.0.offset + at)
                } else {
                    0
                }
            }

            #[inline]
            fn $set(&self, at: usize, value: $int) {
                if self.has(at, size_of::<$int>()) {
                    self.0.memory.$store(self.0.offset + at, value);
                    step();
                }
            }
        )*
    };
}

impl Part {
    fn new(inflight: &Inflight, features: u64, size: u16) -> Result<Self, RingError> {
        let len = inflight_size(features, size);
        let inside = inflight.len >= len
            && inflight
                .offset
                .checked_add(len)
                .is_some_and(|end| end <= inflight.memory.len());
        // A mapping lies in our memory as it lies in its file.
        let aligned =
            inflight.offset.is_multiple_of(8) && inflight.memory.file_offset().is_multiple_of(8);
        if inside && aligned {
            Ok(Self(Inflight {
                len,
                ..inflight.clone()
            }))
        } else {
            Err(RingError::Setup(size))
        }
    }

    /// Whether the part has these bytes: a VMM that changes our links leads us nowhere else.
    #[inline]
    fn has(&self, at: usize, len: usize) -> bool {
        at + len <= self.0.len
    }

    /// Whether the part was in use for a ring of this size. One that was in use for another size and has nothing in flight is
    /// initialised anew.
    fn in_use(&self, size: u16, states: usize, state: usize) -> Result<bool, RingError> {
        if self.u16(VERSION_AT) != VERSION {
            return Ok(false);
        }
        // Other back-ends leave the number out.
        let desc_num = self.u16(DESC_NUM);
        if desc_num == size || desc_num == 0 {
            return Ok(true);
        }
        let busy = (0..usize::from(desc_num)).any(|index| self.u8(states + state * index) == 1);
        if busy {
            Err(RingError::Setup(size))
        } else {
            Ok(false)
        }
    }

    accessors! {
        load_u8, store_u8, u8, set_u8, u8;
        load_u16, store_u16, u16, set_u16, u16;
        load_u32, store_u32, u32, set_u32, u32;
        load_u64, store_u64, u64, set_u64, u64;
    }
}

/// The region's part of a split queue, in use.
#[derive(Debug)]
pub(super) struct SplitRegion {
    part: Part,
    counter: u64,
    last_batch_head: std::cell::Cell<u16>,
}

/// What was found in a split queue's part.
#[derive(Debug)]
pub(super) struct FoundSplit {
    pub(super) region: SplitRegion,
    /// Whether somebody has used it before.
    pub(super) initialised: bool,
    /// What was in flight, the oldest first.
    pub(super) heads: Vec<u16>,
}

impl SplitRegion {
    /// The part that `inflight` names, brought into order after whoever used it last. `next_used` is where a queue that is new in
    /// the region stands, `used` the index in the used ring.
    pub(super) fn open(
        inflight: &Inflight,
        size: u16,
        next_used: u16,
        used: u16,
    ) -> Result<FoundSplit, RingError> {
        let part = Part::new(inflight, 0, size)?;
        let state = |index: u16| split::STATES + split::STATE * usize::from(index);
        let is_inflight = |index: &u16| part.u8(state(*index) + split::INFLIGHT) == 1;
        let initialised = part.in_use(size, split::STATES, split::STATE)?;
        let mut heads = Vec::new();
        let mut counter = 0;
        if initialised {
            // A last batch whose entries may not have been cleared: those were used.
            let batch = used.wrapping_sub(part.u16(split::USED_IDX));
            let mut head = part.u16(split::LAST_BATCH_HEAD);
            for _ in 0..batch.min(size) {
                if head >= size {
                    break;
                }
                part.set_u8(state(head) + split::INFLIGHT, 0);
                head = part.u16(state(head) + split::NEXT);
            }
            part.set_u16(split::USED_IDX, used);
            let mut found: Vec<(u64, u16)> = (0..size)
                .filter(is_inflight)
                .map(|index| (part.u64(state(index) + split::COUNTER), index))
                .collect();
            found.sort_unstable();
            counter = found.last().map_or(0, |(last, _)| last.wrapping_add(1));
            heads = found.into_iter().map(|(_, index)| index).collect();
        } else {
            part.set_u64(FEATURES, 0);
            part.set_u16(DESC_NUM, size);
            part.set_u16(split::LAST_BATCH_HEAD, 0);
            part.set_u16(split::USED_IDX, next_used);
            for index in 0..size {
                part.set_u8(state(index) + split::INFLIGHT, 0);
            }
            part.set_u16(VERSION_AT, VERSION);
        }
        let last_batch_head = std::cell::Cell::new(part.u16(split::LAST_BATCH_HEAD));
        Ok(FoundSplit {
            region: Self {
                part,
                counter,
                last_batch_head,
            },
            initialised,
            heads,
        })
    }

    fn state(head: u16) -> usize {
        split::STATES + split::STATE * usize::from(head)
    }

    /// A chain has been taken.
    #[inline]
    pub(super) fn begin(&mut self, head: u16) {
        let state = Self::state(head);
        self.part.set_u64(state + split::COUNTER, self.counter);
        self.counter = self.counter.wrapping_add(1);
        self.part.set_u8(state + split::INFLIGHT, 1);
    }

    /// Before the used index is stored: the last batch is this chain.
    #[inline]
    pub(super) fn before_used(&self, head: u16) {
        let last = self.last_batch_head.replace(head);
        self.part.set_u16(Self::state(head) + split::NEXT, last);
        self.part.set_u16(split::LAST_BATCH_HEAD, head);
    }

    /// After the used index was stored.
    #[inline]
    pub(super) fn after_used(&self, head: u16, used: u16) {
        self.part.set_u8(Self::state(head) + split::INFLIGHT, 0);
        self.part.set_u16(split::USED_IDX, used);
    }
}

/// The region's part of a packed queue, in use.
#[derive(Debug)]
pub(super) struct PackedRegion {
    part: Part,
    counter: u64,
    /// As in the region: the first entry of the list of free ones.
    free_head: u16,
}

/// What was found in a packed queue's part.
#[derive(Debug)]
pub(super) struct FoundPacked {
    pub(super) region: PackedRegion,
    /// Where the used descriptors stand, if somebody has used the region before.
    pub(super) next_used: Option<Place>,
    /// What was in flight, the oldest first.
    pub(super) chains: Vec<FoundChain>,
}

/// A packed chain that was in flight.
#[derive(Debug)]
pub(super) struct FoundChain {
    pub(super) entry: u16,
    pub(super) descriptors: Vec<PackedDescriptor>,
}

impl PackedRegion {
    /// The part that `inflight` names, brought into order after whoever used it last. `next_used` is where a queue that is new in
    /// the region stands, `flags` reads a descriptor's flags in the ring.
    pub(super) fn open(
        inflight: &Inflight,
        size: u16,
        next_used: Place,
        flags: impl Fn(u16) -> u16,
    ) -> Result<FoundPacked, RingError> {
        let part = Part::new(inflight, RING_PACKED, size)?;
        let mut region = Self {
            part,
            counter: 0,
            free_head: 0,
        };
        if !region.part.in_use(size, packed::STATES, packed::STATE)? {
            region.initialise(size, next_used);
            return Ok(FoundPacked {
                region,
                next_used: None,
                chains: Vec::new(),
            });
        }
        let next_used = region.recover(size, flags)?;
        let chains = region.find(size)?;
        Ok(FoundPacked {
            region,
            next_used: Some(next_used),
            chains,
        })
    }

    fn state(entry: u16) -> usize {
        packed::STATES + packed::STATE * usize::from(entry)
    }

    fn initialise(&mut self, size: u16, next_used: Place) {
        let part = &self.part;
        part.set_u64(FEATURES, 0);
        part.set_u16(DESC_NUM, size);
        part.set_u16(packed::FREE_HEAD, 0);
        part.set_u16(packed::OLD_FREE_HEAD, 0);
        part.set_u64(packed::USED_IDX, positions(next_used, next_used));
        for entry in 0..size {
            part.set_u8(Self::state(entry) + packed::INFLIGHT, 0);
            // The last one's is outside: the end of the list.
            part.set_u16(Self::state(entry) + packed::NEXT, entry + 1);
        }
        part.set_u16(VERSION_AT, VERSION);
    }

    /// Commits or rolls back what was half done.
    fn recover(&mut self, size: u16, flags: impl Fn(u16) -> u16) -> Result<Place, RingError> {
        let part = &self.part;
        let used = (part.u16(packed::USED_IDX), part.u8(packed::USED_WRAP));
        let old = (
            part.u16(packed::OLD_USED_IDX),
            part.u8(packed::OLD_USED_WRAP),
        );
        if used.0 >= size || old.0 >= size {
            return Err(RingError::Setup(size));
        }
        let (mut index, mut wrap) = old;
        // The text compares the indices only. The wrap counters are part of the position: a chain as long as the ring
        // ends at the index at which it began.
        if used != old {
            let available = if old.1 == 0 {
                DESC_F_USED
            } else {
                DESC_F_AVAIL
            };
            if flags(old.0) & (DESC_F_AVAIL | DESC_F_USED) != available {
                part.set_u16(packed::OLD_FREE_HEAD, part.u16(packed::FREE_HEAD));
                (index, wrap) = used;
            }
        }
        let place = Place {
            index,
            wrap: wrap != 0,
        };
        part.set_u64(packed::USED_IDX, positions(place, place));
        self.free_head = part.u16(packed::OLD_FREE_HEAD);
        part.set_u16(packed::FREE_HEAD, self.free_head);
        let mut free = self.free_head;
        for _ in 0..size {
            if free >= size {
                break;
            }
            part.set_u8(Self::state(free) + packed::INFLIGHT, 0);
            free = part.u16(Self::state(free) + packed::NEXT);
        }
        Ok(place)
    }

    /// What is in flight.
    fn find(&mut self, size: u16) -> Result<Vec<FoundChain>, RingError> {
        let part = &self.part;
        let mut heads: Vec<(u64, u16)> = (0..size)
            .filter(|entry| part.u8(Self::state(*entry) + packed::INFLIGHT) == 1)
            .map(|entry| (part.u64(Self::state(entry) + packed::COUNTER), entry))
            .collect();
        heads.sort_unstable();
        self.counter = heads.last().map_or(0, |(last, _)| last.wrapping_add(1));
        let mut room = size;
        let mut chains = Vec::with_capacity(heads.len());
        for (_, entry) in heads {
            let num = part.u16(Self::state(entry) + packed::NUM);
            if num == 0 || num > room {
                return Err(RingError::Setup(size));
            }
            room -= num;
            let mut descriptors = Vec::with_capacity(num.into());
            let mut at = entry;
            for _ in 0..num {
                if at >= size {
                    return Err(RingError::Setup(size));
                }
                let state = Self::state(at);
                descriptors.push(PackedDescriptor {
                    addr: part.u64(state + packed::ADDR),
                    len: part.u32(state + packed::LEN),
                    id: part.u16(state + packed::ID),
                    flags: part.u16(state + packed::FLAGS),
                });
                at = part.u16(state + packed::NEXT);
            }
            chains.push(FoundChain { entry, descriptors });
        }
        Ok(chains)
    }

    /// A chain has been taken. The entry that stands for it.
    pub(super) fn begin(&mut self, descriptors: &[PackedDescriptor]) -> u16 {
        let part = &self.part;
        let entry = self.free_head;
        let head = Self::state(entry);
        part.set_u16(head + packed::NUM, 0);
        part.set_u64(head + packed::COUNTER, self.counter);
        self.counter = self.counter.wrapping_add(1);
        part.set_u8(head + packed::INFLIGHT, 1);
        // The ring's size bounds it: a chain longer than the free list was refused.
        let mut num = 0;
        for (index, descriptor) in descriptors.iter().enumerate() {
            if index + 1 == descriptors.len() {
                part.set_u16(head + packed::LAST, self.free_head);
            }
            num += 1;
            part.set_u16(head + packed::NUM, num);
            let state = Self::state(self.free_head);
            part.set_u64(state + packed::ADDR, descriptor.addr);
            part.set_u32(state + packed::LEN, descriptor.len);
            part.set_u16(state + packed::FLAGS, descriptor.flags);
            part.set_u16(state + packed::ID, descriptor.id);
            self.free_head = part.u16(state + packed::NEXT);
            part.set_u16(packed::FREE_HEAD, self.free_head);
        }
        part.set_u16(packed::OLD_FREE_HEAD, self.free_head);
        entry
    }

    /// Before the used descriptor is stored: its entries are free again, the next one goes to `next_used`.
    pub(super) fn before_used(&mut self, entry: u16, old_used: Place, next_used: Place) {
        let part = &self.part;
        let last = part.u16(Self::state(entry) + packed::LAST);
        part.set_u16(Self::state(last) + packed::NEXT, self.free_head);
        self.free_head = entry;
        part.set_u16(packed::FREE_HEAD, entry);
        part.set_u64(packed::USED_IDX, positions(next_used, old_used));
    }

    /// After the used descriptor was stored.
    pub(super) fn after_used(&mut self, entry: u16, next_used: Place) {
        let part = &self.part;
        part.set_u8(Self::state(entry) + packed::INFLIGHT, 0);
        part.set_u16(packed::OLD_FREE_HEAD, self.free_head);
        part.set_u64(packed::USED_IDX, positions(next_used, next_used));
    }
}

/// `used_idx`, `old_used_idx`, `used_wrap_counter`, `old_used_wrap_counter` and two bytes of padding, for one store: a process that died
/// between a position's index and its wrap counter would leave a place where the ring never stood.
fn positions(used: Place, old: Place) -> u64 {
    u64::from(used.index)
        | u64::from(old.index) << 16
        | u64::from(used.wrap) << 32
        | u64::from(old.wrap) << 40
}

const _: () = assert!(
    packed::USED_IDX.is_multiple_of(8)
        && packed::OLD_USED_IDX == packed::USED_IDX + 2
        && packed::USED_WRAP == packed::USED_IDX + 4
        && packed::OLD_USED_WRAP == packed::USED_IDX + 5
);

#[cfg(test)]
mod tests;
