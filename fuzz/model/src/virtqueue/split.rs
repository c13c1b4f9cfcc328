//! What the device side of a split virtqueue should do (VIRTIO 1.3, 2.7).

use std::collections::{HashMap, VecDeque};

use virtio::RingState;
use virtio_spec::feature;
use virtio_spec::ring::{DESC_F_INDIRECT, DESC_F_NEXT, Descriptor};

use super::Shape;
use super::memory::{Guest, Write};
use super::model::{Expected, Model};

pub(super) struct Split {
    shape: Shape,
    /// The driver's index as it was last read: read again when all up to it are taken.
    seen: u16,
    next_avail: u16,
    next_used: u16,
    told: VecDeque<u16>,
    resync: bool,
    kicks: bool,
    mapped: bool,
    broken: bool,
    /// Heads in flight; with how much was written once they have ended and wait to be used.
    flight: HashMap<u16, Option<u32>>,
    order: VecDeque<u16>,
    parked: VecDeque<u16>,
    /// The head that the last chain began with.
    head: u16,
}

impl Split {
    pub(super) fn new(shape: Shape, state: RingState) -> Self {
        Self {
            shape,
            seen: state.next_avail,
            next_avail: state.next_avail,
            next_used: state.next_used,
            told: VecDeque::new(),
            resync: state != RingState::default(),
            kicks: true,
            mapped: false,
            broken: false,
            flight: HashMap::new(),
            order: VecDeque::new(),
            parked: VecDeque::new(),
            head: 0,
        }
    }

    fn index(&self, index: u16) -> u64 {
        u64::from(index % self.shape.size)
    }

    fn try_take(&mut self, guest: &Guest) -> Result<Option<Expected>, ()> {
        if !self.mapped {
            return Ok(None);
        }
        if self.next_avail == self.seen {
            let idx: u16 = guest.read(self.shape.driver + 2);
            if idx == self.next_avail {
                return Ok(None);
            }
            if idx.wrapping_sub(self.next_avail) > self.shape.size {
                return Err(());
            }
            self.seen = idx;
        }
        let element = self.shape.driver + 4 + 2 * self.index(self.next_avail);
        let head: u16 = guest.read(element);
        if head >= self.shape.size || !self.is_free(head) {
            return Err(());
        }
        let chain = self.walk(guest, head)?;
        self.head = head;
        Ok(Some(chain))
    }

    fn walk(&self, guest: &Guest, head: u16) -> Result<Expected, ()> {
        let mut chain = Expected::default();
        let mut index = head;
        for _ in 0..self.shape.size {
            if index >= self.shape.size {
                return Err(());
            }
            let descriptor: Descriptor = guest.read(self.shape.desc + 16 * u64::from(index));
            if descriptor.flags & DESC_F_INDIRECT != 0 {
                if !self.shape.has(feature::INDIRECT_DESC) || descriptor.flags & DESC_F_NEXT != 0 {
                    return Err(());
                }
                self.table(guest, &descriptor, &mut chain)?;
                return Ok(chain);
            }
            chain.add(descriptor.addr, descriptor.len, descriptor.flags)?;
            if descriptor.flags & DESC_F_NEXT == 0 {
                return Ok(chain);
            }
            index = descriptor.next;
        }
        Err(())
    }

    fn table(&self, guest: &Guest, table: &Descriptor, chain: &mut Expected) -> Result<(), ()> {
        if table.len == 0 || !table.len.is_multiple_of(16) {
            return Err(());
        }
        let entries = table.len / 16;
        let mut index = 0u32;
        for _ in 0..entries {
            let at = u128::from(table.addr) + 16 * u128::from(index);
            let at = u64::try_from(at).map_err(drop)?;
            // Any alignment will do for a table.
            if !(0..16).all(|n| {
                at.checked_add(n)
                    .is_some_and(|at| guest.holds(at, 1, false, 1))
            }) {
                return Err(());
            }
            let descriptor: Descriptor = guest.read(at);
            if descriptor.flags & DESC_F_INDIRECT != 0 {
                return Err(());
            }
            chain.add(descriptor.addr, descriptor.len, descriptor.flags)?;
            if descriptor.flags & DESC_F_NEXT == 0 {
                return Ok(());
            }
            if u32::from(descriptor.next) >= entries {
                return Err(());
            }
            index = descriptor.next.into();
        }
        Err(())
    }

    fn publish(&mut self, head: u16, writes: &mut Vec<Write>) {
        if !self.mapped {
            self.parked.push_back(head);
            return;
        }
        let written = self.flight.remove(&head).flatten().unwrap_or(0);
        let at = self.shape.device + 4 + 8 * self.index(self.next_used);
        self.told.push_back(self.next_used);
        self.next_used = self.next_used.wrapping_add(1);
        let element = [u32::from(head).to_le_bytes(), written.to_le_bytes()];
        writes.push((at, element.concat()));
        writes.push((self.shape.device + 2, self.next_used.to_le_bytes().into()));
    }
}

impl Model for Split {
    fn state(&self) -> RingState {
        RingState {
            next_avail: self.next_avail,
            next_used: self.next_used,
            ..RingState::default()
        }
    }

    fn is_free(&self, head: u16) -> bool {
        !self.flight.contains_key(&head)
    }

    fn take(&mut self, guest: &Guest) -> Result<Option<Expected>, ()> {
        if self.broken {
            return Err(());
        }
        let taken = self.try_take(guest);
        self.broken = taken.is_err();
        taken
    }

    fn took(&mut self, head: u16) {
        assert_eq!(head, self.head);
        self.flight.insert(head, None);
        self.order.push_back(head);
        self.next_avail = self.next_avail.wrapping_add(1);
    }

    fn put(&mut self, head: u16, written: u32) -> Vec<Write> {
        self.flight.insert(head, Some(written));
        let mut writes = Vec::new();
        if !self.shape.has(feature::IN_ORDER) {
            self.publish(head, &mut writes);
            return writes;
        }
        while let Some(head) = self.order.front().copied()
            && self.flight.get(&head).is_some_and(Option::is_some)
        {
            self.order.pop_front();
            self.publish(head, &mut writes);
        }
        writes
    }

    fn wants_interrupt(&mut self, guest: &Guest) -> bool {
        if !self.mapped {
            return false;
        }
        let told = std::mem::take(&mut self.told);
        if std::mem::take(&mut self.resync) {
            return true;
        }
        if told.is_empty() {
            return false;
        }
        if self.shape.has(feature::EVENT_IDX) {
            // The driver names the entry that it waits for.
            let event: u16 = guest.read(self.shape.driver + 4 + 2 * u64::from(self.shape.size));
            return told.contains(&event);
        }
        guest.read::<u16>(self.shape.driver) & 1 == 0
    }

    fn want_kicks(&mut self, wanted: bool) -> Vec<Write> {
        self.kicks = wanted;
        if !self.mapped {
            return Vec::new();
        }
        let write = if self.shape.has(feature::EVENT_IDX) {
            let at = self.shape.device + 4 + 8 * u64::from(self.shape.size);
            let event = if wanted {
                self.next_avail
            } else {
                self.next_avail.wrapping_sub(1)
            };
            (at, event.to_le_bytes().into())
        } else {
            let flags = u16::from(!wanted);
            (self.shape.device, flags.to_le_bytes().into())
        };
        vec![write]
    }

    fn remap(&mut self, guest: &Guest) -> Option<Vec<Write>> {
        let Shape {
            desc,
            driver,
            device,
            ..
        } = self.shape;
        let size = usize::from(self.shape.size);
        self.mapped = guest.holds(desc, 16 * size, false, 16)
            && guest.holds(driver, 6 + 2 * size, false, 2)
            && guest.holds(device, 6 + 8 * size, true, 4);
        if !self.mapped {
            return None;
        }
        let mut writes = Vec::new();
        for head in std::mem::take(&mut self.parked) {
            self.publish(head, &mut writes);
        }
        writes.extend(self.want_kicks(self.kicks));
        Some(writes)
    }

    fn used(&self) -> u64 {
        0
    }
}
