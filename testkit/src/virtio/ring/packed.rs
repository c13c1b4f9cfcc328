//! Packed virtqueues (2.8).

use std::collections::VecDeque;
use std::sync::atomic::{Ordering, fence};

use virtio_spec::feature;
use virtio_spec::ring::{
    DESC_F_AVAIL, DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_USED, DESC_F_WRITE, EVENT_FLAGS_DESC,
    EVENT_FLAGS_DISABLE, EVENT_FLAGS_ENABLE, EventSuppression, PackedDescriptor, descriptor_area,
};

use super::{Areas, Buffer, Error, InOrder, Result, Table, Used, When, need_event};
use crate::ram::{GuestRam, RamError};

const WRAP: u16 = 1 << 15;
/// Offset of a descriptor's flags.
const FLAGS: usize = 14;

/// A place in the ring with its wrap counter.
#[derive(Clone, Copy, Debug)]
struct Position {
    index: u16,
    wrap: bool,
}

impl Position {
    const START: Self = Self {
        index: 0,
        wrap: true,
    };

    fn advance(&mut self, by: u16, size: u16) {
        self.index += by;
        if self.index >= size {
            self.index -= size;
            self.wrap = !self.wrap;
        }
    }

    fn bits(self) -> u16 {
        self.index | if self.wrap { WRAP } else { 0 }
    }
}

/// A packed ring. See [`super::Ring`].
#[derive(Debug)]
pub struct PackedRing {
    ram: GuestRam,
    size: u16,
    event_idx: bool,
    areas: Areas,
    /// Offsets in the memory.
    desc: usize,
    driver: usize,
    device: usize,
    free_ids: VecDeque<u16>,
    free: u16,
    /// Descriptors of the buffer with this ID; 0 if there is none.
    chain: Vec<u16>,
    in_order: Option<InOrder>,
    in_flight: u16,
    next_avail: Position,
    next_used: Position,
    /// Descriptors added since the last publish.
    added: u16,
    /// Flags of the first descriptor added since, and its place: while they are missing the device sees nothing of the batch.
    held: Option<(u16, u16)>,
}

impl PackedRing {
    /// Room for a ring.
    ///
    /// # Errors
    /// [`RamError::Exhausted`].
    pub fn areas_for(ram: &GuestRam, size: u16) -> std::result::Result<Areas, RamError> {
        Ok(Areas {
            desc: ram.alloc(descriptor_area(size), 64)?,
            driver: ram.alloc(4, 64)?,
            device: ram.alloc(4, 64)?,
        })
    }

    pub(super) fn at(ram: &GuestRam, size: u16, features: u64, areas: Areas) -> Self {
        let mut ring = Self {
            ram: ram.clone(),
            size,
            event_idx: features & feature::EVENT_IDX != 0,
            areas,
            desc: ram.offset(areas.desc),
            driver: ram.offset(areas.driver),
            device: ram.offset(areas.device),
            free_ids: VecDeque::new(),
            free: size,
            chain: vec![0; usize::from(size)],
            in_order: (features & feature::IN_ORDER != 0).then(InOrder::default),
            in_flight: 0,
            next_avail: Position::START,
            next_used: Position::START,
            added: 0,
            held: None,
        };
        ring.reset();
        ring
    }

    pub(super) fn reset(&mut self) {
        let zeroes = vec![0; descriptor_area(self.size)];
        self.ram.write(self.areas.desc, &zeroes);
        self.ram.write(self.areas.driver, &[0; 4]);
        self.ram.write(self.areas.device, &[0; 4]);
        self.free_ids = (0..self.size).collect();
        self.free = self.size;
        self.chain.fill(0);
        if let Some(in_order) = &mut self.in_order {
            *in_order = InOrder::default();
        }
        self.in_flight = 0;
        self.next_avail = Position::START;
        self.next_used = Position::START;
        self.added = 0;
        self.held = None;
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
        self.next_avail.bits()
    }

    pub(super) fn used_position(&self) -> u16 {
        self.next_used.bits()
    }

    fn at_index(&self, index: u16) -> usize {
        self.desc + 16 * usize::from(index)
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
        let needed = u16::try_from(needed).ok().filter(|n| *n > 0)?;
        if needed > self.free || self.free_ids.is_empty() {
            return None;
        }
        let id = self.free_ids.pop_front()?;
        let all = readable
            .iter()
            .map(|buffer| (buffer, 0))
            .chain(writable.iter().map(|buffer| (buffer, DESC_F_WRITE)));
        // The first descriptor's flags are written last (2.8.21.1), so the loop keeps that descriptor back.
        let mut first = None;
        let mut put = |ring: &mut Self, mut descriptor: PackedDescriptor| {
            let index = ring.next_avail.index;
            descriptor.flags |= ring.avail_flags();
            if first.is_none() {
                first = Some((index, descriptor));
            } else {
                ring.poke_descriptor(index, &descriptor);
            }
            ring.next_avail.advance(1, ring.size);
        };
        for (n, (buffer, flags)) in all.enumerate() {
            let descriptor = |flags| PackedDescriptor {
                addr: buffer.addr,
                len: buffer.len,
                id,
                flags,
            };
            match indirect.filter(|_| n >= direct) {
                Some(table) => {
                    // NEXT is reserved in an indirect table (2.8.7).
                    let at = self.ram.offset(table) + 16 * (n - direct);
                    let descriptor = PackedDescriptor {
                        id: 0,
                        ..descriptor(flags)
                    };
                    self.ram.memory().write(at, &descriptor);
                }
                None if n + 1 < usize::from(needed) => put(self, descriptor(flags | DESC_F_NEXT)),
                None => put(self, descriptor(flags)),
            }
        }
        if let Some(table) = indirect {
            let len = u32::try_from(16 * (buffers - direct)).ok()?;
            let descriptor = PackedDescriptor {
                addr: table,
                len,
                id,
                flags: DESC_F_INDIRECT,
            };
            put(self, descriptor);
        }
        let (index, descriptor) = first?;
        self.show(index, descriptor);
        self.added += needed;
        self.free -= needed;
        self.chain[usize::from(id)] = needed;
        self.in_flight += 1;
        if let Some(in_order) = &mut self.in_order {
            in_order.heads.push_back(id);
        }
        Some(id)
    }

    /// Flags that make a descriptor at the next place available.
    fn avail_flags(&self) -> u16 {
        if self.next_avail.wrap {
            DESC_F_AVAIL
        } else {
            DESC_F_USED
        }
    }

    /// Writes the first descriptor of a chain; of a batch all but its flags.
    fn show(&mut self, index: u16, mut descriptor: PackedDescriptor) {
        let flags = descriptor.flags;
        if self.held.is_none() {
            self.held = Some((index, flags));
            // Whatever was there before was used: it stays so.
            descriptor.flags = self.ram.memory().load_u16(self.at_index(index) + FLAGS);
        }
        self.poke_descriptor(index, &descriptor);
    }

    /// Raw: makes any descriptor available at the next place, without any book-keeping; its AVAIL and USED bits are set right.
    /// [`super::Ring::publish`] shows it.
    pub fn push_descriptor(&mut self, mut descriptor: PackedDescriptor) {
        descriptor.flags = descriptor.flags & !(DESC_F_AVAIL | DESC_F_USED) | self.avail_flags();
        let index = self.next_avail.index;
        self.next_avail.advance(1, self.size);
        self.added += 1;
        self.show(index, descriptor);
    }

    /// Raw: writes any descriptor.
    pub fn poke_descriptor(&self, index: u16, descriptor: &PackedDescriptor) {
        self.ram.memory().write(self.at_index(index), descriptor);
    }

    /// A descriptor as it stands in memory.
    #[must_use]
    pub fn peek_descriptor(&self, index: u16) -> Option<PackedDescriptor> {
        self.ram.memory().read(self.at_index(index))
    }

    /// What the device says about notifications.
    #[must_use]
    pub fn device_event(&self) -> EventSuppression {
        let word = self.ram.memory().load_u32(self.device);
        EventSuppression {
            off_wrap: word as u16,
            flags: (word >> 16) as u16,
        }
    }

    pub(super) fn publish(&mut self) -> bool {
        if let Some((index, flags)) = self.held.take() {
            let at = self.at_index(index) + FLAGS;
            self.ram.memory().store_u16(at, flags);
        }
        let added = std::mem::take(&mut self.added);
        // The descriptors must be out before the device's wish is read, or both sides wait (2.8.21.3.1).
        fence(Ordering::SeqCst);
        let event = self.device_event();
        match event.flags {
            EVENT_FLAGS_DISABLE => false,
            EVENT_FLAGS_DESC if self.event_idx => {
                let mut place = event.off_wrap & !WRAP;
                if (event.off_wrap & WRAP != 0) != self.next_avail.wrap {
                    place = place.wrapping_sub(self.size);
                }
                let new = self.next_avail.index;
                need_event(place, new, new.wrapping_sub(added))
            }
            _ => true,
        }
    }

    pub(super) fn poll(&mut self) -> Result<Option<Used>> {
        if let Some(in_order) = &mut self.in_order
            && in_order.batch.is_some()
        {
            let used = in_order.next()?;
            return self.reclaim(used);
        }
        let at = self.at_index(self.next_used.index);
        let flags = self.ram.memory().load_u16(at + FLAGS);
        let (avail, used) = (flags & DESC_F_AVAIL != 0, flags & DESC_F_USED != 0);
        if avail != used || used != self.next_used.wrap {
            return Ok(None);
        }
        let descriptor: PackedDescriptor = self
            .ram
            .memory()
            .read(at)
            .ok_or_else(|| Error::protocol("the ring is outside the memory"))?;
        let id = descriptor.id;
        if self.chain.get(usize::from(id)).is_none_or(|n| *n == 0) {
            return Err(Error::protocol(format!(
                "{descriptor:?} used, which is not in flight"
            )));
        }
        // `len` is only valid with WRITE (2.8.8).
        let written = if flags & DESC_F_WRITE != 0 {
            descriptor.len
        } else {
            0
        };
        let used = match &mut self.in_order {
            Some(in_order) => {
                in_order.batch = Some((id, written));
                in_order.next()?
            }
            None => Some(Used {
                id,
                written: Some(written),
            }),
        };
        self.reclaim(used)
    }

    fn reclaim(&mut self, used: Option<Used>) -> Result<Option<Used>> {
        let Some(used) = used else {
            return Ok(None);
        };
        let count = std::mem::take(&mut self.chain[usize::from(used.id)]);
        self.next_used.advance(count, self.size);
        self.free += count;
        self.in_flight -= 1;
        match self.in_order {
            Some(_) => self.free_ids.push_back(used.id),
            None => self.free_ids.push_front(used.id),
        }
        Ok(Some(used))
    }

    pub(super) fn interrupt(&mut self, when: When) {
        let event = match when {
            When::Always => (EVENT_FLAGS_ENABLE, 0),
            When::Never => (EVENT_FLAGS_DISABLE, 0),
            When::After(_) if !self.event_idx => (EVENT_FLAGS_ENABLE, 0),
            When::After(count) => {
                let mut place = self.next_used;
                place.advance(count % self.size, self.size);
                (EVENT_FLAGS_DESC, place.bits())
            }
        };
        self.poke_driver_event(EventSuppression {
            off_wrap: event.1,
            flags: event.0,
        });
        fence(Ordering::SeqCst);
    }

    /// Raw: writes any driver event suppression, in one store.
    pub fn poke_driver_event(&self, event: EventSuppression) {
        let word = u32::from(event.flags) << 16 | u32::from(event.off_wrap);
        self.ram.memory().store_u32(self.driver, word);
    }
}
