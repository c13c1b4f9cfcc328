//! The split virtqueue (2.7).

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use guest_memory::{Access, Fault, MapView, Window};
use virtio_spec::ring::{
    AVAIL_F_NO_INTERRUPT, DESC_F_INDIRECT, DESC_F_NEXT, Descriptor, RING_ELEMENTS, RING_IDX,
    USED_F_NO_NOTIFY, available_ring, descriptor_area, used_ring,
};
use virtio_spec::{MAX_QUEUE_SIZE, feature};

use super::event::split_passed;
use super::flight::{Flight, Put};
use super::inflight::{SplitRegion, step};
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
    avail: Window,
    used: Window,
}

impl Rings {
    fn new(areas: &Areas, size: u16, view: &MapView) -> Result<Self, Fault> {
        // 2.7: the alignments of the three parts. An element of the used ring is accessed as two integers of four bytes.
        let both = Access::READ | Access::WRITE;
        Ok(Self {
            desc: view.window_aligned(areas.desc, descriptor_area(size), Access::READ, 16)?,
            avail: view.window_aligned(areas.driver, available_ring(size), Access::READ, 2)?,
            used: view.window_aligned(areas.device, used_ring(size), both, 4)?,
        })
    }

    /// An element of the available ring, or `used_event` behind the last one.
    #[inline]
    fn avail(&self, element: usize) -> u16 {
        // The window is as long as the ring: nothing here is out of range.
        self.avail
            .load_u16(RING_ELEMENTS + 2 * element)
            .unwrap_or(0)
    }
}

/// The device side of a split virtqueue.
#[derive(Debug)]
pub struct Split {
    size: u16,
    mask: u16,
    event_idx: bool,
    indirect: bool,
    /// The driver's index when it was last looked at.
    avail_idx: u16,
    next_avail: u16,
    next_used: u16,
    /// Entries used since an interrupt was last considered.
    unsignalled: u32,
    /// The driver is to be interrupted whatever it asked for: it is not known what it was told before.
    resync: bool,
    kicks: bool,
    areas: Areas,
    /// `None` while they do not lie in memory.
    rings: Option<Rings>,
    flight: Flight,
    region: Option<SplitRegion>,
    /// What the process before left in flight, the oldest last.
    recovered: Vec<u16>,
    broken: Option<RingError>,
}

impl Split {
    /// See [`super::Virtqueue::new`].
    ///
    /// # Errors
    /// See [`super::Virtqueue::new`].
    pub fn new(setup: &QueueSetup, view: &MapView) -> Result<Self, RingError> {
        let size = setup.size;
        if !size.is_power_of_two() || size > MAX_QUEUE_SIZE {
            return Err(RingError::Setup(size));
        }
        let areas = Areas {
            desc: setup.desc,
            driver: setup.driver,
            device: setup.device,
        };
        let rings = Rings::new(&areas, size, view)?;
        let has = |feature| setup.features & feature != 0;
        let mut state = setup.state;
        let mut flight = Flight::new(size, has(feature::IN_ORDER), setup.log.clone());
        let mut recovered = Vec::new();
        let mut region = None;
        let mut resync = state != RingState::default();
        if let Some(inflight) = &setup.inflight {
            // The used index in memory is the truth: it counts what the driver was given back.
            let used = rings.used.load_u16(RING_IDX).unwrap_or(0);
            let found = SplitRegion::open(inflight, size, state.next_used, used)?;
            if found.initialised {
                resync = true;
                state.next_used = used;
                // Whatever was taken and not used is in flight, and at most the ring's size.
                state.next_avail = used.wrapping_add(found.heads.len() as u16);
            }
            for head in &found.heads {
                flight.recover(*head);
            }
            recovered = found.heads;
            recovered.reverse();
            region = Some(found.region);
        }
        let mut ring = Self {
            size,
            mask: size - 1,
            event_idx: has(feature::EVENT_IDX),
            indirect: has(feature::INDIRECT_DESC),
            avail_idx: state.next_avail,
            next_avail: state.next_avail,
            next_used: state.next_used,
            unsignalled: 0,
            resync,
            kicks: true,
            areas,
            rings: Some(rings),
            flight,
            region,
            recovered,
            broken: None,
        };
        ring.want_kicks(true);
        Ok(ring)
    }

    /// Reads the chain that begins with `head`.
    #[inline]
    fn walk(
        &self,
        rings: &Rings,
        view: &MapView,
        chain: &mut Chain,
        head: u16,
    ) -> Result<(), RingError> {
        let mut index = head;
        // A chain that is longer than the table visits a descriptor twice.
        for _ in 0..self.size {
            if index >= self.size {
                return Err(RingError::Index(index));
            }
            let Some(words) = rings.desc.read_words::<2>(16 * usize::from(index)) else {
                return Err(RingError::Index(index));
            };
            let descriptor: Descriptor = zerocopy::transmute!(words);
            if descriptor.flags & DESC_F_INDIRECT != 0 {
                // 2.7.5.3.1: not without the feature, not together with NEXT.
                if !self.indirect || descriptor.flags & DESC_F_NEXT != 0 {
                    return Err(RingError::Indirect);
                }
                return chain.add_split_table(view, descriptor.addr, descriptor.len);
            }
            chain.add(descriptor.addr, descriptor.len, descriptor.flags)?;
            if descriptor.flags & DESC_F_NEXT == 0 {
                return Ok(());
            }
            index = descriptor.next;
        }
        Err(RingError::Length)
    }

    #[inline]
    fn try_take(&mut self, view: &MapView, chain: &mut Chain) -> Result<Option<Head>, RingError> {
        let Some(rings) = &self.rings else {
            return Ok(None);
        };
        if let Some(head) = self.recovered.last().copied() {
            self.walk(rings, view, chain, head)?;
            self.recovered.pop();
            self.flight.begin(head, chain);
            return Ok(Some(Head(head)));
        }
        if self.next_avail == self.avail_idx {
            // Acquire: what the driver wrote before the index is seen after it.
            let idx = rings.avail.load_u16(RING_IDX).unwrap_or(self.next_avail);
            let ahead = idx.wrapping_sub(self.next_avail);
            if ahead == 0 {
                return Ok(None);
            }
            if ahead > self.size {
                return Err(RingError::Overrun(ahead));
            }
            self.avail_idx = idx;
        }
        let head = rings.avail(usize::from(self.next_avail & self.mask));
        let next = self.next_avail.wrapping_add(1);
        if next != self.avail_idx {
            // A hint only: the head is read again when it is taken.
            let next = rings.avail(usize::from(next & self.mask));
            rings.desc.prefetch(16 * usize::from(next));
        }
        if head >= self.size {
            return Err(RingError::Index(head));
        }
        if !self.flight.is_free(head) {
            return Err(RingError::Duplicate(head));
        }
        self.walk(rings, view, chain, head)?;
        if let Some(region) = &mut self.region {
            region.begin(head);
        }
        self.next_avail = next;
        self.flight.begin(head, chain);
        Ok(Some(Head(head)))
    }

    /// Writes the used entry of a chain that has ended, or keeps it.
    #[inline]
    fn publish(&mut self, head: u16) {
        let Some(rings) = &self.rings else {
            self.flight.park(head);
            return;
        };
        let written = self.flight.release(head);
        let at = RING_ELEMENTS + 8 * usize::from(self.next_used & self.mask);
        self.next_used = self.next_used.wrapping_add(1);
        if let Some(region) = &self.region {
            region.before_used(head);
        }
        // In range: the window is as long as the ring. Each entry is published at once, not gathered to the end of a batch: a
        // driver that polls goes on meanwhile.
        let _ = rings.used.store_u32(at, head.into());
        step();
        let _ = rings.used.store_u32(at + 4, written);
        step();
        let _ = rings.used.store_u16(RING_IDX, self.next_used);
        step();
        if let Some(region) = &self.region {
            region.after_used(head, self.next_used);
        }
        self.unsignalled = self.unsignalled.saturating_add(1);
        if let Some(log) = self.flight.log() {
            log.mark(self.areas.device.wrapping_add(at as u64), 8);
            log.mark(self.areas.device, 4);
        }
    }
}

impl Ring for Split {
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
            // 2.7.9 allows one used entry for a whole batch, but all buffers it stands for then count as written completely, and a
            // request that failed was not. So each has its own.
            Put::InOrder => {
                while let Some(head) = self.flight.next_in_order() {
                    self.publish(head);
                }
            }
        }
    }

    fn wants_interrupt(&mut self) -> bool {
        let Some(rings) = &self.rings else {
            return false;
        };
        if self.resync {
            (self.resync, self.unsignalled) = (false, 0);
            return true;
        }
        let count = std::mem::take(&mut self.unsignalled);
        if count == 0 {
            return false;
        }
        // The driver writes what it wants and then looks at the index; we wrote the index and now look at what it wants. Without
        // a full barrier on both sides each could miss the other.
        fence(Ordering::SeqCst);
        if self.event_idx {
            let event = rings.avail(usize::from(self.size));
            split_passed(event, self.next_used, count)
        } else {
            rings.avail.load_u16(0).unwrap_or(0) & AVAIL_F_NO_INTERRUPT == 0
        }
    }

    fn want_kicks(&mut self, wanted: bool) {
        self.kicks = wanted;
        let Some(rings) = &self.rings else {
            return;
        };
        if self.event_idx {
            // 2.7.10: `avail_event` names the entry whose arrival is to be told. The one before it has been there already: it
            // comes again only after a whole turn of the index.
            let event = if wanted {
                self.next_avail
            } else {
                self.next_avail.wrapping_sub(1)
            };
            let at = RING_ELEMENTS + 8 * usize::from(self.size);
            let _ = rings.used.store_u16(at, event);
            if let Some(log) = self.flight.log() {
                log.mark(self.areas.device.wrapping_add(at as u64), 2);
            }
        } else {
            let flags = if wanted { 0 } else { USED_F_NO_NOTIFY };
            let _ = rings.used.store_u16(0, flags);
            if let Some(log) = self.flight.log() {
                log.mark(self.areas.device, 2);
            }
        }
        if wanted {
            // As for interrupts: our wish is to be seen before we look at the index once more.
            fence(Ordering::SeqCst);
        }
    }

    fn in_flight(&self) -> u16 {
        self.flight.taken()
    }

    fn state(&self) -> RingState {
        RingState {
            next_avail: self.next_avail,
            next_used: self.next_used,
            ..RingState::default()
        }
    }

    fn remap(&mut self, view: &MapView) -> Result<(), Fault> {
        // The old rings go first: their memory is to be let go of, whatever comes.
        self.rings = None;
        self.rings = Some(Rings::new(&self.areas, self.size, view)?);
        while let Some(head) = self.flight.unpark() {
            self.publish(head);
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
