//! The packed virtqueue (2.8).

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use guest_memory::{Access, Fault, MapView, Window};
use virtio_spec::ring::{
    DESC_F_AVAIL, DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_USED, DESC_F_WRITE, EVENT_FLAGS_DESC,
    EVENT_FLAGS_DISABLE, EVENT_FLAGS_ENABLE, PackedDescriptor, descriptor_area,
};
use virtio_spec::{MAX_QUEUE_SIZE, feature};

use super::event::{Place, packed_passed};
use super::flight::{Flight, Put};
use super::inflight::{FoundChain, PackedRegion, step};
use super::{Chain, DirtyLog, Head, Ring, RingError};
use crate::device::{QueueSetup, RingState};

/// Where the three areas are, in guest-physical memory.
#[derive(Clone, Copy, Debug)]
struct Areas {
    desc: u64,
    driver: u64,
    device: u64,
}

/// The three areas, resolved.
#[derive(Debug)]
struct Rings {
    desc: Window,
    driver: Window,
    device: Window,
}

/// Offset of a descriptor's flags.
const FLAGS: usize = 14;
/// Offset of a descriptor's second half: length, ID, flags.
const HALF: usize = 8;

impl Rings {
    fn new(areas: &Areas, size: u16, view: &MapView) -> Result<Self, Fault> {
        // 2.8: the alignments of the three parts.
        let both = Access::READ | Access::WRITE;
        Ok(Self {
            desc: view.window_aligned(areas.desc, descriptor_area(size), both, 16)?,
            driver: view.window_aligned(areas.driver, 4, Access::READ, 4)?,
            device: view.window_aligned(areas.device, 4, both, 4)?,
        })
    }

    /// A descriptor's flags; what the driver wrote before them is seen after.
    #[inline]
    fn flags(&self, index: u16) -> u16 {
        // The window is as long as the ring: nothing here is out of range.
        self.desc
            .load_u16(16 * usize::from(index) + FLAGS)
            .unwrap_or(0)
    }
}

/// A chain in flight.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// Buffer ID.
    id: u16,
    /// Descriptors in the ring.
    num: u16,
    /// Its entry of the in-flight region.
    entry: u16,
}

/// Buffer IDs in flight. The text lets the driver choose any 16 bits.
#[derive(Debug)]
struct Ids(Box<[u64; 1024]>);

impl Ids {
    fn new() -> Self {
        Self(Box::new([0; 1024]))
    }

    #[inline]
    fn contains(&self, id: u16) -> bool {
        self.0[usize::from(id) / 64] & (1 << (id % 64)) != 0
    }

    #[inline]
    fn insert(&mut self, id: u16) {
        self.0[usize::from(id) / 64] |= 1 << (id % 64);
    }

    #[inline]
    fn remove(&mut self, id: u16) {
        self.0[usize::from(id) / 64] &= !(1 << (id % 64));
    }
}

/// The device side of a packed virtqueue.
#[derive(Debug)]
pub struct Packed {
    size: u16,
    event_idx: bool,
    indirect: bool,
    next_avail: Place,
    next_used: Place,
    /// Descriptors of the ring that are in flight.
    outstanding: u16,
    /// Descriptors used since an interrupt was last considered, and where they begin.
    unsignalled: u32,
    signalled: Place,
    /// The driver is to be interrupted whatever it asked for: it is not known what it was told before.
    resync: bool,
    kicks: bool,
    areas: Areas,
    /// `None` while they do not lie in memory.
    rings: Option<Rings>,
    flight: Flight,
    /// By slot.
    entries: Box<[Entry]>,
    free: Vec<u16>,
    ids: Ids,
    tracking: Option<Tracking>,
    broken: Option<RingError>,
}

/// With an in-flight region.
#[derive(Debug)]
struct Tracking {
    region: PackedRegion,
    /// The chain that is being taken, as it is in the ring.
    descriptors: Vec<PackedDescriptor>,
    /// What the process before left in flight, with their slots, the oldest last.
    recovered: Vec<(u16, FoundChain)>,
}

impl Packed {
    /// See [`super::Virtqueue::new`].
    ///
    /// # Errors
    /// See [`super::Virtqueue::new`].
    pub fn new(setup: &QueueSetup, view: &MapView) -> Result<Self, RingError> {
        let size = setup.size;
        let state = setup.state;
        if size == 0 || size > MAX_QUEUE_SIZE || state.next_avail.max(state.next_used) >= size {
            return Err(RingError::Setup(size));
        }
        let areas = Areas {
            desc: setup.desc,
            driver: setup.driver,
            device: setup.device,
        };
        let rings = Rings::new(&areas, size, view)?;
        let has = |feature| setup.features & feature != 0;
        let next_used = Place {
            index: state.next_used,
            wrap: state.used_wrap,
        };
        let mut ring = Self {
            size,
            event_idx: has(feature::EVENT_IDX),
            indirect: has(feature::INDIRECT_DESC),
            next_avail: Place {
                index: state.next_avail,
                wrap: state.avail_wrap,
            },
            next_used,
            outstanding: 0,
            unsignalled: 0,
            signalled: next_used,
            resync: false,
            kicks: true,
            areas,
            rings: None,
            flight: Flight::new(size, has(feature::IN_ORDER), setup.log.clone()),
            entries: vec![Entry::default(); size.into()].into(),
            free: (0..size).rev().collect(),
            ids: Ids::new(),
            tracking: None,
            broken: None,
        };
        if let Some(inflight) = &setup.inflight {
            let found = PackedRegion::open(inflight, size, next_used, |index| rings.flags(index))?;
            if let Some(next_used) = found.next_used {
                // All that was taken is used or in flight.
                ring.next_used = next_used;
                ring.next_avail = next_used;
                ring.signalled = next_used;
                ring.resync = true;
            }
            let mut recovered = Vec::with_capacity(found.chains.len());
            for chain in found.chains {
                recovered.push((ring.recover(&chain)?, chain));
            }
            recovered.reverse();
            ring.tracking = Some(Tracking {
                region: found.region,
                descriptors: Vec::new(),
                recovered,
            });
        }
        ring.resync |= setup.state != RingState::default();
        ring.rings = Some(rings);
        ring.want_kicks(true);
        Ok(ring)
    }

    /// Gives a slot to a chain that the process before left in flight.
    fn recover(&mut self, chain: &FoundChain) -> Result<u16, RingError> {
        let id = chain.descriptors.last().map_or(0, |last| last.id);
        let Some(slot) = self.free.pop() else {
            return Err(RingError::Setup(self.size));
        };
        if self.ids.contains(id) {
            return Err(RingError::Duplicate(id));
        }
        // The region's chains together are at most as long as the ring.
        let num = chain.descriptors.len() as u16;
        self.enter(slot, id, num, chain.entry);
        self.next_avail = self.next_avail.advance(num, self.size);
        self.flight.recover(slot);
        Ok(slot)
    }

    #[inline]
    fn enter(&mut self, slot: u16, id: u16, num: u16, entry: u16) {
        self.ids.insert(id);
        self.outstanding += num;
        if let Some(place) = self.entries.get_mut(usize::from(slot)) {
            *place = Entry { id, num, entry };
        }
    }

    /// Adds a descriptor of the ring to a chain.
    #[inline]
    fn add(
        indirect: bool,
        view: &MapView,
        chain: &mut Chain,
        descriptor: &PackedDescriptor,
    ) -> Result<(), RingError> {
        if descriptor.flags & DESC_F_INDIRECT == 0 {
            return chain.add(descriptor.addr, descriptor.len, descriptor.flags);
        }
        // 2.8.19: not without the feature, not together with NEXT.
        if !indirect || descriptor.flags & DESC_F_NEXT != 0 {
            return Err(RingError::Indirect);
        }
        chain.add_packed_table(view, descriptor.addr, descriptor.len)
    }

    /// Takes up what the process before left in flight.
    #[cold]
    fn take_recovered(
        &mut self,
        view: &MapView,
        chain: &mut Chain,
    ) -> Result<Option<Head>, RingError> {
        let Some(tracking) = &mut self.tracking else {
            return Ok(None);
        };
        let Some((slot, found)) = tracking.recovered.last() else {
            return Ok(None);
        };
        let slot = *slot;
        for descriptor in &found.descriptors {
            Self::add(self.indirect, view, chain, descriptor)?;
        }
        tracking.recovered.pop();
        self.flight.begin(slot, chain);
        Ok(Some(Head(slot)))
    }

    #[inline]
    fn try_take(&mut self, view: &MapView, chain: &mut Chain) -> Result<Option<Head>, RingError> {
        let Some(rings) = &self.rings else {
            return Ok(None);
        };
        if let Some(tracking) = &mut self.tracking {
            if !tracking.recovered.is_empty() {
                return self.take_recovered(view, chain);
            }
            tracking.descriptors.clear();
        }
        let mut place = self.next_avail;
        let mut flags = rings.flags(place.index);
        // 2.8.1: available if AVAIL is the wrap counter and USED is not.
        let marked = |flag| (flags & flag != 0) == place.wrap;
        if !marked(DESC_F_AVAIL) || marked(DESC_F_USED) {
            return Ok(None);
        }
        let mut num = 0;
        let id = loop {
            if num >= self.size - self.outstanding {
                // What lies further on is in flight, or belongs to this chain.
                return Err(if num == 0 {
                    RingError::Overrun(self.outstanding.saturating_add(1))
                } else {
                    RingError::Length
                });
            }
            let Some(words) = rings.desc.read_words::<2>(16 * usize::from(place.index)) else {
                return Err(RingError::Index(place.index));
            };
            let mut descriptor: PackedDescriptor = zerocopy::transmute!(words);
            if num == 0 {
                // Decided already; those of the others are valid with the first one's.
                descriptor.flags = flags;
            }
            flags = descriptor.flags;
            Self::add(self.indirect, view, chain, &descriptor)?;
            if let Some(tracking) = &mut self.tracking {
                tracking.descriptors.push(descriptor);
            }
            num += 1;
            place = place.advance(1, self.size);
            if flags & DESC_F_NEXT == 0 {
                break descriptor.id;
            }
        };
        rings.desc.prefetch(16 * usize::from(place.index));
        if self.ids.contains(id) {
            return Err(RingError::Duplicate(id));
        }
        // Each chain in flight has a descriptor of the ring, so there are slots enough.
        let Some(slot) = self.free.pop() else {
            return Err(RingError::Overrun(self.outstanding));
        };
        let entry = match &mut self.tracking {
            Some(tracking) => tracking.region.begin(&tracking.descriptors),
            None => 0,
        };
        self.enter(slot, id, num, entry);
        self.next_avail = place;
        self.flight.begin(slot, chain);
        Ok(Some(Head(slot)))
    }

    /// Writes the used descriptor of a chain that has ended, or keeps it.
    #[inline]
    fn publish(&mut self, slot: u16) {
        let Some(rings) = &self.rings else {
            self.flight.park(slot);
            return;
        };
        let written = self.flight.release(slot);
        let Some(Entry { id, num, entry }) = self.entries.get(usize::from(slot)).copied() else {
            return;
        };
        let place = self.next_used;
        self.next_used = place.advance(num, self.size);
        if let Some(tracking) = &mut self.tracking {
            tracking.region.before_used(entry, place, self.next_used);
        }
        // 2.8.1: used if both are the wrap counter. WRITE says that the length counts.
        let mut flags = if place.wrap {
            DESC_F_AVAIL | DESC_F_USED
        } else {
            0
        };
        if written > 0 {
            flags |= DESC_F_WRITE;
        }
        let half = u64::from(written) | u64::from(id) << 32 | u64::from(flags) << 48;
        // One store: whoever sees the flags sees the rest. In range: the window is as long as the ring.
        let at = 16 * usize::from(place.index);
        let _ = rings.desc.store_u64(at + HALF, half);
        step();
        if let Some(tracking) = &mut self.tracking {
            tracking.region.after_used(entry, self.next_used);
        }
        self.outstanding -= num;
        self.ids.remove(id);
        self.free.push(slot);
        self.unsignalled = self.unsignalled.saturating_add(num.into());
        if let Some(log) = self.flight.log() {
            log.mark(self.areas.desc.wrapping_add(at as u64), 16);
        }
    }
}

impl Ring for Packed {
    #[inline]
    fn take(&mut self, view: &MapView, chain: &mut Chain) -> Result<Option<Head>, RingError> {
        chain.clear();
        if let Some(error) = self.broken {
            return Err(error);
        }
        self.try_take(view, chain).inspect_err(|error| {
            chain.clear();
            self.broken = Some(*error);
        })
    }

    #[inline]
    fn put(&mut self, head: Head, written: u32) {
        match self.flight.end(head.0, written) {
            Put::Unknown => {}
            Put::Use => self.publish(head.0),
            // 2.8.9 allows one used descriptor for a whole batch, but all buffers it stands for then count as written completely,
            // and a request that failed was not. So each has its own.
            Put::InOrder => {
                while let Some(slot) = self.flight.next_in_order() {
                    self.publish(slot);
                }
            }
        }
    }

    fn wants_interrupt(&mut self) -> bool {
        let Some(rings) = &self.rings else {
            return false;
        };
        let count = std::mem::take(&mut self.unsignalled);
        let old = std::mem::replace(&mut self.signalled, self.next_used);
        if self.resync {
            self.resync = false;
            return true;
        }
        if count == 0 {
            return false;
        }
        // The driver writes what it wants and then looks at the descriptor; we wrote the descriptor and now look at what it wants.
        // Without a full barrier on both sides each could miss the other.
        fence(Ordering::SeqCst);
        let wish = rings.driver.load_u32(0).unwrap_or(0);
        let (off_wrap, flags) = (wish as u16, (wish >> 16) as u16 & 3);
        match flags {
            EVENT_FLAGS_DISABLE => false,
            EVENT_FLAGS_DESC if self.event_idx => packed_passed(off_wrap, old, count, self.size),
            // Enabled; or a reserved value, and a driver that is told too often comes to no harm.
            _ => true,
        }
    }

    fn want_kicks(&mut self, wanted: bool) {
        self.kicks = wanted;
        let Some(rings) = &self.rings else {
            return;
        };
        let flags = match (wanted, self.event_idx) {
            (false, _) => EVENT_FLAGS_DISABLE,
            (true, false) => EVENT_FLAGS_ENABLE,
            (true, true) => EVENT_FLAGS_DESC,
        };
        // One store: never a place with another one's flags.
        let wish = u32::from(flags) << 16 | u32::from(self.next_avail.off_wrap());
        let _ = rings.device.store_u32(0, wish);
        if let Some(log) = self.flight.log() {
            log.mark(self.areas.device, 4);
        }
        if wanted {
            // As for interrupts: our wish is to be seen before we look at the ring once more.
            fence(Ordering::SeqCst);
        }
    }

    fn in_flight(&self) -> u16 {
        self.flight.taken()
    }

    fn state(&self) -> RingState {
        RingState {
            next_avail: self.next_avail.index,
            next_used: self.next_used.index,
            avail_wrap: self.next_avail.wrap,
            used_wrap: self.next_used.wrap,
        }
    }

    fn remap(&mut self, view: &MapView) -> Result<(), Fault> {
        // The old rings go first: their memory is to be let go of, whatever comes.
        self.rings = None;
        self.rings = Some(Rings::new(&self.areas, self.size, view)?);
        while let Some(slot) = self.flight.unpark() {
            self.publish(slot);
        }
        self.want_kicks(self.kicks);
        Ok(())
    }

    fn set_log(&mut self, log: Option<Arc<DirtyLog>>) {
        self.flight.set_log(log);
    }
}

#[cfg(test)]
mod tests;
