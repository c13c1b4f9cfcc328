//! Split virtqueues (2.7).

use std::collections::VecDeque;
use std::sync::atomic::{Ordering, fence};

use virtio_spec::feature;
use virtio_spec::ring::{
    AVAIL_F_NO_INTERRUPT, DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, Descriptor, RING_ELEMENTS,
    RING_IDX, USED_F_NO_NOTIFY, UsedElement, available_ring, descriptor_area, used_ring,
};

use super::{Areas, Buffer, Error, InOrder, Result, Table, Used, When, need_event};
use crate::ram::{GuestRam, RamError};

/// A split ring. See [`super::Ring`].
#[derive(Debug)]
pub struct SplitRing {
    ram: GuestRam,
    size: u16,
    event_idx: bool,
    areas: Areas,
    /// Offsets in the memory.
    desc: usize,
    avail: usize,
    used: usize,
    free: VecDeque<u16>,
    /// Links of the chains in flight, our own copy: the device is not trusted with it.
    next: Vec<u16>,
    /// Descriptors of the chain that begins here; 0 if none does.
    chain: Vec<u16>,
    in_order: Option<InOrder>,
    in_flight: u16,
    next_avail: u16,
    published: u16,
    next_used: u16,
}

impl SplitRing {
    /// Room for a ring.
    ///
    /// # Errors
    /// [`RamError::Exhausted`].
    pub fn areas_for(ram: &GuestRam, size: u16) -> std::result::Result<Areas, RamError> {
        Ok(Areas {
            desc: ram.alloc(descriptor_area(size), 64)?,
            driver: ram.alloc(available_ring(size), 64)?,
            device: ram.alloc(used_ring(size), 64)?,
        })
    }

    pub(super) fn at(ram: &GuestRam, size: u16, features: u64, areas: Areas) -> Self {
        let mut ring = Self {
            ram: ram.clone(),
            size,
            event_idx: features & feature::EVENT_IDX != 0,
            areas,
            desc: ram.offset(areas.desc),
            avail: ram.offset(areas.driver),
            used: ram.offset(areas.device),
            free: VecDeque::new(),
            next: vec![0; usize::from(size)],
            chain: vec![0; usize::from(size)],
            in_order: (features & feature::IN_ORDER != 0).then(InOrder::default),
            in_flight: 0,
            next_avail: 0,
            published: 0,
            next_used: 0,
        };
        ring.reset();
        ring
    }

    pub(super) fn reset(&mut self) {
        let Areas {
            desc,
            driver,
            device,
        } = self.areas;
        self.ram.write(desc, &vec![0; descriptor_area(self.size)]);
        self.ram.write(driver, &vec![0; available_ring(self.size)]);
        self.ram.write(device, &vec![0; used_ring(self.size)]);
        self.free = (0..self.size).collect();
        self.chain.fill(0);
        if let Some(in_order) = &mut self.in_order {
            *in_order = InOrder::default();
        }
        self.in_flight = 0;
        self.next_avail = 0;
        self.published = 0;
        self.next_used = 0;
    }

    pub(super) fn areas(&self) -> Areas {
        self.areas
    }

    pub(super) fn size(&self) -> u16 {
        self.size
    }

    pub(super) fn in_flight(&self) -> u16 {
        self.in_flight
    }

    pub(super) fn avail_position(&self) -> u16 {
        self.next_avail
    }

    pub(super) fn used_position(&self) -> u16 {
        self.next_used
    }

    fn place(&self, index: u16) -> usize {
        usize::from(index % self.size)
    }

    fn avail_entry(&self, index: u16) -> usize {
        self.avail + RING_ELEMENTS + 2 * self.place(index)
    }

    pub(super) fn add(
        &mut self,
        readable: &[Buffer],
        writable: &[Buffer],
        table: Table,
    ) -> Option<u16> {
        let buffers = readable.len() + writable.len();
        let (direct, indirect) = table.split(buffers);
        let needed = direct + usize::from(indirect.is_some());
        if needed == 0 || needed > self.free.len() {
            return None;
        }
        let all = readable
            .iter()
            .map(|buffer| (buffer, 0))
            .chain(writable.iter().map(|buffer| (buffer, DESC_F_WRITE)));
        let head = *self.free.front()?;
        for (n, (buffer, flags)) in all.enumerate() {
            let descriptor = |more, next| Descriptor {
                addr: buffer.addr,
                len: buffer.len,
                flags: if more { flags | DESC_F_NEXT } else { flags },
                next: if more { next } else { 0 },
            };
            match indirect.filter(|_| n >= direct) {
                Some(table) => {
                    let at = u16::try_from(n - direct).ok()?;
                    let descriptor = descriptor(n + 1 < buffers, at + 1);
                    let at = self.ram.offset(table) + 16 * usize::from(at);
                    self.ram.memory().write(at, &descriptor);
                }
                None => {
                    let index = self.take()?;
                    let more = n + 1 < needed;
                    let next = if more { *self.free.front()? } else { 0 };
                    self.link(index, next, &descriptor(more, next));
                }
            }
        }
        if let Some(table) = indirect {
            let index = self.take()?;
            let descriptor = Descriptor {
                addr: table,
                len: u32::try_from(16 * (buffers - direct)).ok()?,
                flags: DESC_F_INDIRECT,
                next: 0,
            };
            self.link(index, 0, &descriptor);
        }
        self.chain[usize::from(head)] = u16::try_from(needed).ok()?;
        if let Some(in_order) = &mut self.in_order {
            in_order.heads.push_back(head);
        }
        self.in_flight += 1;
        self.push_head(head);
        Some(head)
    }

    fn take(&mut self) -> Option<u16> {
        self.free.pop_front()
    }

    fn link(&mut self, index: u16, next: u16, descriptor: &Descriptor) {
        self.next[usize::from(index)] = next;
        let at = self.desc + 16 * usize::from(index);
        self.ram.memory().write(at, descriptor);
    }

    /// Raw: puts any head into the available ring, without any book-keeping. [`super::Ring::publish`] shows it.
    pub fn push_head(&mut self, head: u16) {
        let at = self.avail_entry(self.next_avail);
        self.ram.memory().store_u16(at, head);
        self.next_avail = self.next_avail.wrapping_add(1);
    }

    /// Raw: writes any descriptor.
    pub fn poke_descriptor(&self, index: u16, descriptor: &Descriptor) {
        let at = self.desc + 16 * usize::from(index);
        self.ram.memory().write(at, descriptor);
    }

    /// A descriptor as it stands in memory.
    #[must_use]
    pub fn peek_descriptor(&self, index: u16) -> Option<Descriptor> {
        self.ram.memory().read(self.desc + 16 * usize::from(index))
    }

    /// Raw: writes any available index.
    pub fn poke_avail_idx(&self, idx: u16) {
        self.ram.memory().store_u16(self.avail + RING_IDX, idx);
    }

    /// The used index as it stands in memory.
    #[must_use]
    pub fn used_idx(&self) -> u16 {
        self.ram.memory().load_u16(self.used + RING_IDX)
    }

    /// The used ring's flags as they stand in memory.
    #[must_use]
    pub fn used_flags(&self) -> u16 {
        self.ram.memory().load_u16(self.used)
    }

    /// `avail_event` as it stands in memory.
    #[must_use]
    pub fn avail_event(&self) -> u16 {
        let at = self.used + RING_ELEMENTS + 8 * usize::from(self.size);
        self.ram.memory().load_u16(at)
    }

    pub(super) fn publish(&mut self) -> bool {
        let (old, new) = (self.published, self.next_avail);
        self.poke_avail_idx(new);
        self.published = new;
        // The index must be out before the device's wish is read, or both sides wait (2.7.13.4.1).
        fence(Ordering::SeqCst);
        if self.event_idx {
            need_event(self.avail_event(), new, old)
        } else {
            self.used_flags() & USED_F_NO_NOTIFY == 0
        }
    }

    pub(super) fn poll(&mut self) -> Result<Option<Used>> {
        if let Some(in_order) = &mut self.in_order
            && in_order.batch.is_some()
        {
            let used = in_order.next()?;
            return self.reclaim(used);
        }
        let ahead = self.used_idx().wrapping_sub(self.next_used);
        if ahead == 0 {
            return Ok(None);
        }
        if ahead > self.in_flight {
            return Err(Error::protocol(format!(
                "{ahead} chains used but {} in flight",
                self.in_flight
            )));
        }
        let at = self.used + RING_ELEMENTS + 8 * self.place(self.next_used);
        let element: UsedElement = self
            .ram
            .memory()
            .read(at)
            .ok_or_else(|| Error::protocol("the used ring is outside the memory"))?;
        let id = u16::try_from(element.id)
            .ok()
            .filter(|id| self.chain.get(usize::from(*id)).is_some_and(|n| *n > 0))
            .ok_or_else(|| Error::protocol(format!("{element:?} used, which is not in flight")))?;
        let used = match &mut self.in_order {
            Some(in_order) => {
                in_order.batch = Some((id, element.len));
                in_order.next()?
            }
            None => Some(Used {
                id,
                written: Some(element.len),
            }),
        };
        self.reclaim(used)
    }

    fn reclaim(&mut self, used: Option<Used>) -> Result<Option<Used>> {
        let Some(used) = used else {
            return Ok(None);
        };
        let count = std::mem::take(&mut self.chain[usize::from(used.id)]);
        let mut index = used.id;
        for _ in 0..count {
            // With IN_ORDER descriptors are taken in the order of the table (2.7.9), so they go to the end; else what was used
            // last is likely to be in the cache.
            let next = self.next[usize::from(index)];
            self.free.push_back(index);
            index = next;
        }
        if self.in_order.is_none() && self.free.len() > usize::from(count) {
            self.free.rotate_right(usize::from(count));
        }
        self.in_flight -= 1;
        self.next_used = self.next_used.wrapping_add(1);
        Ok(Some(used))
    }

    pub(super) fn interrupt(&mut self, when: When) {
        // With EVENT_IDX the flag stays 0 (2.7.7.1).
        let flags = match when {
            When::Never if !self.event_idx => AVAIL_F_NO_INTERRUPT,
            _ => 0,
        };
        self.ram.memory().store_u16(self.avail, flags);
        let event = match when {
            When::Always => self.next_used,
            // As far away as it can be.
            When::Never => self.next_used.wrapping_sub(1),
            When::After(count) => self.next_used.wrapping_add(count),
        };
        self.poke_used_event(event);
        fence(Ordering::SeqCst);
    }

    /// Raw: writes any `used_event`.
    pub fn poke_used_event(&self, event: u16) {
        if self.event_idx {
            let at = self.avail + RING_ELEMENTS + 2 * usize::from(self.size);
            self.ram.memory().store_u16(at, event);
        }
    }
}
